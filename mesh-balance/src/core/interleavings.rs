//! Every interleaving of a few threads on the counters and guards of an endpoint: `scripts/check-interleavings`.

use super::endpoint::{Common, Live};
use super::health::{EjectionLimits, Standing, Ward, follow};
use super::limit::{Limit, Refusal};
use super::load::{Moment, Waiting};
use super::zones::{Spill, Zones};
use super::{Change, PickError, Picker, Pool, RateLimits, SlotId};
use crate::sync::{AtomicU32, Ordering};
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

const FAILURE: Outcome = Outcome::Failure(FailureKind::Response);

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
            |(ward, one, _)| assert!(one.eject(ward) == one.is_ejected()),
            |(ward, _, two)| assert!(two.eject(ward) == two.is_ejected()),
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

/// An endpoint with a breaker that opens with the first failure.
struct Broken {
    ward: Ward,
    standing: Standing,
    cell: BreakerCell,
    settings: BreakerSettings,
    origin: Instant,
}

impl Broken {
    fn new() -> Self {
        let origin = Instant::now();
        let backoff = ExponentialBackoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0);
        let policy = ConsecutiveFailures::new(1, backoff.unwrap()).unwrap();
        Self {
            ward: ward(1),
            standing: Standing::default(),
            cell: BreakerCell::new(),
            settings: BreakerSettings::new(policy, origin),
            origin,
        }
    }

    /// A request at this second, if it is admitted.
    fn request(&self, second: u64, outcome: Outcome) {
        let now = self.origin + Duration::from_secs(second);
        let Ok(admitted) = self.cell.admit(&self.settings, now) else {
            return;
        };
        let follow = |transition| {
            follow(SLOT, transition, &self.cell, &self.standing, &self.ward);
        };
        admitted.transition.into_iter().for_each(follow);
        let recorded = self
            .cell
            .record(&self.settings, None, admitted.ticket, outcome, now, 0);
        recorded.into_iter().for_each(follow);
    }

    fn is_out_exactly_while_open(&self) {
        let out = self.standing.is_ejected();
        assert_eq!(out, self.cell.state() != State::Closed);
        assert_eq!(self.ward.ejected(), u32::from(out));
    }
}

#[test]
fn an_endpoint_is_out_exactly_while_its_breaker_is_open() {
    loom::model(|| {
        let shared = Arc::new(Broken::new());
        both(
            &shared,
            |broken| broken.request(0, FAILURE),
            |broken| broken.request(5, Outcome::Success),
        );
        shared.is_out_exactly_while_open();
    });
}

#[test]
fn an_endpoint_that_fails_again_when_it_has_just_come_back_is_out() {
    loom::model(|| {
        let broken = Broken::new();
        broken.request(0, FAILURE);
        let shared = Arc::new(broken);
        both(
            &shared,
            |broken| broken.request(5, FAILURE),
            |broken| broken.request(5, Outcome::Success),
        );
        shared.is_out_exactly_while_open();
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
        let refusal = Refusal {
            hint,
            ..Refusal::default()
        };
        limit.refuse(Moment::from_nanos(0), refusal, &settings);
        let shared = Arc::new((limit, AtomicU32::new(0)));
        let back = Moment::from_nanos(40_000_000_000);
        let request = move |(limit, went): &(Limit, AtomicU32)| {
            if limit.held(back).is_none() && limit.take(back) {
                went.fetch_add(1, Ordering::SeqCst);
            }
        };
        both(&shared, request, request);
        assert_eq!(shared.1.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn the_others_are_told_when_to_come_back() {
    loom::model(|| {
        let origin = Instant::now();
        let builder = Pool::<u8, u8>::builder().rate_limits(RateLimits::default());
        let mut pool = builder.build(origin);
        // The first is excluded below, and so likely to be drawn that the second is found by looking at all.
        pool.apply([Change::insert(0, 0, 1_000_000), Change::insert(1, 1, 1)]);
        let snapshot = pool.picker().snapshot();
        let mut stats = snapshot.stats(origin);
        let first = stats.find(|(key, _)| **key == 0).unwrap().1.slot;
        let refused = Outcome::RateLimited {
            retry_after: Some(Duration::from_secs(30)),
        };
        let pick = pool.picker().pick(origin, 0, &[first]).unwrap();
        pick.finish(origin, refused);
        let shared = Arc::new((pool.picker(), AtomicU32::new(0)));
        let back = origin + Duration::from_secs(40);
        let request = move |(picker, went): &(Picker<u8>, AtomicU32)| {
            match picker.pick(back, 0, &[first]) {
                Ok(pick) => {
                    went.fetch_add(1, Ordering::SeqCst);
                    // Neither served nor refused: the others still wait.
                    drop(pick);
                }
                Err(error) => assert!(matches!(error, PickError::Limited { .. }), "{error:?}"),
            }
        };
        both(&shared, request, request);
        assert_eq!(shared.1.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_request_ends_once_whether_it_is_answered_or_given_up() {
    loom::model(|| {
        let origin = Instant::now();
        let mut pool = Pool::new(origin);
        pool.apply([Change::insert("the only one", (), 1)]);
        let given_up = move |picker: &Picker<()>| {
            let mut pick = picker.pick(origin, 0, &[]).unwrap();
            pick.responded(origin);
        };
        let answered = move |picker: &Picker<()>| {
            let pick = picker.pick(origin, 0, &[]).unwrap();
            pick.finish(origin, Outcome::Success);
        };
        both(&Arc::new(pool.picker()), given_up, answered);
        let snapshot = pool.picker().snapshot();
        let mut stats = snapshot.stats(origin);
        assert_eq!(stats.next().map(|(_, stats)| stats.in_flight), Some(0));
    });
}

#[test]
fn an_answer_is_not_seen_as_an_end() {
    loom::model(|| {
        let common = std::sync::Arc::new(Common::for_tests());
        let live = Arc::new(Live::new(common, SLOT, true));
        let (began, now) = (Moment::from_nanos(1), Moment::from_nanos(2));
        live.begin(began);
        both(
            &live,
            move |live| {
                live.respond(began, now);
            },
            |live| assert!((1..=2).contains(&live.in_flight())),
        );
        assert_eq!(live.in_flight(), 1);
    });
}

#[test]
fn one_of_them_looks_at_the_load_of_the_zones() {
    loom::model(|| {
        let shared = Arc::new((Spill::new(Zones::new("here")), AtomicU32::new(0)));
        let look = |(spill, looked): &(Spill, AtomicU32)| {
            if spill.is_due(Moment::from_nanos(1)) {
                looked.fetch_add(1, Ordering::SeqCst);
            }
        };
        both(&shared, look, look);
        assert_eq!(shared.1.load(Ordering::SeqCst), 1);
        // Sooner than planned, as an endpoint is out.
        shared.0.hurry();
        both(&shared, look, look);
        assert_eq!(shared.1.load(Ordering::SeqCst), 2);
    });
}
