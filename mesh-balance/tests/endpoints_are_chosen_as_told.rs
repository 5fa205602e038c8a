//! The other ways to choose, slow start, and more choices where two are not enough.
#![allow(clippy::unwrap_used, reason = "tests")]

mod simulation;

use mesh_balance::core::{Change, Choice, Load, Outcome, Pool, PoolBuilder, Seen};
use simulation::{Simulation, ms};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn pool(origin: Instant, builder: PoolBuilder, weights: &[u32]) -> Pool<usize, usize> {
    let mut pool = builder.build(origin);
    let change = |(index, weight): (usize, &u32)| Change::insert(index, index, *weight);
    pool.apply(weights.iter().enumerate().map(change));
    pool
}

fn alike(_: usize, _: Duration) -> (Duration, Outcome) {
    (ms(10), Outcome::Success)
}

#[test]
fn round_robin_takes_turns() {
    let origin = Instant::now();
    let pool = pool(
        origin,
        PoolBuilder::default().load(Choice::RoundRobin),
        &[1; 5],
    );
    let picker = pool.picker();
    let order: Vec<usize> = (0..10)
        .map(|_| *picker.pick(origin, 3, &[]).unwrap())
        .collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[test]
fn round_robin_follows_weights() {
    let origin = Instant::now();
    let pool = pool(
        origin,
        PoolBuilder::default().load(Choice::RoundRobin),
        &[1, 3],
    );
    let mut simulation = Simulation::new(origin, 2, 1);
    simulation.run(&pool.picker(), 1000.0, 20 * SECOND, &alike);
    assert!(
        (simulation.share(1) - 0.75).abs() < 0.02,
        "{}",
        simulation.share(1)
    );
}

#[test]
fn least_request_looks_at_requests_in_flight_alone() {
    let origin = Instant::now();
    let pool = pool(
        origin,
        PoolBuilder::default().load(Choice::LeastRequest),
        &[1; 2],
    );
    let picker = pool.picker();
    // The first is much faster, which does not matter.
    for (exclude, latency) in [(1, ms(1)), (0, ms(900))] {
        let exclude = pool.slot(&exclude).unwrap();
        let pick = picker.pick(origin, 1, &[exclude]).unwrap();
        pick.finish(origin + latency, Outcome::Success);
    }
    let held: Vec<_> = (0..20)
        .map(|random| picker.pick(origin + SECOND, random, &[]).unwrap())
        .collect();
    assert_eq!(held.iter().filter(|pick| ***pick == 0).count(), 10);
}

#[derive(Debug)]
struct Lowest;

impl Load<usize> for Lowest {
    fn load(&self, endpoint: &usize, seen: Seen) -> f32 {
        (*endpoint * 100) as f32 + seen.in_flight as f32
    }
}

#[test]
fn a_callers_own_measure_decides() {
    let origin = Instant::now();
    let mut pool = PoolBuilder::default().build_with_load(origin, Lowest);
    pool.apply([Change::insert(1, 1, 1), Change::insert(2, 2, 1)]);
    for random in 0..50 {
        assert_eq!(*pool.picker().pick(origin, random, &[]).unwrap(), 1);
    }
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let share = |slow_start: Duration, from: Duration| {
        let origin = Instant::now();
        let builder = PoolBuilder::default().slow_start(slow_start);
        let mut pool = pool(origin, builder, &[1; 9]);
        let mut simulation = Simulation::new(origin, 10, 1);
        simulation.run(&pool.picker(), 1000.0, 5 * SECOND, &alike);
        assert!(
            (simulation.share(0) - 0.11).abs() < 0.02,
            "the first need none"
        );
        pool.apply([Change::insert(9, 9, 1)]);
        simulation.run(&pool.picker(), 1000.0, from, &alike);
        simulation.recount();
        simulation.run(&pool.picker(), 1000.0, 3 * SECOND, &alike);
        simulation.share(9)
    };
    let (early, middle, late) = (ms(100), 15 * SECOND, 31 * SECOND);
    assert!(share(30 * SECOND, early) < 0.03);
    assert!((share(30 * SECOND, middle) - 0.05).abs() < 0.025);
    assert!((share(30 * SECOND, late) - 0.1).abs() < 0.02);
    assert!((share(Duration::ZERO, early) - 0.1).abs() < 0.02);
}

#[test]
fn four_slow_ones_of_ten_get_next_to_nothing() {
    let origin = Instant::now();
    let pool = pool(origin, PoolBuilder::default(), &[1; 10]);
    let mut simulation = Simulation::new(origin, 10, 1);
    let behaviour =
        |index: usize, _: Duration| (ms(if index < 4 { 50 } else { 5 }), Outcome::Success);
    simulation.run(&pool.picker(), 1000.0, 20 * SECOND, &behaviour);
    simulation.recount();
    simulation.run(&pool.picker(), 1000.0, 20 * SECOND, &behaviour);
    let slow: f64 = (0..4).map(|index| simulation.share(index)).sum();
    assert!(
        slow < 0.01,
        "two choices alone would send 0.13 there: {slow}"
    );
}
