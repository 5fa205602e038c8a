//! Pauses after failures: doubling, capped, jittered so that proxies do not come back in step.

use std::time::Duration;

/// The pauses of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// The pause after one more failure: `min * 2^n` capped at `max`, of which the upper half is random.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let base = self
            .min
            .saturating_mul(1 << self.failures.min(20))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        let half = base / 2;
        half + half.mul_f64(fraction(random))
    }

    /// The next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random word as a number in [0, 1).
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_stay_within_their_half() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(10));
        for random in [0, u64::MAX / 3, u64::MAX] {
            let mut backoff = Backoff::new(min, max);
            for n in 0..100 {
                let base = min.saturating_mul(1 << n.min(10)).min(max);
                let pause = backoff.next(random);
                assert!(pause >= base / 2 && pause <= base, "{n}: {pause:?}");
            }
            backoff.reset();
            assert!(backoff.next(random) <= min);
        }
    }
}
