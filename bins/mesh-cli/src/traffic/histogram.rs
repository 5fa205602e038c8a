//! Latencies, counted so that any quantile is right within a sixteenth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps between one power of two and the next.
const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Past a minute, all is one.
const BUCKETS: usize = 384;

/// Written by callers.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// What is counted now.
    pub(super) fn read(&self) -> Latencies {
        Latencies {
            buckets: self
                .buckets
                .iter()
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

/// Read from a histogram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
}

impl Latencies {
    /// What was counted since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let before = before.buckets.iter().copied().chain(std::iter::repeat(0));
        Self {
            buckets: self
                .buckets
                .iter()
                .zip(before)
                .map(|(now, before)| now.saturating_sub(before))
                .collect(),
        }
    }

    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.buckets.resize(BUCKETS, 0);
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
    }

    /// The latency that `percent` of all calls did not exceed. Nothing when there was none.
    pub(crate) fn percentile(&self, percent: u64) -> Option<Duration> {
        let total: u64 = self.buckets.iter().sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut passed = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return Some(Duration::from_micros(upper_bound(index)));
            }
        }
        None
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return usize::try_from(micros).unwrap_or(0);
    }
    let power = micros.ilog2();
    let step = (micros >> (power - STEP_BITS)) & (STEPS - 1);
    let index = u64::from(power - STEP_BITS + 1) * STEPS + step;
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest latency in a bucket, in microseconds.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((STEPS + index % STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_within_a_sixteenth_of_its_bucket() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 59_999_999]) {
            let bound = upper_bound(bucket(micros));
            assert!(
                bound >= micros && bound - micros <= micros / 16 + 1,
                "{micros} in {bound}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_window() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(9));
        let before = histogram.read();
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros * 1_000));
        }
        let window = histogram.read().since(&before);
        let millis = |percent| window.percentile(percent).unwrap().as_millis();
        assert!((50..=53).contains(&millis(50)), "{}", millis(50));
        assert!((99..=105).contains(&millis(99)), "{}", millis(99));
        assert_eq!(before.since(&before).percentile(50), None);
    }
}
