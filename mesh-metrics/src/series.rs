//! Families as views on one bounded map of label sets.
//!
//! All counters of, say, a route lie together in one value, found once by its labels and then held by a handle. Each
//! family shows one of the counters for every label set.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{
    EncodeGaugeValue, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Labels by which a value is found.
pub(crate) trait Labels: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// The labels under which this is counted when it does not fit. There are few of these.
    fn other(&self) -> Self;

    /// Calls `write` with each key and value.
    fn each(&self, write: &mut dyn FnMut(&str, &str) -> fmt::Result) -> fmt::Result;
}

/// What is counted for one label set.
pub(crate) trait Counts: Default + fmt::Debug + Send + Sync + 'static {}

impl<T: Default + fmt::Debug + Send + Sync + 'static> Counts for T {}

/// At most `cap` label sets; what is beyond them is counted under the label value `other`.
#[derive(Debug)]
pub(crate) struct SeriesMap<L, M> {
    found: RwLock<HashMap<L, Arc<M>>>,
    cap: usize,
    overflows: AtomicU64,
}

/// Shows part of each value of a map as one family.
pub(crate) struct View<L, M> {
    series: Arc<SeriesMap<L, M>>,
    metric_type: MetricType,
    show: Show<M>,
}

/// Writes what a family has to say of one value, under the labels the writer already holds.
type Show<M> = fn(&M, &mut Lines<'_, '_>) -> fmt::Result;

/// Writes the lines of one label set.
pub(crate) struct Lines<'a, 'e> {
    encoder: &'a mut MetricEncoder<'e>,
    labels: &'a dyn DynLabels,
}

/// [`Labels::each`] without the rest, which no trait object can have.
trait DynLabels {
    fn each(&self, write: &mut dyn FnMut(&str, &str) -> fmt::Result) -> fmt::Result;
}

impl<L: Labels, M: Counts> SeriesMap<L, M> {
    pub(crate) fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self {
            found: RwLock::default(),
            cap,
            overflows: AtomicU64::new(0),
        })
    }

    /// The value for `labels`, made on first use. Takes a lock: once per connection or route, not per request.
    pub(crate) fn resolve(&self, labels: &L) -> Arc<M> {
        // A panic while the lock is held leaves the map as it was, so poison says nothing.
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = found.get(labels) {
            return Arc::clone(value);
        }
        drop(found);
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = found.get(labels) {
            return Arc::clone(value);
        }
        let labels = if found.len() < self.cap {
            labels.clone()
        } else {
            self.overflows.fetch_add(1, Relaxed);
            labels.other()
        };
        Arc::clone(found.entry(labels).or_default())
    }

    /// How often a label set was refused.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Adds a family that shows part of each value.
    pub(crate) fn show(
        self: &Arc<Self>,
        registry: &mut Registry,
        name: impl Into<String>,
        help: &str,
        metric_type: MetricType,
        show: Show<M>,
    ) {
        let view = View {
            series: Arc::clone(self),
            metric_type,
            show,
        };
        registry.register(name, help, view);
    }

    /// The values in the order of their labels as they are written, so that two scrapes compare.
    fn sorted(&self) -> Vec<(String, L, Arc<M>)> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = found
            .iter()
            .map(|(labels, value)| (sort_key(labels), labels.clone(), Arc::clone(value)))
            .collect();
        drop(found);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn sort_key(labels: &impl Labels) -> String {
    let mut key = String::new();
    // Writing into a string does not fail.
    let _ = labels.each(&mut |_, value| {
        key.push_str(value);
        key.push('\0');
        Ok(())
    });
    key
}

impl Lines<'_, '_> {
    pub(crate) fn counter(&mut self, value: u64) -> fmt::Result {
        self.counter_with(&[], value)
    }

    /// A counter with labels of its own beside those of the value.
    pub(crate) fn counter_with(&mut self, extra: &[(&str, &str)], value: u64) -> fmt::Result {
        let labels = Both(self.labels, extra);
        self.encoder
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    pub(crate) fn gauge(&mut self, value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        self.gauge_with(&[], value)
    }

    pub(crate) fn gauge_with(
        &mut self,
        extra: &[(&str, &str)],
        value: impl EncodeGaugeValue + Copy,
    ) -> fmt::Result {
        let labels = Both(self.labels, extra);
        self.encoder.encode_family(&labels)?.encode_gauge(&value)
    }

    pub(crate) fn histogram_with(
        &mut self,
        extra: &[(&str, &str)],
        value: &crate::Histogram,
    ) -> fmt::Result {
        let snapshot = value.snapshot();
        if snapshot.count() == 0 {
            return Ok(());
        }
        let labels = Both(self.labels, extra);
        snapshot.encode(&mut self.encoder.encode_family(&labels)?)
    }
}

struct Both<'a>(&'a dyn DynLabels, &'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Both<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0
            .each(&mut |key, value| encode_label(encoder, key, value))?;
        self.1
            .iter()
            .try_for_each(|(key, value)| encode_label(encoder, key, value))
    }
}

fn encode_label(encoder: &mut LabelSetEncoder<'_>, key: &str, value: &str) -> fmt::Result {
    use prometheus_client::encoding::EncodeLabel;
    (key, value).encode(encoder.encode_label())
}

impl<L: Labels> DynLabels for L {
    fn each(&self, write: &mut dyn FnMut(&str, &str) -> fmt::Result) -> fmt::Result {
        Labels::each(self, write)
    }
}

impl<L: Labels, M: Counts> EncodeMetric for View<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (_, labels, value) in self.series.sorted() {
            let mut lines = Lines {
                encoder: &mut encoder,
                labels: &labels,
            };
            (self.show)(&value, &mut lines)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.metric_type
    }
}

impl<L, M> fmt::Debug for View<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("metric_type", &self.metric_type.as_str())
            .field("series", &PhantomData::<(L, M)>)
            .finish_non_exhaustive()
    }
}
