//! The learned limit meets its targets in the simulator, and holds and penalties do what they say.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "tests"
)]

#[path = "../examples/simulate/engine.rs"]
mod engine;
#[path = "../examples/simulate/ours.rs"]
mod ours;
#[path = "../examples/simulate/random.rs"]
mod random;
#[path = "../examples/simulate/scenarios.rs"]
mod scenarios;
#[path = "../examples/simulate/server.rs"]
mod server;

use engine::{Balancer, Report, Scenario, run};
use mesh_balance::core::{
    Change, FailureKind, Outcome, PickError, Picker, Pool, PoolBuilder, RateLimits, WhenFull, Zones,
};
use mesh_breaker::ConsecutiveFailures;
use ours::Ours;
use server::Limiter;
use std::time::{Duration, Instant};

fn simulate(scenario: &Scenario, seed: u64) -> Report {
    let make = |origin, _, _| {
        let settings = PoolBuilder::default().rate_limits(RateLimits::default());
        Box::new(Ours::new(origin, settings)) as Box<dyn Balancer>
    };
    run(scenario, &make, seed)
}

#[test]
fn what_three_limits_admit_is_served() {
    for (rate, least) in [(900.0, 0.999), (980.0, 0.999), (1300.0, 0.77)] {
        for seed in 1..4 {
            let bucket = Limiter::Bucket(Duration::from_secs(1));
            let report = simulate(&scenarios::limits("limits", rate, bucket), seed);
            let goodput = report.goodput();
            assert!(goodput >= least, "{rate} rps, seed {seed}: {goodput}");
            assert!(
                report.refused * 50 < report.offered,
                "{rate} rps, seed {seed}: {report:?}"
            );
        }
    }
}

/// From the first request on, with nothing saved up: what is lost is the price of learning.
#[test]
fn limits_are_learned_in_no_time() {
    for (rate, mean, least) in [(900.0, 0.998, 0.997), (980.0, 0.995, 0.99)] {
        let mut sum = 0.0;
        for seed in 1..7 {
            let report = simulate(&scenarios::empty_limits("limits", rate), seed);
            let goodput = report.goodput();
            assert!(goodput >= least, "{rate} rps, seed {seed}: {goodput}");
            sum += goodput;
        }
        assert!(sum / 6.0 >= mean, "{rate} rps: {}", sum / 6.0);
    }
    for seed in 1..4 {
        let report = simulate(&scenarios::empty_limits("limits", 1300.0), seed);
        // In 15 s.
        assert!(report.served as f64 >= 0.995 * 15_000.0, "{report:?}");
    }
}

#[test]
fn short_bursts_and_windows_cost_little() {
    let bucket = Limiter::Bucket(Duration::from_millis(50));
    let window = Limiter::Window(Duration::from_secs(1));
    for (limiter, rate, least) in [
        (bucket, 900.0, 0.997),
        (bucket, 980.0, 0.985),
        (window, 900.0, 0.99),
        (window, 980.0, 0.97),
        (window, 1300.0, 0.75),
    ] {
        for seed in 1..3 {
            let report = simulate(&scenarios::limits("limits", rate, limiter), seed);
            let goodput = report.goodput();
            assert!(
                goodput >= least,
                "{limiter:?}, {rate} rps, seed {seed}: {goodput}"
            );
        }
    }
}

#[test]
fn slow_endpoints_are_hardly_noticed() {
    let p99 = |slow: usize, seed| {
        let mut with = scenarios::slow("slow", slow);
        let with_slow = simulate(&with, seed).latency_ms(0.99);
        with.servers.drain(..slow);
        (with_slow, simulate(&with, seed).latency_ms(0.99))
    };
    for seed in 1..4 {
        for slow in [1, 4] {
            let (with, without) = p99(slow, seed);
            assert!(
                with <= 1.3 * without,
                "{slow} of ten slow, seed {seed}: {with} ms instead of {without}"
            );
        }
    }
}

#[test]
fn no_request_leaves_its_zone_at_rest() {
    let make = |origin, zone: u8, _| {
        let settings = PoolBuilder::default()
            .rate_limits(RateLimits::default())
            .breaker(ConsecutiveFailures::default())
            .zones(Zones::new(zone.to_string()));
        Box::new(Ours::new(origin, settings)) as Box<dyn Balancer>
    };
    for seed in 1..4 {
        let report = run(&scenarios::zones_at_rest(), &make, seed);
        assert_eq!(report.cross_zone, 0, "seed {seed}");
        assert_eq!(report.served, report.offered, "seed {seed}");
        let report = run(&scenarios::zone_lost(), &make, seed);
        assert!(
            report.goodput() >= 0.995,
            "seed {seed}: {}",
            report.goodput()
        );
    }
}

#[test]
fn a_limit_that_moves_is_found_within_five_seconds_each_way() {
    for seed in 1..4 {
        let report = simulate(&scenarios::limit_moves(), seed);
        let served = |from: usize, until: usize| {
            let sum = |counts: &[u64]| counts[from..until].iter().sum::<u64>() as f64;
            (sum(&report.by_second), sum(&report.offered_by_second))
        };
        let (before, offered) = served(10, 20);
        assert!(
            before >= 0.99 * offered,
            "seed {seed}: {before} of {offered}"
        );
        let (low, _) = served(25, 40);
        assert!(low >= 0.99 * 400.0 * 15.0, "seed {seed}: {low}");
        let (high, offered) = served(45, 60);
        assert!(high >= 0.99 * offered, "seed {seed}: {high} of {offered}");
    }
}

#[test]
fn a_known_limit_that_falls_is_found_without_a_storm_of_refusals() {
    for seed in 1..4 {
        let report = simulate(&scenarios::known_limit_moves(), seed);
        let served =
            |from: usize, until: usize| report.by_second[from..until].iter().sum::<u64>() as f64;
        let low = served(25, 40);
        assert!(low >= 0.99 * 400.0 * 15.0, "seed {seed}: {low}");
        let (refused, offered) = (report.refused as f64, report.offered as f64);
        assert!(
            refused <= 0.01 * offered,
            "seed {seed}: {refused} of {offered}"
        );
    }
}

#[test]
fn ten_clients_share_the_limits_fairly() {
    for seed in 1..4 {
        let report = simulate(&scenarios::ten_clients(), seed);
        assert!(
            report.goodput() >= 0.97 / 1.3,
            "seed {seed}: {}",
            report.goodput()
        );
        assert!(report.jain() >= 0.95, "seed {seed}: {}", report.jain());
    }
}

#[test]
fn a_client_that_joins_late_has_its_share() {
    for seed in 1..4 {
        let report = simulate(&scenarios::late_client(), seed);
        let mean = report.served as f64 / 10.0;
        let late = report.by_client[9] as f64;
        assert!(late >= 0.8 * mean, "seed {seed}: {late} of {mean}");
        assert!(report.jain() >= 0.95, "seed {seed}: {}", report.jain());
    }
}

fn pool(settings: RateLimits, origin: Instant) -> Pool<u32, u32> {
    let mut pool = PoolBuilder::default().rate_limits(settings).build(origin);
    pool.apply([Change::insert(0, 0, 1), Change::insert(1, 1, 1)]);
    pool
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One request to this endpoint that comes to this.
fn ask(picker: &Picker<u32>, endpoint: u32, at: Instant, outcome: Outcome) -> bool {
    let snapshot = picker.snapshot();
    let others: Vec<_> = snapshot
        .stats(at)
        .filter(|(other, _)| **other != endpoint)
        .map(|(_, stats)| stats.slot)
        .collect();
    let Ok(pick) = picker.pick(at, 1, &others) else {
        return false;
    };
    pick.finish(at + Duration::from_millis(5), outcome);
    true
}

fn limited(retry_after: u64) -> Outcome {
    Outcome::RateLimited {
        retry_after: Some(s(retry_after)),
    }
}

fn goes_to(picker: &Picker<u32>, at: Instant) -> Vec<u32> {
    let mut seen: Vec<u32> = (0..100)
        .filter_map(|random| picker.pick(at, random, &[]).ok())
        .map(|pick| *pick)
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[test]
fn an_endpoint_that_is_shut_is_left_alone_until_it_said() {
    let origin = Instant::now();
    let pool = pool(RateLimits::default(), origin);
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, limited(30)));
    assert_eq!(goes_to(&picker, origin + s(1)), [1]);
    assert_eq!(goes_to(&picker, origin + s(29)), [1]);
    // Longer than the jitter, and then alone until it is answered.
    let back = origin + s(34);
    let tries = (0..100).map(|random| picker.pick(back, random, &[]).unwrap());
    let tries: Vec<_> = tries.filter(|pick| **pick == 0).collect();
    assert_eq!(tries.len(), 1, "one request first");
    for pick in tries {
        pick.finish(back + Duration::from_millis(5), Outcome::Success);
    }
    assert!(ask(&picker, 1, back, Outcome::Success));
    assert_eq!(goes_to(&picker, back + s(1)), [0, 1]);
}

/// The head of a refusal is no sign that requests are admitted.
#[test]
fn an_endpoint_that_is_shut_is_left_alone_though_its_refusals_come_in_two_parts() {
    let ms = Duration::from_millis;
    for served in [None, Some(ms(1)), Some(ms(8_000))] {
        let origin = Instant::now();
        let pool = pool(RateLimits::default(), origin);
        let picker = pool.picker();
        if let Some(at) = served {
            assert!(ask(&picker, 0, origin + at, Outcome::Success));
        }
        let at = origin + s(10);
        let others: Vec<_> = picker
            .snapshot()
            .stats(at)
            .filter(|(other, _)| **other != 0)
            .map(|(_, stats)| stats.slot)
            .collect();
        let mut pick = picker.pick(at, 1, &others).unwrap();
        // Slower than anything that is known of it.
        pick.responded(at + ms(50));
        pick.finish(at + ms(51), limited(30));
        assert_eq!(goes_to(&picker, at + s(1)), [1], "served {served:?}");
    }
}

/// In whole seconds there is no shorter hint, so it does not say that an endpoint is shut.
#[test]
fn an_unknown_endpoint_that_asks_for_a_second_is_asked_again_sooner() {
    let ms = Duration::from_millis;
    let origin = Instant::now();
    let pool = pool(RateLimits::default(), origin);
    let picker = pool.picker();
    let mut at = origin;
    for hold in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
        assert!(ask(&picker, 0, at, limited(1)), "after {:?}", at - origin);
        at += ms(5);
        assert_eq!(goes_to(&picker, at + ms(hold - 1)), [1]);
        // Longer than the jitter.
        at += ms(hold + hold / 10 + 1);
    }
    // Once it has admitted one, it is known, and a hint counts when that was long ago.
    assert!(ask(&picker, 0, at, Outcome::Success));
    assert!(ask(&picker, 0, at + s(5), limited(1)));
    assert_eq!(goes_to(&picker, at + s(5) + ms(900)), [1]);
}

/// `grpc-retry-pushback-ms` is exact, and so is a date.
#[test]
fn an_unknown_endpoint_that_asks_for_half_a_second_is_left_alone_for_it() {
    for hint in [100, 500, 999] {
        let origin = Instant::now();
        let pool = pool(RateLimits::default(), origin);
        let picker = pool.picker();
        let hint = Duration::from_millis(hint);
        let refused = Outcome::RateLimited {
            retry_after: Some(hint),
        };
        assert!(ask(&picker, 0, origin, refused));
        let ms = Duration::from_millis;
        assert_eq!(goes_to(&picker, origin + hint - ms(1)), [1], "{hint:?}");
        // Longer than the jitter.
        let over = origin + hint.mul_f64(1.1) + ms(2);
        assert!(goes_to(&picker, over).contains(&0), "{hint:?}");
    }
}

#[test]
fn an_endpoint_that_is_unavailable_is_left_alone_for_a_second_too() {
    let origin = Instant::now();
    let pool = pool(RateLimits::default().penalty(Duration::ZERO), origin);
    let picker = pool.picker();
    let retry_after = Some(s(1));
    let unavailable = Outcome::Failure(FailureKind::Unavailable { retry_after });
    assert!(ask(&picker, 0, origin, unavailable));
    let ms = Duration::from_millis;
    let held = |at| {
        let snapshot = picker.snapshot();
        let stats = snapshot.stats(at).find(|(endpoint, _)| **endpoint == 0);
        stats.unwrap().1.held
    };
    assert!(held(origin + ms(900)) >= ms(100));
    assert_eq!(held(origin + ms(1_200)), Duration::ZERO);
}

#[test]
fn a_hold_is_no_longer_than_it_may_be() {
    let origin = Instant::now();
    let pool = pool(RateLimits::default().longest(s(10)), origin);
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, limited(100_000)));
    assert_eq!(goes_to(&picker, origin + s(9)), [1]);
    assert_eq!(goes_to(&picker, origin + s(12)), [0, 1]);
}

#[test]
fn an_endpoint_that_admits_is_not_held_for_a_hint() {
    let origin = Instant::now();
    let pool = pool(RateLimits::default(), origin);
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, Outcome::Success));
    assert!(ask(
        &picker,
        0,
        origin + Duration::from_millis(500),
        limited(30)
    ));
    assert!(ask(
        &picker,
        0,
        origin + Duration::from_millis(900),
        Outcome::Success
    ));
}

#[test]
fn holds_can_be_switched_off() {
    let origin = Instant::now();
    let pool = pool(
        RateLimits::default().hold(false).penalty(Duration::ZERO),
        origin,
    );
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, limited(30)));
    assert_eq!(goes_to(&picker, origin + s(1)), [0, 1]);
}

#[test]
fn what_finds_no_room_is_shed_with_the_soonest_time() {
    let origin = Instant::now();
    let pool = pool(RateLimits::default(), origin);
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, limited(30)));
    assert!(ask(&picker, 1, origin, limited(20)));
    let Err(PickError::Limited { retry_after }) = picker.pick(origin + s(1), 1, &[]) else {
        panic!("both are held");
    };
    assert!(
        retry_after >= s(19) && retry_after <= s(22),
        "{retry_after:?}"
    );
}

#[test]
fn what_finds_no_room_goes_to_the_soonest_if_told_so() {
    let origin = Instant::now();
    let settings = RateLimits::default().when_full(WhenFull::Soonest);
    let pool = pool(settings, origin);
    let picker = pool.picker();
    assert!(ask(&picker, 0, origin, limited(30)));
    assert!(ask(&picker, 1, origin, limited(20)));
    assert_eq!(goes_to(&picker, origin + s(1)), [1]);
}

#[test]
fn a_penalty_fades_at_its_own_pace_and_ends_with_a_success() {
    let failure = Outcome::Failure(FailureKind::Response);
    for (decay, at) in [(s(1), 8), (s(10), 75)] {
        let origin = Instant::now();
        let settings = RateLimits::default().penalty(s(5)).penalty_decay(decay);
        let pool = pool(settings, origin);
        let picker = pool.picker();
        for endpoint in [0, 1] {
            assert!(ask(&picker, endpoint, origin, Outcome::Success));
        }
        assert!(ask(&picker, 0, origin + s(1), failure));
        let penalty = |at: Instant| {
            let snapshot = picker.snapshot();
            let found = snapshot.stats(at).find(|(endpoint, _)| **endpoint == 0);
            found.unwrap().1.penalty
        };
        assert!(penalty(origin + s(1)) > Duration::from_millis(4900));
        assert_eq!(goes_to(&picker, origin + s(2)), [1]);
        let later = origin + s(at);
        assert!(
            penalty(later) < Duration::from_millis(6),
            "{:?}",
            penalty(later)
        );
        assert!(ask(&picker, 0, origin + s(3), Outcome::Success));
        assert_eq!(penalty(origin + s(4)), Duration::ZERO);
    }
}

#[test]
fn the_published_behaviour_holds_nothing_and_counts_a_hint_as_latency() {
    let origin = Instant::now();
    let pool = pool(RateLimits::exact(s(5), s(300)), origin);
    let picker = pool.picker();
    for endpoint in [0, 1] {
        assert!(ask(&picker, endpoint, origin, Outcome::Success));
        assert!(ask(&picker, endpoint, origin, limited(60)));
    }
    let snapshot = picker.snapshot();
    for (_, stats) in snapshot.stats(origin + Duration::from_millis(5)) {
        assert!(stats.penalty > s(59), "{stats:?}");
        assert_eq!((stats.held, stats.limit), (Duration::ZERO, None));
    }
    assert_eq!(goes_to(&picker, origin + s(1)), [0, 1], "none is shed");
    assert!(ask(&picker, 0, origin + s(1), Outcome::Success));
    let stats = snapshot.stats(origin + s(2)).next().unwrap().1;
    assert!(stats.penalty > s(40), "it only decays: {stats:?}");
}
