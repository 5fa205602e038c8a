//! Each setting of a policy, with a breaker that behaves otherwise without it.
#![allow(clippy::unwrap_used, reason = "tests")]

use mesh_breaker::{
    Breaker, ConsecutiveFailures, ExponentialBackoff, FailureKind, Outcome, Policy, SharedBreaker,
    State, SuccessRate, Transition, Unified,
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const FAILURE: Outcome = Outcome::Failure(FailureKind::Response);
const LIMITED: Outcome = Outcome::RateLimited { retry_after: None };

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn backoff() -> ExponentialBackoff {
    ExponentialBackoff::new(s(1), s(60), 0.0).unwrap()
}

fn rate(threshold: f64, window: Duration) -> SuccessRate {
    SuccessRate::new(threshold, window, backoff()).unwrap()
}

/// How many of the outcomes, one each `step`, it takes to open.
fn opens_after(
    policy: impl Into<Policy>,
    step: Duration,
    outcomes: impl IntoIterator<Item = Outcome>,
) -> Option<usize> {
    let start = Instant::now();
    let mut breaker = Breaker::new(policy, start);
    for (count, outcome) in outcomes.into_iter().enumerate() {
        let now = start + step * count as u32;
        let ticket = breaker.admit(now).unwrap().ticket;
        if breaker.record(ticket, outcome, now, 0).is_some() {
            return Some(count + 1);
        }
    }
    None
}

fn alternating() -> impl Iterator<Item = Outcome> {
    [FAILURE, Outcome::Success].into_iter().cycle().take(1000)
}

#[test]
fn threshold() {
    let step = Duration::from_millis(10);
    assert_eq!(opens_after(rate(0.8, s(10)), step, alternating()), Some(5));
    assert_eq!(opens_after(rate(0.3, s(10)), step, alternating()), None);
    assert_eq!(
        opens_after(ConsecutiveFailures::default(), step, alternating()),
        None,
        "failures in a row would not show it"
    );
}

#[test]
fn min_requests() {
    let policy = rate(0.8, s(10)).min_requests(50);
    let step = Duration::from_millis(10);
    assert_eq!(opens_after(policy, step, alternating()), Some(50));
}

#[test]
fn window() {
    // One failure in 2 s: five of them are within ten seconds, but never within four.
    let failures = || std::iter::repeat_n(FAILURE, 20);
    assert_eq!(opens_after(rate(0.8, s(10)), s(2), failures()), Some(5));
    assert_eq!(opens_after(rate(0.8, s(4)), s(2), failures()), None);
}

#[test]
fn max_consecutive_failures_of_unified() {
    let step = Duration::from_millis(1);
    let successes = || std::iter::repeat_n(Outcome::Success, 900);
    let history = || successes().chain(std::iter::repeat_n(FAILURE, 20));
    let unified = Unified::new(7, rate(0.8, s(10))).unwrap();
    assert_eq!(opens_after(unified.clone(), step, history()), Some(907));
    assert_eq!(opens_after(rate(0.8, s(10)), step, history()), None);
    assert_eq!(
        opens_after(unified, step, alternating()),
        Some(5),
        "and the rate counts as well"
    );
}

#[test]
fn rate_limited_fails() {
    let step = Duration::from_millis(10);
    let limited = || std::iter::repeat_n(LIMITED, 50);
    let policy = Unified::new(3, rate(0.8, s(10))).unwrap();
    assert_eq!(opens_after(policy, step, limited()), None);
    let counting = rate(0.8, s(10)).rate_limited_fails(true);
    let policy = Unified::new(3, counting.clone()).unwrap();
    assert_eq!(
        opens_after(policy, step, limited()),
        Some(5),
        "in the rate, never in a row"
    );
    for (policy, closes) in [(rate(0.8, s(10)), true), (counting, false)] {
        let start = Instant::now();
        let mut breaker = Breaker::new(policy, start);
        for _ in 0..5 {
            let ticket = breaker.admit(start).unwrap().ticket;
            breaker.record(ticket, FAILURE, start, 0);
        }
        let probe = breaker.admit(start + s(1)).unwrap().ticket;
        breaker.record(probe, LIMITED, start + s(1), 0);
        assert_eq!(breaker.state() == State::Closed, closes);
    }
}

#[test]
fn respect_retry_after() {
    let start = Instant::now();
    let hint = Outcome::Failure(FailureKind::Unavailable {
        retry_after: Some(s(20)),
    });
    for (respect, wait) in [(false, 1), (true, 20)] {
        let backoff = backoff().respect_retry_after(respect);
        let mut breaker = Breaker::new(ConsecutiveFailures::new(1, backoff).unwrap(), start);
        let ticket = breaker.admit(start).unwrap().ticket;
        assert_eq!(
            breaker.record(ticket, hint, start, 0),
            Some(Transition::Opened {
                until: start + s(wait)
            })
        );
    }
}

#[test]
fn the_window_begins_anew_when_the_breaker_closes() {
    let start = Instant::now();
    let mut breaker = Breaker::new(rate(0.8, s(10)), start);
    for _ in 0..5 {
        let ticket = breaker.admit(start).unwrap().ticket;
        breaker.record(ticket, FAILURE, start, 0);
    }
    let now = start + s(1);
    let probe = breaker.admit(now).unwrap().ticket;
    assert_eq!(
        breaker.record(probe, Outcome::Success, now, 0),
        Some(Transition::Closed)
    );
    for _ in 0..5 {
        let ticket = breaker.admit(now).unwrap().ticket;
        assert_eq!(breaker.record(ticket, Outcome::Success, now, 0), None);
    }
}

proptest! {
    /// The shared breaker and the plain one, against a list of all outcomes since the breaker closed.
    #[test]
    fn the_rate_is_that_of_the_latest_requests(
        steps in proptest::collection::vec((0..800_u64, 0..4_u8), 1..150),
        threshold in 0.05..1.0_f64,
        min_requests in 1..20_u32,
    ) {
        let start = Instant::now();
        let policy = SuccessRate::new(threshold, s(5), ExponentialBackoff::new(s(1), s(60), 0.0).unwrap())
            .unwrap()
            .min_requests(min_requests);
        let mut plain = Breaker::new(policy.clone(), start);
        let shared = SharedBreaker::new(policy, start);
        let mut now = start;
        let mut recorded: Vec<(u128, bool)> = Vec::new();
        for (wait, kind) in steps {
            now += Duration::from_millis(wait);
            let outcome = [FAILURE, Outcome::Success, LIMITED, Outcome::Cancelled][usize::from(kind)];
            let part = |at: Instant| (at - start).as_millis() / 500;
            let (one, two) = (plain.admit(now), shared.admit(now));
            prop_assert_eq!(&one, &two);
            let (Ok(one), Ok(two)) = (one, two) else { continue };
            let probe = one.ticket.is_probe();
            let transition = plain.record(one.ticket, outcome, now, 0);
            prop_assert_eq!(transition, shared.record(two.ticket, outcome, now, 0));
            prop_assert_eq!(plain.state(), shared.state());
            if probe {
                if transition == Some(Transition::Closed) {
                    recorded.clear();
                }
                continue;
            }
            if outcome != Outcome::Cancelled {
                recorded.push((part(now), outcome == FAILURE));
            }
            let latest: Vec<bool> =
                recorded.iter().filter(|(at, _)| at + 10 > part(now)).map(|(_, failed)| *failed).collect();
            let successes = latest.iter().filter(|failed| !**failed).count() as f64;
            let too_low = outcome != Outcome::Cancelled
                && latest.len() >= min_requests as usize
                && successes < threshold * latest.len() as f64;
            prop_assert_eq!(matches!(transition, Some(Transition::Opened { .. })), too_low, "{} of {}", successes, latest.len());
        }
    }
}
