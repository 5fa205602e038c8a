use crate::sync::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How latency becomes load: an estimate that jumps up to peaks and fades exponentially to where the samples are.
///
/// A sample above what the estimate has faded to replaces it; one below lets it fade on, by `e^(-t/decay)` where `t` is the
/// time since the last sample. Of two endpoints that are compared, the slower one's estimate is seen as faded since its last
/// sample, but not below the other's, so that an endpoint that is avoided is tried again. Reading never changes an estimate.
/// Defaults: 30 ms before the first sample, 10 s decay, as in Finagle's and Linkerd's Peak EWMA. Those blend a low sample in
/// instead, which makes an endpoint that was avoided for long look slower after a good answer than before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwma {
    default_rtt: Duration,
    decay: Duration,
}

impl PeakEwma {
    /// What an endpoint's latency is taken for before it is known, at least 1 ns. Default: 30 ms.
    #[must_use]
    pub fn default_rtt(self, rtt: Duration) -> Self {
        Self {
            default_rtt: rtt.max(Duration::from_nanos(1)),
            ..self
        }
    }

    /// How long until a peak has faded to a third (1/e), at least 1 ms. Default: 10 s.
    #[must_use]
    pub fn decay(self, decay: Duration) -> Self {
        Self {
            decay: decay.max(Duration::from_millis(1)),
            ..self
        }
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
        }
    }
}

/// A moment as nanoseconds since the pool's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    #[inline]
    pub(crate) fn new(origin: Instant, now: Instant) -> Self {
        let since = now.saturating_duration_since(origin);
        Self(
            since
                .as_secs()
                .saturating_mul(1_000_000_000)
                .saturating_add(u64::from(since.subsec_nanos())),
        )
    }

    /// Nanoseconds since an earlier moment, or 0 if it was later (threads read their clocks at different times).
    #[inline]
    pub(crate) fn nanos_since(self, earlier: Self) -> f32 {
        self.0.saturating_sub(earlier.0) as f32
    }

    #[inline]
    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Since the origin.
    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    /// Low half of the tick, for [`seconds_since_tick`](Self::seconds_since_tick).
    #[inline]
    pub(crate) fn tick32(self) -> u32 {
        self.tick() as u32
    }

    /// Seconds since an earlier tick, or 0 if it was later.
    pub(crate) fn seconds_since_tick(self, tick: u32) -> f32 {
        elapsed_ticks(tick, self) as f32 * (NANOS_PER_TICK / 1e9)
    }

    /// In ticks of 65.5 us.
    #[inline]
    fn tick(self) -> u64 {
        self.0 >> TICK_SHIFT
    }
}

/// [`PeakEwma`] in the units of the hot path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) default_rtt: f32,
    per_tick: f32,
}

impl From<PeakEwma> for Scale {
    fn from(config: PeakEwma) -> Self {
        Self {
            default_rtt: config.default_rtt.as_nanos() as f32,
            per_tick: per_tick(config.decay),
        }
    }
}

/// A latency estimate: its nanoseconds as `f32` in the upper half of the word, the tick of its last sample in the lower.
/// Zero is unknown.
#[derive(Debug, Default)]
pub(crate) struct Estimate(AtomicU64);

impl Estimate {
    /// The estimate after the last sample, in nanoseconds, or `None` before the first.
    #[inline]
    pub(crate) fn read(&self) -> Option<f32> {
        let (rtt, _) = unpack(self.0.load(Ordering::Relaxed));
        (rtt > 0.0).then_some(rtt)
    }

    /// When the last sample was taken, if within the minute.
    pub(crate) fn sampled_at(&self, now: Moment) -> Option<Moment> {
        let (rtt, tick) = unpack(self.0.load(Ordering::Relaxed));
        let elapsed = elapsed_ticks(tick, now);
        (rtt > 0.0 && elapsed < SKEW_TICKS)
            .then(|| Moment(now.0.saturating_sub(u64::from(elapsed) << TICK_SHIFT)))
    }

    /// The estimates of two endpoints for their comparison. The higher one fades, but only to the lower one: to be less
    /// well known is no reason to be preferred.
    #[inline]
    pub(crate) fn compare(
        a: &Self,
        b: &Self,
        now: Moment,
        scale: &Scale,
    ) -> (Option<f32>, Option<f32>) {
        let (rtt_a, tick_a) = unpack(a.0.load(Ordering::Relaxed));
        let (rtt_b, tick_b) = unpack(b.0.load(Ordering::Relaxed));
        if rtt_a == 0.0 || rtt_b == 0.0 {
            return (
                (rtt_a > 0.0).then_some(rtt_a),
                (rtt_b > 0.0).then_some(rtt_b),
            );
        }
        if rtt_a > rtt_b {
            (
                Some((rtt_a * fade(tick_a, now, scale)).max(rtt_b)),
                Some(rtt_b),
            )
        } else {
            (
                Some(rtt_a),
                Some((rtt_b * fade(tick_b, now, scale)).max(rtt_a)),
            )
        }
    }

    /// Takes a latency for what it is.
    #[inline]
    pub(crate) fn observe(&self, nanos: f32, now: Moment, scale: &Scale) {
        self.update(now, |rtt, tick| nanos.max(rtt * fade(tick, now, scale)));
    }

    /// Takes a time that says nothing unless it is longer than expected: how long a failure took, or how long a request
    /// had waited when it was cancelled. It keeps the estimate from fading, too.
    pub(crate) fn observe_at_least(&self, nanos: f32, now: Moment, scale: &Scale) {
        self.update(now, |rtt, _| {
            if rtt == 0.0 {
                nanos.max(scale.default_rtt)
            } else {
                nanos.max(rtt)
            }
        });
    }

    /// Takes a time for a peak if it is above what the estimate has faded to; otherwise it changes nothing.
    /// Says whether there is an estimate at all.
    pub(crate) fn observe_peak(&self, nanos: f32, now: Moment, scale: &Scale) -> bool {
        let (rtt, tick) = unpack(self.0.load(Ordering::Relaxed));
        if rtt == 0.0 {
            return false;
        }
        if rtt * fade(tick, now, scale) < nanos {
            self.observe(nanos, now, scale);
        }
        true
    }

    /// A plain store: of two samples that end at the same moment on different threads, one may be lost.
    #[inline]
    fn update(&self, now: Moment, next: impl Fn(f32, u32) -> f32) {
        let (rtt, tick) = unpack(self.0.load(Ordering::Relaxed));
        let value = pack(next(rtt, tick).max(1.0), now.tick32());
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A latency that an endpoint is taken for because it failed, whatever its answers say; it fades. Packed as an estimate is.
#[derive(Debug, Default)]
pub(crate) struct Penalty(AtomicU64);

impl Penalty {
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// What is left of it, in nanoseconds.
    #[inline]
    pub(crate) fn read(&self, now: Moment, decay_per_tick: f32) -> f32 {
        let (nanos, tick) = unpack(self.0.load(Ordering::Relaxed));
        nanos * decayed(elapsed_ticks(tick, now) as f32 * decay_per_tick)
    }

    /// It is at least so many nanoseconds now.
    pub(crate) fn raise(&self, nanos: f32, now: Moment, decay_per_tick: f32) {
        let nanos = nanos.max(self.read(now, decay_per_tick));
        self.0.store(pack(nanos, now.tick32()), Ordering::Relaxed);
    }

    /// A request that began at this moment was served: whatever came before is over.
    pub(crate) fn clear_if_before(&self, moment: Moment) {
        let word = self.0.load(Ordering::Relaxed);
        if word != 0 && elapsed_ticks(word as u32, moment) > 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// What one tick is of a decay.
pub(crate) fn per_tick(decay: Duration) -> f32 {
    NANOS_PER_TICK / decay.as_nanos() as f32
}

/// A duration in ticks.
pub(crate) fn ticks(time: Duration) -> u32 {
    (time.as_nanos() >> TICK_SHIFT)
        .try_into()
        .unwrap_or(u32::MAX)
}

/// The requests that have no answer yet: their number in the low 24 bits, the sum of the ticks at which they began in
/// the upper 40, so that one addition keeps both in step. The sum wraps, which the subtraction in `age` undoes.
#[derive(Debug, Default)]
pub(crate) struct Waiting(AtomicU64);

impl Waiting {
    #[inline]
    pub(crate) fn begin(&self, at: Moment) {
        self.0.fetch_add(entry(at), Ordering::Relaxed);
    }

    /// Whoever sees this sees what was done before it: the stream that has taken its place.
    #[inline]
    pub(crate) fn end(&self, began: Moment) {
        self.0.fetch_sub(entry(began), Ordering::Release);
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        (self.0.load(Ordering::Acquire) & MAX_WAITING) as u32
    }

    /// By how many nanoseconds the requests together have waited longer than if each had taken `rtt`.
    #[inline]
    pub(crate) fn excess_nanos(&self, now: Moment, rtt: f32) -> f32 {
        self.count_and_excess(now, rtt).1
    }

    /// How many requests there are, and by how many nanoseconds they together have waited longer than `rtt` each.
    #[inline]
    pub(crate) fn count_and_excess(&self, now: Moment, rtt: f32) -> (u32, f32) {
        let word = self.0.load(Ordering::Acquire);
        let count = word & MAX_WAITING;
        if count == 0 {
            return (0, 0.0);
        }
        // Shifted up by 24 so that the sign bit of the 40 bits is the sign bit of the word.
        let age = (count.wrapping_mul(now.tick()) << COUNT_BITS).wrapping_sub(word & !MAX_WAITING)
            as i64
            >> COUNT_BITS;
        let excess = (age as f32 * NANOS_PER_TICK - rtt * count as f32).max(0.0);
        (count as u32, excess)
    }
}

#[inline]
fn entry(at: Moment) -> u64 {
    at.tick() << COUNT_BITS | 1
}

/// What is left of an estimate whose last sample was taken at `tick`.
#[inline]
fn fade(tick: u32, now: Moment, scale: &Scale) -> f32 {
    decayed(elapsed_ticks(tick, now) as f32 * scale.per_tick)
}

/// `e^-x`. Where requests are frequent `x` is tiny, and three terms of the series are as good as the function.
#[inline]
fn decayed(x: f32) -> f32 {
    if x < 0.01 {
        1.0 - x * (1.0 - x * 0.5)
    } else {
        (-x).exp()
    }
}

#[inline]
fn elapsed_ticks(tick: u32, now: Moment) -> u32 {
    let elapsed = (now.tick() as u32).wrapping_sub(tick);
    // Threads read their clocks at different times: a sample from the near future is as good as new.
    if elapsed >= SKEW_TICKS.wrapping_neg() {
        0
    } else {
        elapsed
    }
}

#[inline]
fn pack(rtt: f32, tick: u32) -> u64 {
    u64::from(rtt.to_bits()) << 32 | u64::from(tick)
}

#[inline]
fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

const TICK_SHIFT: u32 = 16;
const NANOS_PER_TICK: f32 = (1_u64 << TICK_SHIFT) as f32;
/// One minute. Ticks wrap after 78 hours: only in the minute before that is a sample so old taken for one from the future.
const SKEW_TICKS: u32 = ((60 * 1_000_000_000_u64) >> TICK_SHIFT) as u32;
const COUNT_BITS: u32 = 24;
const MAX_WAITING: u64 = (1 << COUNT_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn scale() -> Scale {
        PeakEwma::default().into()
    }

    fn known(rtt_ms: f32, at: Moment) -> Estimate {
        let estimate = Estimate::default();
        estimate.observe(rtt_ms * 1e6, at, &scale());
        estimate
    }

    fn millis(estimate: &Estimate) -> f32 {
        estimate.read().unwrap() / 1e6
    }

    #[test]
    fn a_peak_replaces_and_fades_to_where_the_samples_are() {
        let estimate = Estimate::default();
        assert_eq!(estimate.read(), None);
        estimate.observe(100e6, ms(0), &scale());
        estimate.observe(200e6, ms(1), &scale());
        assert_eq!(millis(&estimate), 200.0);
        // Half a decay later: 200 / e^0.5.
        estimate.observe(100e6, ms(5_001), &scale());
        assert!((millis(&estimate) - 121.3).abs() < 0.5);
        estimate.observe(100e6, ms(10_001), &scale());
        assert_eq!(millis(&estimate), 100.0);
    }

    #[test]
    fn reading_does_not_change_the_estimate() {
        let (often, once) = (known(100.0, ms(0)), known(100.0, ms(0)));
        let other = known(1.0, ms(0));
        for at in 0..5000 {
            Estimate::compare(&often, &other, ms(at), &scale());
        }
        for estimate in [&often, &once] {
            estimate.observe(50e6, ms(5000), &scale());
        }
        assert_eq!(
            often.0.load(Ordering::Relaxed),
            once.0.load(Ordering::Relaxed)
        );
    }

    #[test]
    fn what_is_avoided_fades_to_the_level_of_the_others_and_no_further() {
        let (slow, fast) = (known(1000.0, ms(0)), known(5.0, ms(0)));
        let seen = |at| {
            let (slow, fast) = Estimate::compare(&slow, &fast, ms(at), &scale());
            (slow.unwrap() / 1e6, fast.unwrap() / 1e6)
        };
        assert!((seen(10_000).0 - 367.9).abs() < 1.0);
        assert_eq!(seen(60_000), (5.0, 5.0));
    }

    #[test]
    fn what_nobody_asked_for_days_is_faded() {
        let (slow, fast) = (known(1000.0, ms(0)), known(5.0, ms(0)));
        for hours in [1, 38, 40, 60, 78] {
            let now = ms(hours * 3_600_000);
            let (slow, _) = Estimate::compare(&slow, &fast, now, &scale());
            assert_eq!(slow, Some(5e6), "{hours} h");
        }
    }

    #[test]
    fn a_sample_from_the_near_future_is_as_good_as_new() {
        let (slow, fast) = (known(1000.0, ms(60_000)), known(5.0, ms(60_000)));
        for at in [5_000, 59_999, 60_000] {
            let (slow, _) = Estimate::compare(&slow, &fast, ms(at), &scale());
            assert_eq!(slow, Some(1000e6), "{at} ms");
        }
    }

    #[test]
    fn a_fast_failure_lowers_nothing() {
        let estimate = Estimate::default();
        estimate.observe_at_least(1e6, ms(0), &scale());
        assert_eq!(
            millis(&estimate),
            30.0,
            "an unknown endpoint stays at the default"
        );
        estimate.observe(80e6, ms(1), &scale());
        for at in 1..100 {
            estimate.observe_at_least(1e6, ms(at * 1000), &scale());
        }
        assert_eq!(millis(&estimate), 80.0);
        estimate.observe_at_least(90e6, ms(99_000), &scale());
        assert_eq!(millis(&estimate), 90.0, "a slow failure is a peak");
    }

    #[test]
    fn a_clock_that_is_behind_does_no_harm() {
        let estimate = Estimate::default();
        estimate.observe(10e6, ms(1000), &scale());
        assert_eq!(millis(&estimate), 10.0);
        let waiting = Waiting::default();
        waiting.begin(ms(1000));
        assert_eq!(waiting.excess_nanos(ms(900), 1.0), 0.0);
    }

    #[test]
    fn waiting_counts_by_age_beyond_the_estimate() {
        let waiting = Waiting::default();
        waiting.begin(ms(0));
        waiting.begin(ms(1000));
        // Ages 3 s and 2 s, each expected to take 0.5 s.
        let excess = waiting.excess_nanos(ms(3000), 500e6) / 1e6;
        assert!((excess - 4000.0).abs() < 1.0, "{excess}");
        waiting.end(ms(0));
        assert_eq!(waiting.excess_nanos(ms(1400), 500e6), 0.0);
        waiting.end(ms(1000));
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn sums_wrap_without_harm_after_years() {
        let waiting = Waiting::default();
        let years = 200 * 365 * 86_400_000;
        for at in 0..1000 {
            waiting.begin(ms(years + at));
        }
        let excess = waiting.excess_nanos(ms(years + 10_000), 0.0) / 1e6;
        assert!((excess / 9_500_500.0 - 1.0).abs() < 0.001, "{excess}");
    }
}
