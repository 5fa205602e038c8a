//! When to renew a leaf: a value that is told the time and never asks for it.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use mesh_tls::renewal::{Renewal, RenewalState};
//!
//! let now = SystemTime::UNIX_EPOCH;
//! let mut renewal = Renewal::start(now);
//! renewal.succeeded(now + Duration::from_secs(1000), now, 7);
//! assert!((650..=700).contains(&renewal.delay(now).as_secs()));
//! assert_eq!(renewal.state(now), RenewalState::Fresh);
//! ```

use std::time::{Duration, SystemTime};

/// The schedule of one workload's renewals.
///
/// A leaf is renewed when between 65% and 70% of the life it had left when it was received has
/// passed; the spread keeps workloads that started together apart. A failed attempt is repeated after
/// a delay that doubles from 1 s to 60 s, each drawn from its upper half; while the leaf still
/// lives, no delay takes more than half of what is left, so there is always another attempt before it
/// expires. Without a leaf that lives, nobody is served: no delay takes more than 10 s then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    expires: Option<SystemTime>,
    next: SystemTime,
    failures: u32,
    min: Duration,
    max: Duration,
}

impl Renewal {
    /// The most a failed attempt waits while the leaf lives.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(60);

    /// The most a failed attempt waits where there is no leaf that lives.
    pub const MAX_BACKOFF_WITHOUT: Duration = Duration::from_secs(10);

    /// The least between two attempts, whatever the leaf's life.
    pub const MIN_DELAY: Duration = Duration::from_secs(1);

    /// The most a leaf is used, unless told otherwise: one that lives longer is renewed all the same.
    pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

    /// A workload without a leaf: the first attempt is due `now`.
    #[must_use]
    pub fn start(now: SystemTime) -> Self {
        Self {
            expires: None,
            next: now,
            failures: 0,
            min: Self::MIN_DELAY,
            max: Self::MAX_DELAY,
        }
    }

    /// Renews no sooner than `min` after a leaf was received, even if that is after its end, and no later than `max`. A
    /// `min` under [`MIN_DELAY`](Self::MIN_DELAY) is that; a `max` under `min` is `min`.
    #[must_use]
    pub fn between(self, min: Duration, max: Duration) -> Self {
        let min = min.max(Self::MIN_DELAY);
        let max = max.max(min);
        Self { min, max, ..self }
    }

    /// A leaf was received that lives until `expires`. `random` is any word of randomness.
    pub fn succeeded(&mut self, expires: SystemTime, now: SystemTime, random: u64) {
        let life = expires.duration_since(now).unwrap_or_default();
        // 70% less up to 5% of the life that is left.
        let delay = scale(life, 700_000 - random % 50_001, 1_000_000);
        self.expires = Some(expires);
        self.failures = 0;
        self.schedule(now, delay.clamp(self.min, self.max));
    }

    /// An attempt failed. `random` is any word of randomness.
    pub fn failed(&mut self, now: SystemTime, random: u64) {
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(6);
        let left = self.expires.and_then(|end| end.duration_since(now).ok());
        let left = left.filter(|left| !left.is_zero());
        let most = left.map_or(Self::MAX_BACKOFF_WITHOUT, |_| Self::MAX_BACKOFF);
        let ceiling = (Self::MIN_DELAY * (1 << doublings)).min(most);
        let mut delay = scale(ceiling, 500_000 + random % 500_001, 1_000_000);
        if let Some(left) = left {
            delay = delay.min(left / 2);
        }
        self.schedule(now, delay.max(Self::MIN_DELAY));
    }

    /// When the next attempt is due.
    #[must_use]
    pub fn next_attempt(&self) -> SystemTime {
        self.next
    }

    /// How long to wait, at `now`, for the next attempt.
    #[must_use]
    pub fn delay(&self, now: SystemTime) -> Duration {
        self.next.duration_since(now).unwrap_or_default()
    }

    /// How many attempts have failed since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How the leaf stands, for readiness.
    #[must_use]
    pub fn state(&self, now: SystemTime) -> RenewalState {
        match self.expires {
            None => RenewalState::Uncertified,
            Some(expires) if now >= expires => RenewalState::Expired,
            Some(_) if self.failures > 0 => RenewalState::Failing,
            Some(_) => RenewalState::Fresh,
        }
    }

    fn schedule(&mut self, now: SystemTime, delay: Duration) {
        self.next = now.checked_add(delay).unwrap_or(now);
    }
}

/// How a workload's leaf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenewalState {
    /// There is no leaf yet.
    Uncertified,
    /// The leaf is valid and its renewal is not in trouble.
    Fresh,
    /// The leaf is valid, but the last attempt to renew it failed.
    Failing,
    /// The leaf has expired.
    Expired,
}

impl RenewalState {
    /// Whether the workload can prove who it is.
    #[must_use]
    pub fn is_certified(self) -> bool {
        matches!(self, Self::Fresh | Self::Failing)
    }
}

/// `duration * numerator / denominator`, saturating.
fn scale(duration: Duration, numerator: u64, denominator: u64) -> Duration {
    let nanos = duration.as_nanos().saturating_mul(numerator.into()) / u128::from(denominator);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_leaf_is_renewed_at_seventy_percent_less_jitter() {
        let mut renewal = Renewal::start(at(0));
        assert_eq!(renewal.next_attempt(), at(0));
        renewal.succeeded(at(1_000), at(0), 0);
        assert_eq!(renewal.next_attempt(), at(700));
        renewal.succeeded(at(1_000), at(0), 50_000);
        assert_eq!(renewal.next_attempt(), at(650));
    }

    #[test]
    fn renewals_keep_between_what_they_are_told() {
        let (min, max) = (Duration::from_secs(10), Duration::from_secs(60));
        let mut renewal = Renewal::start(at(0)).between(min, max);
        for (expires, next) in [(5, 10), (50, 35), (1_000, 60)] {
            renewal.succeeded(at(expires), at(0), 0);
            assert_eq!(renewal.next_attempt(), at(next), "{expires}");
        }
        renewal.failed(at(0), 0);
        assert!(
            renewal.delay(at(0)) <= Duration::from_secs(1),
            "a failure waits as ever"
        );
        let backwards = Renewal::start(at(0)).between(max, min);
        assert_eq!(backwards, Renewal::start(at(0)).between(max, max));
    }

    #[test]
    fn state_follows_failures_and_expiry() {
        let mut renewal = Renewal::start(at(0));
        assert_eq!(renewal.state(at(0)), RenewalState::Uncertified);
        renewal.succeeded(at(100), at(0), 0);
        assert_eq!(renewal.state(at(70)), RenewalState::Fresh);
        renewal.failed(at(70), 0);
        assert_eq!(renewal.state(at(71)), RenewalState::Failing);
        assert_eq!(renewal.state(at(100)), RenewalState::Expired);
        assert!(!renewal.state(at(100)).is_certified());
        renewal.succeeded(at(200), at(101), 0);
        assert_eq!(renewal.state(at(101)), RenewalState::Fresh);
        assert_eq!(renewal.failures(), 0);
    }

    #[test]
    fn failures_double_up_to_a_minute_or_ten_seconds_without_a_leaf() {
        fn waits(mut renewal: Renewal, now: SystemTime) -> [u64; 9] {
            [(); 9].map(|()| {
                renewal.failed(now, 500_000);
                renewal.delay(now).as_secs()
            })
        }
        let mut renewal = Renewal::start(at(0));
        let without = [1, 2, 4, 8, 10, 10, 10, 10, 10];
        assert_eq!(waits(renewal.clone(), at(0)), without);
        renewal.succeeded(at(1_000), at(0), 0);
        assert_eq!(
            waits(renewal.clone(), at(0)),
            [1, 2, 4, 8, 16, 32, 60, 60, 60]
        );
        assert_eq!(waits(renewal, at(1_000)), without);
    }

    proptest! {
        #[test]
        fn a_fresh_leaf_is_renewed_while_it_lives(life in 2u64..10_000_000, now in 0u64..1 << 40, random: u64) {
            let mut renewal = Renewal::start(at(now));
            renewal.succeeded(at(now + life), at(now), random);
            prop_assert!(renewal.next_attempt() > at(now));
            prop_assert!(renewal.next_attempt() < at(now + life));
        }

        #[test]
        fn attempts_never_stop_and_never_spin(
            life in 0u64..100_000,
            words in proptest::collection::vec(any::<u64>(), 1..200),
        ) {
            let mut renewal = Renewal::start(at(0));
            let mut now = at(0);
            renewal.succeeded(at(life), now, words[0]);
            for word in words {
                now = renewal.next_attempt().max(now);
                renewal.failed(now, word);
                let wait = renewal.next_attempt().duration_since(now).unwrap();
                prop_assert!(wait >= Renewal::MIN_DELAY);
                prop_assert!(wait <= Renewal::MAX_BACKOFF);
            }
        }

        #[test]
        fn a_failing_leaf_is_tried_again_before_it_expires(left in 2u64..1000, failures in 1u32..40, random: u64) {
            let mut renewal = Renewal::start(at(0));
            renewal.succeeded(at(10_000), at(0), random);
            for _ in 0..failures {
                renewal.failed(at(10_000 - left), random);
            }
            prop_assert!(renewal.next_attempt() < at(10_000));
        }
    }
}
