use super::health::{Standing, Ward, follow};
use super::load::{Estimate, Moment, Scale, Waiting};
use mesh_breaker::{Outcome, SharedBreaker, State, Ticket, Transition};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A place in the pool and how often it has been given away, so that a caller can keep things of its own (connections,
/// say) in a plain vector by `index` and notice by `generation` that they belong to an endpoint that has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The place, below the largest number of endpoints that the pool has had at once.
    pub index: u32,
    /// Differs between the endpoints that have had this place.
    pub generation: u32,
}

/// What one endpoint looks like at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Its place.
    pub slot: SlotId,
    /// Its weight.
    pub weight: u32,
    /// Requests that have not ended.
    pub in_flight: u32,
    /// The latency estimate, or `None` before the first answer.
    pub rtt: Option<Duration>,
    /// Latency times (requests in flight + 1), overdue requests by their age, in seconds; not divided by the weight.
    pub load: f64,
    /// Its breaker's state; closed if there is none.
    pub breaker: State,
    /// Is it out of use?
    pub ejected: bool,
}

/// What all endpoints of a pool share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) origin: Instant,
    pub(crate) scale: Scale,
    pub(crate) breaker: Option<SharedBreaker>,
    pub(crate) ward: Ward,
    pub(crate) drop_clock: Option<fn() -> Instant>,
}

/// What a snapshot holds of an endpoint. The key's state outlives it.
#[derive(Debug)]
pub(crate) struct Endpoint<T> {
    pub(crate) slot: SlotId,
    pub(crate) weight: u32,
    pub(crate) live: Arc<Live>,
    pub(crate) value: T,
}

/// What is learned about an endpoint, from its arrival in the pool to its removal.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) common: Arc<Common>,
    breaker: Option<SharedBreaker>,
    estimate: Estimate,
    waiting: Waiting,
    in_flight: AtomicU32,
    standing: Standing,
}

impl Live {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self {
            breaker: common.breaker.as_ref().map(SharedBreaker::sibling),
            common,
            estimate: Estimate::default(),
            waiting: Waiting::default(),
            in_flight: AtomicU32::new(0),
            standing: Standing::default(),
        }
    }

    /// May a request go there? Also takes the ticket for its outcome, so it is asked only for the one that is taken.
    pub(crate) fn admit(&self, slot: SlotId, now: Instant) -> Option<Ticket> {
        let admitted = self.breaker.as_ref()?.admit(now).ok()?;
        if let Some(transition) = admitted.transition {
            self.follow(slot, transition);
        }
        Some(admitted.ticket)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.standing.is_ejected()
    }

    pub(crate) fn retire(&self) {
        self.standing.retire(&self.common.ward);
    }

    pub(crate) fn begin(&self, at: Moment) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.waiting.begin(at);
    }

    /// The first of the answer has come.
    pub(crate) fn respond(&self, began: Moment, now: Moment) -> f32 {
        self.waiting.end(began);
        let latency = now.nanos_since(began);
        let scale = &self.common.scale;
        if !self.estimate.observe_peak(latency, now, scale) {
            // A first sample at once, so that an endpoint whose answers stream for hours is known before they end.
            self.estimate.observe(latency, now, scale);
        }
        latency
    }

    /// The request has ended. `latency` is that of its first answer, if there was one.
    pub(crate) fn end(
        &self,
        began: Moment,
        latency: Option<f32>,
        outcome: Outcome,
        now: Option<Moment>,
    ) {
        if latency.is_none() {
            self.waiting.end(began);
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(now) = now else { return };
        let scale = &self.common.scale;
        let age = now.nanos_since(began);
        match (outcome, latency) {
            (Outcome::Success, None) => self.estimate.observe(age, now, scale),
            (Outcome::Success | Outcome::Cancelled, Some(latency)) => {
                // The latency of an answer that streamed for long is old news; if it was a peak, it is known already.
                if age - latency < STALE_NANOS {
                    self.estimate.observe(latency, now, scale);
                }
            }
            // What was cancelled would have taken at least so long.
            (Outcome::Cancelled, None) if self.estimate.observe_peak(age, now, scale) => {}
            (_, latency) => self
                .estimate
                .observe_at_least(latency.unwrap_or(age), now, scale),
        }
    }

    pub(crate) fn record(
        &self,
        slot: SlotId,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        let transition = self
            .breaker
            .as_ref()?
            .record(ticket, outcome, now, random)?;
        self.follow(slot, transition);
        Some(transition)
    }

    /// The loads of two endpoints for their comparison; the random words round.
    pub(crate) fn loads(a: Weighed<'_>, b: Weighed<'_>, now: Moment, random: u64) -> (f32, f32) {
        let scale = &a.live.common.scale;
        let (rtt_a, rtt_b) = Estimate::compare(&a.live.estimate, &b.live.estimate, now, scale);
        let unit = a.weight.min(b.weight);
        (
            a.load(rtt_a, unit, now, random as u32),
            b.load(rtt_b, unit, now, (random >> 32) as u32),
        )
    }

    pub(crate) fn stats(&self, slot: SlotId, weight: u32, now: Moment) -> EndpointStats {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let scale = &self.common.scale;
        let rtt = self.estimate.read();
        let taken_for = rtt.unwrap_or(scale.default_rtt);
        let nanos =
            taken_for * (in_flight as f32 + 1.0) + self.waiting.excess_nanos(now, taken_for);
        EndpointStats {
            slot,
            weight,
            in_flight,
            rtt: rtt.map(|nanos| Duration::from_nanos(nanos as u64)),
            load: f64::from(nanos) / 1e9,
            breaker: self
                .breaker
                .as_ref()
                .map_or(State::Closed, SharedBreaker::state),
            ejected: self.standing.is_ejected(),
        }
    }

    fn follow(&self, slot: SlotId, transition: Transition) {
        if let Some(breaker) = &self.breaker {
            follow(slot, transition, breaker, &self.standing, &self.common.ward);
        }
    }
}

/// A candidate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weighed<'a> {
    pub(crate) live: &'a Live,
    pub(crate) weight: u32,
}

impl Weighed<'_> {
    /// The load per `unit` of weight.
    fn load(&self, rtt: Option<f32>, unit: u32, now: Moment, random: u32) -> f32 {
        let in_flight = self.live.in_flight.load(Ordering::Relaxed);
        let (rtt, factor) = match rtt {
            Some(rtt) => (rtt, 1.0),
            None if in_flight == 0 => return 0.0,
            None => (self.live.common.scale.default_rtt, UNKNOWN_AND_BUSY),
        };
        let mut requests = in_flight;
        let mut excess = self.live.waiting.excess_nanos(now, rtt);
        if self.weight != unit {
            requests = per_unit(in_flight, self.weight, unit, random);
            excess *= unit as f32 / self.weight as f32;
        }
        (rtt * (requests as f32 + 1.0) + excess) * factor
    }
}

/// `in_flight x unit / weight`, rounded up with the chance of its fraction and down otherwise. Seen so, an endpoint of
/// three times the unit is three endpoints of one unit between which its requests are spread evenly.
fn per_unit(in_flight: u32, weight: u32, unit: u32, random: u32) -> u32 {
    let product = u64::from(in_flight) * u64::from(unit);
    let (whole, rest) = (product / u64::from(weight), product % u64::from(weight));
    let up = (u64::from(random) * u64::from(weight)) >> 32 < rest;
    whole as u32 + u32::from(up)
}

/// Makes an endpoint without an estimate the last choice once it has a request, yet comparable with others like it.
const UNKNOWN_AND_BUSY: f32 = 1_048_576.0;
/// 10 s.
const STALE_NANOS: f32 = 1e10;
