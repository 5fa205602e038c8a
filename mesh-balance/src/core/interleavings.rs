//! Every interleaving of a few threads on the counters and guards of an endpoint: `scripts/check-interleavings`.

use super::health::{EjectionLimits, Standing, Ward, follow};
use super::limit::Limit;
use super::load::{Moment, Waiting};
use super::{RateLimits, SlotId};
use loom::sync::Arc;
use loom::thread;
use mesh_breaker::{
    BreakerCell, BreakerSettings, ConsecutiveFailures, ExponentialBackoff, FailureKind, Outcome,
    State,
};
use std::time::{Duration, Instant};

const SLOT: SlotId = SlotId {
    index: 0,
    generation: 0,
};

fn ward(max_ejected: u32) -> Ward {
    let ward = Ward::new(EjectionLimits::default(), None);
    ward.resize(max_ejected);
    ward
}

/// Runs both at the same time.
fn both<T: Send + Sync + 'static>(
    shared: &Arc<T>,
    one: impl FnOnce(&T) + Send + 'static,
    other: impl FnOnce(&T),
) {
    let theirs = shared.clone();
    let thread = thread::spawn(move || one(&theirs));
    other(shared);
    thread.join().unwrap();
}

#[test]
fn no_more_are_out_than_may_be() {
    loom::model(|| {
        let shared = Arc::new((ward(1), Standing::default(), Standing::default()));
        both(
            &shared,
            |(ward, one, _)| drop(one.eject(ward)),
            |(ward, _, two)| drop(two.eject(ward)),
        );
        let (ward, one, two) = &*shared;
        let out = u32::from(one.is_ejected()) + u32::from(two.is_ejected());
        assert_eq!((out, ward.ejected()), (1, 1));
    });
}

#[test]
fn a_place_is_given_back_once() {
    loom::model(|| {
        let shared = Arc::new((ward(2), Standing::default()));
        shared.1.eject(&shared.0);
        both(
            &shared,
            |(ward, standing)| standing.readmit(ward),
            |(ward, standing)| {
                standing.begin_stream();
                standing.retire(ward);
                standing.end_stream();
            },
        );
        let (ward, standing) = &*shared;
        assert_eq!(ward.ejected(), 0);
        assert!(standing.is_retired() && standing.streaming() == 0);
    });
}

#[test]
fn an_endpoint_is_out_exactly_while_its_breaker_is_open() {
    loom::model(|| {
        let origin = Instant::now();
        let backoff = ExponentialBackoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0);
        let policy = ConsecutiveFailures::new(1, backoff.unwrap()).unwrap();
        let settings = BreakerSettings::new(policy, origin);
        let shared = Arc::new((ward(1), Standing::default(), BreakerCell::new(), settings));
        let request = |at: u64, outcome: Outcome| {
            move |(ward, standing, cell, settings): &(
                Ward,
                Standing,
                BreakerCell,
                BreakerSettings,
            )| {
                let now = origin + Duration::from_secs(at);
                let Ok(admitted) = cell.admit(settings, now) else {
                    return;
                };
                if let Some(transition) = admitted.transition {
                    follow(SLOT, transition, cell, standing, ward);
                }
                let recorded = cell.record(settings, None, admitted.ticket, outcome, now, 0);
                if let Some(transition) = recorded {
                    follow(SLOT, transition, cell, standing, ward);
                }
            }
        };
        both(
            &shared,
            request(0, Outcome::Failure(FailureKind::Response)),
            request(5, Outcome::Success),
        );
        let (ward, standing, cell, _) = &*shared;
        assert_eq!(standing.is_ejected(), cell.state() != State::Closed);
        assert_eq!(ward.ejected(), u32::from(standing.is_ejected()));
    });
}

#[test]
fn requests_in_flight_add_up() {
    loom::model(|| {
        let shared = Arc::new(Waiting::default());
        let request = |at: u64| {
            move |waiting: &Waiting| {
                waiting.begin(Moment::from_nanos(at));
                assert!((1..=2).contains(&waiting.count()));
                waiting.end(Moment::from_nanos(at));
            }
        };
        both(&shared, request(1_000_000), request(9_000_000_000));
        let (count, excess) = shared.count_and_excess(Moment::from_nanos(u64::MAX / 4), 0.0);
        assert_eq!((count, excess), (0, 0.0));
    });
}

#[test]
fn one_request_goes_first_after_a_long_hold() {
    loom::model(|| {
        let limit = Limit::new(None);
        let settings = RateLimits::default();
        let hint = Some(Duration::from_secs(30));
        limit.refuse(Moment::from_nanos(0), hint, &settings, 0);
        let shared = Arc::new((limit, loom::sync::atomic::AtomicU32::new(0)));
        let back = Moment::from_nanos(40_000_000_000);
        let request = move |(limit, went): &(Limit, loom::sync::atomic::AtomicU32)| {
            if limit.held(back).is_none() && limit.take(back) {
                went.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
            }
        };
        both(&shared, request, request);
        assert_eq!(shared.1.load(loom::sync::atomic::Ordering::SeqCst), 1);
    });
}
