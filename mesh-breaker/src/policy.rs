use crate::Error;
use crate::window::{PARTS, Seen};
use std::time::Duration;

/// When a breaker opens, and how long it stays open.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// Opens after a number of failures in a row.
    ConsecutiveFailures(ConsecutiveFailures),
    /// Opens when too large a share of the latest requests has failed.
    SuccessRate(SuccessRate),
    /// Opens for either reason.
    Unified(Unified),
}

impl Policy {
    /// How many failures in a row open it, if any number does.
    pub(crate) fn max_failures(&self) -> u32 {
        match self {
            Self::ConsecutiveFailures(policy) => policy.max_failures,
            Self::SuccessRate(_) => u32::MAX,
            Self::Unified(policy) => policy.max_failures,
        }
    }

    pub(crate) fn success_rate(&self) -> Option<&SuccessRate> {
        match self {
            Self::ConsecutiveFailures(_) => None,
            Self::SuccessRate(policy) => Some(policy),
            Self::Unified(policy) => Some(&policy.success_rate),
        }
    }

    pub(crate) fn backoff(&self) -> &ExponentialBackoff {
        match self {
            Self::ConsecutiveFailures(policy) => &policy.backoff,
            Self::SuccessRate(policy) => &policy.backoff,
            Self::Unified(policy) => &policy.success_rate.backoff,
        }
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

impl From<SuccessRate> for Policy {
    fn from(policy: SuccessRate) -> Self {
        Self::SuccessRate(policy)
    }
}

impl From<Unified> for Policy {
    fn from(policy: Unified) -> Self {
        Self::Unified(policy)
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

/// Opens when less than `threshold` of the requests of the latest `window` succeeded.
///
/// The window is exact to a tenth of itself, and begins anew when the breaker closes. Cancelled requests do not count.
/// Defaults: 0.8 over 10 s, of at least 5 requests; [`ExponentialBackoff::default`]. These are the published defaults of
/// Linkerd's success rate accrual.
#[derive(Debug, Clone, PartialEq)]
pub struct SuccessRate {
    threshold: f64,
    window: Duration,
    min_requests: u32,
    rate_limited_fails: bool,
    backoff: ExponentialBackoff,
}

impl SuccessRate {
    /// Opens when less than `threshold` of the requests of the latest `window` succeeded, for as long as `backoff` says.
    ///
    /// # Errors
    /// [`Error::Threshold`] unless `threshold` is above 0 and at most 1; [`Error::Window`] when `window` is shorter than 10 ms.
    pub fn new(
        threshold: f64,
        window: Duration,
        backoff: ExponentialBackoff,
    ) -> Result<Self, Error> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(Error::Threshold(threshold));
        }
        if window < SHORTEST_WINDOW {
            return Err(Error::Window(window));
        }
        Ok(Self {
            threshold,
            window,
            backoff,
            ..Self::default()
        })
    }

    /// How many requests of the window it takes until their share counts. Default: 5.
    #[must_use]
    pub fn min_requests(self, min_requests: u32) -> Self {
        Self {
            min_requests,
            ..self
        }
    }

    /// Whether a rate-limited answer counts as a failure, in the share and of a probe. It never counts among failures in a
    /// row. Default: no; then it counts as a success, since the endpoint is healthy but full.
    #[must_use]
    pub fn rate_limited_fails(self, fails: bool) -> Self {
        Self {
            rate_limited_fails: fails,
            ..self
        }
    }

    /// How long the breaker stays open.
    pub fn backoff(&self) -> &ExponentialBackoff {
        &self.backoff
    }

    pub(crate) fn counts_rate_limited(&self) -> bool {
        self.rate_limited_fails
    }

    /// The length of a tenth of the window.
    pub(crate) fn part(&self) -> Duration {
        self.window / PARTS as u32
    }

    /// Does this open the breaker?
    pub(crate) fn is_too_low(&self, seen: Seen) -> bool {
        let successes = f64::from(seen.requests - seen.failures.min(seen.requests));
        seen.requests >= self.min_requests.max(1)
            && successes < self.threshold * f64::from(seen.requests)
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            threshold: 0.8,
            window: Duration::from_secs(10),
            min_requests: 5,
            rate_limited_fails: false,
            backoff: ExponentialBackoff::default(),
        }
    }
}

/// Opens after `max_failures` failures in a row, or when the success rate is too low; stays open as the latter says.
///
/// Default: 7 failures in a row or [`SuccessRate::default`].
#[derive(Debug, Clone, PartialEq)]
pub struct Unified {
    max_failures: u32,
    success_rate: SuccessRate,
}

impl Unified {
    /// Opens for either reason.
    ///
    /// # Errors
    /// [`Error::NoFailures`] when `max_failures` is 0.
    pub fn new(max_failures: u32, success_rate: SuccessRate) -> Result<Self, Error> {
        if max_failures == 0 {
            return Err(Error::NoFailures);
        }
        Ok(Self {
            max_failures,
            success_rate,
        })
    }
}

impl Default for Unified {
    fn default() -> Self {
        Self {
            max_failures: 7,
            success_rate: SuccessRate::default(),
        }
    }
}

/// Waits that double from `min` up to `max`, each lengthened by up to `jitter` of itself.
///
/// Defaults: 1 s, 60 s, 0.5; what the endpoint asks for is not regarded.
#[derive(Debug, Clone, PartialEq)]
pub struct ExponentialBackoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    respect_retry_after: bool,
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
        Ok(Self {
            min,
            max,
            jitter,
            respect_retry_after: false,
        })
    }

    /// Whether a wait is at least as long as the failure that caused it asked for (Retry-After and its kin), within `min` and
    /// `max`. Default: no.
    #[must_use]
    pub fn respect_retry_after(self, respect: bool) -> Self {
        Self {
            respect_retry_after: respect,
            ..self
        }
    }

    /// The wait after `attempt` earlier waits (0 for the first), jittered by the random word.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        self.delay_after(attempt, None, random)
    }

    /// As [`delay`](Self::delay), after a failure that asked for a wait, if it did.
    pub fn delay_after(&self, attempt: u32, hint: Option<Duration>, random: u64) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let base = self.min.saturating_mul(factor).min(self.max);
        let hint = hint.filter(|_| self.respect_retry_after);
        let base = hint.map_or(base, |hint| base.max(hint.clamp(self.min, self.max)));
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
            respect_retry_after: false,
        }
    }
}

const SHORTEST_WINDOW: Duration = Duration::from_millis(10);

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
        assert_eq!(
            Unified::new(0, SuccessRate::default()),
            Err(Error::NoFailures)
        );
        let backoff = ExponentialBackoff::default;
        for threshold in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(matches!(
                SuccessRate::new(threshold, s(10), backoff()),
                Err(Error::Threshold(_))
            ));
        }
        assert_eq!(
            SuccessRate::new(0.8, s(0), backoff()),
            Err(Error::Window(s(0)))
        );
    }

    #[test]
    fn a_hint_is_a_wait_only_when_told_so_and_within_bounds() {
        let s = Duration::from_secs;
        let deaf = ExponentialBackoff::new(s(1), s(60), 0.0).unwrap();
        assert_eq!(deaf.delay_after(0, Some(s(20)), 0), s(1));
        let polite = deaf.respect_retry_after(true);
        assert_eq!(polite.delay_after(0, Some(s(20)), 0), s(20));
        assert_eq!(polite.delay_after(0, Some(s(300)), 0), s(60));
        assert_eq!(polite.delay_after(0, Some(s(0)), 0), s(1));
        assert_eq!(polite.delay_after(5, Some(s(20)), 0), s(32));
        assert_eq!(polite.delay_after(3, None, 0), s(8));
    }
}
