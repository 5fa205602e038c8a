use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::series::SeriesMap;

/// The families of who observes requests (`tap.Tap.Observe` of the proxy API).
#[derive(Clone, Debug)]
pub struct TapMetrics {
    counts: Arc<SeriesMap<(), TapCounts>>,
}

/// Counts observers and what they are told. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct TapHandle(Arc<TapCounts>);

#[derive(Debug, Default)]
struct TapCounts {
    observers: AtomicI64,
    queued: AtomicU64,
    dropped: AtomicU64,
}

impl TapMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let counts = SeriesMap::<(), TapCounts>::new(usize::MAX);
        counts.show(
            registry,
            "tap_observers",
            "Streams that observe requests",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.observers.load(Relaxed)),
        );
        counts.show(
            registry,
            "tap_events",
            "Events queued for observers",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.queued.load(Relaxed)),
        );
        counts.show(
            registry,
            "tap_events_dropped",
            "Events that an observer missed, as it did not keep up",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.dropped.load(Relaxed)),
        );
        Self { counts }
    }

    /// The handle.
    pub fn handle(&self) -> TapHandle {
        TapHandle(self.counts.resolve(&()))
    }
}

impl TapHandle {
    /// Somebody observes; ends with [`observer_left`](Self::observer_left), once.
    pub fn observer_came(&self) {
        self.0.observers.fetch_add(1, Relaxed);
    }

    /// Somebody who [came](Self::observer_came) observes no more.
    pub fn observer_left(&self) {
        self.0.observers.fetch_sub(1, Relaxed);
    }

    /// An event was queued for an observer.
    pub fn queued(&self) {
        self.0.queued.fetch_add(1, Relaxed);
    }

    /// An observer missed an event.
    pub fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }
}
