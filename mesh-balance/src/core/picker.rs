use super::endpoint::{Common, Endpoint, EndpointStats, Live, SlotId, Weighed};
use super::load::Moment;
use super::pick::Pick;
use super::sampler::{Sampler, Words};
use arc_swap::ArcSwap;
use mesh_breaker::Ticket;
use std::sync::Arc;
use std::time::Instant;

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
    common: Arc<Common>,
    /// Those with a weight above zero.
    entries: Box<[Entry<T>]>,
    sampler: Sampler,
    total_weight: u64,
    max_ejected: u32,
}

impl<T> Snapshot<T> {
    pub(crate) fn new(
        common: Arc<Common>,
        endpoints: impl Iterator<Item = Arc<Endpoint<T>>>,
    ) -> Self {
        let entries: Box<[Entry<T>]> = endpoints
            .filter(|endpoint| endpoint.weight > 0)
            .map(Entry::new)
            .collect();
        Self {
            sampler: Sampler::new(entries.iter().map(|entry| entry.weight)),
            total_weight: entries.iter().map(|entry| u64::from(entry.weight)).sum(),
            max_ejected: common.ward.limits.max_ejected(entries.len() as u32),
            entries,
            common,
        }
    }

    /// How many endpoints take traffic: those with a weight above zero.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Does no endpoint take traffic?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of the pool's endpoints are out of use now.
    pub fn ejected(&self) -> u32 {
        self.common.ward.ejected()
    }

    /// Each endpoint with its statistics at `now`.
    pub fn stats(&self, now: Instant) -> impl Iterator<Item = (&T, EndpointStats)> {
        let now = Moment::new(self.common.origin, now);
        self.entries.iter().map(move |entry| {
            let stats = entry.live.stats(entry.endpoint.slot, entry.weight, now);
            (&entry.endpoint.value, stats)
        })
    }

    pub(crate) fn max_ejected(&self) -> u32 {
        self.max_ejected
    }

    fn pick(&self, now: Instant, random: u64, exclude: &[SlotId]) -> Result<Pick<T>, PickError> {
        if self.entries.is_empty() {
            return Err(PickError::Empty);
        }
        let mut search = Search {
            snapshot: self,
            now,
            exclude,
            // More are out than the limits allow: the set has shrunk since. All are used.
            use_all: self.common.ward.ejected() > self.max_ejected,
            words: Words(random),
        };
        let moment = Moment::new(self.common.origin, now);
        let (index, ticket) = match search.draw(None).ok_or(PickError::Exhausted)? {
            Drawn::Probe(index, ticket) => (index, Some(ticket)),
            Drawn::Ready(first) => match search.draw(Some(first)) {
                Some(Drawn::Probe(index, ticket)) => (index, Some(ticket)),
                Some(Drawn::Ready(second)) => {
                    let index = self.less_loaded(first, second, moment, &mut search.words);
                    (index, self.entries[index].admit(now))
                }
                None => (first, self.entries[first].admit(now)),
            },
        };
        let endpoint = self.entries[index].endpoint.clone();
        Ok(Pick::new(endpoint, moment, ticket, search.words.next()))
    }

    /// `second` if its load is lower, else `first`.
    fn less_loaded(&self, first: usize, second: usize, now: Moment, words: &mut Words) -> usize {
        let (a, b) = (&self.entries[first], &self.entries[second]);
        let (load_a, load_b) = Live::loads(a.weighed(), b.weighed(), now, words.next());
        if load_b >= load_a {
            return first;
        }
        if a.weight > b.weight
            && load_a <= 2.0 * load_b
            && !self.accept_lighter(a.weight, b.weight, words)
        {
            return first;
        }
        second
    }

    /// Two different endpoints are sampled in the order heavy, light more often than in the order light, heavy. Moving
    /// from the heavy one to the light one as often as back keeps the shares (as Metropolis 1953 does for detailed balance).
    fn accept_lighter(&self, heavy: u32, light: u32, words: &mut Words) -> bool {
        let rest = |weight: u32| (self.total_weight - u64::from(weight)) as f32;
        // 24 bits, as many as an `f32` has.
        let unit = (words.next() >> 40) as f32 / (1_u32 << 24) as f32;
        unit * rest(light) < rest(heavy)
    }
}

/// One endpoint, with what a pick reads close at hand.
#[derive(Debug)]
struct Entry<T> {
    endpoint: Arc<Endpoint<T>>,
    live: Arc<Live>,
    weight: u32,
}

impl<T> Entry<T> {
    fn new(endpoint: Arc<Endpoint<T>>) -> Self {
        Self {
            live: endpoint.live.clone(),
            weight: endpoint.weight,
            endpoint,
        }
    }

    fn weighed(&self) -> Weighed<'_> {
        Weighed {
            live: &self.live,
            weight: self.weight,
        }
    }

    fn admit(&self, now: Instant) -> Option<Ticket> {
        self.live.admit(self.endpoint.slot, now)
    }
}

/// A candidate.
enum Drawn {
    /// In use.
    Ready(usize),
    /// Out of use, but this request may go there to see whether that can change. It holds the probe's place, so it is
    /// taken without looking further.
    Probe(usize, Ticket),
}

struct Search<'a, T> {
    snapshot: &'a Snapshot<T>,
    now: Instant,
    exclude: &'a [SlotId],
    use_all: bool,
    words: Words,
}

impl<T> Search<'_, T> {
    /// Another endpoint than `not`, drawn by weight as long as that finds one, else the next that will do.
    fn draw(&mut self, not: Option<usize>) -> Option<Drawn> {
        let len = self.snapshot.entries.len();
        if len - usize::from(not.is_some()) > 1 {
            for _ in 0..DRAWS {
                let index = self.snapshot.sampler.draw(len, self.words.next());
                if let Some(drawn) = self.consider(index, not) {
                    return Some(drawn);
                }
            }
        }
        let start = (self.words.next() % len as u64) as usize;
        (start..len)
            .chain(0..start)
            .find_map(|index| self.consider(index, not))
    }

    fn consider(&self, index: usize, not: Option<usize>) -> Option<Drawn> {
        let entry = &self.snapshot.entries[index];
        if Some(index) == not || self.exclude.contains(&entry.endpoint.slot) {
            return None;
        }
        if self.use_all || !entry.live.is_ejected() {
            return Some(Drawn::Ready(index));
        }
        entry
            .admit(self.now)
            .map(|ticket| Drawn::Probe(index, ticket))
    }
}

/// With half of the endpoints out of use, one draw in 65,000 goes on to search in order.
const DRAWS: usize = 16;
