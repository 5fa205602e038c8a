use crate::Error;
use std::time::Duration;

/// When a breaker opens, and how long it stays open.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// Opens after a number of failures in a row.
    ConsecutiveFailures(ConsecutiveFailures),
}

impl Policy {
    pub(crate) fn max_failures(&self) -> u32 {
        let Self::ConsecutiveFailures(policy) = self;
        policy.max_failures
    }

    pub(crate) fn backoff(&self) -> &ExponentialBackoff {
        let Self::ConsecutiveFailures(policy) = self;
        &policy.backoff
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::ConsecutiveFailures(ConsecutiveFailures::default())
    }
}

impl From<ConsecutiveFailures> for Policy {
    fn from(policy: ConsecutiveFailures) -> Self {
        Self::ConsecutiveFailures(policy)
    }
}

/// Opens after `max_failures` failures in a row.
///
/// A success or a rate-limited answer starts the count again; a cancelled request leaves it as it is.
/// Defaults: 7 failures, [`ExponentialBackoff::default`]. These are the published defaults of Linkerd's failure accrual.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsecutiveFailures {
    max_failures: u32,
    backoff: ExponentialBackoff,
}

impl ConsecutiveFailures {
    /// Opens after `max_failures` failures in a row, for as long as `backoff` says.
    ///
    /// # Errors
    /// [`Error::NoFailures`] when `max_failures` is 0.
    pub fn new(max_failures: u32, backoff: ExponentialBackoff) -> Result<Self, Error> {
        if max_failures == 0 {
            return Err(Error::NoFailures);
        }
        Ok(Self {
            max_failures,
            backoff,
        })
    }

    /// How many failures in a row open the breaker.
    pub fn max_failures(&self) -> u32 {
        self.max_failures
    }

    /// How long it stays open.
    pub fn backoff(&self) -> &ExponentialBackoff {
        &self.backoff
    }
}

impl Default for ConsecutiveFailures {
    fn default() -> Self {
        Self {
            max_failures: 7,
            backoff: ExponentialBackoff::default(),
        }
    }
}

/// Waits that double from `min` up to `max`, each lengthened by up to `jitter` of itself.
///
/// Defaults: 1 s, 60 s, 0.5.
#[derive(Debug, Clone, PartialEq)]
pub struct ExponentialBackoff {
    min: Duration,
    max: Duration,
    jitter: f64,
}

impl ExponentialBackoff {
    /// Waits from `min` to `max`; `jitter` is the largest share of a wait that is added to it at random.
    ///
    /// # Errors
    /// [`Error::BackoffRange`] when `min` is zero or above `max`; [`Error::Jitter`] when `jitter` is not between 0 and 100.
    pub fn new(min: Duration, max: Duration, jitter: f64) -> Result<Self, Error> {
        if min.is_zero() || min > max {
            return Err(Error::BackoffRange { min, max });
        }
        if !(0.0..=100.0).contains(&jitter) {
            return Err(Error::Jitter(jitter));
        }
        Ok(Self { min, max, jitter })
    }

    /// The wait after `attempt` earlier waits (0 for the first), jittered by the random word.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let base = self.min.saturating_mul(factor).min(self.max);
        // The upper 53 bits make a uniform number in [0, 1).
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let jitter = Duration::try_from_secs_f64(base.as_secs_f64() * self.jitter * unit)
            .unwrap_or(Duration::MAX);
        base.saturating_add(jitter)
    }
}

impl Default for ExponentialBackoff {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(60),
            jitter: 0.5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let backoff = ExponentialBackoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|attempt| backoff.delay(attempt, 0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.delay(u32::MAX, 0), Duration::from_secs(60));
    }

    #[test]
    fn jitter_lengthens_by_at_most_its_ratio() {
        let backoff = ExponentialBackoff::default();
        let longest = backoff.delay(0, u64::MAX);
        assert!(
            longest > Duration::from_millis(1499) && longest <= Duration::from_millis(1500),
            "{longest:?}"
        );
        let huge = ExponentialBackoff::new(Duration::MAX, Duration::MAX, 100.0).unwrap();
        assert_eq!(huge.delay(9, u64::MAX), Duration::MAX);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let s = Duration::from_secs;
        assert!(matches!(
            ExponentialBackoff::new(s(0), s(1), 0.0),
            Err(Error::BackoffRange { .. })
        ));
        assert!(matches!(
            ExponentialBackoff::new(s(2), s(1), 0.0),
            Err(Error::BackoffRange { .. })
        ));
        for jitter in [-0.1, f64::NAN, 100.1] {
            assert!(matches!(
                ExponentialBackoff::new(s(1), s(1), jitter),
                Err(Error::Jitter(_))
            ));
        }
        assert_eq!(
            ConsecutiveFailures::new(0, ExponentialBackoff::default()),
            Err(Error::NoFailures)
        );
    }
}
