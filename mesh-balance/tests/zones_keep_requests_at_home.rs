//! Requests stay in the caller's zone at rest, leave it with the load or for want of health, and come back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod simulation;

use mesh_balance::core::{BandError, Change, EjectionLimits, FailureKind, Outcome, Pool, Zones};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};
use proptest::prelude::*;
use simulation::{Simulation, ms};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Four endpoints a zone, the first four in the caller's.
fn pool(origin: Instant, zones: usize) -> Pool<usize, usize> {
    let second = ExponentialBackoff::new(SECOND, SECOND, 0.0).unwrap();
    let mut pool = Pool::<usize, usize>::builder()
        .zones(Zones::new("a").then("b"))
        .breaker(ConsecutiveFailures::new(3, second).unwrap())
        .ejection(EjectionLimits::default().max_ejected_percent(100))
        .build(origin);
    pool.apply((0..zones * 4).map(insert));
    pool
}

fn insert(index: usize) -> Change<usize, usize> {
    Change::insert(index, index, 1).in_zone(["a", "b", "c"][index / 4])
}

fn alike(_: usize, _: Duration) -> (Duration, Outcome) {
    (ms(10), Outcome::Success)
}

fn elsewhere(simulation: &Simulation) -> u64 {
    simulation.received[4..].iter().sum()
}

#[test]
fn at_rest_no_request_leaves() {
    for rate in [1.0, 50.0, 400.0, 700.0] {
        let origin = Instant::now();
        let pool = pool(origin, 3);
        let mut simulation = Simulation::new(origin, 12, 1);
        simulation.run(&pool.picker(), rate, 60 * SECOND, &alike);
        assert_eq!(elsewhere(&simulation), 0, "{rate} rps");
    }
}

#[test]
fn what_is_answered_and_goes_on_is_no_load() {
    let origin = Instant::now();
    let pool = pool(origin, 3);
    let picker = pool.picker();
    let mut simulation = Simulation::new(origin, 12, 1);
    // Connections of bytes, say: 25 for each endpoint of the zone, which never end.
    let streams: Vec<_> = (0..100)
        .map(|count| {
            let at = origin + ms(count * 10);
            let mut stream = picker.pick(at, simulation.random.word(), &[]).unwrap();
            stream.responded(at + ms(1));
            stream
        })
        .collect();
    assert!(streams.iter().all(|stream| **stream < 4));
    simulation.now = SECOND;
    simulation.run(&picker, 400.0, 30 * SECOND, &alike);
    assert_eq!(elsewhere(&simulation), 0);
    let stats = picker.snapshot().zones().unwrap();
    assert!(stats.load < 2.0 && stats.remote == 0, "{stats:?}");
}

#[test]
fn under_load_the_nearest_help_and_leave_again() {
    let origin = Instant::now();
    let pool = pool(origin, 3);
    let mut simulation = Simulation::new(origin, 12, 1);
    let picker = pool.picker();
    // 12 requests in flight are 3 for each endpoint of the zone, and less than 2 with four of the next.
    simulation.run(&picker, 1200.0, 30 * SECOND, &alike);
    assert!(elsewhere(&simulation) > 5_000);
    assert_eq!(
        simulation.received[8..].iter().sum::<u64>(),
        0,
        "the far zone is not needed"
    );
    let stats = picker.snapshot().zones().unwrap();
    assert!(
        stats.load < 2.2 && stats.remote >= 2 && stats.remote <= 4,
        "{stats:?}"
    );
    // Within the band nothing changes.
    let before = stats.remote;
    simulation.run(&picker, 1000.0, 30 * SECOND, &alike);
    assert_eq!(picker.snapshot().zones().unwrap().remote, before);
    simulation.run(&picker, 200.0, 20 * SECOND, &alike);
    simulation.recount();
    simulation.run(&picker, 200.0, 20 * SECOND, &alike);
    assert_eq!(elsewhere(&simulation), 0);
}

#[test]
fn a_zone_that_fails_is_replaced_and_taken_back() {
    let origin = Instant::now();
    let pool = pool(origin, 3);
    let mut simulation = Simulation::new(origin, 12, 1);
    let picker = pool.picker();
    let fails_from_ten_to_twenty = |index: usize, at: Duration| {
        let fails = index < 4 && at >= 10 * SECOND && at < 20 * SECOND;
        if fails {
            (ms(1), Outcome::Failure(FailureKind::Connect))
        } else {
            (ms(10), Outcome::Success)
        }
    };
    simulation.run(&picker, 400.0, 10 * SECOND, &fails_from_ten_to_twenty);
    assert_eq!(elsewhere(&simulation), 0);
    simulation.recount();
    simulation.run(&picker, 400.0, 10 * SECOND, &fails_from_ten_to_twenty);
    let stayed: u64 = simulation.received[..4].iter().sum();
    assert!(stayed < 100, "{stayed} of 4000 went to a zone that fails");
    simulation.run(&picker, 400.0, 5 * SECOND, &fails_from_ten_to_twenty);
    simulation.recount();
    simulation.run(&picker, 400.0, 20 * SECOND, &fails_from_ten_to_twenty);
    assert_eq!(elsewhere(&simulation), 0, "all are back");
}

#[test]
fn without_endpoints_at_home_all_are_used() {
    let origin = Instant::now();
    let mut pool = pool(origin, 3);
    pool.apply((0..4).map(Change::remove));
    let mut simulation = Simulation::new(origin, 12, 1);
    simulation.run(&pool.picker(), 400.0, 10 * SECOND, &alike);
    for index in 4..12 {
        assert!(
            (simulation.share(index) - 0.125).abs() < 0.03,
            "{:?}",
            simulation.received
        );
    }
    pool.apply((0..4).map(insert));
    simulation.recount();
    simulation.run(&pool.picker(), 400.0, 10 * SECOND, &alike);
    assert_eq!(elsewhere(&simulation), 0);
}

#[test]
fn a_band_has_two_ends() {
    for (low, high) in [
        (-0.1, 1.0),
        (2.0, 2.0),
        (1.0, f32::NAN),
        (1.0, f32::INFINITY),
    ] {
        assert!(matches!(
            Zones::new("a").band(low, high),
            Err(BandError { .. })
        ));
    }
    assert!(Zones::new("a").band(0.0, 1.0).is_ok());
}

proptest! {
    /// Endpoints come, go and move while others help: whatever is picked is in the snapshot that was read.
    #[test]
    fn what_has_left_is_not_picked(steps in proptest::collection::vec((0..12_usize, any::<bool>()), 1..40), seed: u64) {
        let origin = Instant::now();
        let mut pool = pool(origin, 3);
        let mut present: Vec<bool> = vec![true; 12];
        let mut simulation = Simulation::new(origin, 12, seed);
        for (index, stays) in steps {
            pool.apply([if stays { insert(index) } else { Change::remove(index) }]);
            present[index] = stays;
            simulation.recount();
            simulation.run(&pool.picker(), 2000.0, ms(300), &alike);
            for (index, present) in present.iter().enumerate() {
                prop_assert!(*present || simulation.received[index] == 0);
            }
        }
    }
}
