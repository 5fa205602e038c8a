use super::load::Moment;
use super::tier::{Entry, Tier};
use super::words::Words;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;

/// Keeps requests in the caller's own zone while it can take them.
///
/// The load of the zone is the number of requests that wait for their answer per endpoint in use, smoothed. What is answered and goes
/// on does not count, be it a stream or a connection of bytes: it may last for days and be idle. Above the upper end of the band
/// endpoints of other zones come in, one after another, the least loaded of the nearest zone first; below the lower end they
/// leave in turn. In between nothing changes, so that it does not flap. Endpoints of the own zone that are out of use or held
/// are replaced at once, and as soon as they are back the others leave. At rest no request leaves the zone; without endpoints
/// in it, all are used.
///
/// Defaults: a band from 0.8 to 2.0, smoothed over 2 s.
#[derive(Debug, Clone, PartialEq)]
pub struct Zones {
    /// From the nearest on; the first is the caller's own.
    order: Vec<Arc<str>>,
    low: f32,
    high: f32,
    smoothing: Duration,
}

impl Zones {
    /// For a caller in this zone.
    pub fn new(own: impl Into<Arc<str>>) -> Self {
        Self {
            order: vec![own.into()],
            low: 0.8,
            high: 2.0,
            smoothing: Duration::from_secs(2),
        }
    }

    /// The next nearest zone. Zones that are not named are the farthest, and equally far. Default: none is named.
    #[must_use]
    pub fn then(mut self, next: impl Into<Arc<str>>) -> Self {
        self.order.push(next.into());
        self
    }

    /// The load below which endpoints of other zones leave and above which they come in.
    ///
    /// # Errors
    /// [`BandError`] unless both are finite and `0 <= low < high`.
    pub fn band(self, low: f32, high: f32) -> Result<Self, BandError> {
        if low >= 0.0 && low < high && high.is_finite() {
            Ok(Self { low, high, ..self })
        } else {
            Err(BandError { low, high })
        }
    }

    /// How long until a change of the load has shown to two thirds, at least 1 ms. Default: 2 s.
    #[must_use]
    pub fn smoothing(self, smoothing: Duration) -> Self {
        Self {
            smoothing: smoothing.max(Duration::from_millis(1)),
            ..self
        }
    }

    pub(crate) fn ends(&self) -> (f64, f64) {
        (f64::from(self.low), f64::from(self.high))
    }

    /// How far away a zone is: 0 is the caller's own.
    pub(crate) fn rank(&self, zone: Option<&str>) -> u16 {
        let known = self
            .order
            .iter()
            .position(|known| zone == Some(known.as_ref()));
        known
            .unwrap_or(self.order.len())
            .try_into()
            .unwrap_or(u16::MAX)
    }
}

/// A load band that is none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a load band from {low} to {high} is none: it takes 0 <= low < high, both finite")]
#[non_exhaustive]
pub struct BandError {
    /// Its lower end, as asked for.
    pub low: f32,
    /// Its upper end, as asked for.
    pub high: f32,
}

/// How the zones of a pool stand.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ZoneStats {
    /// Requests that wait for their answer per endpoint in use, smoothed.
    pub load: f64,
    /// Below this load endpoints of other zones leave.
    pub low: f64,
    /// Above this load they come in.
    pub high: f64,
    /// Endpoints of the own zone.
    pub local: usize,
    /// Endpoints of other zones that are in use.
    pub remote: usize,
}

/// What all snapshots of a pool with zones share.
#[derive(Debug)]
pub(crate) struct Spill {
    pub(crate) zones: Zones,
    /// When the load is looked at next; zero is at once.
    next_at: AtomicU64,
    /// Requests that wait, smoothed, and the same for each endpoint in use (both `f32`).
    waiting: AtomicU32,
    load: AtomicU32,
    /// How many endpoints of other zones the load has called for.
    by_load: AtomicU32,
}

impl Spill {
    pub(crate) fn new(zones: Zones) -> Self {
        Self {
            zones,
            next_at: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            load: AtomicU32::new(0),
            by_load: AtomicU32::new(0),
        }
    }

    /// The own zone has lost or regained an endpoint.
    pub(crate) fn hurry(&self) {
        self.next_at.store(0, Ordering::Relaxed);
    }

    /// Is it time to look at the load? Says so to one caller only.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        let next = self.next_at.load(Ordering::Relaxed);
        if now.nanos() < next {
            return false;
        }
        let after = now.nanos() + PERIOD_NANOS;
        self.next_at
            .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    pub(crate) fn load(&self) -> f32 {
        f32::from_bits(self.load.load(Ordering::Relaxed))
    }

    /// How many endpoints of other zones are wanted.
    fn wanted(&self, active: &Group, others: usize) -> usize {
        let share = 1.0 - (-(PERIOD_NANOS as f32) / self.zones.smoothing.as_nanos() as f32).exp();
        let before = f32::from_bits(self.waiting.load(Ordering::Relaxed));
        let waiting = before + (active.waiting - before) * share;
        self.waiting.store(waiting.to_bits(), Ordering::Relaxed);
        // The requests are smoothed, not their share of each endpoint, which falls at once with one more.
        let load = waiting / active.available.max(1) as f32;
        self.load.store(load.to_bits(), Ordering::Relaxed);
        let by_load = self.by_load.load(Ordering::Relaxed);
        let step = (active.available as u32 / 16).max(1);
        let by_load = if load > self.zones.high {
            (by_load + step).min(others as u32)
        } else if load < self.zones.low {
            by_load.saturating_sub(step)
        } else {
            by_load
        };
        self.by_load.store(by_load, Ordering::Relaxed);
        (by_load as usize + active.missing).min(others)
    }
}

/// Endpoints of other zones that are in use.
#[derive(Debug)]
pub(crate) struct Active<T> {
    pub(crate) entries: Vec<Entry<T>>,
    pub(crate) weight: u64,
}

impl<T> Active<T> {
    pub(crate) fn new(entries: Vec<Entry<T>>) -> Self {
        Self {
            weight: entries.iter().map(|entry| u64::from(entry.weight)).sum(),
            entries,
        }
    }

    /// The entry at this place of the sum of the weights.
    pub(crate) fn at(&self, mut weight: u64) -> Option<&Entry<T>> {
        self.entries.iter().find(|entry| {
            let found = weight < u64::from(entry.weight);
            weight = weight.saturating_sub(u64::from(entry.weight));
            found
        })
    }

    /// Looks at the load, and lets endpoints in or out.
    pub(crate) fn adapt(
        active: &ArcSwap<Self>,
        spill: &Spill,
        home: &Tier<T>,
        away: &[Tier<T>],
        now: Moment,
        words: &mut Words,
    ) {
        let before = active.load_full();
        let group = Group::measure(home, &before.entries, now, words);
        let others = away.iter().map(Tier::len).sum();
        let wanted = spill.wanted(&group, others);
        if wanted == before.entries.len() {
            return;
        }
        let mut entries = before.entries.clone();
        entries.truncate(wanted);
        for tier in away {
            while entries.len() < wanted {
                let Some(next) = least_loaded(tier, &entries, words) else {
                    break;
                };
                entries.push(next.clone());
            }
        }
        active.store(Arc::new(Self::new(entries)));
    }
}

/// The entry of the tier that is in use, not among `taken`, and has the fewest requests in flight of those looked at.
fn least_loaded<'a, T>(
    tier: &'a Tier<T>,
    taken: &[Entry<T>],
    words: &mut Words,
) -> Option<&'a Entry<T>> {
    let start = words.below(tier.len().max(1) as u64) as usize;
    tier.iter_from(start)
        .filter(|entry| !entry.live.is_ejected())
        .filter(|entry| !taken.iter().any(|other| other.slot() == entry.slot()))
        .take(LOOKED_AT)
        .min_by_key(|entry| entry.live.in_flight())
}

/// What is measured of the endpoints that requests go to.
struct Group {
    waiting: f32,
    available: usize,
    /// Endpoints of the own zone that are out of use or held.
    missing: usize,
}

impl Group {
    fn measure<T>(home: &Tier<T>, others: &[Entry<T>], now: Moment, words: &mut Words) -> Self {
        let start = words.below(home.len().max(1) as u64) as usize;
        let (mut waiting, mut missing, mut seen) = (0_u32, 0_usize, 0_usize);
        for entry in home.iter_from(start).take(MEASURED) {
            let live = &entry.live;
            let held = live.limit().is_some_and(|limit| limit.held(now).is_some());
            seen += 1;
            missing += usize::from(live.is_ejected() || held);
            waiting += live.waiting();
        }
        // Of a large zone only a part is looked at.
        let whole = home.len() as f32 / seen.max(1) as f32;
        let missing = (missing as f32 * whole).round() as usize;
        let elsewhere: u32 = others.iter().map(|entry| entry.live.waiting()).sum();
        Self {
            waiting: waiting as f32 * whole + elsewhere as f32,
            available: home.len() - missing + others.len(),
            missing,
        }
    }
}

/// 100 ms.
const PERIOD_NANOS: u64 = 100_000_000;
/// Endpoints whose waiting requests are counted when the load is looked at.
const MEASURED: usize = 128;
/// Endpoints among which the least loaded is found.
const LOOKED_AT: usize = 16;
