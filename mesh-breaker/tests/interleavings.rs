//! Every interleaving of a few threads on one breaker: `scripts/check-interleavings`.
#![cfg(mesh_loom)]

use loom::sync::Arc;
use loom::thread;
use mesh_breaker::{
    ConsecutiveFailures, ExponentialBackoff, FailureKind, Outcome, Permit, SharedBreaker, State,
    SuccessRate, Transition,
};
use std::time::{Duration, Instant};

const FAILURE: Outcome = Outcome::Failure(FailureKind::Response);

fn breaker(max_failures: u32, origin: Instant) -> Arc<SharedBreaker> {
    let backoff = ExponentialBackoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0);
    let policy = ConsecutiveFailures::new(max_failures, backoff.unwrap()).unwrap();
    Arc::new(SharedBreaker::new(policy, origin))
}

/// An open breaker whose backoff is over, and the time.
fn due(origin: Instant) -> (Arc<SharedBreaker>, Instant) {
    let breaker = breaker(1, origin);
    let ticket = breaker.admit(origin).unwrap().ticket;
    breaker.record(ticket, FAILURE, origin, 0);
    (breaker, origin + Duration::from_secs(2))
}

#[test]
fn failures_at_once_open_it_once() {
    loom::model(|| {
        let origin = Instant::now();
        let breaker = breaker(2, origin);
        let fail = move |breaker: &SharedBreaker| {
            let ticket = breaker.admit(origin).ok()?.ticket;
            breaker.record(ticket, FAILURE, origin, 0)
        };
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || [fail(&breaker), fail(&breaker)])
        };
        let mut seen = vec![fail(&breaker)];
        seen.extend(other.join().unwrap());
        let opened = |seen: &&Option<Transition>| matches!(seen, Some(Transition::Opened { .. }));
        assert_eq!(seen.iter().filter(opened).count(), 1, "{seen:?}");
        assert_eq!(breaker.state(), State::Open);
    });
}

#[test]
fn a_success_between_failures_is_not_lost() {
    loom::model(|| {
        let origin = Instant::now();
        let breaker = breaker(3, origin);
        let [fails, succeeds, beside, last] =
            [(); 4].map(|()| breaker.admit(origin).unwrap().ticket);
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.record(beside, FAILURE, origin, 0))
        };
        breaker.record(fails, FAILURE, origin, 0);
        breaker.record(succeeds, Outcome::Success, origin, 0);
        other.join().unwrap();
        // The success came after the first failure: at most two of the three are in a row.
        breaker.record(last, FAILURE, origin, 0);
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn one_request_is_the_probe_and_its_place_is_not_lost() {
    loom::model(|| {
        let (breaker, now) = due(Instant::now());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let breaker = breaker.clone();
                // Dropped at once: cancelled.
                thread::spawn(move || {
                    Permit::acquire(&*breaker, now).map(|(permit, _)| assert!(permit.is_probe()))
                })
            })
            .collect();
        let admitted = others
            .into_iter()
            .map(|other| other.join().unwrap().is_ok())
            .filter(|admitted| *admitted)
            .count();
        assert!(admitted >= 1, "somebody is the probe");
        assert_eq!(breaker.state(), State::Open);
        let (probe, _) = Permit::acquire(&*breaker, now).expect("its place is free again");
        assert!(
            Permit::acquire(&*breaker, now).is_err(),
            "there is one probe"
        );
        probe.finish(Outcome::Success, now, 0);
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn an_old_outcome_does_not_decide_the_probe() {
    loom::model(|| {
        let origin = Instant::now();
        let breaker = breaker(1, origin);
        let [old, failing] = [(); 2].map(|()| breaker.admit(origin).unwrap().ticket);
        breaker.record(failing, FAILURE, origin, 0);
        let now = origin + Duration::from_secs(2);
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.record(old, FAILURE, now, 0))
        };
        let probe = breaker.admit(now).expect("the backoff is over").ticket;
        let closed = breaker.record(probe, Outcome::Success, now, 0);
        assert_eq!(closed, Some(Transition::Closed));
        assert_eq!(other.join().unwrap(), None);
        assert_eq!(breaker.state(), State::Closed);
    });
}

/// A request finds the answered probe due and closes the breaker, while the probe itself succeeds: what fails from then on counts.
#[test]
fn failures_after_it_closed_are_not_forgotten() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let origin = Instant::now();
        let backoff = ExponentialBackoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0);
        let rate = SuccessRate::new(0.5, Duration::from_secs(10), backoff.unwrap()).unwrap();
        let breaker = Arc::new(SharedBreaker::new(rate.min_requests(2), origin));
        for _ in 0..2 {
            let ticket = breaker.admit(origin).unwrap().ticket;
            breaker.record(ticket, FAILURE, origin, 0);
        }
        let mut now = origin + Duration::from_secs(2);
        let probe = breaker.admit(now).expect("the backoff is over").ticket;
        breaker.answering(&probe, now);
        now += Duration::from_secs(2);
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.record(probe, Outcome::Success, now, 0))
        };
        let fails = breaker.admit(now).expect("the probe succeeded").ticket;
        breaker.record(fails, FAILURE, now, 0);
        other.join().unwrap();
        let fails = breaker.admit(now).expect("one failure is too few").ticket;
        breaker.record(fails, FAILURE, now, 0);
        assert_eq!(breaker.state(), State::Open, "two of two have failed");
    });
}
