//! Retries: as often as the budget allows, after waits within their bounds, on the answers that were named.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, StatusCode};
use mesh_policy::outbound::l5d::Overrides;
use mesh_policy::outbound::retry::{BudgetLimits, RetryBudget, RetryConditions, RetryPolicy};
use mesh_policy::outbound::{Backoff, JitterRatio, Timeouts};
use mesh_policy::{GrpcCodes, StatusSet};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn budget(ratio: f32, min: u32, ttl: Duration) -> RetryBudget {
    RetryBudget::new(BudgetLimits::new(ratio, min, ttl).unwrap())
}

fn withdrawn(budget: &RetryBudget, now: Instant) -> usize {
    (0..1_000_000).take_while(|_| budget.withdraw(now)).count()
}

#[test]
fn a_share_of_the_requests_may_be_retried() {
    let now = Instant::now();
    let budget = budget(0.2, 0, 10 * SECOND);
    assert_eq!(withdrawn(&budget, now), 0);
    (0..100).for_each(|_| budget.deposit(now));
    assert_eq!(withdrawn(&budget, now), 20);
    budget.deposit(now);
    assert!(!budget.withdraw(now), "a fifth of a retry is none");
}

#[test]
fn some_may_be_retried_whatever_the_requests() {
    let now = Instant::now();
    let budget = RetryBudget::new(BudgetLimits::default());
    assert_eq!(
        withdrawn(&budget, now),
        100,
        "ten per second for ten seconds"
    );
    // They are there again once those taken no longer count.
    assert_eq!(withdrawn(&budget, now + 5 * SECOND), 0);
    assert_eq!(withdrawn(&budget, now + 11 * SECOND), 100);
}

#[test]
fn what_is_not_used_is_forgotten() {
    let now = Instant::now();
    let budget = budget(1.0, 0, SECOND);
    (0..100).for_each(|_| budget.deposit(now));
    assert_eq!(withdrawn(&budget, now + 2 * SECOND), 0);
    // Nor does a slot that comes round again remember what it held.
    assert_eq!(withdrawn(&budget, now + SECOND), 0);
    assert_eq!(withdrawn(&budget, now + 100 * SECOND), 0);
}

#[test]
fn budgets_that_mean_nothing_are_refused() {
    for ratio in [-0.1, 1000.1, f32::NAN, f32::INFINITY] {
        assert!(BudgetLimits::new(ratio, 1, SECOND).is_err(), "{ratio}");
    }
    for ttl in [
        Duration::ZERO,
        SECOND - Duration::from_nanos(1),
        61 * SECOND,
    ] {
        assert!(BudgetLimits::new(0.2, 1, ttl).is_err(), "{ttl:?}");
    }
    let zero = BudgetLimits::new(-0.0, 1, SECOND).unwrap();
    assert_eq!(zero, BudgetLimits::new(0.0, 1, SECOND).unwrap());
    // The largest there are neither panic nor end.
    let now = Instant::now();
    let largest = budget(1000.0, u32::MAX, 60 * SECOND);
    (0..10_000).for_each(|_| largest.deposit(now));
    assert!(largest.withdraw(now));
}

#[test]
fn threads_together_take_no_more_than_one() {
    let now = Instant::now();
    let budget = budget(0.5, 0, 10 * SECOND);
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let turn = |_| {
                        budget.deposit(now);
                        usize::from(budget.withdraw(now)) + usize::from(budget.withdraw(now))
                    };
                    (0..1000).map(turn).sum::<usize>()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(taken + withdrawn(&budget, now), 4000);
}

#[test]
fn an_instant_before_the_first_is_as_the_first() {
    let now = Instant::now() + 100 * SECOND;
    let budget = budget(1.0, 0, SECOND);
    budget.deposit(now);
    assert!(budget.withdraw(now - 50 * SECOND));
    assert!(!budget.withdraw(now));
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn asked(name: &'static str, value: &str) -> Overrides {
    Overrides::take(&mut headers(&[(name, value)]), true)
}

fn route() -> (Timeouts, RetryPolicy) {
    let timeouts = Timeouts {
        request: Some(9 * SECOND),
        response: Some(8 * SECOND),
        idle: Some(7 * SECOND),
    };
    let mut statuses = StatusSet::default();
    statuses.insert("test", 500, 599).unwrap();
    let retry = RetryPolicy {
        max_retries: 3,
        max_request_bytes: 10,
        timeout: Some(2 * SECOND),
        backoff: None,
        respect_retry_after: true,
        conditions: RetryConditions {
            statuses,
            codes: GrpcCodes::default(),
        },
    };
    (timeouts, retry)
}

#[test]
fn an_answer_may_say_how_long_to_wait() {
    let (_, mut retry) = route();
    let asked = Some(5 * SECOND);
    assert_eq!(
        retry.wait(0, 0, asked),
        Duration::ZERO,
        "no backoff, no wait"
    );
    retry.backoff = Backoff::new(2 * SECOND, 9 * SECOND, JitterRatio::default()).ok();
    assert_eq!(retry.wait(1, 0, None), 4 * SECOND);
    assert_eq!(retry.wait(1, 0, asked), 5 * SECOND);
    assert_eq!(retry.wait(1, 0, Some(SECOND)), 2 * SECOND);
    assert_eq!(retry.wait(1, 0, Some(Duration::MAX)), 9 * SECOND);
    retry.respect_retry_after = false;
    assert_eq!(retry.wait(1, 0, asked), 4 * SECOND);
}

#[test]
fn headers_change_what_a_route_says() {
    let (timeouts, retry) = route();
    let mut all = headers(&[
        ("l5d-timeout", "100ms"),
        ("l5d-response-timeout", "2m"),
        ("l5d-retry-http", "404, gateway-error"),
        ("l5d-retry-grpc", "unavailable,Internal"),
        ("l5d-retry-limit", "5"),
        ("l5d-retry-timeout", "1h"),
        ("x-other", "stays"),
    ]);
    let overrides = Overrides::take(&mut all, true);
    assert_eq!(all, headers(&[("x-other", "stays")]));
    let given = overrides.timeouts(timeouts);
    assert_eq!(given.request, Some(Duration::from_millis(100)));
    assert_eq!(given.response, Some(120 * SECOND));
    assert_eq!(given.idle, timeouts.idle);
    let given = overrides.retry(Some(&retry)).unwrap();
    assert_eq!(given.max_retries, 5);
    assert_eq!(given.timeout, Some(3600 * SECOND));
    assert_eq!(given.max_request_bytes, 10);
    let status = |status| {
        given
            .conditions
            .status(StatusCode::from_u16(status).unwrap())
    };
    assert_eq!(
        [404, 500, 501, 502, 503, 504, 505].map(status),
        [true, false, false, true, true, true, false]
    );
    let grpc = |code| given.conditions.grpc(code);
    assert_eq!(
        [1, 4, 8, 13, 14].map(grpc),
        [false, false, false, true, true]
    );
}

#[test]
fn headers_ask_for_retries_where_a_route_has_none() {
    assert_eq!(Overrides::default().retry(None), None);
    assert_eq!(asked("l5d-timeout", "1s").retry(None), None);
    let given = asked("l5d-retry-http", "5xx").retry(None).unwrap();
    assert_eq!(given.max_retries, 1);
    assert_eq!(given.max_request_bytes, 64 * 1024);
    let backoff = given.backoff.unwrap();
    assert_eq!(backoff.min(), Duration::from_millis(25));
    assert_eq!(backoff.max(), Duration::from_millis(250));
    assert!(given.conditions.status(StatusCode::NOT_IMPLEMENTED));
    let limit = asked("l5d-retry-limit", "0").retry(None).unwrap();
    assert_eq!(
        (limit.max_retries, limit.conditions),
        (0, RetryConditions::default())
    );
}

#[test]
fn headers_that_are_not_allowed_are_removed_unread() {
    let mut given = headers(&[("l5d-timeout", "1ms"), ("l5d-retry-limit", "9")]);
    let overrides = Overrides::take(&mut given, false);
    assert!(overrides.is_empty() && given.is_empty());
    // All of their values; the first counts.
    let mut given = headers(&[("l5d-timeout", "1s"), ("l5d-timeout", "2s")]);
    let overrides = Overrides::take(&mut given, true);
    assert_eq!(
        overrides.timeouts(Timeouts::default()).request,
        Some(SECOND)
    );
    assert!(given.is_empty());
}

#[test]
fn the_longer_name_of_a_header_wins() {
    let mut given = headers(&[("l5d-request-timeout", "2s"), ("l5d-timeout", "1s")]);
    let overrides = Overrides::take(&mut given, true);
    assert_eq!(
        overrides.timeouts(Timeouts::default()).request,
        Some(2 * SECOND)
    );
    assert!(given.is_empty());
}

#[test]
fn durations_have_a_unit() {
    let (timeouts, _) = route();
    let request = |value: &str| asked("l5d-timeout", value).timeouts(timeouts).request;
    assert_eq!(request("3d"), Some(3 * 86_400 * SECOND));
    assert_eq!(request(" 5s "), Some(5 * SECOND));
    assert_eq!(
        request("18446744073709551615ms"),
        Some(365 * 86_400 * SECOND)
    );
    // Zero takes the limit away.
    assert_eq!(request("0"), None);
    assert_eq!(request("0s"), None);
    // What cannot be read is as if it were not there.
    for bad in [
        "",
        "s",
        "5",
        "-5s",
        "5us",
        "1.5s",
        "5 s",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert_eq!(request(bad), timeouts.request, "{bad:?}");
    }
}

#[test]
fn odd_lists_hold_what_can_be_read_of_them() {
    let (_, retry) = route();
    let given = |value: &str| {
        let retry = asked("l5d-retry-http", value).retry(Some(&retry)).unwrap();
        retry.conditions.statuses
    };
    let only = |start, end| {
        let mut set = StatusSet::default();
        set.insert("test", start, end).unwrap();
        set
    };
    assert_eq!(given("503"), only(503, 503));
    assert_eq!(
        given("x,500-502,600,99,504-503,-,,1000000000000"),
        only(500, 502)
    );
    assert!(given("").is_empty(), "asked for none");
    let max = |value: &str| {
        asked("l5d-retry-limit", value)
            .retry(Some(&retry))
            .unwrap()
            .max_retries
    };
    assert_eq!(max("70000"), u16::MAX);
    assert_eq!(max("many"), 3);
}

/// Deposits (true) and withdrawals at these times.
fn uses() -> impl Strategy<Value = Vec<(Duration, bool)>> {
    let gap = prop_oneof![3 => Just(0_u64), 3 => 0..50_000_u64, 1 => 0..3_000_000_u64];
    prop::collection::vec((gap, prop::bool::weighted(0.6)), 1..500).prop_map(|uses| {
        let mut at = 0;
        let mut step = |(gap, deposit)| {
            at += gap;
            (Duration::from_micros(at), deposit)
        };
        uses.into_iter().map(&mut step).collect()
    })
}

proptest! {
    /// Whenever a retry is granted, the retries of the time that counts are within the share of the requests of it and the
    /// reserve; and one is granted whenever there is one left of the requests that count for certain.
    #[test]
    fn budgets(uses in uses(), ratio in 0..40_u32, min in 0..20_u32, ttl in 1..5_u64) {
        let ratio = ratio as f32 / 20.0;
        let ttl = Duration::from_secs(ttl);
        let start = Instant::now();
        let budget = budget(ratio, min, ttl);
        let reserve = f64::from(min) * ttl.as_secs_f64();
        let (mut deposits, mut granted): (Vec<Duration>, Vec<Duration>) = Default::default();
        for (at, deposit) in uses {
            if deposit {
                budget.deposit(start + at);
                deposits.push(at);
                continue;
            }
            let within = |times: &[Duration], age: Duration| {
                times.iter().filter(|time| **time + age > at).count() as f64
            };
            let tenth = ttl / 10;
            // Slots are a tenth of it, so what counts is between nine and ten tenths old.
            let most = f64::from(ratio) * within(&deposits, ttl) + reserve
                - within(&granted, ttl - tenth);
            let least = f64::from(ratio) * within(&deposits, ttl - tenth) + reserve
                - within(&granted, ttl);
            let grant = budget.withdraw(start + at);
            if grant {
                granted.push(at);
                prop_assert!(most + 0.1 >= 1.0, "granted at {at:?} with {most} left");
            } else {
                prop_assert!(least < 1.0 + 1e-3, "refused at {at:?} with {least} left");
            }
        }
    }

    /// A wait is between the bounds, never shorter than the doubled minimum, and grows with each retry.
    #[test]
    fn backoffs(
        min in 1..10_000_u64,
        more in 0..100_000_u64,
        jitter in 0.0..100.0_f32,
        attempt: u32,
        random: u64,
    ) {
        let (min, max) = (Duration::from_micros(min), Duration::from_micros(min + more));
        let backoff = Backoff::new(min, max, JitterRatio::new(jitter).unwrap()).unwrap();
        for attempt in [attempt, attempt % 20] {
            let wait = backoff.wait(attempt, random);
            let base = min.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
            prop_assert!(base <= wait && wait <= max, "{base:?} {wait:?} {max:?}");
            prop_assert!(wait <= base + base.mul_f64(f64::from(jitter)) + Duration::from_nanos(1));
            let even = Backoff::new(min, max, JitterRatio::default()).unwrap();
            prop_assert_eq!(even.wait(attempt, random), base);
            prop_assert!(even.wait(attempt.saturating_add(1), 0) >= base);
        }
    }

    /// Whatever the headers, nothing panics, none is left, and a limit that was there is not lost by what cannot be read.
    #[test]
    fn any_header(name in 0..7_usize, value in "[ -~]{0,20}") {
        let names = [
            "l5d-timeout", "l5d-request-timeout", "l5d-response-timeout", "l5d-retry-http",
            "l5d-retry-grpc", "l5d-retry-limit", "l5d-retry-timeout",
        ];
        let mut given = headers(&[(names[name], &value)]);
        let overrides = Overrides::take(&mut given, true);
        prop_assert!(given.is_empty());
        let (timeouts, retry) = route();
        overrides.timeouts(timeouts);
        prop_assert!(overrides.retry(Some(&retry)).is_some());
    }
}
