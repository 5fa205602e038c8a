use super::aperture::Opening;
use super::choice::Choice;
use super::health::{Standing, Ward, follow};
use super::limit::{Limit, OPEN_NANOS, Refusal};
use super::load::{Estimate, Moment, Penalty, Scale, Waiting};
use super::rate_limits::RateLimits;
use super::words::Words;
use super::zones::Spill;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use mesh_breaker::{
    BreakerCell, BreakerSettings, FailureKind, Outcome, State, Ticket, Transition, Window,
};
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
    pub(crate) breaker: Option<BreakerSettings>,
    pub(crate) rate_limits: Option<RateLimits>,
    pub(crate) penalty_per_tick: f32,
    pub(crate) slow_start_ticks: u32,
    pub(crate) drop_clock: Option<fn() -> Instant>,
    pub(crate) spill: Option<Spill>,
    pub(crate) opening: Option<Opening>,
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
    pub(crate) value: T,
}

/// What is learned about an endpoint, from its arrival in the pool to its removal. 64 bytes: a machine has very many of these.
#[derive(Debug)]
// What is read of a candidate comes first.
#[repr(C)]
pub(crate) struct Live {
    waiting: Waiting,
    estimate: Estimate,
    standing: Standing,
    /// The tick at which it was first looked at; the last one there is if it needs no slow start.
    since: AtomicU32,
    rare: OnceLock<Box<Rare>>,
    breaker: BreakerCell,
    pub(crate) common: Arc<Common>,
    pub(crate) slot: SlotId,
}

/// What most endpoints do not have.
#[derive(Debug, Default)]
struct Rare {
    limit: OnceLock<Limit>,
    penalty: Penalty,
    /// Of a breaker that counts a success rate.
    window: Option<Window>,
}

impl Live {
    /// `warm`: it needs no slow start.
    pub(crate) fn new(common: Arc<Common>, slot: SlotId, warm: bool) -> Self {
        let window = common.breaker.as_ref().and_then(BreakerSettings::window);
        let rare = OnceLock::new();
        if window.is_some() {
            rare.get_or_init(|| {
                Box::new(Rare {
                    window,
                    ..Rare::default()
                })
            });
        }
        Self {
            waiting: Waiting::default(),
            estimate: Estimate::default(),
            standing: Standing::default(),
            since: AtomicU32::new(if warm { WARM } else { 0 }),
            breaker: BreakerCell::new(),
            rare,
            common,
            slot,
        }
    }

    /// May a request go there? Also takes the ticket for its outcome, so it is asked only for the one that is taken.
    #[inline]
    pub(crate) fn admit(&self, now: Instant) -> Option<Ticket> {
        let settings = self.common.breaker.as_ref()?;
        let admitted = self.breaker.admit(settings, now).ok()?;
        if let Some(transition) = admitted.transition {
            self.follow(transition);
        }
        Some(admitted.ticket)
    }

    /// The same where its breaker is closed; otherwise nothing changes.
    #[inline]
    pub(crate) fn admit_closed(&self, settings: &BreakerSettings, now: Instant) -> Option<Ticket> {
        if self.breaker.state() != State::Closed {
            return None;
        }
        let admitted = self.breaker.admit(settings, now).ok()?;
        if let Some(transition) = admitted.transition {
            self.follow(transition);
        }
        Some(admitted.ticket)
    }

    /// In use, and with neither limit nor penalty nor success rate?
    #[inline]
    pub(crate) fn is_usual(&self) -> bool {
        !self.is_ejected() && self.rare.get().is_none()
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
        self.rare.get()?.limit.get()
    }

    /// The penalty, if there is one.
    #[inline]
    fn penalty(&self) -> Option<&Penalty> {
        let penalty = &self.rare.get()?.penalty;
        penalty.is_set().then_some(penalty)
    }

    #[inline]
    fn window(&self) -> Option<&Window> {
        self.rare.get()?.window.as_ref()
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Requests whose answer has not begun.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.count()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.waiting.count() + self.standing.streaming()
    }

    /// Is it much slower than those that are used, or near its limit?
    #[inline]
    pub(crate) fn is_strained(&self, common: &Common, now: Moment) -> bool {
        let typical = f32::from_bits(common.typical.0.load(Ordering::Relaxed));
        let slow = |rtt| typical > 0.0 && rtt > STRAINED * typical;
        self.estimate.read().is_some_and(slow)
            || self.rare.get().is_some_and(|rare| {
                rare.penalty.is_set()
                    || rare
                        .limit
                        .get()
                        .is_some_and(|limit| limit.fullness(now) > 0.25)
            })
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
        self.standing.begin_stream();
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
        mut random: Words,
    ) {
        let latency = answered.map(|(latency, _)| latency);
        if latency.is_none() {
            self.waiting.end(began);
        } else {
            self.standing.end_stream();
        }
        let Some(now) = now else { return };
        // Before what this request teaches: one that is refused shows nothing of when others were served.
        let served_at = match (outcome, answered) {
            (Outcome::RateLimited { .. }, None | Some((_, false))) => self.estimate.sampled_at(now),
            _ => None,
        };
        self.learn_latency(began, latency, outcome, now);
        if random.0.is_multiple_of(TYPICAL_SAMPLE)
            && let Some(rtt) = self.estimate.read()
        {
            self.common.learn_typical(rtt);
        }
        if let Some(settings) = &self.common.rate_limits {
            self.learn_limit(settings, began, served_at, outcome, now, random.next());
        }
    }

    /// The answer to the request with this ticket has begun, and is no failure so far.
    pub(crate) fn answering(&self, ticket: &Ticket, now: Instant) {
        if let Some(settings) = &self.common.breaker {
            self.breaker.answering(settings, self.window(), ticket, now);
        }
    }

    #[inline]
    pub(crate) fn record(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        mut random: Words,
    ) -> Option<Transition> {
        let settings = self.common.breaker.as_ref()?;
        let transition =
            self.breaker
                .record(settings, self.window(), ticket, outcome, now, random.next())?;
        self.follow(transition);
        Some(transition)
    }

    /// The loads of two endpoints for their comparison; the random word rounds.
    #[inline]
    pub(crate) fn loads(
        common: &Common,
        a: Weighed<'_>,
        b: Weighed<'_>,
        now: Moment,
        random: u64,
    ) -> (f32, f32) {
        let (rtt_a, rtt_b) = if common.choice == Choice::LeastRequest {
            (Some(1.0), Some(1.0))
        } else {
            Estimate::compare(&a.live.estimate, &b.live.estimate, now, &common.scale)
        };
        let unit = a.weight.min(b.weight);
        (
            a.load(common, rtt_a, unit, now, random as u32),
            b.load(common, rtt_b, unit, now, (random >> 32) as u32),
        )
    }

    /// What a caller's own measure of load is told.
    pub(crate) fn seen(&self, now: Moment) -> Seen {
        let rtt = self.estimate.read();
        let (waiting, excess) = self
            .waiting
            .count_and_excess(now, rtt.unwrap_or(self.common.scale.default_rtt));
        Seen {
            in_flight: waiting + self.standing.streaming(),
            rtt: rtt.map(|nanos| Duration::from_nanos(nanos as u64)),
            overdue: Duration::from_nanos(excess as u64),
        }
    }

    /// Whether [`crowding`](Self::crowding) can be anything but 1.
    #[inline]
    fn may_be_crowded(&self, common: &Common) -> bool {
        common.slow_start_ticks != 0 || self.rare.get().is_some()
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
        EndpointStats {
            slot: self.slot,
            weight,
            in_flight,
            rtt: rtt.map(|nanos| Duration::from_nanos(nanos as u64)),
            load: f64::from(nanos) / 1e9,
            breaker: self.breaker.state(),
            ejected: self.standing.is_ejected(),
            held: held.map_or(Duration::ZERO, |until| {
                Duration::from_nanos(until.nanos() - now.nanos())
            }),
            limit: self.limit().and_then(Limit::rate).map(f64::from),
            penalty: self.penalty().map_or(Duration::ZERO, |penalty| {
                Duration::from_nanos(penalty.read(now, common.penalty_per_tick) as u64)
            }),
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
                    limit.admitted(began, now);
                }
                if !settings.is_exact()
                    && let Some(penalty) = self.penalty()
                {
                    penalty.clear_if_before(began);
                }
            }
            Outcome::RateLimited { retry_after } => {
                let mut limited = false;
                if settings.learns() || settings.holds() {
                    let limit = self.rare().limit.get_or_init(|| Limit::new(served_at));
                    let refusal = Refusal {
                        hint: retry_after,
                        waiting: self.waiting(),
                        random,
                        unavailable: false,
                    };
                    limited = limit.refuse(now, refusal, settings);
                }
                if !limited && let Some(penalty) = settings.penalty_after(retry_after) {
                    self.rare()
                        .penalty
                        .raise(penalty.as_nanos() as f32, now, per_tick);
                }
            }
            Outcome::Failure(kind) => {
                let hint = outcome.retry_after();
                if let Some(penalty) = settings.penalty_after(hint) {
                    self.rare()
                        .penalty
                        .raise(penalty.as_nanos() as f32, now, per_tick);
                }
                if matches!(kind, FailureKind::Unavailable { .. })
                    && settings.holds()
                    && hint.is_some()
                {
                    let limit = self.rare().limit.get_or_init(|| Limit::new(None));
                    let refusal = Refusal {
                        hint,
                        random,
                        unavailable: true,
                        ..Refusal::default()
                    };
                    limit.refuse(now, refusal, settings);
                }
            }
            _ => {}
        }
    }

    fn follow(&self, transition: Transition) {
        follow(
            self.slot,
            transition,
            &self.breaker,
            &self.standing,
            &self.common.ward,
        );
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
    fn load(&self, common: &Common, rtt: Option<f32>, unit: u32, now: Moment, random: u32) -> f32 {
        let live = self.live;
        let known = rtt.unwrap_or(common.scale.default_rtt);
        let (waiting, mut excess) = live.waiting.count_and_excess(now, known);
        let in_flight = waiting + live.standing.streaming();
        let penalty = live.penalty();
        let (mut rtt, mut factor) = match rtt {
            Some(rtt) => (rtt, 1.0),
            None if in_flight == 0 && penalty.is_none() => return 0.0,
            None => (common.scale.default_rtt, UNKNOWN_AND_BUSY),
        };
        if live.may_be_crowded(common) && factor == 1.0 {
            factor = live.crowding(now);
        }
        if let Some(penalty) = penalty {
            rtt = rtt.max(penalty.read(now, common.penalty_per_tick));
        }
        let mut requests = in_flight;
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
