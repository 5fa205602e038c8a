use super::aperture::{Opening, Window};
use super::choice::{Choice, Load};
use super::endpoint::{Common, EndpointStats, SlotId};
use super::load::Moment;
use super::pick::Pick;
use super::search::{Search, usual};
use super::tier::{Entry, Tier};
use super::words::Words;
use super::zones::{Active, ZoneStats};
use crate::sync::{AtomicU64, Ordering};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why there was nothing to pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// The set has no endpoint that takes traffic.
    #[error("no endpoints")]
    Empty,
    /// There are endpoints, but each one is excluded by the caller or out of use.
    #[error("every endpoint is excluded or out of use")]
    Exhausted,
    /// There are endpoints in use, but each one has asked to be left alone or is at its rate limit.
    #[error("every endpoint is at its rate limit; there is room in {retry_after:?}")]
    Limited {
        /// When there will be room.
        retry_after: Duration,
    },
}

/// Picks from the newest snapshot. `Clone`, `Send` and `Sync`; no lock, no waiting.
#[derive(Debug)]
pub struct Picker<T> {
    pub(crate) newest: Arc<ArcSwap<Snapshot<T>>>,
}

impl<T> Picker<T> {
    /// Picks an endpoint that is not in `exclude` (where an earlier attempt went, say). `random` is any random word.
    ///
    /// # Errors
    /// [`PickError`] when there is none.
    pub fn pick(
        &self,
        now: Instant,
        random: u64,
        exclude: &[SlotId],
    ) -> Result<Pick<T>, PickError> {
        self.newest.load().pick(now, random, exclude)
    }

    /// The newest snapshot, for statistics.
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.newest.load_full()
    }

    /// A picker of its own for one thread, which looks at the shared pointer only to see whether it has changed.
    pub fn reader(&self) -> Reader<T> {
        Reader {
            cache: arc_swap::Cache::new(self.newest.clone()),
        }
    }
}

impl<T> Clone for Picker<T> {
    fn clone(&self) -> Self {
        Self {
            newest: self.newest.clone(),
        }
    }
}

/// A [`Picker`] that keeps the newest snapshot it has seen at hand. For a thread that picks often; it keeps an old
/// snapshot alive until its next pick.
pub struct Reader<T> {
    cache: arc_swap::Cache<Arc<ArcSwap<Snapshot<T>>>, Arc<Snapshot<T>>>,
}

impl<T> Reader<T> {
    /// As [`Picker::pick`].
    ///
    /// # Errors
    /// [`PickError`] when there is none.
    pub fn pick(
        &mut self,
        now: Instant,
        random: u64,
        exclude: &[SlotId],
    ) -> Result<Pick<T>, PickError> {
        self.cache.load().pick(now, random, exclude)
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
        }
    }
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// The set as it was at one moment. What is learned about its endpoints goes on changing.
#[derive(Debug)]
pub struct Snapshot<T> {
    pub(crate) common: Arc<Common>,
    pub(crate) own_load: Option<Arc<dyn Load<T>>>,
    /// Those of the caller's own zone, or all.
    pub(crate) home: Tier<T>,
    /// Those of the others, from the nearest on.
    pub(crate) away: Box<[Tier<T>]>,
    /// Those of the others that are in use.
    pub(crate) active: ArcSwap<Active<T>>,
    /// Until when nobody has room, if that was found out by looking at all.
    pub(crate) full_until: AtomicU64,
    pub(crate) len: usize,
    pub(crate) max_ejected: u32,
    /// May a pick be a [`usual`] one?
    usual: bool,
    /// One endpoint of those that are drawn from, as [`Opening::unit`](super::aperture::Opening::unit) says it; 0 where all are used.
    unit: u32,
}

impl<T> Snapshot<T> {
    pub(crate) fn new(
        common: Arc<Common>,
        own_load: Option<Arc<dyn Load<T>>>,
        home: Tier<T>,
        away: Box<[Tier<T>]>,
        active: Active<T>,
    ) -> Self {
        let len = home.len() + away.iter().map(Tier::len).sum::<usize>();
        let drawn = if home.is_empty() { len } else { home.len() };
        let unit = common.opening.as_ref();
        Self {
            unit: unit.map_or(0, |opening| opening.unit(drawn)),
            max_ejected: common.ward.limits.max_ejected(len as u32),
            usual: away.is_empty()
                && home.len() >= 2
                && own_load.is_none()
                && common.choice != Choice::RoundRobin
                && common.slow_start_ticks == 0,
            common,
            own_load,
            home,
            away,
            active: ArcSwap::from_pointee(active),
            full_until: AtomicU64::new(0),
            len,
        }
    }

    /// How many endpoints take traffic: those with a weight above zero.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Does no endpoint take traffic?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many endpoints requests are kept to, of the caller's own zone if it has some; `None` where all are used. More are
    /// where other zones help, and where nobody among them will do.
    pub fn aperture(&self) -> Option<usize> {
        let width = self.opening()?.width() as usize;
        (width < self.drawn()).then_some(width)
    }

    /// How many of the pool's endpoints are out of use now.
    pub fn ejected(&self) -> u32 {
        self.common.ward.ejected()
    }

    /// Each endpoint with its statistics at `now`.
    pub fn stats(&self, now: Instant) -> impl Iterator<Item = (&T, EndpointStats)> {
        let now = Moment::new(self.common.origin, now);
        let tiers = std::iter::once(&self.home).chain(&self.away);
        tiers.flat_map(Tier::iter).map(move |entry| {
            let endpoint = &entry.endpoint;
            let stats = entry.live.stats(entry.weight, entry.rank, now);
            (&endpoint.value, stats)
        })
    }

    /// How the zones stand, if the pool knows zones.
    pub fn zones(&self) -> Option<ZoneStats> {
        let spill = self.common.spill.as_ref()?;
        let (low, high) = spill.zones.ends();
        Some(ZoneStats {
            load: f64::from(spill.load()),
            low,
            high,
            local: self.home.len(),
            remote: if self.home.is_empty() {
                self.len
            } else {
                self.active.load().entries.len()
            },
        })
    }

    /// The endpoints that are drawn from.
    #[inline]
    pub(crate) fn window(&self) -> Window {
        self.opening()
            .map_or(Window::WHOLE, |opening| opening.window(self.unit))
    }

    /// A request goes to `entry`.
    #[inline]
    pub(crate) fn felt(&self, entry: &Entry<T>, words: &mut Words) {
        if let Some(opening) = self.opening() {
            opening.felt(entry.live.in_flight(), self.drawn(), words);
        }
    }

    /// None of those that are drawn from will do.
    pub(crate) fn nobody_in_the_window(&self) {
        if let Some(opening) = self.opening() {
            opening.nobody(self.drawn());
        }
    }

    #[inline]
    fn opening(&self) -> Option<&Opening> {
        if self.unit == 0 {
            return None;
        }
        self.common.opening.as_ref()
    }

    /// How many endpoints are drawn from, those out of the window included.
    fn drawn(&self) -> usize {
        if self.home.is_empty() {
            self.len
        } else {
            self.home.len()
        }
    }

    #[inline]
    fn pick(&self, now: Instant, random: u64, exclude: &[SlotId]) -> Result<Pick<T>, PickError> {
        let moment = Moment::new(self.common.origin, now);
        if self.usual
            && exclude.is_empty()
            && self.full_until.load(Ordering::Relaxed) == 0
            && let Some(pick) = usual(self, now, moment, Words(random))
        {
            return Ok(pick);
        }
        self.search(now, moment, Words(random), exclude)
    }

    #[inline(never)]
    fn search(
        &self,
        now: Instant,
        moment: Moment,
        mut words: Words,
        exclude: &[SlotId],
    ) -> Result<Pick<T>, PickError> {
        if self.len == 0 {
            return Err(PickError::Empty);
        }
        if self.away.is_empty() {
            return Search::new(self, None, now, moment, exclude, words).run();
        }
        if let Some(spill) = &self.common.spill
            && spill.is_due(moment)
        {
            Active::adapt(
                &self.active,
                spill,
                &self.home,
                &self.away,
                moment,
                &mut words,
            );
        }
        let active = self.active.load();
        Search::new(self, Some(&active), now, moment, exclude, words).run()
    }
}
