use super::choice::Choice;
use super::health::{Standing, Ward, follow};
use super::limit::{Limit, OPEN_NANOS};
use super::load::{Estimate, Moment, Penalty, Scale, Waiting};
use super::rate_limits::RateLimits;
use super::zones::Spill;
use mesh_breaker::{FailureKind, Outcome, SharedBreaker, State, Ticket, Transition};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
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
    /// How long it is still left alone because it asked for it; zero if it is not.
    pub held: Duration,
    /// The rate that it was learned to admit, in requests a second, if it has ever refused any for its rate.
    pub limit: Option<f64>,
    /// The latency that it is taken for because it failed; zero if it did not.
    pub penalty: Duration,
    /// How far away its zone is: 0 is the caller's own, or there are no zones.
    pub zone_rank: u16,
}

/// What all endpoints of a pool share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) origin: Instant,
    pub(crate) choice: Choice,
    pub(crate) scale: Scale,
    pub(crate) breaker: Option<SharedBreaker>,
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) penalty_per_tick: f32,
    pub(crate) slow_start_ticks: u32,
    pub(crate) drop_clock: Option<fn() -> Instant>,
    pub(crate) spill: Option<Spill>,
    pub(crate) ward: Ward,
    pub(crate) turn: Apart<AtomicU64>,
    /// What the latency estimates of the endpoints that are used are like, in nanoseconds (`f32`).
    pub(crate) typical: Apart<AtomicU32>,
}

/// In a cache line of its own, since it changes often and what is beside it never.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Apart<T>(pub(crate) T);

impl Common {
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        super::PoolBuilder::default().common(Instant::now())
    }

    fn learn_typical(&self, rtt: f32) {
        let typical = f32::from_bits(self.typical.0.load(Ordering::Relaxed));
        let next = if typical == 0.0 {
            rtt
        } else {
            // A few very slow ones shall not make slowness typical.
            typical + (rtt.min(2.0 * typical) - typical) / 16.0
        };
        self.typical.0.store(next.to_bits(), Ordering::Relaxed);
    }
}

/// What a snapshot holds of an endpoint. The key's state outlives it.
#[derive(Debug)]
pub(crate) struct Endpoint<T> {
    pub(crate) live: Arc<Live>,
    pub(crate) weight: u32,
    pub(crate) rank: u16,
    pub(crate) value: T,
}

/// What is learned about an endpoint, from its arrival in the pool to its removal.
#[derive(Debug)]
pub(crate) struct Live {
    waiting: Waiting,
    estimate: Estimate,
    penalty: Penalty,
    /// Requests that have been answered and have not ended.
    streaming: AtomicU32,
    /// The tick at which it was first looked at; the last one there is if it needs no slow start.
    since: AtomicU32,
    limit: OnceLock<Box<Limit>>,
    standing: Standing,
    breaker: Option<SharedBreaker>,
    pub(crate) slot: SlotId,
    pub(crate) common: Arc<Common>,
}

impl Live {
    /// `warm`: it needs no slow start.
    pub(crate) fn new(common: Arc<Common>, slot: SlotId, warm: bool) -> Self {
        Self {
            waiting: Waiting::default(),
            estimate: Estimate::default(),
            penalty: Penalty::default(),
            streaming: AtomicU32::new(0),
            since: AtomicU32::new(if warm { WARM } else { 0 }),
            limit: OnceLock::new(),
            standing: Standing::default(),
            breaker: common.breaker.as_ref().map(SharedBreaker::sibling),
            slot,
            common,
        }
    }

    /// May a request go there? Also takes the ticket for its outcome, so it is asked only for the one that is taken.
    #[inline]
    pub(crate) fn admit(&self, now: Instant) -> Option<Ticket> {
        let admitted = self.breaker.as_ref()?.admit(now).ok()?;
        if let Some(transition) = admitted.transition {
            self.follow(transition);
        }
        Some(admitted.ticket)
    }

    #[inline]
    pub(crate) fn is_ejected(&self) -> bool {
        self.standing.is_ejected()
    }

    pub(crate) fn retire(&self) {
        self.standing.retire(&self.common.ward);
    }

    #[inline]
    pub(crate) fn limit(&self) -> Option<&Limit> {
        self.limit.get().map(Box::as_ref)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.waiting.count() + self.streaming.load(Ordering::Relaxed)
    }

    /// Is it much slower than those that are used, or near its limit?
    #[inline]
    pub(crate) fn is_strained(&self, now: Moment) -> bool {
        if self.limit().is_some_and(|limit| limit.fullness(now) > 0.25) || self.penalty.is_set() {
            return true;
        }
        let typical = f32::from_bits(self.common.typical.0.load(Ordering::Relaxed));
        typical > 0.0
            && self
                .estimate
                .read()
                .is_some_and(|rtt| rtt > STRAINED * typical)
    }

    /// The share of its weight that it gets while it starts slowly.
    #[inline]
    pub(crate) fn warmth(&self, now: Moment) -> f32 {
        let ticks = self.common.slow_start_ticks;
        if ticks == 0 {
            return 1.0;
        }
        let since = self.since.load(Ordering::Relaxed);
        if since == WARM {
            return 1.0;
        }
        let tick = now.tick32().clamp(1, WARM - 1);
        if since == 0 {
            self.since.store(tick, Ordering::Relaxed);
            return COLDEST;
        }
        let share = tick.wrapping_sub(since) as f32 / ticks as f32;
        if share >= 1.0 {
            self.since.store(WARM, Ordering::Relaxed);
        }
        share.clamp(COLDEST, 1.0)
    }

    #[inline]
    pub(crate) fn begin(&self, at: Moment) {
        self.waiting.begin(at);
    }

    /// The first of the answer has come. Says the latency, and whether it is the only answer of the last second.
    pub(crate) fn respond(&self, began: Moment, now: Moment) -> (f32, bool) {
        // In this order, so that it is never seen as ended.
        self.streaming.fetch_add(1, Ordering::Relaxed);
        self.waiting.end(began);
        let latency = now.nanos_since(began);
        let scale = &self.common.scale;
        // As it was before this one, which may yet turn out to be a refusal.
        let answered = self.estimate.sampled_at(now);
        let alone = answered.is_none_or(|at| now.nanos_since(at) > OPEN_NANOS);
        if !self.estimate.observe_peak(latency, now, scale) {
            // A first sample at once, so that an endpoint whose answers stream for hours is known before they end.
            self.estimate.observe(latency, now, scale);
        }
        (latency, alone)
    }

    /// The request has ended. `answered` is what [`respond`](Self::respond) said, if there was an answer.
    #[inline]
    pub(crate) fn end(
        &self,
        began: Moment,
        answered: Option<(f32, bool)>,
        outcome: Outcome,
        now: Option<Moment>,
        random: u64,
    ) {
        let latency = answered.map(|(latency, _)| latency);
        if latency.is_none() {
            self.waiting.end(began);
        } else {
            self.streaming.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(now) = now else { return };
        // Before what this request teaches: one that is refused shows nothing of when others were served.
        let served_at = match (outcome, answered) {
            (Outcome::RateLimited { .. }, None | Some((_, false))) => self.estimate.sampled_at(now),
            _ => None,
        };
        self.learn_latency(began, latency, outcome, now);
        if random.is_multiple_of(TYPICAL_SAMPLE)
            && let Some(rtt) = self.estimate.read()
        {
            self.common.learn_typical(rtt);
        }
        if let Some(settings) = &self.common.rate_limits {
            self.learn_limit(settings, began, served_at, outcome, now, random);
        }
    }

    #[inline]
    pub(crate) fn record(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        random: u64,
    ) -> Option<Transition> {
        let transition = self
            .breaker
            .as_ref()?
            .record(ticket, outcome, now, random)?;
        self.follow(transition);
        Some(transition)
    }

    /// The loads of two endpoints for their comparison; the random word rounds.
    #[inline]
    pub(crate) fn loads(a: Weighed<'_>, b: Weighed<'_>, now: Moment, random: u64) -> (f32, f32) {
        let common = &a.live.common;
        let (rtt_a, rtt_b) = if common.choice == Choice::LeastRequest {
            (Some(1.0), Some(1.0))
        } else {
            Estimate::compare(&a.live.estimate, &b.live.estimate, now, &common.scale)
        };
        let unit = a.weight.min(b.weight);
        (
            a.load(rtt_a, unit, now, random as u32),
            b.load(rtt_b, unit, now, (random >> 32) as u32),
        )
    }

    /// What a caller's own measure of load is told.
    pub(crate) fn seen(&self, now: Moment) -> Seen {
        let rtt = self.estimate.read();
        let (waiting, excess) = self
            .waiting
            .count_and_excess(now, rtt.unwrap_or(self.common.scale.default_rtt));
        Seen {
            in_flight: waiting + self.streaming.load(Ordering::Relaxed),
            rtt: rtt.map(|nanos| Duration::from_nanos(nanos as u64)),
            overdue: Duration::from_nanos(excess as u64),
        }
    }

    /// By how much a limit or a slow start makes it less attractive: 1 is not at all.
    #[inline]
    pub(crate) fn crowding(&self, now: Moment) -> f32 {
        let limited = self.limit().map_or(1.0, |limit| {
            1.0 / (1.0 - limit.fullness(now)).max(LEAST_ROOM)
        });
        limited / self.warmth(now)
    }

    pub(crate) fn stats(&self, weight: u32, zone_rank: u16, now: Moment) -> EndpointStats {
        let in_flight = self.in_flight();
        let common = &self.common;
        let rtt = self.estimate.read();
        let taken_for = rtt.unwrap_or(common.scale.default_rtt);
        let nanos =
            taken_for * (in_flight as f32 + 1.0) + self.waiting.excess_nanos(now, taken_for);
        let held = self.limit().and_then(|limit| limit.held(now));
        let breaker = self.breaker.as_ref();
        EndpointStats {
            slot: self.slot,
            weight,
            in_flight,
            rtt: rtt.map(|nanos| Duration::from_nanos(nanos as u64)),
            load: f64::from(nanos) / 1e9,
            breaker: breaker.map_or(State::Closed, SharedBreaker::state),
            ejected: self.standing.is_ejected(),
            held: held.map_or(Duration::ZERO, |until| {
                Duration::from_nanos(until.nanos() - now.nanos())
            }),
            limit: self.limit().and_then(Limit::rate).map(f64::from),
            penalty: Duration::from_nanos(self.penalty.read(now, common.penalty_per_tick) as u64),
            zone_rank,
        }
    }

    #[inline]
    fn learn_latency(&self, began: Moment, latency: Option<f32>, outcome: Outcome, now: Moment) {
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
            // How long a refusal took says little about an answer.
            (Outcome::RateLimited { .. }, latency) => {
                self.estimate
                    .observe_peak(latency.unwrap_or(age), now, scale);
            }
            // What was cancelled would have taken at least so long.
            (Outcome::Cancelled, None) if self.estimate.observe_peak(age, now, scale) => {}
            (_, latency) => self
                .estimate
                .observe_at_least(latency.unwrap_or(age), now, scale),
        }
    }

    fn learn_limit(
        &self,
        settings: &RateLimits,
        began: Moment,
        served_at: Option<Moment>,
        outcome: Outcome,
        now: Moment,
        random: u64,
    ) {
        let per_tick = self.common.penalty_per_tick;
        match outcome {
            Outcome::Success => {
                if let Some(limit) = self.limit() {
                    limit.admitted(now);
                }
                if !settings.is_exact() {
                    self.penalty.clear_if_before(began);
                }
            }
            Outcome::RateLimited { retry_after } => {
                let mut limited = false;
                if settings.learns() || settings.holds() {
                    let limit = self.limit.get_or_init(|| Box::new(Limit::new(served_at)));
                    limited = limit.refuse(now, retry_after, settings, random);
                }
                if !limited && let Some(penalty) = settings.penalty_after(retry_after) {
                    self.penalty.raise(penalty.as_nanos() as f32, now, per_tick);
                }
            }
            Outcome::Failure(kind) => {
                let hint = outcome.retry_after();
                if let Some(penalty) = settings.penalty_after(hint) {
                    self.penalty.raise(penalty.as_nanos() as f32, now, per_tick);
                }
                if matches!(kind, FailureKind::Unavailable { .. })
                    && settings.holds()
                    && hint.is_some()
                {
                    let limit = self.limit.get_or_init(|| Box::new(Limit::new(None)));
                    limit.refuse(now, hint, settings, random);
                }
            }
            _ => {}
        }
    }

    fn follow(&self, transition: Transition) {
        if let Some(breaker) = &self.breaker {
            follow(
                self.slot,
                transition,
                breaker,
                &self.standing,
                &self.common.ward,
            );
        }
        if let Some(spill) = &self.common.spill {
            spill.hurry();
        }
    }
}

/// What is known of an endpoint when its load is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Seen {
    /// Requests that have not ended.
    pub in_flight: u32,
    /// The latency estimate, or `None` before the first answer.
    pub rtt: Option<Duration>,
    /// By how much the requests that wait for an answer have waited longer than expected, together.
    pub overdue: Duration,
}

/// A candidate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weighed<'a> {
    pub(crate) live: &'a Live,
    pub(crate) weight: u32,
}

impl Weighed<'_> {
    /// The load per `unit` of weight.
    #[inline]
    fn load(&self, rtt: Option<f32>, unit: u32, now: Moment, random: u32) -> f32 {
        let live = self.live;
        let (waiting, excess) = live
            .waiting
            .count_and_excess(now, rtt.unwrap_or(live.common.scale.default_rtt));
        let in_flight = waiting + live.streaming.load(Ordering::Relaxed);
        let (mut rtt, factor) = match rtt {
            Some(rtt) => (rtt, live.crowding(now)),
            None if in_flight == 0 && !live.penalty.is_set() => return 0.0,
            None => (live.common.scale.default_rtt, UNKNOWN_AND_BUSY),
        };
        if live.penalty.is_set() {
            rtt = rtt.max(live.penalty.read(now, live.common.penalty_per_tick));
        }
        let mut requests = in_flight;
        let mut excess = excess;
        if self.weight != unit {
            requests = per_unit(in_flight, self.weight, unit, random);
            excess *= unit as f32 / self.weight as f32;
        }
        (rtt * (requests as f32 + 1.0) + excess) * factor
    }
}

/// `in_flight x unit / weight`, rounded up with the chance of its fraction and down otherwise. Seen so, an endpoint of
/// three times the unit is three endpoints of one unit between which its requests are spread evenly.
#[inline]
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
/// How many times the typical latency makes an endpoint a slow one.
const STRAINED: f32 = 2.0;
/// One request in so many tells what is typical.
const TYPICAL_SAMPLE: u64 = 32;
const WARM: u32 = u32::MAX;
/// The share of its weight with which a slow start begins.
const COLDEST: f32 = 0.1;
const LEAST_ROOM: f32 = 0.01;
