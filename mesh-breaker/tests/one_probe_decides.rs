//! The promises of a half-open breaker, the shared breaker against the plain one and both against a simple model, and many
//! threads at once.
#![allow(clippy::unwrap_used, reason = "tests")]

use mesh_breaker::{
    Breaker, ConsecutiveFailures, ExponentialBackoff, FailureKind, Outcome, Permit, Refused,
    SharedBreaker, State, SuccessRate, Ticket, Transition, Unified,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FAILURE: Outcome = Outcome::Failure(FailureKind::Response);
const LIMITED: Outcome = Outcome::RateLimited { retry_after: None };

fn policy(max_failures: u32) -> ConsecutiveFailures {
    let backoff =
        ExponentialBackoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.5).unwrap();
    ConsecutiveFailures::new(max_failures, backoff).unwrap()
}

/// Open from `now` on for a second.
fn open(max_failures: u32, now: Instant) -> Breaker {
    let mut breaker = Breaker::new(policy(max_failures), now);
    for _ in 0..max_failures {
        let ticket = breaker.admit(now).unwrap().ticket;
        breaker.record(ticket, FAILURE, now, 0);
    }
    assert_eq!(breaker.state(), State::Open);
    breaker
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn failures_count_only_in_a_row() {
    let now = Instant::now();
    for (between, opens) in [
        (Outcome::Success, false),
        (LIMITED, false),
        (Outcome::Cancelled, true),
    ] {
        let mut breaker = Breaker::new(policy(7), now);
        let mut transitions = Vec::new();
        for outcome in [
            FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, between, FAILURE,
        ] {
            let ticket = breaker.admit(now).unwrap().ticket;
            transitions.extend(breaker.record(ticket, outcome, now, 0));
        }
        let expected = opens.then_some(Transition::Opened {
            until: after(now, 1),
        });
        assert_eq!(transitions, Vec::from_iter(expected), "{between:?}");
    }
}

#[test]
fn one_probe_is_admitted_after_the_backoff() {
    let start = Instant::now();
    let mut breaker = open(7, start);
    let early = start + Duration::from_millis(999);
    assert_eq!(
        breaker.admit(early),
        Err(Refused::Open {
            until: after(start, 1)
        })
    );
    let admitted = breaker.admit(after(start, 1)).unwrap();
    assert!(admitted.ticket.is_probe());
    assert_eq!(admitted.transition, Some(Transition::ProbeAdmitted));
    assert_eq!(breaker.admit(after(start, 60)), Err(Refused::ProbeInFlight));
}

#[test]
fn a_probe_without_an_answer_for_a_minute_is_replaced() {
    let start = Instant::now();
    let mut breaker = open(1, start);
    let hangs = breaker.admit(after(start, 1)).unwrap().ticket;
    let admitted = breaker.admit(after(start, 61)).unwrap();
    assert_eq!(admitted.transition, Some(Transition::ProbeAdmitted));
    assert!(admitted.ticket.is_probe());
    // Nor does what it comes to at last decide anything.
    assert_eq!(breaker.record(hangs, FAILURE, after(start, 62), 0), None);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(
        breaker.record(admitted.ticket, Outcome::Success, after(start, 62), 0),
        Some(Transition::Closed)
    );
}

#[test]
fn a_probe_whose_answer_lasts_has_succeeded() {
    let start = Instant::now();
    let rate = SuccessRate::new(0.8, Duration::from_secs(10), policy(1).backoff().clone()).unwrap();
    let unified = Unified::new(1, rate.min_requests(1)).unwrap();
    let shared = SharedBreaker::new(unified.clone(), start);
    let mut plain = Breaker::new(unified, start);
    let failing = shared.admit(start).unwrap().ticket;
    shared.record(failing, FAILURE, start, 0);
    let failing = plain.admit(start).unwrap().ticket;
    plain.record(failing, FAILURE, start, 0);
    let due = after(start, 2);
    let stream = (
        shared.admit(due).unwrap().ticket,
        plain.admit(due).unwrap().ticket,
    );
    shared.answering(&stream.0, due);
    plain.answering(&stream.1, due);
    let soon = due + Duration::from_millis(990);
    assert_eq!(shared.admit(soon), Err(Refused::ProbeInFlight));
    assert_eq!(plain.admit(soon), Err(Refused::ProbeInFlight));
    for now in [after(due, 1), after(due, 2)] {
        let (one, two) = (shared.admit(now).unwrap(), plain.admit(now).unwrap());
        assert_eq!(one, two);
        let expected = (now == after(due, 1)).then_some(Transition::Closed);
        assert_eq!(one.transition, expected);
        assert!(!one.ticket.is_probe());
        // What failed before it opened is forgotten, so one of many does not open it.
        assert_eq!(shared.record(one.ticket, Outcome::Success, now, 0), None);
        assert_eq!(plain.record(two.ticket, Outcome::Success, now, 0), None);
    }
    // How the stream ends, years later, is no probe's outcome.
    assert_eq!(shared.record(stream.0, FAILURE, after(due, 9), 0), None);
    assert_eq!(plain.record(stream.1, FAILURE, after(due, 9), 0), None);
}

#[test]
fn an_answer_that_fails_in_time_fails_the_probe() {
    let start = Instant::now();
    let mut breaker = open(1, start);
    let now = after(start, 1);
    let probe = breaker.admit(now).unwrap().ticket;
    breaker.answering(&probe, now);
    let reopened = breaker.record(probe, FAILURE, now, 0);
    assert!(matches!(
        reopened,
        Some(Transition::Reopened {
            failed_probes: 1,
            ..
        })
    ));
    // Nobody else's answer counts for a probe's.
    let mut breaker = Breaker::new(policy(1), start);
    let [old, failing] = [(); 2].map(|()| breaker.admit(start).unwrap().ticket);
    breaker.record(failing, FAILURE, start, 0);
    let probe = breaker.admit(now).unwrap().ticket;
    breaker.answering(&old, now);
    assert_eq!(breaker.admit(after(now, 5)), Err(Refused::ProbeInFlight));
    drop(probe);
}

#[test]
fn each_failed_probe_doubles_the_wait() {
    let start = Instant::now();
    let mut breaker = open(1, start);
    let mut now = after(start, 1);
    for (failed, wait) in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60)] {
        let probe = breaker.admit(now).unwrap().ticket;
        let reopened = breaker.record(probe, FAILURE, now, 0);
        now += Duration::from_secs(wait);
        assert_eq!(
            reopened,
            Some(Transition::Reopened {
                until: now,
                failed_probes: failed
            })
        );
    }
    let probe = breaker.admit(now).unwrap().ticket;
    assert_eq!(
        breaker.record(probe, Outcome::Success, now, 0),
        Some(Transition::Closed)
    );
    let ticket = breaker.admit(now).unwrap().ticket;
    let opened = breaker.record(ticket, FAILURE, now, 0);
    assert_eq!(
        opened,
        Some(Transition::Opened {
            until: after(now, 1)
        }),
        "a closed breaker starts anew"
    );
}

#[test]
fn a_full_endpoint_has_answered_its_probe() {
    let start = Instant::now();
    let mut breaker = open(1, start);
    let probe = breaker.admit(after(start, 1)).unwrap().ticket;
    assert_eq!(
        breaker.record(probe, LIMITED, after(start, 1), 0),
        Some(Transition::Closed)
    );
}

#[test]
fn outcomes_of_earlier_requests_never_decide_a_probe() {
    let start = Instant::now();
    let mut breaker = Breaker::new(policy(1), start);
    let [one, two, three] = [(); 3].map(|()| breaker.admit(start).unwrap().ticket);
    breaker.record(one, FAILURE, start, 0);
    assert_eq!(breaker.record(two, Outcome::Success, start, 0), None);
    assert_eq!(breaker.state(), State::Open);
    let probe = breaker.admit(after(start, 1)).unwrap().ticket;
    assert_eq!(breaker.record(three, FAILURE, after(start, 1), 0), None);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(
        breaker.record(probe, Outcome::Success, after(start, 1), 0),
        Some(Transition::Closed)
    );
}

#[test]
fn outcomes_from_before_it_opened_do_not_count_when_it_is_closed_again() {
    let start = Instant::now();
    let mut breaker = Breaker::new(policy(1), start);
    let [late, one] = [(); 2].map(|()| breaker.admit(start).unwrap().ticket);
    breaker.record(one, FAILURE, start, 0);
    let probe = breaker.admit(after(start, 1)).unwrap().ticket;
    breaker.record(probe, Outcome::Success, after(start, 1), 0);
    assert_eq!(breaker.record(late, FAILURE, after(start, 2), 0), None);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_lost_probe_frees_its_place_at_once() {
    let start = Instant::now();
    let breaker = SharedBreaker::new(policy(1), start);
    let (permit, _) = Permit::acquire(&breaker, start).unwrap();
    permit.finish(FAILURE, start, 0);
    let due = after(start, 1);
    for _ in 0..3 {
        let (probe, _) = Permit::acquire(&breaker, due).unwrap();
        assert!(probe.is_probe() && Permit::acquire(&breaker, due).is_err());
        drop(probe);
    }
    let (probe, _) = Permit::acquire(&breaker, due).unwrap();
    let reopened = probe.finish(FAILURE, due, 0);
    let expected = Transition::Reopened {
        until: after(due, 2),
        failed_probes: 1,
    };
    assert_eq!(reopened, Some(expected), "lost probes are not failed ones");
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// The answer to the nth of the requests that are under way begins.
    Answering(usize),
    /// Records the nth of the requests that are under way.
    Record(usize, Outcome, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![3 => Just(FAILURE), 1 => Just(Outcome::Success), 1 => Just(LIMITED), 1 => Just(Outcome::Cancelled)];
    prop_oneof![
        4 => Just(Step::Admit),
        2 => any::<usize>().prop_map(Step::Answering),
        4 => (any::<usize>(), outcome, any::<u64>()).prop_map(|(index, outcome, random)| Step::Record(index, outcome, random)),
        1 => (0..4_000_u64).prop_map(Step::Wait),
        1 => (40_000..70_000_u64).prop_map(Step::Wait),
    ]
}

/// What a reader of the documentation would write down: requests know the period they were admitted in.
#[derive(Debug, Default)]
struct Model {
    period: u64,
    failures: u32,
    open: bool,
    probe: bool,
    /// Since when the probe is under way, or is being answered.
    since: Option<Instant>,
    answered: bool,
}

proptest! {
    #[test]
    fn both_breakers_behave_like_the_model(steps in proptest::collection::vec(step(), 1..200), max in 1..5_u32) {
        let start = Instant::now();
        let mut now = start;
        let mut plain = Breaker::new(policy(max), start);
        let shared = SharedBreaker::new(policy(max), start);
        let mut model = Model::default();
        let mut until = start;
        let mut under_way: Vec<(Ticket, Ticket, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Admit => {
                    let (one, two) = (plain.admit(now), shared.admit(now));
                    prop_assert_eq!(&one, &two);
                    let for_at_least = |seconds| model.probe && model.since.is_some_and(|since| now >= since + Duration::from_secs(seconds));
                    let succeeded = model.answered && for_at_least(1);
                    let replaced = !model.answered && for_at_least(60);
                    let probe = model.open && (!model.probe || replaced) && now >= until;
                    prop_assert_eq!(one.is_ok(), !model.open || probe || succeeded);
                    if probe {
                        model = Model { period: model.period + 1, open: true, probe: true, since: Some(now), ..Model::default() };
                    } else if succeeded {
                        model = Model { period: model.period + 1, ..Model::default() };
                    }
                    if let (Ok(one), Ok(two)) = (one, two) {
                        prop_assert_eq!(one.ticket.is_probe(), probe);
                        under_way.push((one.ticket, two.ticket, model.period));
                    }
                }
                Step::Answering(index) => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (one, two, period) = &under_way[index % under_way.len()];
                    plain.answering(one, now);
                    shared.answering(two, now);
                    if model.probe && *period == model.period && !model.answered {
                        model.answered = true;
                        model.since = Some(now);
                    }
                }
                Step::Record(index, outcome, random) => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (one, two, period) = under_way.swap_remove(index % under_way.len());
                    let transition = plain.record(one, outcome, now, random);
                    prop_assert_eq!(transition, shared.record(two, outcome, now, random));
                    if let Some(Transition::Opened { until: then } | Transition::Reopened { until: then, .. }) = transition {
                        let wait = then - now;
                        prop_assert!(wait >= Duration::from_secs(1) && wait < Duration::from_millis(90_008), "{:?}", wait);
                        until = then;
                    }
                    if transition == Some(Transition::ProbeLost) {
                        until = start;
                    }
                    if period == model.period {
                        match outcome {
                            FAILURE if model.probe || model.failures + 1 == max => {
                                model = Model { period: period + 1, open: true, ..Model::default() };
                            }
                            FAILURE => model.failures += 1,
                            Outcome::Cancelled if model.probe => {
                                model = Model { period: period + 1, open: true, ..Model::default() };
                            }
                            Outcome::Cancelled => {}
                            _ if model.probe => model = Model { period: period + 1, ..Model::default() },
                            _ => model.failures = 0,
                        }
                    }
                }
            }
            let state = match (model.open, model.probe) {
                (false, _) => State::Closed,
                (true, false) => State::Open,
                (true, true) => State::HalfOpen,
            };
            prop_assert_eq!(plain.state(), state);
            prop_assert_eq!(shared.state(), state);
        }
    }
}

#[test]
fn many_threads_never_have_two_probes_and_never_lose_the_place() {
    let start = Instant::now();
    let breaker = SharedBreaker::new(policy(2), start);
    /// A few of them pass while a probe is out: far less than the minute after which it is replaced.
    const STEP_MICROS: u64 = 10_000;
    let (probes, most, admitted) = (AtomicI32::new(0), AtomicI32::new(0), AtomicU32::new(0));
    let (opened, closed) = (AtomicU32::new(0), AtomicU32::new(0));
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (breaker, probes, most, admitted) = (&breaker, &probes, &most, &admitted);
            let (opened, closed, clock) = (&opened, &closed, &clock);
            scope.spawn(move || {
                // One clock that each step of each thread moves on, so that none runs ahead of the others' backoffs. While a
                // probe is out it stands still, or whoever has the probe would lose the minute to a scheduler that lets it wait.
                let mut round = 0_u64;
                while round < 60_000 {
                    if breaker.state() == State::HalfOpen {
                        std::thread::yield_now();
                        continue;
                    }
                    round += 1;
                    let now = start
                        + Duration::from_micros(clock.fetch_add(STEP_MICROS, Ordering::Relaxed));
                    let Ok((permit, _)) = Permit::acquire(breaker, now) else {
                        continue;
                    };
                    if permit.is_probe() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        most.fetch_max(probes.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        probes.fetch_sub(1, Ordering::SeqCst);
                    }
                    let transition = match round
                        .wrapping_add(thread)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        >> 40
                        & 7
                    {
                        0 | 1 => permit.finish(FAILURE, now, round),
                        2..=5 => permit.finish(Outcome::Success, now, round),
                        _ => None,
                    };
                    match transition {
                        Some(Transition::Opened { .. }) => opened.fetch_add(1, Ordering::Relaxed),
                        Some(Transition::Closed) => closed.fetch_add(1, Ordering::Relaxed),
                        _ => 0,
                    };
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 1, "two probes at once");
    let (opened, closed, admitted) = (
        opened.into_inner(),
        closed.into_inner(),
        admitted.into_inner(),
    );
    assert!(
        admitted > 10 && closed > 1,
        "the test has exercised probes: {admitted} probes, closed {closed} times"
    );
    // Every closing followed an opening, and the breaker is where the last of them left it.
    assert_eq!(opened - closed, u32::from(breaker.state() != State::Closed));
    let later = start + Duration::from_secs(100_000);
    assert!(
        Permit::acquire(&breaker, later).is_ok(),
        "nobody holds the probe's place any more"
    );
}
