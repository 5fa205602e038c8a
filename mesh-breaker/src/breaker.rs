use crate::machine::{Machine, Settings};
use crate::{Admitted, Outcome, Policy, Refused, State, Ticket, Transition};
use std::time::Instant;

/// A breaker with one owner.
///
/// It reads no clock and makes no random numbers: both are passed in. [`SharedBreaker`](crate::SharedBreaker) is the
/// same machine for many threads.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    machine: Machine,
}

impl Breaker {
    /// A closed breaker. `origin` is the earliest `now` that it will be given; earlier ones count as `origin`.
    pub fn new(policy: impl Into<Policy>, origin: Instant) -> Self {
        Self {
            settings: Settings {
                policy: policy.into(),
                origin,
            },
            machine: Machine::NEW,
        }
    }

    /// Asks for one request to pass.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    pub fn admit(&mut self, now: Instant) -> Result<Admitted, Refused> {
        let (machine, admitted) = self.machine.admit(&self.settings, now)?;
        self.machine = machine;
        Ok(admitted)
    }

    /// Tells what an admitted request came to. `random` jitters the backoff.
    ///
    /// An outcome of a request admitted before the last change of state has no effect.
    #[allow(clippy::needless_pass_by_value, reason = "a ticket is used up")]
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        let (machine, transition) =
            self.machine
                .record(&self.settings, &ticket, outcome, now, random);
        self.machine = machine;
        transition
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.machine.state()
    }
}
