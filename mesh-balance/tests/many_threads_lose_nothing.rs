//! Threads pick and finish while the set changes and breakers open and close: every count returns to where it began.
//!
//! A stress test with invariants that can be checked afterwards, in place of a model checker.
#![allow(clippy::unwrap_used, reason = "tests")]

use mesh_balance::core::{Change, FailureKind, Outcome, PickError, Pool, State, Transition};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct Seen {
    under_way: AtomicI64,
    picked: AtomicU64,
}

#[test]
fn every_pick_is_given_back() {
    let origin = Instant::now();
    let millisecond = Duration::from_millis(1);
    let backoff = ExponentialBackoff::new(8 * millisecond, 64 * millisecond, 0.5).unwrap();
    let changes = Arc::new(AtomicI64::new(0));
    let counted = changes.clone();
    let mut pool = Pool::<u32, Arc<Seen>>::builder()
        .breaker(ConsecutiveFailures::new(2, backoff).unwrap())
        .on_event(move |event| match event.transition {
            Transition::Opened { .. } => drop(counted.fetch_add(1, Ordering::SeqCst)),
            Transition::Closed => drop(counted.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        })
        .build(origin);
    let endpoints: Vec<Arc<Seen>> = (0..12).map(|_| Arc::default()).collect();
    let insert = |key: u32| Change::insert(key, endpoints[key as usize].clone(), 1 + key % 3);
    pool.apply((0..12).map(insert));

    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let picker = pool.picker();
            scope.spawn(move || {
                let mut reader = picker.reader();
                for round in 0..80_000_u64 {
                    let now = origin + Duration::from_micros(round * 20);
                    let random = (round << 2 | thread).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let pick = if round % 2 == 0 {
                        picker.pick(now, random, &[])
                    } else {
                        reader.pick(now, random, &[])
                    };
                    let pick = match pick {
                        Ok(pick) => pick,
                        Err(error) => panic!("{error}: eight endpoints always remain"),
                    };
                    let seen = pick.endpoint().clone();
                    seen.picked.fetch_add(1, Ordering::Relaxed);
                    assert!(seen.under_way.fetch_add(1, Ordering::SeqCst) >= 0);
                    seen.under_way.fetch_sub(1, Ordering::SeqCst);
                    match random >> 40 & 7 {
                        0..=2 => drop(
                            pick.finish(now + millisecond, Outcome::Failure(FailureKind::Response)),
                        ),
                        3 => drop(pick),
                        _ => drop(pick.finish(now + millisecond, Outcome::Success)),
                    }
                }
            });
        }
        for round in 0..4_000_u32 {
            let key = round % 4;
            pool.apply([if round / 4 % 2 == 0 {
                Change::remove(key)
            } else {
                insert(key)
            }]);
        }
    });

    assert_eq!(pool.len(), 12);
    let end = origin + Duration::from_secs(60);
    let snapshot = pool.picker().snapshot();
    let stats: Vec<_> = snapshot.stats(end).map(|(_, stats)| stats).collect();
    assert!(stats.iter().all(|stats| stats.in_flight == 0), "{stats:#?}");
    // A load without anything in flight is the estimate alone: no age is left over.
    assert!(stats.iter().all(|stats| {
        stats
            .rtt
            .is_none_or(|rtt| (stats.load - rtt.as_secs_f64()).abs() < 1e-6)
    }));
    let ejected = stats.iter().filter(|stats| stats.ejected).count();
    assert_eq!(
        ejected,
        snapshot.ejected() as usize,
        "the places of the ejected add up"
    );
    assert!(
        stats
            .iter()
            .all(|stats| !stats.ejected || stats.breaker == State::Open),
        "no probe's place is lost"
    );
    assert!(
        endpoints
            .iter()
            .all(|seen| seen.picked.load(Ordering::Relaxed) > 0)
    );
    assert!(
        changes.load(Ordering::SeqCst) >= ejected as i64,
        "breakers have opened and closed"
    );

    // Whoever was out comes back by its probe.
    let picker = pool.picker();
    for random in 0..2_000_u64 {
        match picker.pick(end, random.wrapping_mul(0x9e37_79b9_7f4a_7c15), &[]) {
            Ok(pick) => drop(pick.finish(end, Outcome::Success)),
            Err(error) => assert_ne!(error, PickError::Empty),
        }
    }
    assert_eq!(picker.snapshot().ejected(), 0);
}
