use crate::machine::{Ended, MAX_EPOCH, MAX_FAILED_PROBES, MAX_TICK, Machine, Phase, Settings};
use crate::window::Window;
use crate::{Admitted, Outcome, Policy, Refused, State, Ticket, Transition};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A breaker for many threads: the whole state is one atomic word, so no request waits for another. With a success rate, ten
/// more words count.
///
/// Without one, a success while closed only reads. 24 bytes; the settings are shared by all [`sibling`](Self::sibling)s.
#[derive(Debug)]
pub struct SharedBreaker {
    settings: Arc<Settings>,
    window: Option<Box<Window>>,
    word: AtomicU64,
}

impl SharedBreaker {
    /// A closed breaker. `origin` is the earliest `now` that it will be given; earlier ones count as `origin`.
    pub fn new(policy: impl Into<Policy>, origin: Instant) -> Self {
        Self::closed(Arc::new(Settings {
            policy: policy.into(),
            origin,
        }))
    }

    /// Another closed breaker with the same settings.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::closed(self.settings.clone())
    }

    /// Asks for one request to pass.
    ///
    /// The ticket must come back through [`record`](Self::record), or a probe keeps its place for ever;
    /// [`Permit`] does so by itself when dropped.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<Admitted, Refused> {
        self.step(|machine| machine.admit(&self.settings, now))
    }

    /// Tells what an admitted request came to. `random` jitters the backoff.
    ///
    /// An outcome of a request admitted before the last change of state has no effect.
    #[allow(clippy::needless_pass_by_value, reason = "a ticket is used up")]
    #[inline]
    pub fn record(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        let window = self.window.as_deref();
        if window.is_none() && outcome == Outcome::Success && self.is_spotless() {
            return None;
        }
        let ended = Ended {
            outcome,
            now,
            random,
        };
        let counts = window.is_some() && self.machine().counts(&ticket);
        let too_low = ended.too_low(&self.settings, window, counts);
        let step = |machine: Machine| {
            let (next, transition) = machine.record(&self.settings, &ticket, ended, too_low);
            if transition == Some(Transition::Closed)
                && let Some(window) = window
            {
                // Before it closes, so that nothing of the new period is lost.
                window.clear();
            }
            Ok::<_, Never>((next, transition))
        };
        match self.step(step) {
            Ok(transition) => transition,
            Err(never) => match never {},
        }
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.machine().state()
    }

    /// Would a request admitted now be the probe?
    pub fn probe_due(&self, now: Instant) -> bool {
        self.machine().probe_due(&self.settings, now)
    }

    /// Closed, and without a failure that a success would have to forget?
    #[inline]
    fn is_spotless(&self) -> bool {
        self.word.load(Ordering::Acquire) & SPOTS == 0
    }

    fn closed(settings: Arc<Settings>) -> Self {
        Self {
            window: settings.window(),
            settings,
            word: AtomicU64::new(pack(Machine::NEW)),
        }
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

/// An admitted request that counts as cancelled if it is dropped without an outcome.
#[derive(Debug)]
pub struct Permit<B: Deref<Target = SharedBreaker>> {
    breaker: B,
    ticket: Option<Ticket>,
    admitted_at: Instant,
}

impl<B: Deref<Target = SharedBreaker>> Permit<B> {
    /// Asks `breaker` (a reference or an `Arc`) for one request to pass.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    pub fn acquire(breaker: B, now: Instant) -> Result<(Self, Option<Transition>), Refused> {
        let Admitted { ticket, transition } = breaker.admit(now)?;
        Ok((
            Self {
                breaker,
                ticket: Some(ticket),
                admitted_at: now,
            },
            transition,
        ))
    }

    /// Tells what the request came to. `random` jitters the backoff.
    pub fn finish(mut self, outcome: Outcome, now: Instant, random: u64) -> Option<Transition> {
        let ticket = self.ticket.take()?;
        self.breaker.record(ticket, outcome, now, random)
    }

    /// Is this the one request that decides whether the breaker closes?
    pub fn is_probe(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_probe)
    }
}

impl<B: Deref<Target = SharedBreaker>> Drop for Permit<B> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            // A cancelled request starts no backoff, so neither the time nor the random word matters.
            self.breaker
                .record(ticket, Outcome::Cancelled, self.admitted_at, 0);
        }
    }
}

enum Never {}

/// The phase and the payload: all but the epoch.
const SPOTS: u64 = !((MAX_EPOCH as u64) << 7);

/// Low to high: 2 bits of phase, 5 of failed probes, 21 of epoch, 36 of failures or of the tick the backoff ends.
#[inline]
fn pack(machine: Machine) -> u64 {
    let (phase, failed_probes, payload) = match machine.phase {
        Phase::Closed { failures } => (0, 0, u64::from(failures)),
        Phase::Open {
            until,
            failed_probes,
        } => (1, failed_probes, until),
        Phase::HalfOpen { failed_probes } => (2, failed_probes, 0),
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
        _ => Phase::HalfOpen { failed_probes },
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
            },
        ];
        for phase in phases {
            for epoch in [0, 1, MAX_EPOCH] {
                let machine = Machine { epoch, phase };
                assert_eq!(unpack(pack(machine)), machine);
            }
        }
    }

    #[test]
    fn a_breaker_is_three_words() {
        assert_eq!(size_of::<SharedBreaker>(), 24);
    }
}
