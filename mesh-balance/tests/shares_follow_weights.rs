//! At equal latency each endpoint's share of the requests is its share of the weights, within 2%, however busy they are.

mod simulation;

use mesh_balance::core::{Change, Outcome, Pool};
use proptest::prelude::*;
use simulation::{Simulation, ms};
use std::time::{Duration, Instant};

fn worst_difference(weights: &[u32], busy: f64, seed: u64) -> f64 {
    let origin = Instant::now();
    let mut pool = Pool::new(origin);
    pool.apply(
        weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Change::insert(index, index, *weight)),
    );
    let mut simulation = Simulation::new(origin, weights.len(), seed);
    // Mean requests in flight over all endpoints = rate x latency.
    let rate = busy / 0.01;
    let steady = Duration::from_secs_f64(40_000.0 / rate);
    let behaviour = |_: usize, _: Duration| (ms(10), Outcome::Success);
    simulation.run(&pool.picker(), rate, steady / 20, &behaviour);
    simulation.recount();
    simulation.run(&pool.picker(), rate, steady, &behaviour);
    let total: u32 = weights.iter().sum();
    let difference = |index: usize| {
        (simulation.share(index) - f64::from(weights[index]) / f64::from(total)).abs()
    };
    (0..weights.len()).map(difference).fold(0.0, f64::max)
}

#[test]
fn of_few_and_of_many_idle_and_busy() {
    for weights in [
        &[1, 1][..],
        &[3, 1],
        &[9, 1],
        &[1, 2, 3, 4],
        &[10_000, 1],
        &[7; 10],
        &[1, 1, 1, 1, 6],
    ] {
        for busy in [0.1, 1.0, 3.0, 10.0, 100.0] {
            let worst = worst_difference(weights, busy, 7);
            println!("{weights:?} with {busy} in flight: {worst:.4}");
            assert!(
                worst < 0.02,
                "{weights:?} with {busy} in flight: {worst:.4}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn of_any_set(weights in proptest::collection::vec(1..50_u32, 2..12), busy in 0.1..60.0_f64, seed: u64) {
        let worst = worst_difference(&weights, busy, seed);
        prop_assert!(worst < 0.02, "{:.4}", worst);
    }
}
