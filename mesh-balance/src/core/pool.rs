use super::aperture::{Aperture, Opening};
use super::choice::{Choice, Load};
use super::endpoint::{Apart, Common, Endpoint, Live, SlotId};
use super::health::{EjectionLimits, Event, Observer, Ward};
use super::load::{PeakEwma, Scale, per_tick, ticks};
use super::picker::{Picker, Snapshot};
use super::rate_limits::RateLimits;
use super::tier::{Entry, Place, Tier};
use super::zones::{Active, Spill, Zones};
use crate::sync::{AtomicU32, AtomicU64};
use arc_swap::ArcSwap;
use mesh_breaker::{BreakerSettings, Policy};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A set of endpoints and its single writer.
///
/// `K` names an endpoint: whatever is learned about it lasts as long as its key is in the set. `T` is what a pick gives.
#[derive(Debug)]
pub struct Pool<K, T> {
    common: Arc<Common>,
    own_load: Option<Arc<dyn Load<T>>>,
    newest: Arc<ArcSwap<Snapshot<T>>>,
    by_key: HashMap<K, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that take traffic, by the rank of their zone.
    tiers: Vec<Tier<T>>,
    /// Those of weight 0.
    parked: HashMap<u32, Arc<Live>>,
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
        let first = self.by_key.is_empty();
        let changes = changes.into_iter();
        if first {
            self.expect(changes.size_hint().0);
        }
        for change in changes {
            match change {
                Change::Insert {
                    key,
                    value,
                    weight,
                    zone,
                } => self.insert(key, value, weight, zone.as_deref(), first),
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
        let changes = endpoints
            .into_iter()
            .map(|(key, value, weight)| Change::insert(key, value, weight));
        self.replace(changes);
    }

    /// As [`reset`](Self::reset), for endpoints with zones: makes what is inserted the whole set.
    pub fn replace(&mut self, endpoints: impl IntoIterator<Item = Change<K, T>>)
    where
        K: Clone,
    {
        let first = self.by_key.is_empty();
        let mut kept = HashSet::new();
        let endpoints = endpoints.into_iter();
        if first {
            self.expect(endpoints.size_hint().0);
        }
        for change in endpoints {
            if let Change::Insert {
                key,
                value,
                weight,
                zone,
            } = change
            {
                kept.insert(key.clone());
                self.insert(key, value, weight, zone.as_deref(), first);
            }
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
        Some(self.live(index)?.slot)
    }

    /// Makes room for a set of this size, and no more.
    fn expect(&mut self, endpoints: usize) {
        self.by_key.reserve(endpoints);
        self.slots.reserve_exact(endpoints);
    }

    fn insert(&mut self, key: K, value: T, weight: u32, zone: Option<&str>, warm: bool) {
        let known = self.by_key.get(&key).copied();
        let (index, live) = match known.and_then(|index| Some((index, self.withdraw(index)?))) {
            Some(known) => known,
            None => {
                let id = self.vacancy();
                (id.index, Arc::new(Live::new(self.common.clone(), id, warm)))
            }
        };
        let spill = self.common.spill.as_ref();
        let rank = spill.map_or(0, |spill| spill.zones.rank(zone));
        self.slots[index as usize] = if weight > 0 {
            let tier = usize::from(rank);
            if self.tiers.len() <= tier {
                self.tiers.resize_with(tier + 1, Tier::default);
            }
            let entry = Entry {
                endpoint: Arc::new(Endpoint {
                    live: live.clone(),
                    value,
                }),
                live,
                weight,
                rank,
            };
            Slot::Used(self.tiers[tier].insert(entry))
        } else {
            let generation = live.slot.generation;
            self.parked.insert(index, live);
            Slot::Idle { generation }
        };
        if known.is_none() {
            self.by_key.insert(key, index);
        }
    }

    fn remove(&mut self, key: &K) {
        let Some(index) = self.by_key.remove(key) else {
            return;
        };
        if let Some(live) = self.withdraw(index) {
            live.retire();
            self.slots[index as usize] = Slot::Idle {
                generation: live.slot.generation.wrapping_add(1),
            };
        }
        self.free.push(index);
    }

    /// A place that nobody has.
    fn vacancy(&mut self) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Idle { generation: 0 });
            (self.slots.len() - 1) as u32
        });
        let generation = match self.slots[index as usize] {
            Slot::Idle { generation } => generation,
            Slot::Used(_) => 0,
        };
        SlotId { index, generation }
    }

    fn live(&self, index: u32) -> Option<&Arc<Live>> {
        match self.slots[index as usize] {
            Slot::Idle { .. } => self.parked.get(&index),
            Slot::Used(place) => Some(&self.tiers[usize::from(place.rank)].at(place)?.live),
        }
    }

    /// Takes an endpoint out of the traffic. Its place remains its own.
    fn withdraw(&mut self, index: u32) -> Option<Arc<Live>> {
        let live = self.live(index)?.clone();
        match self.slots[index as usize] {
            Slot::Used(place) => {
                if let Some(moved) = self.tiers[usize::from(place.rank)].remove(place) {
                    self.slots[moved.index as usize] = Slot::Used(place);
                }
            }
            Slot::Idle { .. } => drop(self.parked.remove(&index)),
        }
        Some(live)
    }

    fn publish(&self) {
        let home = self.tiers.first().cloned().unwrap_or_default();
        let away: Box<[Tier<T>]> = self.tiers.iter().skip(1).cloned().collect();
        // What was in use of other zones stays so, as far as it is still there and as it is now.
        let before = self.newest.load().active.load_full();
        let still = |entry: &Entry<T>| {
            let slot = entry.slot();
            let Slot::Used(place) = self.slots[slot.index as usize] else {
                return None;
            };
            let entry = self.tiers[usize::from(place.rank)].at(place)?;
            (place.rank > 0 && entry.slot() == slot).then(|| entry.clone())
        };
        let active = Active::new(before.entries.iter().filter_map(still).collect());
        let snapshot = Snapshot::new(
            self.common.clone(),
            self.own_load.clone(),
            home,
            away,
            active,
        );
        self.common.ward.resize(snapshot.max_ejected);
        if let Some(spill) = &self.common.spill {
            spill.hurry();
        }
        self.newest.store(Arc::new(snapshot));
    }
}

/// A change to the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<K, T> {
    /// A new endpoint, or a new value and weight for one that is there, which keeps its place and what is known of it.
    Insert {
        /// Its name.
        key: K,
        /// What a pick gives.
        value: T,
        /// Its share of the traffic relative to the others'; with 0 it gets none.
        weight: u32,
        /// Where it is, if known. Without effect unless the pool has [`Zones`].
        zone: Option<Arc<str>>,
    },
    /// An endpoint leaves. Requests that are on their way to it end as they would have.
    Remove {
        /// Its name.
        key: K,
    },
}

impl<K, T> Change<K, T> {
    /// Short for [`Change::Insert`] without a zone.
    pub fn insert(key: K, value: T, weight: u32) -> Self {
        Self::Insert {
            key,
            value,
            weight,
            zone: None,
        }
    }

    /// Short for [`Change::Remove`].
    pub fn remove(key: K) -> Self {
        Self::Remove { key }
    }

    /// The same, if it is an insertion, in a zone.
    #[must_use]
    pub fn in_zone(self, zone: impl Into<Arc<str>>) -> Self {
        match self {
            Self::Insert {
                key, value, weight, ..
            } => Self::Insert {
                key,
                value,
                weight,
                zone: Some(zone.into()),
            },
            remove => remove,
        }
    }
}

/// Settings of a [`Pool`].
#[derive(Clone, Default)]
pub struct PoolBuilder {
    choice: Choice,
    breaker: Option<Policy>,
    limits: EjectionLimits,
    rate_limits: Option<RateLimits>,
    zones: Option<Zones>,
    aperture: Option<Aperture>,
    slow_start: Duration,
    observer: Option<Observer>,
    drop_clock: Option<fn() -> Instant>,
}

impl PoolBuilder {
    /// How an endpoint is chosen. Default: by [`PeakEwma::default`].
    #[must_use]
    pub fn load(mut self, choice: impl Into<Choice>) -> Self {
        self.choice = choice.into();
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

    /// What a refusal for its rate means for an endpoint. Default: nothing; it is neither a success nor a failure.
    #[must_use]
    pub fn rate_limits(mut self, settings: RateLimits) -> Self {
        self.rate_limits = Some(settings);
        self
    }

    /// Keeps requests in the caller's zone while it can take them. Default: zones are the same.
    #[must_use]
    pub fn zones(mut self, zones: Zones) -> Self {
        self.zones = Some(zones);
        self
    }

    /// Keeps requests to a part of a large set while it can take them. Default: all are used.
    #[must_use]
    pub fn aperture(mut self, aperture: Aperture) -> Self {
        self.aperture = Some(aperture);
        self
    }

    /// How long a new endpoint takes until it has its whole share, which begins with a tenth; zero is not at all. Those that
    /// come together into an empty set need none. Default: zero.
    #[must_use]
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
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
        self.pool(origin, None)
    }

    /// As [`build`](Self::build), with the caller's own measure of load in place of the one that was set.
    pub fn build_with_load<K, T>(
        self,
        origin: Instant,
        load: impl Load<T> + 'static,
    ) -> Pool<K, T> {
        self.pool(origin, Some(Arc::new(load)))
    }

    pub(crate) fn common(self, origin: Instant) -> Common {
        let load = match self.choice {
            Choice::PeakEwma(load) => load,
            _ => PeakEwma::default(),
        };
        let penalty_decay = self.rate_limits.unwrap_or_default().decay();
        let breaker = self.breaker;
        Common {
            origin,
            choice: self.choice,
            scale: Scale::from(load),
            breaker: breaker.map(|policy| BreakerSettings::new(policy, origin)),
            rate_limits: self.rate_limits,
            penalty_per_tick: per_tick(penalty_decay),
            slow_start_ticks: ticks(self.slow_start),
            drop_clock: self.drop_clock,
            spill: self.zones.map(Spill::new),
            opening: self.aperture.map(Opening::new),
            ward: Ward::new(self.limits, self.observer),
            turn: Apart(AtomicU64::new(0)),
            typical: Apart(AtomicU32::new(0)),
        }
    }

    pub(crate) fn pool<K, T>(
        self,
        origin: Instant,
        own_load: Option<Arc<dyn Load<T>>>,
    ) -> Pool<K, T> {
        let common = Arc::new(self.common(origin));
        let empty = Snapshot::new(
            common.clone(),
            own_load.clone(),
            Tier::default(),
            Box::default(),
            Active::new(Vec::new()),
        );
        Pool {
            common,
            own_load,
            newest: Arc::new(ArcSwap::from_pointee(empty)),
            by_key: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            tiers: Vec::new(),
            parked: HashMap::new(),
        }
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("choice", &self.choice)
            .field("breaker", &self.breaker)
            .field("limits", &self.limits)
            .field("rate_limits", &self.rate_limits)
            .field("zones", &self.zones)
            .field("aperture", &self.aperture)
            .field("slow_start", &self.slow_start)
            .finish_non_exhaustive()
    }
}

/// What a place is used for.
#[derive(Debug, Clone, Copy)]
enum Slot {
    /// Nobody, and the next endpoint there has this generation; or an endpoint of weight 0, which is parked.
    Idle { generation: u32 },
    /// An endpoint in the traffic.
    Used(Place),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_of_each_endpoint_is_small() {
        assert_eq!(size_of::<Live>(), 64);
        assert_eq!(size_of::<Slot>(), 8);
        assert_eq!(size_of::<Entry<u32>>(), 24);
    }
}
