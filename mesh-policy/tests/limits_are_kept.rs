//! Rate limits: no more than is allowed, never nothing, and each identity for itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use mesh_policy::Error;
use mesh_policy::inbound::rate_limit::{Limited, Override, RateLimit, RateLimits, Scope};
use mesh_tls::Identity;
use proptest::prelude::*;

fn identity(name: &str) -> Identity {
    Identity::parse(&format!("{name}.example.com")).unwrap()
}

fn limits(total: u32, each: u32) -> RateLimits {
    RateLimits {
        total: NonZeroU32::new(total),
        identity: NonZeroU32::new(each),
        ..RateLimits::default()
    }
}

fn limit(total: u32, each: u32) -> RateLimit {
    RateLimit::new(limits(total, each)).unwrap()
}

fn over(limit: u32, names: &[&str]) -> Override {
    Override {
        limit: NonZeroU32::new(limit).unwrap(),
        identities: names.iter().map(|name| identity(name)).collect(),
    }
}

#[test]
fn an_identity_over_its_limit_uses_up_nothing_of_the_total() {
    let now = Instant::now();
    let limit = limit(10, 2);
    let greedy = limit.client(Some(&identity("greedy")), now);
    let passed = (0..1000).filter(|_| greedy.check(now).is_ok()).count();
    assert_eq!(passed, 2);
    assert_eq!(greedy.check(now).unwrap_err().scope, Scope::Identity);
    // The other eight of the total are there for the others, two each.
    for name in ["a", "b", "c", "d"] {
        let client = limit.client(Some(&identity(name)), now);
        assert!(
            client.check(now).is_ok() && client.check(now).is_ok(),
            "{name}"
        );
    }
    let late = limit.client(Some(&identity("e")), now);
    let limited = late.check(now).unwrap_err();
    assert_eq!(limited.scope, Scope::Total);
    // What the total refused does not count against the identity.
    let later = now + limited.retry_after;
    assert!(late.check(later).is_ok());
    let later = later + Duration::from_millis(100);
    assert!(late.check(later).is_ok());
}

#[test]
fn clients_without_an_identity_share_one_limit() {
    let now = Instant::now();
    let limit = limit(0, 2);
    assert!(limit.client(None, now).check(now).is_ok());
    assert!(limit.client(None, now).check(now).is_ok());
    assert!(limit.client(None, now).check(now).is_err());
    let known = limit.client(Some(&identity("a")), now);
    assert!(known.check(now).is_ok());
}

#[test]
fn connections_of_one_identity_share_its_limit() {
    let now = Instant::now();
    let limit = limit(0, 3);
    for _ in 0..3 {
        // Not even a connection that has closed is forgotten before its use is.
        assert!(limit.client(Some(&identity("a")), now).check(now).is_ok());
    }
    assert!(limit.client(Some(&identity("a")), now).check(now).is_err());
}

#[test]
fn an_override_stands_for_the_limit_of_each_and_is_shared() {
    let now = Instant::now();
    let mut limits = limits(100, 1);
    limits.overrides = vec![over(9, &["a"]), over(3, &["a", "b"])];
    let limit = RateLimit::new(limits).unwrap();
    let a = limit.client(Some(&identity("a")), now);
    let b = limit.client(Some(&identity("b")), now);
    // The last override counts; both use it up together.
    assert!(a.check(now).is_ok() && b.check(now).is_ok() && a.check(now).is_ok());
    assert_eq!(a.check(now).unwrap_err().scope, Scope::Override);
    assert_eq!(b.check(now).unwrap_err().scope, Scope::Override);
    let other = limit.client(Some(&identity("c")), now);
    assert!(other.check(now).is_ok());
    assert_eq!(other.check(now).unwrap_err().scope, Scope::Identity);
}

#[test]
fn without_limits_everything_passes() {
    let now = Instant::now();
    let client = limit(0, 0).client(Some(&identity("a")), now);
    assert!((0..10_000).all(|_| client.check(now).is_ok()));
}

#[test]
fn retry_after_is_in_whole_seconds_and_not_too_early() {
    let seconds = |retry_after| {
        let scope = Scope::Total;
        Limited { scope, retry_after }.retry_after_seconds()
    };
    assert_eq!(seconds(Duration::from_nanos(1)), 1);
    assert_eq!(seconds(Duration::from_secs(1)), 1);
    assert_eq!(seconds(Duration::from_millis(1001)), 2);
}

#[test]
fn use_survives_an_update_of_what_did_not_change() {
    let now = Instant::now();
    let first = limit(2, 1);
    let client = first.client(Some(&identity("a")), now);
    assert!(client.check(now).is_ok() && client.check(now).is_err());

    let same = limit(2, 1).continuing(&first);
    assert!(client.is_of(&same), "nothing is to be remade");

    let changed = limit(9, 1).continuing(&first);
    assert!(!client.is_of(&changed));
    let client = changed.client(Some(&identity("a")), now);
    assert_eq!(client.check(now).unwrap_err().scope, Scope::Identity);

    let changed = limit(2, 5).continuing(&first);
    let client = changed.client(Some(&identity("a")), now);
    // One of the total of two is left.
    assert!(client.check(now).is_ok());
    assert_eq!(client.check(now).unwrap_err().scope, Scope::Total);
}

#[test]
fn use_of_an_override_survives_too() {
    let now = Instant::now();
    let with = |overrides| RateLimits {
        overrides,
        ..limits(0, 100)
    };
    let first = RateLimit::new(with(vec![over(1, &["a"])])).unwrap();
    assert!(first.client(Some(&identity("a")), now).check(now).is_ok());
    let second = with(vec![over(5, &["b"]), over(1, &["a"])]);
    let second = RateLimit::new(second).unwrap().continuing(&first);
    let client = second.client(Some(&identity("a")), now);
    assert_eq!(client.check(now).unwrap_err().scope, Scope::Override);
    // Each override keeps its own, though one identity is in both and they come in another order.
    let both = |first: &[&str], second: &[&str]| with(vec![over(1, first), over(1, second)]);
    let before = RateLimit::new(both(&["a"], &["a", "b"])).unwrap();
    let after = RateLimit::new(both(&["a", "b"], &["a"])).unwrap();
    let after = after.continuing(&before);
    let [a, b] = ["a", "b"].map(|name| after.client(Some(&identity(name)), now));
    assert!(a.check(now).is_ok() && b.check(now).is_ok());
    let third = RateLimit::new(with(vec![over(2, &["a"])])).unwrap();
    let third = third.continuing(&second);
    assert!(third.client(Some(&identity("a")), now).check(now).is_ok());
}

#[test]
fn overrides_are_bounded() {
    let identities = (0..4097).map(|n| identity(&format!("w{n}"))).collect();
    let limits = RateLimits {
        overrides: vec![Override {
            limit: NonZeroU32::MIN,
            identities,
        }],
        ..RateLimits::default()
    };
    let error = Error::TooMany {
        what: "identities in overrides of a rate limit",
        given: 4097,
        max: 4096,
    };
    assert_eq!(RateLimit::new(limits).unwrap_err(), error);
}

/// A hundred thousand identities that come and go leave no trace, and none gets more by it.
#[test]
fn identities_that_are_idle_are_forgotten() {
    let limit = limit(0, 1);
    let mut now = Instant::now();
    let held = limit.client(Some(&identity("held")), now);
    assert!(held.check(now).is_ok());
    for n in 0..100_000 {
        now += Duration::from_millis(1);
        let client = limit.client(Some(&identity(&format!("w{n}"))), now);
        assert!(client.check(now).is_ok(), "{n}");
        // A connection that is open keeps the state that others of the identity share.
        if n % 1000 == 999 {
            let again = limit.client(Some(&identity("held")), now);
            assert!(again.check(now).is_ok() && held.check(now).is_err(), "{n}");
        }
    }
    assert!(limit.identities() < 5000, "{}", limit.identities());
}

/// More identities at once than are kept apart have what is left together, not each a new one.
#[test]
fn the_identities_that_are_kept_apart_are_bounded() {
    let limit = limit(0, 1);
    let now = Instant::now();
    let mut passed = 0;
    for n in 0..RateLimit::MAX_IDENTITIES + 1000 {
        let client = limit.client(Some(&identity(&format!("w{n}"))), now);
        passed += usize::from(client.check(now).is_ok());
    }
    assert_eq!(limit.identities(), RateLimit::MAX_IDENTITIES);
    assert_eq!(passed, RateLimit::MAX_IDENTITIES + 1);
}

#[test]
fn threads_together_get_no_more_than_one() {
    let limit = limit(500, 100);
    let now = Instant::now();
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let limit = &limit;
                scope.spawn(move || {
                    let client = limit.client(Some(&identity(&format!("w{}", n % 2))), now);
                    (0..1000).filter(|_| client.check(now).is_ok()).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 200);
}

/// Requests at these times after the start.
fn arrivals() -> impl Strategy<Value = Vec<Duration>> {
    let gap = prop_oneof![
        3 => Just(0_u64),
        3 => 0..2_000_000_u64,
        1 => 0..3_000_000_000_u64,
    ];
    prop::collection::vec(gap, 1..400).prop_map(|gaps| {
        let mut at = 0;
        gaps.into_iter()
            .map(|gap| {
                at += gap;
                Duration::from_nanos(at)
            })
            .collect()
    })
}

proptest! {
    /// In no window more than `limit * t + limit`; and whoever waits as told is let through.
    #[test]
    fn of_one_client(rps in 1..200_u32, arrivals in arrivals()) {
        let start = Instant::now();
        let client = limit(0, rps).client(None, start);
        let mut passed: Vec<Duration> = Vec::new();
        let mut promised: Option<Duration> = None;
        for at in arrivals {
            match client.check(start + at) {
                Ok(()) => {
                    passed.push(at);
                    promised = None;
                }
                Err(limited) => {
                    prop_assert!(limited.retry_after > Duration::ZERO);
                    prop_assert!(limited.retry_after <= Duration::from_secs_f64(1.0 / f64::from(rps)) + Duration::from_nanos(1));
                    if let Some(promised) = promised {
                        prop_assert!(at < promised, "refused at {at:?}, promised for {promised:?}");
                    }
                    promised = Some(at + limited.retry_after);
                }
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                // In billionths of a request, so that nothing is rounded.
                let second = Duration::from_secs(1).as_nanos();
                let allowed = u128::from(rps) * ((*to - *from).as_nanos() + second);
                prop_assert!((last - first + 1) as u128 * second <= allowed);
            }
        }
        if let Some(promised) = promised {
            prop_assert!(client.check(start + promised).is_ok());
        }
    }

    /// A client that comes again the very moment it is told to gets what the limit allows: no more, and hardly less.
    #[test]
    fn of_a_client_that_waits_as_told(rps in prop_oneof![4 => 1..1000_u32, 1 => 1000..=u32::MAX]) {
        let start = Instant::now();
        let client = limit(0, rps).client(None, start);
        let burst = (0..=rps.min(1000)).take_while(|_| client.check(start).is_ok()).count();
        if rps > 1000 {
            prop_assert_eq!(burst, 1001);
            return Ok(());
        }
        prop_assert_eq!(burst, rps as usize);
        let mut at = Duration::ZERO;
        for passed in u128::from(rps) + 1..u128::from(rps) + 200 {
            let limited = client.check(start + at).unwrap_err();
            at += limited.retry_after;
            prop_assert!(client.check(start + at).is_ok());
            let second = Duration::from_secs(1).as_nanos();
            let allowed = u128::from(rps) * (at.as_nanos() + second);
            prop_assert!(passed * second <= allowed, "{passed} after {at:?}");
            // Each wait is rounded up by less than a nanosecond.
            let rounding = u128::from(rps) * (passed + 1);
            prop_assert!(allowed <= passed * second + rounding, "{passed} after {at:?}");
        }
    }

    /// However greedy the others are, an identity that keeps to its limit is let through whenever the limits of all together
    /// are within the total.
    #[test]
    fn of_a_modest_client(each in 1..50_u32, others in 1..8_u32, noise in 1..200_usize) {
        let start = Instant::now();
        let limit = limit(each * (others + 1) * 2, each);
        let modest = limit.client(Some(&identity("modest")), start);
        let others: Vec<_> = (0..others)
            .map(|n| limit.client(Some(&identity(&format!("greedy{n}"))), start))
            .collect();
        let gap = Duration::from_secs(1) / each + Duration::from_nanos(1);
        for turn in 0..100_u32 {
            let now = start + gap * turn;
            for other in &others {
                for _ in 0..noise {
                    let _ = other.check(now);
                }
            }
            prop_assert!(modest.check(now).is_ok(), "turn {turn}");
        }
    }
}
