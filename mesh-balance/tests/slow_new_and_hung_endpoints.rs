//! What the load estimate must not get wrong, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod simulation;

use mesh_balance::core::{Change, FailureKind, Outcome, Pick, Pool};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};
use simulation::{Random, Simulation, ms};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn pool(origin: Instant, endpoints: usize) -> Pool<usize, usize> {
    let mut pool = Pool::new(origin);
    pool.apply((0..endpoints).map(|index| Change::insert(index, index, 1)));
    pool
}

fn all_alike(_: usize, _: Duration) -> (Duration, Outcome) {
    (ms(5), Outcome::Success)
}

#[test]
fn a_slow_endpoint_gets_little() {
    let origin = Instant::now();
    let pool = pool(origin, 10);
    let mut simulation = Simulation::new(origin, 10, 1);
    let behaviour =
        |index: usize, _: Duration| (ms(if index == 3 { 100 } else { 5 }), Outcome::Success);
    simulation.run(&pool.picker(), 1000.0, 20 * SECOND, &behaviour);
    assert!(simulation.share(3) < 0.005, "{}", simulation.share(3));
}

#[test]
fn a_slow_endpoint_that_recovers_has_its_share_again() {
    let origin = Instant::now();
    let pool = pool(origin, 10);
    let mut simulation = Simulation::new(origin, 10, 1);
    let behaviour = move |index: usize, at: Duration| {
        let slow = index == 3 && at < 10 * SECOND;
        (ms(if slow { 200 } else { 5 }), Outcome::Success)
    };
    simulation.run(&pool.picker(), 1000.0, 60 * SECOND, &behaviour);
    simulation.recount();
    simulation.run(&pool.picker(), 1000.0, 10 * SECOND, &behaviour);
    assert!(
        (simulation.share(3) - 0.1).abs() < 0.02,
        "{}",
        simulation.share(3)
    );
}

#[test]
fn a_hung_endpoint_is_left_while_it_hangs() {
    let origin = Instant::now();
    let pool = pool(origin, 3);
    let mut simulation = Simulation::new(origin, 3, 1);
    let hour = 3600 * SECOND;
    // From the tenth second on, nothing that the first endpoint is sent comes back.
    let behaviour = move |index: usize, at: Duration| {
        let hangs = index == 0 && at >= 10 * SECOND;
        (if hangs { hour } else { ms(5) }, Outcome::Success)
    };
    simulation.run(&pool.picker(), 300.0, 10 * SECOND, &behaviour);
    let before = simulation.received[0];
    simulation.run(&pool.picker(), 300.0, 60 * SECOND, &behaviour);
    let stuck = simulation.received[0] - before;
    assert!(
        stuck <= 5,
        "{stuck} of 18000 requests went to an endpoint that answers nothing"
    );
}

#[test]
fn a_fast_failure_draws_no_traffic() {
    let origin = Instant::now();
    let pool = pool(origin, 4);
    let mut simulation = Simulation::new(origin, 4, 1);
    let behaviour = |index: usize, _: Duration| match index {
        0 => (
            Duration::from_micros(100),
            Outcome::Failure(FailureKind::Connect),
        ),
        _ => (ms(40), Outcome::Success),
    };
    simulation.run(&pool.picker(), 50.0, 200 * SECOND, &behaviour);
    // Its estimate stays at the default of 30 ms: below the others', but no hundredth of it.
    let shown: Vec<_> = pool
        .picker()
        .snapshot()
        .stats(origin + simulation.now)
        .map(|(_, stats)| stats.rtt)
        .collect();
    assert_eq!(shown[0], Some(ms(30)));
    let known_first = |index: usize, at: Duration| match index {
        0 if at >= 210 * SECOND => (
            Duration::from_micros(100),
            Outcome::Failure(FailureKind::Response),
        ),
        _ => (ms(40), Outcome::Success),
    };
    simulation.run(&pool.picker(), 50.0, 10 * SECOND, &known_first);
    simulation.recount();
    simulation.run(&pool.picker(), 50.0, 100 * SECOND, &known_first);
    assert!(
        simulation.share(0) < 0.45,
        "no more than fewer requests in flight explain: {}",
        simulation.share(0)
    );
}

#[test]
fn a_new_endpoint_is_tried_soon_and_one_request_at_a_time() {
    for latency in [ms(1), ms(40), 5 * SECOND] {
        let origin = Instant::now();
        let mut pool = pool(origin, 9);
        let mut simulation = Simulation::new(origin, 10, 1);
        simulation.run(&pool.picker(), 1000.0, 5 * SECOND, &all_alike);
        pool.apply([Change::insert(9, 9, 1)]);
        let joined = simulation.now;
        let behaviour = move |index: usize, _: Duration| {
            (if index == 9 { latency } else { ms(5) }, Outcome::Success)
        };
        simulation.run(&pool.picker(), 1000.0, ms(50), &behaviour);
        assert!(simulation.received[9] >= 1, "not tried within 50 requests");
        let until_known = latency
            .saturating_sub(simulation.now - joined)
            .saturating_sub(ms(1));
        simulation.run(&pool.picker(), 1000.0, until_known, &behaviour);
        assert_eq!(
            simulation.most_in_flight[9].max(1),
            simulation.most_in_flight[9]
        );
        if latency > ms(50) {
            assert_eq!(
                simulation.received[9], 1,
                "a second request before the first was answered"
            );
        }
    }
}

#[test]
fn a_new_endpoint_like_the_others_has_its_share_soon() {
    let origin = Instant::now();
    let mut pool = pool(origin, 9);
    let mut simulation = Simulation::new(origin, 10, 1);
    simulation.run(&pool.picker(), 1000.0, 5 * SECOND, &all_alike);
    pool.apply([Change::insert(9, 9, 1)]);
    simulation.run(&pool.picker(), 1000.0, SECOND, &all_alike);
    simulation.recount();
    simulation.run(&pool.picker(), 1000.0, 10 * SECOND, &all_alike);
    assert!(
        (simulation.share(9) - 0.1).abs() < 0.02,
        "{}",
        simulation.share(9)
    );
}

#[test]
fn a_whole_set_of_new_endpoints_is_used_evenly() {
    let origin = Instant::now();
    let pool = pool(origin, 10);
    let mut simulation = Simulation::new(origin, 10, 1);
    // Nothing is answered, so nothing gets known.
    simulation.run(&pool.picker(), 1000.0, SECOND, &|_, _| {
        (3600 * SECOND, Outcome::Success)
    });
    for index in 0..10 {
        assert!(
            (simulation.share(index) - 0.1).abs() < 0.03,
            "{:?}",
            simulation.received
        );
    }
}

#[test]
fn a_stream_counts_while_it_lives_but_not_as_latency() {
    let origin = Instant::now();
    let pool = pool(origin, 1);
    let picker = pool.picker();
    let mut stream = picker.pick(origin, 1, &[]).unwrap();
    stream.responded(origin + ms(20));
    stream.responded(origin + ms(900));
    let later = origin + 600 * SECOND;
    let stats = |at| picker.snapshot().stats(at).next().unwrap().1;
    assert_eq!(
        (stats(later).in_flight, stats(later).rtt),
        (1, Some(ms(20)))
    );
    assert!(
        stats(later).load < 0.05,
        "it has been answered, so its age does not count"
    );
    stream.finish(later, Outcome::Success);
    assert_eq!(
        (stats(later).in_flight, stats(later).rtt),
        (0, Some(ms(20)))
    );
}

#[test]
fn an_endpoint_whose_probe_is_a_long_stream_is_used_again() {
    let origin = Instant::now();
    let second = Duration::from_secs(1);
    let backoff = ExponentialBackoff::new(second, second, 0.0).unwrap();
    let mut pool = Pool::<usize, usize>::builder()
        .breaker(ConsecutiveFailures::new(1, backoff).unwrap())
        .build(origin);
    pool.reset((0..2).map(|index| (index, index, 1)));
    let picker = pool.picker();
    let mut random = Random(1);
    let failing = picker.pick(origin, 0, &[]).unwrap();
    let broken = failing.slot();
    failing.finish(origin, Outcome::Failure(FailureKind::Connect));
    assert_eq!(picker.snapshot().ejected(), 1);
    let due = origin + second;
    let mut probe = (0..100)
        .map(|_| picker.pick(due, random.word(), &[]).unwrap())
        .find(Pick::is_probe)
        .unwrap();
    probe.responded(due);
    probe.answering(due);
    let goes_there = |at, random: &mut Random| {
        (0..100).any(|_| {
            let pick = picker.pick(at, random.word(), &[]).unwrap();
            let there = pick.slot() == broken;
            pick.finish(at, Outcome::Success);
            there
        })
    };
    assert!(!goes_there(due + ms(900), &mut random), "it may yet fail");
    assert!(goes_there(due + second, &mut random));
    assert_eq!(picker.snapshot().ejected(), 0);
    drop(probe);
}

#[test]
fn a_request_that_is_cancelled_shows_how_long_it_hung() {
    let origin = Instant::now();
    let pool = pool(origin, 1);
    let picker = pool.picker();
    let rtt = || picker.snapshot().stats(origin).next().unwrap().1.rtt;
    picker
        .pick(origin, 1, &[])
        .unwrap()
        .finish(origin + ms(10), Outcome::Success);
    picker
        .pick(origin, 1, &[])
        .unwrap()
        .finish(origin + ms(2), Outcome::Cancelled);
    assert_eq!(rtt(), Some(ms(10)), "a short one says nothing");
    drop(picker.pick(origin, 1, &[]).unwrap());
    assert_eq!(rtt(), Some(ms(10)), "nor does one without a time");
    picker
        .pick(origin, 1, &[])
        .unwrap()
        .finish(origin + ms(5000), Outcome::Cancelled);
    assert_eq!(rtt(), Some(ms(5000)));
}
