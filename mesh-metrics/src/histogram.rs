use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A histogram of durations with fixed buckets, recorded without a lock: two atomic adds.
///
/// A reader running beside a writer may see the bucket of an observation before its sum; never a count that shrinks.
#[derive(Debug)]
pub struct Histogram {
    /// `counts[i]` holds what is at most `BOUNDS[i]`, the last all that is longer.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// Wraps after 584 years of observed time.
    sum_nanos: AtomicU64,
}

/// What a [`Histogram`] held at some moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistogramSnapshot {
    /// How many observations were longer than the bound before and at most each of [`Histogram::BOUNDS`]; then those
    /// longer than all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// The sum of the observations.
    pub sum: Duration,
}

/// From half a millisecond to ten seconds. A mesh adds fractions of a millisecond, so the first buckets lie below the
/// 5 ms that OpenTelemetry starts at, whose boundaries the rest follow.
const BOUNDS: [Duration; 16] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(75),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

impl Histogram {
    /// The upper bounds of the buckets, each included, in order.
    pub const BOUNDS: [Duration; 16] = BOUNDS;

    /// An empty histogram.
    pub fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Records one observation.
    pub fn record(&self, value: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// What it holds now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
        }
    }
}

impl HistogramSnapshot {
    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64);
        let mut buckets = [(f64::INFINITY, 0); BOUNDS.len() + 1];
        for (bucket, bound) in buckets.iter_mut().zip(bounds.chain([f64::INFINITY])) {
            bucket.0 = bound;
        }
        for (bucket, count) in buckets.iter_mut().zip(self.counts) {
            bucket.1 = count;
        }
        // The count is that of the buckets, so that the two always agree.
        encoder.encode_histogram::<NoLabelSet>(self.sum.as_secs_f64(), self.count(), &buckets, None)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.snapshot().encode(&mut encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new();
        for bound in Histogram::BOUNDS {
            histogram.record(bound);
            histogram.record(bound + Duration::from_nanos(1));
        }
        histogram.record(Duration::ZERO);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.counts[0], 2);
        assert!(
            snapshot.counts[1..Histogram::BOUNDS.len()]
                .iter()
                .all(|n| *n == 2)
        );
        assert_eq!(snapshot.counts[Histogram::BOUNDS.len()], 1);
        assert_eq!(snapshot.count(), 33);
    }

    #[test]
    fn bounds_grow() {
        assert!(Histogram::BOUNDS.is_sorted());
    }
}
