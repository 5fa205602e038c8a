//! Never an excluded, absent or ejected endpoint while another is available; and state follows the key, not the place.
#![allow(clippy::unwrap_used, reason = "tests")]

use mesh_balance::core::{
    Change, EjectionLimits, Event, FailureKind, Outcome, PickError, Picker, Pool, SlotId, State,
    Transition,
};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FAILURE: Outcome = Outcome::Failure(FailureKind::Response);

/// One failure opens a breaker for ten seconds.
fn touchy() -> ConsecutiveFailures {
    let wait = Duration::from_secs(10);
    ConsecutiveFailures::new(1, ExponentialBackoff::new(wait, wait, 0.0).unwrap()).unwrap()
}

fn pool(origin: Instant, endpoints: u32, limits: EjectionLimits) -> Pool<u32, u32> {
    let mut pool = Pool::<u32, u32>::builder()
        .breaker(touchy())
        .ejection(limits)
        .build(origin);
    pool.apply((0..endpoints).map(|index| Change::insert(index, index, 1)));
    pool
}

fn unlimited() -> EjectionLimits {
    EjectionLimits::default().max_ejected_percent(100)
}

/// Fails one request to the endpoint, unless it is out of use.
fn fail(pool: &Pool<u32, u32>, key: u32, now: Instant) {
    let picker = pool.picker();
    let others: Vec<SlotId> = picker
        .snapshot()
        .stats(now)
        .filter(|(other, _)| **other != key)
        .map(|(_, stats)| stats.slot)
        .collect();
    if let Ok(pick) = picker.pick(now, 1, &others) {
        pick.finish(now, FAILURE);
    }
}

fn picked(picker: &Picker<u32>, now: Instant) -> Vec<u32> {
    let mut keys: Vec<u32> = (0..400)
        .map(|random| *picker.pick(now, random, &[]).unwrap())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[test]
fn an_empty_set_says_so() {
    let origin = Instant::now();
    let mut pool = Pool::<u32, u32>::new(origin);
    assert_eq!(
        pool.picker().pick(origin, 0, &[]).unwrap_err(),
        PickError::Empty
    );
    pool.apply([Change::insert(1, 1, 0)]);
    assert_eq!(
        pool.picker().pick(origin, 0, &[]).unwrap_err(),
        PickError::Empty,
        "weight 0 takes no traffic"
    );
    pool.apply([Change::insert(1, 1, 5)]);
    assert!(pool.picker().pick(origin, 0, &[]).is_ok());
}

proptest! {
    #[test]
    fn the_excluded_are_never_picked(weights in proptest::collection::vec(1..100_u32, 1..8), excluded: u8, seed: u64) {
        let origin = Instant::now();
        let mut pool = Pool::new(origin);
        pool.apply(weights.iter().enumerate().map(|(index, weight)| Change::insert(index, index, *weight)));
        let exclude: Vec<SlotId> =
            (0..weights.len()).filter(|index| excluded >> index & 1 == 1).filter_map(|index| pool.slot(&index)).collect();
        for random in 0..32 {
            match pool.picker().pick(origin, seed.wrapping_add(random), &exclude) {
                Ok(pick) => prop_assert!(!exclude.contains(&pick.slot())),
                Err(error) => {
                    prop_assert_eq!(error, PickError::Exhausted);
                    prop_assert_eq!(exclude.len(), weights.len());
                }
            }
        }
    }

    /// Any history of changes, failures and time: the snapshot's own statistics say what may be picked.
    #[test]
    fn the_ejected_are_never_picked_while_another_is_available(
        steps in proptest::collection::vec((0..6_u32, 0..4_u8), 1..60),
        percent in 0..=100_u8,
        min_ready in 0..4_u32,
        seed: u64,
    ) {
        let origin = Instant::now();
        let limits = EjectionLimits::default().max_ejected_percent(percent).min_ready_endpoints(min_ready);
        let mut pool = pool(origin, 3, limits);
        let mut now = origin;
        for (key, step) in steps {
            match step {
                0 => pool.apply([Change::insert(key, key, 1)]),
                1 => pool.apply([Change::remove(key)]),
                2 if pool.slot(&key).is_some() => fail(&pool, key, now),
                _ => now += Duration::from_secs(1),
            }
            let snapshot = pool.picker().snapshot();
            let stats: Vec<_> = snapshot.stats(now).map(|(key, stats)| (*key, stats)).collect();
            let ejected = stats.iter().filter(|(_, stats)| stats.ejected).count() as u32;
            prop_assert_eq!(ejected, snapshot.ejected(), "places are neither lost nor made");
            let len = stats.len() as u32;
            let ready = len - ejected;
            let enough = ready >= min_ready.min(len).max(1) && ejected * 100 <= len * u32::from(percent);
            match pool.picker().pick(now, seed, &[]) {
                Err(error) => {
                    prop_assert_eq!(error, PickError::Empty);
                    prop_assert!(stats.is_empty());
                }
                Ok(pick) => {
                    let (_, stats) = stats.iter().find(|(key, _)| key == pick.endpoint()).unwrap();
                    prop_assert!(!stats.ejected || !enough || pick.is_probe());
                }
            }
        }
    }
}

#[test]
fn an_ejected_endpoint_is_skipped_until_its_one_probe_succeeds() {
    let origin = Instant::now();
    let pool = pool(origin, 4, EjectionLimits::default());
    let picker = pool.picker();
    let latency = Duration::from_millis(30);
    for random in 0..100 {
        let pick = picker.pick(origin, random, &[]).unwrap();
        pick.finish(origin + latency, Outcome::Success);
    }
    fail(&pool, 2, origin);
    assert_eq!(picked(&picker, origin), [0, 1, 3]);
    let due = origin + Duration::from_secs(11);
    let picks: Vec<_> = (0..400)
        .map(|random| picker.pick(due, random, &[]).unwrap())
        .collect();
    let there: Vec<_> = picks.into_iter().filter(|pick| **pick == 2).collect();
    assert_eq!(there.len(), 1, "exactly one request goes there");
    for probe in there {
        assert!(probe.is_probe());
        assert_eq!(
            probe.finish(due + latency, Outcome::Success),
            Some(Transition::Closed)
        );
    }
    assert_eq!(picked(&picker, due), [0, 1, 2, 3]);
}

#[test]
fn no_more_than_the_limits_allow_are_ejected() {
    let origin = Instant::now();
    let ejected_of = |endpoints, limits| {
        let pool = pool(origin, endpoints, limits);
        for key in 0..endpoints {
            fail(&pool, key, origin);
        }
        let snapshot = pool.picker().snapshot();
        assert!(
            snapshot
                .stats(origin)
                .all(|(_, stats)| stats.breaker == State::Open)
        );
        snapshot.ejected()
    };
    assert_eq!(
        ejected_of(1, EjectionLimits::default()),
        0,
        "a set of one is never wholly ejected"
    );
    assert_eq!(ejected_of(1, unlimited()), 0);
    assert_eq!(
        ejected_of(1, unlimited().eject_last(true)),
        1,
        "unless told so"
    );
    assert_eq!(ejected_of(10, EjectionLimits::default()), 5);
    assert_eq!(ejected_of(10, unlimited()), 9);
    assert_eq!(ejected_of(10, unlimited().min_ready_endpoints(8)), 2);
}

#[test]
fn all_are_used_when_too_few_remain() {
    let origin = Instant::now();
    let mut pool = pool(origin, 6, unlimited().min_ready_endpoints(2));
    for key in 0..4 {
        fail(&pool, key, origin);
    }
    assert_eq!(picked(&pool.picker(), origin), [4, 5]);
    pool.apply([Change::remove(5)]);
    assert_eq!(picked(&pool.picker(), origin), [0, 1, 2, 3, 4]);
}

#[test]
fn wholly_ejected_only_when_told_so() {
    let origin = Instant::now();
    let pool = pool(origin, 1, unlimited().eject_last(true));
    fail(&pool, 0, origin);
    assert_eq!(
        pool.picker().pick(origin, 0, &[]).unwrap_err(),
        PickError::Exhausted
    );
    assert!(
        pool.picker()
            .pick(origin + Duration::from_secs(11), 0, &[])
            .unwrap()
            .is_probe()
    );
}

#[test]
fn what_is_known_survives_an_update_of_the_same_key() {
    let origin = Instant::now();
    let mut pool = Pool::<&str, &str>::builder()
        .breaker(touchy())
        .build(origin);
    pool.apply([Change::insert("a", "old", 1), Change::insert("b", "b", 1)]);
    let (slot, picker) = (pool.slot(&"a").unwrap(), pool.picker());
    let exclude = [pool.slot(&"b").unwrap()];
    let under_way = picker.pick(origin, 0, &exclude).unwrap();
    picker
        .pick(origin, 0, &exclude)
        .unwrap()
        .finish(origin + Duration::from_millis(7), FAILURE);
    pool.reset([("a", "new", 3), ("b", "b", 1)]);
    assert_eq!(
        (pool.slot(&"a"), under_way.endpoint()),
        (Some(slot), &"old")
    );
    let snapshot = picker.snapshot();
    let (value, stats) = snapshot
        .stats(origin)
        .find(|(_, stats)| stats.slot == slot)
        .unwrap();
    assert_eq!(
        (*value, stats.weight, stats.in_flight, stats.ejected),
        ("new", 3, 1, true)
    );
    assert_eq!(
        stats.rtt,
        Some(Duration::from_millis(30)),
        "a fast failure keeps the default"
    );
    under_way.finish(origin, Outcome::Success);
    assert_eq!(
        picker
            .snapshot()
            .stats(origin)
            .map(|(_, stats)| stats.in_flight)
            .sum::<u32>(),
        0
    );
}

#[test]
fn a_late_outcome_does_not_touch_the_new_occupant() {
    let origin = Instant::now();
    let events = Arc::new(Mutex::new(Vec::<Event>::new()));
    let seen = events.clone();
    let mut pool = Pool::<u32, u32>::builder()
        .breaker(touchy())
        .ejection(unlimited().eject_last(true))
        .on_event(move |event| seen.lock().unwrap().push(event))
        .build(origin);
    pool.apply([Change::insert(1, 1, 1)]);
    let old = pool.picker().pick(origin, 0, &[]).unwrap();
    pool.apply([Change::remove(1), Change::insert(2, 2, 1)]);
    let new = pool.slot(&2).unwrap();
    assert_eq!(
        (new.index, new.generation),
        (old.slot().index, old.slot().generation + 1)
    );
    old.finish(origin + Duration::from_secs(5), FAILURE);
    let snapshot = pool.picker().snapshot();
    let (_, stats) = snapshot.stats(origin).next().unwrap();
    assert_eq!(
        (stats.in_flight, stats.rtt, stats.breaker, stats.ejected),
        (0, None, State::Closed, false)
    );
    assert_eq!((snapshot.ejected(), events.lock().unwrap().len()), (0, 0));
}
