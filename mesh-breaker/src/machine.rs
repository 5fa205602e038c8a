//! The state machine itself: pure steps on a small value. [`Breaker`](crate::Breaker) and
//! [`SharedBreaker`](crate::SharedBreaker) differ only in how they hold that value.

use crate::window::{PARTS, Window};
use crate::{Outcome, Policy, SuccessRate};
use std::time::{Duration, Instant};

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Requests pass.
    Closed,
    /// Requests are refused; once the backoff is over, the next one becomes the probe.
    Open,
    /// One probe is under way; everything else is refused.
    HalfOpen,
}

/// Why a breaker did not admit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The breaker is open.
    Open {
        /// When the next request is admitted as a probe.
        until: Instant,
    },
    /// The probe's place is taken.
    ProbeInFlight,
}

/// The right of one request to be recorded once. It belongs to the breaker that gave it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an admitted request has an outcome; a probe that is never recorded keeps its place"]
pub struct Ticket {
    epoch: u32,
    probe: bool,
}

impl Ticket {
    /// Is this the one request that decides whether the breaker closes?
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// An admitted request.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// To be given back with the outcome.
    pub ticket: Ticket,
    /// [`Transition::ProbeAdmitted`] if this request is the probe; [`Transition::Closed`] if it found that the one before has
    /// been [answering](crate::SharedBreaker::answering) for long enough.
    pub transition: Option<Transition>,
}

/// A change of state, as an event for metrics and traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transition {
    /// Closed to open: too many failures.
    Opened {
        /// When a probe will be admitted.
        until: Instant,
    },
    /// Open to half-open: this request is the probe. Or it takes the place of one that has not been answered for too long.
    ProbeAdmitted,
    /// Half-open to closed: the probe was answered.
    Closed,
    /// Half-open to open: the probe failed.
    Reopened {
        /// When the next probe will be admitted.
        until: Instant,
        /// How many probes have failed since the breaker opened, up to 31.
        failed_probes: u32,
    },
    /// Half-open to open: the probe was cancelled or lost; the next request takes its place at once.
    ProbeLost,
}

impl Transition {
    /// The state that it leads to.
    pub fn state(&self) -> State {
        match self {
            Self::Opened { .. } | Self::Reopened { .. } | Self::ProbeLost => State::Open,
            Self::ProbeAdmitted => State::HalfOpen,
            Self::Closed => State::Closed,
        }
    }
}

/// What is fixed over a breaker's life.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) origin: Instant,
}

impl Settings {
    /// Time in ticks of 4 ms since the origin, rounded down: 36 bits of them last eight years.
    fn tick(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.origin).as_millis() as u64 / TICK_MS).min(MAX_TICK)
    }

    /// The part of the success rate's window that it is now.
    fn part(&self, rate: &SuccessRate, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        // One ahead, so that the parts before the origin are not the first.
        (since / rate.part().as_nanos()) as u64 + PARTS
    }

    /// Counts an outcome towards the success rate, and says whether that has become too low.
    fn rate_too_low(&self, window: Option<&Window>, outcome: Outcome, now: Instant) -> bool {
        let Some((rate, window)) = self.policy.success_rate().zip(window) else {
            return false;
        };
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure(_) => true,
            Outcome::RateLimited { .. } => rate.counts_rate_limited(),
            Outcome::Cancelled => return false,
        };
        rate.is_too_low(window.record(self.part(rate, now), failed))
    }

    /// Does this outcome fail a probe?
    fn fails_probe(&self, outcome: Outcome) -> bool {
        let rate = self.policy.success_rate();
        match outcome {
            Outcome::Failure(_) => true,
            Outcome::RateLimited { .. } => rate.is_some_and(SuccessRate::counts_rate_limited),
            Outcome::Success | Outcome::Cancelled => false,
        }
    }

    /// A window for a breaker's success rate, if it has one.
    pub(crate) fn window(&self) -> Option<Box<Window>> {
        self.policy.success_rate().map(|_| Box::default())
    }

    /// The first tick that begins at or after `wait` from `now`.
    fn tick_after(&self, now: Instant, wait: Duration) -> u64 {
        let nanos = now
            .saturating_duration_since(self.origin)
            .saturating_add(wait)
            .as_nanos();
        let tick = nanos.div_ceil(u128::from(TICK_MS) * 1_000_000);
        u64::try_from(tick).unwrap_or(MAX_TICK).min(MAX_TICK)
    }

    fn instant(&self, tick: u64) -> Instant {
        self.origin + Duration::from_millis(tick * TICK_MS)
    }
}

/// The whole state of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Counts the changes between closed, open and half-open, so that an outcome is only ever counted in the
    /// period in which its request was admitted. Wraps at 21 bits.
    pub(crate) epoch: u32,
    pub(crate) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed {
        failures: u32,
    },
    Open {
        until: u64,
        failed_probes: u32,
    },
    /// `until`: when the probe loses its place, or if it is `answered`, when it has succeeded.
    HalfOpen {
        failed_probes: u32,
        until: u64,
        answered: bool,
    },
}

impl Machine {
    pub(crate) const NEW: Self = Self {
        epoch: 0,
        phase: Phase::Closed { failures: 0 },
    };

    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Would the next request be the probe?
    pub(crate) fn probe_due(&self, settings: &Settings, now: Instant) -> bool {
        let due = match self.phase {
            Phase::Open { until, .. } => until,
            Phase::HalfOpen {
                until,
                answered: false,
                ..
            } => until,
            Phase::Closed { .. } | Phase::HalfOpen { .. } => return false,
        };
        settings.tick(now) >= due
    }

    #[inline]
    pub(crate) fn admit(
        self,
        settings: &Settings,
        now: Instant,
    ) -> Result<(Self, Admitted), Refused> {
        let admitted = |machine: Self, transition| {
            let ticket = Ticket {
                epoch: machine.epoch,
                probe: transition == Some(Transition::ProbeAdmitted),
            };
            Ok((machine, Admitted { ticket, transition }))
        };
        match self.phase {
            Phase::Closed { .. } => admitted(self, None),
            Phase::Open { failed_probes, .. } | Phase::HalfOpen { failed_probes, .. }
                if self.probe_due(settings, now) =>
            {
                let probing = self.next(Phase::HalfOpen {
                    failed_probes,
                    until: settings.tick_after(now, UNANSWERED),
                    answered: false,
                });
                admitted(probing, Some(Transition::ProbeAdmitted))
            }
            Phase::HalfOpen {
                until,
                answered: true,
                ..
            } if settings.tick(now) >= until => {
                let closed = self.next(Phase::Closed { failures: 0 });
                admitted(closed, Some(Transition::Closed))
            }
            Phase::Open { until, .. } => Err(Refused::Open {
                until: settings.instant(until),
            }),
            Phase::HalfOpen { .. } => Err(Refused::ProbeInFlight),
        }
    }

    /// The answer to the probe has begun, and so far it is no failure.
    pub(crate) fn answering(self, settings: &Settings, ticket: &Ticket, now: Instant) -> Self {
        match self.phase {
            Phase::HalfOpen {
                failed_probes,
                answered: false,
                ..
            } if ticket.probe && ticket.epoch == self.epoch => Self {
                phase: Phase::HalfOpen {
                    failed_probes,
                    until: settings.tick_after(now, ANSWERING),
                    answered: true,
                },
                ..self
            },
            _ => self,
        }
    }

    /// Half-open, with the answer to its probe under way?
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::HalfOpen { answered: true, .. })
    }

    /// Is an outcome with this ticket one of the period that counts towards the success rate?
    #[inline]
    pub(crate) fn counts(&self, ticket: &Ticket) -> bool {
        ticket.epoch == self.epoch && matches!(self.phase, Phase::Closed { .. })
    }

    /// `too_low`: with this outcome the success rate opens the breaker, if it is closed.
    #[inline]
    pub(crate) fn record(
        self,
        settings: &Settings,
        ticket: &Ticket,
        ended: Ended,
        too_low: bool,
    ) -> (Self, Option<Transition>) {
        let outcome = ended.outcome;
        if ticket.epoch != self.epoch {
            return (self, None);
        }
        let opens = |failures: u32| {
            too_low || (outcome.is_failure() && failures + 1 >= settings.policy.max_failures())
        };
        match (self.phase, outcome) {
            (Phase::Closed { failures }, _) if opens(failures) => {
                let until = self.opens_until(settings, 0, ended);
                let next = self.next(Phase::Open {
                    until,
                    failed_probes: 0,
                });
                (
                    next,
                    Some(Transition::Opened {
                        until: settings.instant(until),
                    }),
                )
            }
            (Phase::Closed { failures }, Outcome::Failure(_)) => (
                Self {
                    phase: Phase::Closed {
                        failures: failures + 1,
                    },
                    ..self
                },
                None,
            ),
            (Phase::Closed { .. }, Outcome::Success | Outcome::RateLimited { .. }) => (
                Self {
                    phase: Phase::Closed { failures: 0 },
                    ..self
                },
                None,
            ),
            (Phase::HalfOpen { failed_probes, .. }, _) if settings.fails_probe(outcome) => {
                let failed_probes = (failed_probes + 1).min(MAX_FAILED_PROBES);
                let until = self.opens_until(settings, failed_probes, ended);
                let next = self.next(Phase::Open {
                    until,
                    failed_probes,
                });
                (
                    next,
                    Some(Transition::Reopened {
                        until: settings.instant(until),
                        failed_probes,
                    }),
                )
            }
            (Phase::HalfOpen { .. }, _) if outcome != Outcome::Cancelled => (
                self.next(Phase::Closed { failures: 0 }),
                Some(Transition::Closed),
            ),
            (Phase::HalfOpen { failed_probes, .. }, _) => (
                self.next(Phase::Open {
                    until: 0,
                    failed_probes,
                }),
                Some(Transition::ProbeLost),
            ),
            (Phase::Closed { .. }, Outcome::Cancelled) | (Phase::Open { .. }, _) => (self, None),
        }
    }

    fn next(self, phase: Phase) -> Self {
        Self {
            epoch: (self.epoch + 1) & MAX_EPOCH,
            phase,
        }
    }

    fn opens_until(&self, settings: &Settings, failed_probes: u32, ended: Ended) -> u64 {
        let hint = ended.outcome.retry_after();
        let backoff = settings.policy.backoff();
        let delay = backoff.delay_after(failed_probes, hint, ended.random);
        settings.tick_after(ended.now, delay)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) now: Instant,
    /// Jitters the backoff.
    pub(crate) random: u64,
}

impl Ended {
    /// Whether it makes the success rate too low, which is only counted if `counts`.
    pub(crate) fn too_low(
        self,
        settings: &Settings,
        window: Option<&Window>,
        counts: bool,
    ) -> bool {
        counts && settings.rate_too_low(window, self.outcome, self.now)
    }
}

/// So long a probe may go without an answer until the next request takes its place.
const UNANSWERED: Duration = Duration::from_secs(60);
/// So long it has to be answering, without failing, to have succeeded.
const ANSWERING: Duration = Duration::from_secs(1);
const TICK_MS: u64 = 4;
pub(crate) const MAX_TICK: u64 = (1 << 36) - 1;
pub(crate) const MAX_EPOCH: u32 = (1 << 21) - 1;
pub(crate) const MAX_FAILED_PROBES: u32 = 31;
