use crate::machine::{Ended, MAX_EPOCH, MAX_FAILED_PROBES, MAX_TICK, Machine, Phase, Settings};
use crate::sync::{AtomicU64, Ordering};
use crate::window::Window;
use crate::{Admitted, Outcome, Policy, Refused, State, Ticket, Transition};
use std::sync::Arc;
use std::time::Instant;

/// What many breakers have in common: when to open, and from when on time counts. Cloning shares it.
#[derive(Debug, Clone)]
pub struct BreakerSettings(Arc<Settings>);

impl BreakerSettings {
    /// For breakers that follow `policy`. `origin` is the earliest `now` that they will be given; earlier ones count as it.
    pub fn new(policy: impl Into<Policy>, origin: Instant) -> Self {
        Self(Arc::new(Settings {
            policy: policy.into(),
            origin,
        }))
    }

    /// What a breaker needs beside its cell if the policy counts a success rate.
    pub fn window(&self) -> Option<Window> {
        self.0.policy.success_rate().map(|_| Window::default())
    }
}

/// A breaker in eight bytes, for whoever has very many: the settings, and the [`Window`] of a success rate, are kept apart
/// and must be the same with each call. [`SharedBreaker`](crate::SharedBreaker) keeps all three together.
///
/// Many threads may use it; no request waits for another.
#[derive(Debug)]
pub struct BreakerCell {
    word: AtomicU64,
}

impl BreakerCell {
    /// A closed breaker.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(pack(Machine::NEW)),
        }
    }

    /// Asks for one request to pass. The ticket must come back through [`record`](Self::record), or a probe keeps its place
    /// for a minute.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    #[inline]
    pub fn admit(&self, settings: &BreakerSettings, now: Instant) -> Result<Admitted, Refused> {
        self.step(|machine| machine.admit(&settings.0, now))
    }

    /// The answer to an admitted request has begun, and nothing in it says that the request fails.
    ///
    /// A probe that is still being answered after a second has succeeded: the next request finds the breaker closed.
    /// Of other requests nothing changes.
    #[inline]
    pub fn answering(
        &self,
        settings: &BreakerSettings,
        window: Option<&Window>,
        ticket: &Ticket,
        now: Instant,
    ) {
        if !ticket.is_probe() {
            return;
        }
        let step = |machine: Machine| {
            let next = machine.answering(&settings.0, ticket, now);
            if next != machine {
                clear(window);
            }
            Ok::<_, Never>((next, ()))
        };
        let Ok(()) = self.step(step);
    }

    /// Would a request be admitted now? Nothing changes.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    pub fn check(&self, settings: &BreakerSettings, now: Instant) -> Result<(), Refused> {
        self.machine().admit(&settings.0, now).map(|_| ())
    }

    /// Tells what an admitted request came to. `random` jitters the backoff.
    ///
    /// An outcome of a request admitted before the last change of state has no effect.
    #[allow(clippy::needless_pass_by_value, reason = "a ticket is used up")]
    #[inline]
    pub fn record(
        &self,
        settings: &BreakerSettings,
        window: Option<&Window>,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        if window.is_none() && outcome == Outcome::Success && self.is_spotless() {
            return None;
        }
        let ended = Ended {
            outcome,
            now,
            random,
        };
        self.count(&settings.0, window, &ticket, ended)
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.machine().state()
    }

    /// Would a request admitted now be the probe?
    pub fn probe_due(&self, settings: &BreakerSettings, now: Instant) -> bool {
        self.machine().probe_due(&settings.0, now)
    }

    fn count(
        &self,
        settings: &Settings,
        window: Option<&Window>,
        ticket: &Ticket,
        ended: Ended,
    ) -> Option<Transition> {
        let counts = window.is_some() && self.machine().counts(ticket);
        let too_low = ended.too_low(settings, window, counts);
        let step = |machine: Machine| {
            let (next, transition) = machine.record(settings, ticket, ended, too_low);
            if transition == Some(Transition::Closed) && !machine.is_answered() {
                clear(window);
            }
            Ok::<_, Never>((next, transition))
        };
        let Ok(transition) = self.step(step);
        transition
    }

    /// Closed, and without a failure that a success would have to forget?
    #[inline]
    fn is_spotless(&self) -> bool {
        self.word.load(Ordering::Acquire) & SPOTS == 0
    }

    #[inline]
    fn machine(&self) -> Machine {
        unpack(self.word.load(Ordering::Acquire))
    }

    /// Applies a pure step to the current state, again if another thread was faster.
    #[inline]
    fn step<T, E>(&self, step: impl Fn(Machine) -> Result<(Machine, T), E>) -> Result<T, E> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (machine, value) = step(unpack(word))?;
            let next = pack(machine);
            if next == word {
                return Ok(value);
            }
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(value),
                Err(current) => word = current,
            }
        }
    }
}

impl Default for BreakerCell {
    fn default() -> Self {
        Self::new()
    }
}

enum Never {}

/// By whoever has the probe's ticket, before anyone can close the breaker for it: nothing counts while it is half-open, so nothing of
/// the new period is lost.
#[inline]
fn clear(window: Option<&Window>) {
    if let Some(window) = window {
        window.clear();
    }
}

/// The phase and the payload: all but the epoch.
const SPOTS: u64 = !((MAX_EPOCH as u64) << 7);

/// Low to high: 2 bits of phase, 5 of failed probes, 21 of epoch, 36 of failures or of the tick the phase ends.
#[inline]
fn pack(machine: Machine) -> u64 {
    let (phase, failed_probes, payload) = match machine.phase {
        Phase::Closed { failures } => (0, 0, u64::from(failures)),
        Phase::Open {
            until,
            failed_probes,
        } => (1, failed_probes, until),
        Phase::HalfOpen {
            failed_probes,
            until,
            answered,
        } => (2 | u64::from(answered), failed_probes, until),
    };
    phase | u64::from(failed_probes) << 2 | u64::from(machine.epoch) << 7 | payload << 28
}

#[inline]
fn unpack(word: u64) -> Machine {
    let failed_probes = (word >> 2) as u32 & MAX_FAILED_PROBES;
    let payload = word >> 28 & MAX_TICK;
    let phase = match word & 3 {
        0 => Phase::Closed {
            failures: payload as u32,
        },
        1 => Phase::Open {
            until: payload,
            failed_probes,
        },
        half_open => Phase::HalfOpen {
            failed_probes,
            until: payload,
            answered: half_open & 1 != 0,
        },
    };
    Machine {
        epoch: (word >> 7) as u32 & MAX_EPOCH,
        phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_fits_the_word() {
        let phases = [
            Phase::Closed { failures: 0 },
            Phase::Closed { failures: u32::MAX },
            Phase::Open {
                until: 0,
                failed_probes: 0,
            },
            Phase::Open {
                until: MAX_TICK,
                failed_probes: MAX_FAILED_PROBES,
            },
            Phase::HalfOpen {
                failed_probes: MAX_FAILED_PROBES,
                until: MAX_TICK,
                answered: false,
            },
            Phase::HalfOpen {
                failed_probes: 0,
                until: 1,
                answered: true,
            },
        ];
        for phase in phases {
            for epoch in [0, 1, MAX_EPOCH] {
                let machine = Machine { epoch, phase };
                assert_eq!(unpack(pack(machine)), machine);
            }
        }
    }
}
