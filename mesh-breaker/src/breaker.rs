use crate::machine::{Ended, Machine, Settings};
use crate::window::Window;
use crate::{Admitted, Outcome, Policy, Refused, State, Ticket, Transition};
use std::time::Instant;

/// A breaker with one owner.
///
/// It reads no clock and makes no random numbers: both are passed in. [`SharedBreaker`](crate::SharedBreaker) is the
/// same machine for many threads.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    window: Option<Box<Window>>,
    machine: Machine,
}

impl Breaker {
    /// A closed breaker. `origin` is the earliest `now` that it will be given; earlier ones count as `origin`.
    pub fn new(policy: impl Into<Policy>, origin: Instant) -> Self {
        let settings = Settings {
            policy: policy.into(),
            origin,
        };
        Self {
            window: settings.window(),
            settings,
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
        self.clear_if_closed(admitted.transition);
        Ok(admitted)
    }

    /// The answer to an admitted request has begun, and nothing in it says that the request fails. See
    /// [`SharedBreaker::answering`](crate::SharedBreaker::answering).
    pub fn answering(&mut self, ticket: &Ticket, now: Instant) {
        self.machine = self.machine.answering(&self.settings, ticket, now);
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
        let ended = Ended {
            outcome,
            now,
            random,
        };
        let window = self.window.as_deref();
        let too_low = ended.too_low(&self.settings, window, self.machine.counts(&ticket));
        let (machine, transition) = self.machine.record(&self.settings, &ticket, ended, too_low);
        self.machine = machine;
        self.clear_if_closed(transition);
        transition
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.machine.state()
    }
    fn clear_if_closed(&self, transition: Option<Transition>) {
        if transition == Some(Transition::Closed)
            && let Some(window) = &self.window
        {
            window.clear();
        }
    }
}
