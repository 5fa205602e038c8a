use super::endpoint::{Common, Endpoint, Live, SlotId};
use super::health::{EjectionLimits, Event, Observer, Ward};
use super::load::PeakEwma;
use super::picker::{Picker, Snapshot};
use arc_swap::ArcSwap;
use mesh_breaker::{Policy, SharedBreaker};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

/// A set of endpoints and its single writer.
///
/// `K` names an endpoint: whatever is learned about it lasts as long as its key is in the set. `T` is what a pick gives.
#[derive(Debug)]
pub struct Pool<K, T> {
    common: Arc<Common>,
    newest: Arc<ArcSwap<Snapshot<T>>>,
    by_key: HashMap<K, u32>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<K: Eq + Hash, T> Pool<K, T> {
    /// An empty pool with every setting at its default. `origin` is the earliest `now` it will be given.
    pub fn new(origin: Instant) -> Self {
        PoolBuilder::default().build(origin)
    }

    /// A pool with other settings.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// Makes these changes, in order, and publishes them as one.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change<K, T>>) {
        for change in changes {
            match change {
                Change::Insert { key, value, weight } => self.insert(key, value, weight),
                Change::Remove { key } => self.remove(&key),
            }
        }
        self.publish();
    }

    /// Makes these (key, value, weight) the whole set and publishes it. Keys that were there keep what is known of them.
    pub fn reset(&mut self, endpoints: impl IntoIterator<Item = (K, T, u32)>)
    where
        K: Clone,
    {
        let mut kept = HashSet::new();
        for (key, value, weight) in endpoints {
            kept.insert(key.clone());
            self.insert(key, value, weight);
        }
        let gone: Vec<K> = self
            .by_key
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
        self.publish();
    }

    /// A handle that picks from what this pool publishes.
    pub fn picker(&self) -> Picker<T> {
        Picker {
            newest: self.newest.clone(),
        }
    }

    /// How many endpoints there are, those of weight 0 included.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The place of an endpoint.
    pub fn slot(&self, key: &K) -> Option<SlotId> {
        let index = *self.by_key.get(key)?;
        Some(self.slots[index as usize].endpoint.as_ref()?.slot)
    }

    fn insert(&mut self, key: K, value: T, weight: u32) {
        if let Some(index) = self.by_key.get(&key) {
            let endpoint = &mut self.slots[*index as usize].endpoint;
            if let Some(old) = endpoint {
                *old = Arc::new(Endpoint {
                    slot: old.slot,
                    weight,
                    live: old.live.clone(),
                    value,
                });
            }
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                endpoint: None,
            });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let id = SlotId {
            index,
            generation: slot.generation,
        };
        let live = Arc::new(Live::new(self.common.clone()));
        slot.endpoint = Some(Arc::new(Endpoint {
            slot: id,
            weight,
            live,
            value,
        }));
        self.by_key.insert(key, index);
    }

    fn remove(&mut self, key: &K) {
        let Some(index) = self.by_key.remove(key) else {
            return;
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(endpoint) = slot.endpoint.take() {
            endpoint.live.retire();
        }
        self.free.push(index);
    }

    fn publish(&self) {
        let endpoints = self.slots.iter().filter_map(|slot| slot.endpoint.clone());
        let snapshot = Snapshot::new(self.common.clone(), endpoints);
        self.common.ward.resize(snapshot.max_ejected());
        self.newest.store(Arc::new(snapshot));
    }
}

/// A change to the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<K, T> {
    /// A new endpoint, or a new value and weight for one that is there, which keeps its place and what is known of it.
    Insert {
        /// Its name.
        key: K,
        /// What a pick gives.
        value: T,
        /// Its share of the traffic relative to the others'; with 0 it gets none.
        weight: u32,
    },
    /// An endpoint leaves. Requests that are on their way to it end as they would have.
    Remove {
        /// Its name.
        key: K,
    },
}

impl<K, T> Change<K, T> {
    /// Short for [`Change::Insert`].
    pub fn insert(key: K, value: T, weight: u32) -> Self {
        Self::Insert { key, value, weight }
    }

    /// Short for [`Change::Remove`].
    pub fn remove(key: K) -> Self {
        Self::Remove { key }
    }
}

/// Settings of a [`Pool`].
#[derive(Clone, Default)]
pub struct PoolBuilder {
    load: PeakEwma,
    breaker: Option<Policy>,
    limits: EjectionLimits,
    observer: Option<Observer>,
    drop_clock: Option<fn() -> Instant>,
}

impl PoolBuilder {
    /// How latency becomes load. Default: [`PeakEwma::default`].
    #[must_use]
    pub fn load(mut self, load: PeakEwma) -> Self {
        self.load = load;
        self
    }

    /// Gives every endpoint a breaker. Default: none.
    #[must_use]
    pub fn breaker(mut self, policy: impl Into<Policy>) -> Self {
        self.breaker = Some(policy.into());
        self
    }

    /// How many endpoints may be out of use at once. Default: [`EjectionLimits::default`].
    #[must_use]
    pub fn ejection(mut self, limits: EjectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Is called with every change of a breaker's state, on the thread that caused it; it must not block. Default: nobody.
    #[must_use]
    pub fn on_event(mut self, observer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Tells the time when a [`Pick`](super::Pick) is dropped, where no `now` can be passed: with it, a request that its
    /// caller gave up counts by how long it had waited. Default: none, and nothing is learned from a drop.
    #[must_use]
    pub fn drop_clock(mut self, clock: fn() -> Instant) -> Self {
        self.drop_clock = Some(clock);
        self
    }

    /// An empty pool. `origin` is the earliest `now` it will be given; earlier ones count as `origin`.
    pub fn build<K, T>(self, origin: Instant) -> Pool<K, T> {
        let common = Arc::new(Common {
            origin,
            scale: self.load.into(),
            breaker: self
                .breaker
                .map(|policy| SharedBreaker::new(policy, origin)),
            ward: Ward::new(self.limits, self.observer),
            drop_clock: self.drop_clock,
        });
        let empty = Snapshot::new(common.clone(), std::iter::empty());
        Pool {
            common,
            newest: Arc::new(ArcSwap::from_pointee(empty)),
            by_key: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("load", &self.load)
            .field("breaker", &self.breaker)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    endpoint: Option<Arc<Endpoint<T>>>,
}
