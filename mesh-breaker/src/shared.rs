use crate::cell::{BreakerCell, BreakerSettings};
use crate::window::Window;
use crate::{Admitted, Outcome, Policy, Refused, State, Ticket, Transition};
use std::ops::Deref;
use std::time::Instant;

/// A breaker for many threads: the whole state is one atomic word, so no request waits for another. With a success rate, ten
/// more words count.
///
/// Without one, a success while closed only reads. 24 bytes; the settings are shared by all [`sibling`](Self::sibling)s.
#[derive(Debug)]
pub struct SharedBreaker {
    settings: BreakerSettings,
    window: Option<Box<Window>>,
    cell: BreakerCell,
}

impl SharedBreaker {
    /// A closed breaker. `origin` is the earliest `now` that it will be given; earlier ones count as `origin`.
    pub fn new(policy: impl Into<Policy>, origin: Instant) -> Self {
        Self::closed(BreakerSettings::new(policy, origin))
    }

    /// Another closed breaker with the same settings.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::closed(self.settings.clone())
    }

    /// Asks for one request to pass.
    ///
    /// The ticket must come back through [`record`](Self::record), or a probe keeps its place for a minute;
    /// [`Permit`] does so by itself when dropped.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<Admitted, Refused> {
        self.cell.admit(&self.settings, now)
    }

    /// The answer to an admitted request has begun, and nothing in it says that the request fails.
    ///
    /// For answers that may last: a probe that is still being answered after a second has succeeded, and the next request
    /// finds the breaker closed. Of other requests nothing changes.
    #[inline]
    pub fn answering(&self, ticket: &Ticket, now: Instant) {
        let window = self.window.as_deref();
        self.cell.answering(&self.settings, window, ticket, now);
    }

    /// Tells what an admitted request came to. `random` jitters the backoff.
    ///
    /// An outcome of a request admitted before the last change of state has no effect.
    #[inline]
    pub fn record(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        let window = self.window.as_deref();
        self.cell
            .record(&self.settings, window, ticket, outcome, now, random)
    }

    /// Would a request be admitted now? Nothing changes.
    ///
    /// # Errors
    /// [`Refused`] says when to ask again.
    pub fn check(&self, now: Instant) -> Result<(), Refused> {
        self.cell.check(&self.settings, now)
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.cell.state()
    }

    /// Would a request admitted now be the probe?
    pub fn probe_due(&self, now: Instant) -> bool {
        self.cell.probe_due(&self.settings, now)
    }

    fn closed(settings: BreakerSettings) -> Self {
        Self {
            window: settings.window().map(Box::new),
            settings,
            cell: BreakerCell::new(),
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

    /// Its answer has begun; see [`SharedBreaker::answering`].
    pub fn answering(&self, now: Instant) {
        if let Some(ticket) = &self.ticket {
            self.breaker.answering(ticket, now);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_is_three_words() {
        assert_eq!(size_of::<SharedBreaker>(), 24);
    }
}
