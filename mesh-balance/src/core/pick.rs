use super::endpoint::{Endpoint, SlotId};
use super::load::Moment;
use super::tier::Entry;
use super::words::Words;
use mesh_breaker::{Outcome, Ticket, Transition};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

/// One request on its way to an endpoint; also a pointer to the endpoint.
///
/// It counts as in flight from the pick until [`finish`](Self::finish), which belongs where the body or the trailers end.
/// Dropped without it, the request was cancelled. Unless the pool has a
/// [`drop_clock`](super::PoolBuilder::drop_clock), the time it had waited is then lost, and an endpoint that hangs until its
/// callers give up does not look slow: finish with [`Outcome::Cancelled`] where the time is known.
#[derive(Debug)]
#[must_use = "a pick that is dropped counts as a cancelled request"]
pub struct Pick<T> {
    endpoint: Arc<Endpoint<T>>,
    began: Moment,
    /// The latency of the first of the answer, and whether no other came within the second before it.
    answered: Option<(f32, bool)>,
    ticket: Option<Ticket>,
    random: u64,
    rank: u16,
    ended: bool,
}

impl<T> Pick<T> {
    /// `random` need not be mixed.
    #[inline]
    pub(crate) fn new(
        entry: &Entry<T>,
        began: Moment,
        ticket: Option<Ticket>,
        random: Words,
    ) -> Self {
        entry.live.begin(began);
        Self {
            endpoint: entry.endpoint.clone(),
            began,
            answered: None,
            ticket,
            random: random.0,
            rank: entry.rank,
            ended: false,
        }
    }

    /// The first of the answer (the headers, say) has come. This ends the wait whose length is the latency, but not the
    /// request. Optional: without it the latency is the time until the end. Only the first call counts.
    pub fn responded(&mut self, now: Instant) {
        if self.answered.is_none() {
            let live = &self.endpoint.live;
            self.answered = Some(live.respond(self.began, Moment::new(live.common.origin, now)));
        }
    }

    /// Its answer has begun, and nothing in it says that the request fails. For answers that may last: where this request is the
    /// probe of a breaker, and the answer is still coming after a second, the probe has succeeded. Optional.
    pub fn answering(&mut self, now: Instant) {
        if let Some(ticket) = &self.ticket {
            self.endpoint.live.answering(ticket, now);
        }
    }

    /// The endpoint has done what it was asked, and what comes now may last: a tunnel, say. Its breaker hears of it at once, so that
    /// a probe is over; the request is in flight until it ends.
    pub fn succeeded(&mut self, now: Instant) -> Option<Transition> {
        let ticket = self.ticket.take()?;
        self.endpoint
            .live
            .record(ticket, Outcome::Success, now, Words(self.random))
    }

    /// The request has ended.
    ///
    /// A success feeds the latency estimate. A failure or a rate limit does so only if it took longer than expected, and so
    /// does a cancelled request, whose time is a lower bound. Returns the change of the endpoint's breaker, if any.
    #[inline]
    pub fn finish(mut self, now: Instant, outcome: Outcome) -> Option<Transition> {
        self.end(Some(now), outcome)
    }

    /// The endpoint, as it was in the snapshot that was read.
    pub fn endpoint(&self) -> &T {
        &self.endpoint.value
    }

    /// Its place in the pool.
    pub fn slot(&self) -> SlotId {
        self.endpoint.live.slot
    }

    /// How far away its zone is: 0 is the caller's own, or the pool knows no zones.
    pub fn zone_rank(&self) -> u16 {
        self.rank
    }

    /// Is this the request that decides whether the endpoint's breaker closes?
    pub fn is_probe(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_probe)
    }

    fn end(&mut self, now: Option<Instant>, outcome: Outcome) -> Option<Transition> {
        self.ended = true;
        let live = &self.endpoint.live;
        let origin = live.common.origin;
        live.end(
            self.began,
            self.answered,
            outcome,
            now.map(|now| Moment::new(origin, now)),
            Words(self.random),
        );
        let ticket = self.ticket.take()?;
        // Without a time the outcome is a cancellation, which starts no backoff.
        live.record(ticket, outcome, now.unwrap_or(origin), Words(self.random))
    }
}

impl<T> Deref for Pick<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.endpoint.value
    }
}

impl<T> Drop for Pick<T> {
    fn drop(&mut self) {
        if !self.ended {
            let now = self.endpoint.live.common.drop_clock.map(|clock| clock());
            self.end(now, Outcome::Cancelled);
        }
    }
}
