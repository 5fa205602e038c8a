use super::load::Moment;
use super::rate_limits::RateLimits;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What is learned about the rate limit of one endpoint, from its first refusal on.
///
/// Its sending is paced: each request moves the time at which the next one is due by one interval of the learned rate, and
/// there is room while that time is less than a tolerance ahead (the generic cell rate algorithm, ITU-T I.371).
///
/// The rate rises by a share of itself in the time in which it holds requests back, and falls by a share of itself with each
/// refusal. Where several clients press, all see the same chance of a refusal, so a client with twice the rate falls twice
/// as often, and the rates meet at the same number of refusals a second: a fair share, whatever the limit. The longer none
/// is refused, the faster it rises; the larger the share that is refused, the faster it falls, though not below what the
/// endpoint admits at the same time.
///
/// Each value is an atomic of its own. Two threads that change one at the same moment may lose one of the changes, which
/// makes an estimate a little older and nothing wrong.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Requests a second (`f32`); zero while it is still being measured.
    rate: AtomicU32,
    /// When the next request is due, in nanoseconds since the origin.
    due: AtomicU64,
    /// Until when nothing is sent; odd if the first request after that is to go alone.
    held_until: AtomicU64,
    /// When it last held requests back, and the seconds (`f32`) it has done so since the last refusal.
    pressed_at: AtomicU64,
    pressed_for: AtomicU32,
    /// When it last held a request back that found room elsewhere.
    passed_at: AtomicU64,
    /// The share of the latest requests that was refused (`f32`), and since when that has been most of them; zero is that it
    /// is not.
    refused: AtomicU32,
    most_since: AtomicU64,
    /// When it last served one; zero is never.
    admitted_at: AtomicU64,
    flow: Flow,
    /// While the rate is measured: since when (zero is not yet), and the requests admitted (low half) and refused (high half).
    measured_since: AtomicU64,
    measured: AtomicU64,
}

impl Limit {
    /// For an endpoint that has just refused its first request. `admitted_at`: when it last served one.
    pub(crate) fn new(admitted_at: Option<Moment>) -> Self {
        Self {
            rate: AtomicU32::new(0),
            due: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            pressed_at: AtomicU64::new(0),
            passed_at: AtomicU64::new(0),
            pressed_for: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            most_since: AtomicU64::new(0),
            admitted_at: AtomicU64::new(admitted_at.map_or(0, Moment::nanos)),
            flow: Flow::default(),
            measured_since: AtomicU64::new(0),
            measured: AtomicU64::new(0),
        }
    }

    /// How full it is: 0 when a request is due at once, 1 and above when there is no room.
    pub(crate) fn fullness(&self, now: Moment) -> f32 {
        let rate = load(&self.rate);
        if rate == 0.0 {
            return 0.0;
        }
        let ahead = self.due.load(Ordering::Relaxed).saturating_sub(now.nanos());
        ahead as f32 / tolerance_nanos(rate)
    }

    /// Is it to be left alone, and until when?
    pub(crate) fn held(&self, now: Moment) -> Option<Moment> {
        let until = self.held_until.load(Ordering::Relaxed);
        (until > now.nanos()).then(|| Moment::from_nanos(until))
    }

    /// When there will be room.
    pub(crate) fn room_at(&self, now: Moment) -> Moment {
        let rate = load(&self.rate).max(MIN_RATE);
        let due = self.due.load(Ordering::Relaxed);
        let room = due.saturating_sub(tolerance_nanos(rate) as u64);
        let held = self.held_until.load(Ordering::Relaxed);
        Moment::from_nanos(room.max(held).max(now.nanos()))
    }

    /// A request goes there. `false` if another one was faster to take the only place after a long hold.
    pub(crate) fn take(&self, now: Moment) -> bool {
        let held = self.held_until.load(Ordering::Relaxed);
        if held & ALONE != 0 {
            if held > now.nanos() {
                // Another one has gone since this one looked.
                return false;
            }
            // Whoever moves the time on is the one that goes; the others wait for what it comes to.
            let next = (now.nanos() + TRIAL.as_nanos() as u64) | ALONE;
            let swap =
                self.held_until
                    .compare_exchange(held, next, Ordering::Relaxed, Ordering::Relaxed);
            if swap.is_err() {
                return false;
            }
        }
        let rate = load(&self.rate);
        if rate > 0.0 {
            let interval = (NANOS / rate) as u64;
            let next = |due: u64| Some(due.max(now.nanos()) + interval);
            let _ = self
                .due
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
        true
    }

    /// It had no room when a request came, but another endpoint had.
    pub(crate) fn passed_over(&self, now: Moment) {
        let time = step(&self.passed_at, now);
        self.rise(RISE_WHILE_OTHERS_HAVE_ROOM * time);
    }

    /// Neither it nor any other had room when a request came.
    pub(crate) fn press(&self, now: Moment) {
        let time = step(&self.pressed_at, now);
        let quiet = load(&self.pressed_for) + time;
        store(&self.pressed_for, quiet);
        self.rise((RISE + SPEED * (quiet - QUIET).max(0.0).powi(2)) * time);
    }

    /// A request that began at this moment was served.
    pub(crate) fn admitted(&self, began: Moment, now: Moment) {
        let refused = load(&self.refused) * (1.0 - MEMORY);
        store(&self.refused, refused);
        if refused <= MOST_REFUSED {
            self.most_since.store(0, Ordering::Relaxed);
        }
        self.admitted_at.fetch_max(now.nanos(), Ordering::Relaxed);
        self.flow.add(now);
        if self.held_until.load(Ordering::Relaxed) & ALONE != 0 {
            self.held_until.store(0, Ordering::Relaxed);
        }
        // What had been sent before was counted by the endpoint before it had nothing left.
        if began.nanos() >= self.measured_since.load(Ordering::Relaxed) & !SHUT {
            self.measure(now, 1, 0);
        }
    }

    /// A request was refused. Says whether that explains it: the endpoint is held, or its limit is being learned.
    pub(crate) fn refuse(&self, now: Moment, refusal: Refusal, settings: &RateLimits) -> bool {
        let Refusal { hint, random, .. } = refusal;
        let refused = load(&self.refused);
        let refused = refused + (1.0 - refused) * MEMORY;
        store(&self.refused, refused);
        let admitted_at = self.admitted_at.load(Ordering::Relaxed);
        let shut =
            admitted_at == 0 || now.nanos_since(Moment::from_nanos(admitted_at)) > OPEN_NANOS;
        if shut || !settings.learns() {
            let hold = hint.filter(|_| settings.holds());
            if let Some(hint) = hold {
                // What comes after it is another time.
                self.measured_since.store(0, Ordering::Relaxed);
                let mut time = hint.min(settings.longest_hold());
                let unknown = admitted_at == 0 && settings.learns() && !refusal.unavailable;
                if unknown && hint == SHORTEST_HINT {
                    let held = self.held_until.load(Ordering::Relaxed);
                    if held > now.nanos() && held & ALONE == 0 {
                        // Sent before the one that it is held for was refused.
                        return true;
                    }
                    let before = self.measured.fetch_add(REFUSED, Ordering::Relaxed) >> 32;
                    time = time.min(FIRST_HOLD * (1 << before.min(20)) as u32);
                }
                self.hold(now, time, random);
            }
            return hold.is_some();
        }
        let rate = load(&self.rate);
        if rate == 0.0 {
            if self.measured_since.load(Ordering::Relaxed) == 0 {
                self.measured.store(0, Ordering::Relaxed);
                self.measured_since
                    .store(now.nanos().max(2) & !SHUT, Ordering::Relaxed);
            }
            self.measure(now, REFUSED, refusal.waiting);
            if load(&self.rate) == 0.0 {
                // What is not sent meanwhile is admitted after it: asking all the time finds out nothing more.
                self.rest(now);
            }
            return true;
        }
        store(&self.pressed_for, 0.0);
        if refused > MOST_REFUSED && self.for_long(now) {
            // It is another limit now.
            self.most_since.store(0, Ordering::Relaxed);
            self.measured_since.store(0, Ordering::Relaxed);
            store(&self.rate, 0.0);
            return true;
        }
        let fall = if refused > MOST_REFUSED {
            // All at once, as at the end of a window: the share says how long ago it was full, not how far too fast it was.
            0.0
        } else {
            (refused * FALL_BY_SHARE).max(FALL)
        };
        let admits = self.flow.per_second(now) * ADMITTED_FLOOR;
        let floor = admits.min(rate);
        let rate = (rate * (1.0 - fall)).max(floor).max(MIN_RATE);
        store(&self.rate, rate);
        self.fill(now, rate);
        true
    }

    /// The learned rate, in requests a second.
    pub(crate) fn rate(&self) -> Option<f32> {
        let rate = load(&self.rate);
        (rate > 0.0).then_some(rate)
    }

    fn rise(&self, share: f32) {
        let rate = load(&self.rate) * (1.0 + share.min(MAX_RISE));
        store(&self.rate, rate.min(MAX_RATE));
    }

    fn hold(&self, now: Moment, time: Duration, random: u64) {
        let jitter = time.mul_f64(JITTER * (random >> 11) as f64 / (1_u64 << 53) as f64);
        let until = now.nanos() + (time + jitter).as_nanos() as u64;
        let alone = if time >= LONG_HOLD { ALONE } else { 0 };
        self.held_until
            .fetch_max(until & !ALONE | alone, Ordering::Relaxed);
    }

    /// Have most been refused for longer than it is until the next window?
    fn for_long(&self, now: Moment) -> bool {
        let since = self.most_since.load(Ordering::Relaxed);
        if since == 0 {
            self.most_since.store(now.nanos(), Ordering::Relaxed);
        }
        since != 0 && now.nanos_since(Moment::from_nanos(since)) > LONG_REFUSED_NANOS
    }

    /// Counts an outcome until there are enough for a first estimate. `waiting`: requests that are about to be admitted, most likely.
    fn measure(&self, now: Moment, outcome: u64, waiting: u32) {
        let since = self.measured_since.load(Ordering::Relaxed);
        if load(&self.rate) > 0.0 || since == 0 {
            return;
        }
        let counted = self.measured.fetch_add(outcome, Ordering::Relaxed) + outcome;
        let (admitted, refused) = (counted as u32, (counted >> 32) as u32);
        let time = now.nanos_since(Moment::from_nanos(since));
        let enough = admitted + refused >= FIRST_SAMPLE
            || (admitted == 0 && refused >= NONE_SAMPLE)
            || since & SHUT != 0
            || time > LONGEST_MEASURE_NANOS;
        if !enough || time < SHORTEST_MEASURE_NANOS {
            return;
        }
        let was_shut = since & SHUT != 0;
        if time < LONGEST_MEASURE_NANOS && was_shut && (outcome != REFUSED || admitted == 0) {
            // Until it is full again, which is one turn of its windows. Asked seldom, it is seen to open.
            if admitted == 0 {
                self.rest(now);
            }
            return;
        }
        if !was_shut && admitted.saturating_mul(FEW_OF) < refused {
            // It counts by windows, and is shut until the next: that shows nothing of its rate. The few that were admitted
            // had been sent before.
            self.measured.store(0, Ordering::Relaxed);
            self.measured_since.store(since | SHUT, Ordering::Relaxed);
            self.rest(now);
            return;
        }
        if !was_shut && outcome != REFUSED {
            // From one moment at which it had nothing left to another.
            return;
        }
        if !was_shut && time > LONGEST_MEASURE_NANOS {
            self.measured.store(REFUSED, Ordering::Relaxed);
            self.measured_since
                .store(now.nanos() & !SHUT, Ordering::Relaxed);
            return;
        }
        let admitted = admitted + waiting.min(admitted);
        let rate = (admitted as f32 + 0.5) * NANOS / time;
        // Until the next refusal shows that it is not too low, it rises fast.
        store(&self.pressed_for, QUIET + 1.5);
        let rate = rate.clamp(MIN_RATE, MAX_RATE);
        store(&self.refused, 0.0);
        self.flow.assume(rate, now);
        store(&self.rate, rate);
        self.fill(now, rate);
    }

    /// Leaves it alone for a moment.
    fn rest(&self, now: Moment) {
        let until = (now.nanos() + RARELY_NANOS) & !ALONE;
        self.held_until.fetch_max(until, Ordering::Relaxed);
    }

    /// The endpoint has no room at this moment, so neither has what is known of it.
    fn fill(&self, now: Moment, rate: f32) {
        let full = now.nanos() + tolerance_nanos(rate) as u64;
        self.due.fetch_max(full, Ordering::Relaxed);
    }
}

/// A refusal, as it comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refusal {
    /// How long the endpoint asks to be left alone.
    pub(crate) hint: Option<Duration>,
    /// Requests that wait for their answers there.
    pub(crate) waiting: u32,
    /// Spreads the returns.
    pub(crate) random: u64,
    /// It cannot serve at all, whoever asks: 503, not 429.
    pub(crate) unavailable: bool,
}

/// Requests a second, each counting for less the longer ago it was.
#[derive(Debug, Default)]
struct Flow {
    /// The faded count (`f32`) in the upper half, the tick of the last one in the lower.
    word: AtomicU64,
}

impl Flow {
    fn add(&self, now: Moment) {
        let count = self.faded(now) + 1.0;
        let word = u64::from(count.to_bits()) << 32 | u64::from(now.tick32());
        self.word.store(word, Ordering::Relaxed);
    }

    /// As if there had been so many a second for long.
    fn assume(&self, per_second: f32, now: Moment) {
        let count = per_second * FLOW_SECONDS;
        let word = u64::from(count.to_bits()) << 32 | u64::from(now.tick32());
        self.word.store(word, Ordering::Relaxed);
    }

    fn per_second(&self, now: Moment) -> f32 {
        self.faded(now) / FLOW_SECONDS
    }

    fn faded(&self, now: Moment) -> f32 {
        let word = self.word.load(Ordering::Relaxed);
        let count = f32::from_bits((word >> 32) as u32);
        let seconds = now.seconds_since_tick(word as u32);
        count * (-seconds / FLOW_SECONDS).exp()
    }
}

/// The seconds since a moment that is replaced by `now`, as far as they are one stretch.
fn step(last: &AtomicU64, now: Moment) -> f32 {
    let before = last.swap(now.nanos(), Ordering::Relaxed);
    (now.nanos().saturating_sub(before) as f32 / NANOS).min(LONGEST_STEP)
}

fn tolerance_nanos(rate: f32) -> f32 {
    TOLERANCE_NANOS.max(2.0 * NANOS / rate)
}

fn load(value: &AtomicU32) -> f32 {
    f32::from_bits(value.load(Ordering::Relaxed))
}

fn store(value: &AtomicU32, to: f32) {
    value.store(to.to_bits(), Ordering::Relaxed);
}

const NANOS: f32 = 1e9;
/// Bit of `held_until`: nobody else may go before the first has been answered.
const ALONE: u64 = 1;
/// How far ahead of the learned rate requests may run: what chance makes of a steady stream.
const TOLERANCE_NANOS: f32 = 0.1 * NANOS;
/// By which share of itself a rate rises in a second in which it holds requests back and nobody else has room.
const RISE: f32 = 0.03;
/// How much faster with the square of the seconds, after the first, in which nothing was refused.
const SPEED: f32 = 0.5;
const QUIET: f32 = 1.0;
/// By which share of itself a rate rises with one request at most.
const MAX_RISE: f32 = 0.25;
/// The same while others have room, where it costs nothing to wait.
const RISE_WHILE_OTHERS_HAVE_ROOM: f32 = 0.01;
/// Requests further apart than this do not press for all the time in between, in seconds.
const LONGEST_STEP: f32 = 0.25;
/// By which share of itself a rate falls with a refusal: at least, by the share refused, and from which share on no more.
const FALL: f32 = 0.02;
const FALL_BY_SHARE: f32 = 0.3;
const MOST_REFUSED: f32 = 0.5;
/// 1.2 s.
const LONG_REFUSED_NANOS: f32 = 1.2 * NANOS;
/// Not below this share of what the endpoint is admitting.
const ADMITTED_FLOOR: f32 = 0.95;
const FLOW_SECONDS: f32 = 0.5;
/// How much the latest outcome counts in the share that is refused.
const MEMORY: f32 = 0.125;
/// An endpoint that has admitted something within this time is limited; another is shut.
pub(crate) const OPEN_NANOS: f32 = NANOS;
/// Outcomes that make a first estimate, and the bounds of the time it takes.
const FIRST_SAMPLE: u32 = 8;
/// Refusals that show that nothing is admitted.
const NONE_SAMPLE: u32 = 4;
const SHORTEST_MEASURE_NANOS: f32 = 0.1 * NANOS;
const LONGEST_MEASURE_NANOS: f32 = 2.0 * NANOS;
/// What a refusal adds to the counts of a measurement; an admission adds 1.
const REFUSED: u64 = 1 << 32;
/// Bit of `measured_since`: nothing was admitted at first.
const SHUT: u64 = 1;
/// With less than one in so many admitted at first, it is shut.
const FEW_OF: u32 = 8;
/// 20 ms.
const RARELY_NANOS: u64 = 20_000_000;
const MIN_RATE: f32 = 0.2;
const MAX_RATE: f32 = 1e9;
/// After a hold of this length the first request goes alone, for so long at most.
const LONG_HOLD: Duration = Duration::from_secs(1);
/// `Retry-After: 1`: in whole seconds no hint is shorter, so this one does not say that it is shut; one of 500 ms or 2 s means it. Where nothing else is known of an endpoint it is
/// asked again after a moment, and when that was too early, after twice the time.
const SHORTEST_HINT: Duration = Duration::from_secs(1);
const FIRST_HOLD: Duration = Duration::from_millis(5);
const TRIAL: Duration = Duration::from_secs(1);
/// A hold is lengthened by up to this share, so that not all clients are back at once.
const JITTER: f64 = 0.1;
