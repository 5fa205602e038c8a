//! Endpoints that are sampled by weight, in a form of which a changed copy is cheap: entries live in shared chunks, so a
//! change copies one chunk and the pointers to the others.

use super::aperture::Window;
use super::endpoint::{Endpoint, Live, SlotId};
use super::words::Words;
use std::num::NonZeroU8;
use std::sync::Arc;

/// One endpoint, with what a pick reads close at hand.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) endpoint: Arc<Endpoint<T>>,
    pub(crate) live: Arc<Live>,
    pub(crate) weight: u32,
    /// How far away its zone is.
    pub(crate) rank: u16,
}

impl<T> Entry<T> {
    /// Are both of the same endpoint? Without a look at it.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }

    #[inline]
    pub(crate) fn slot(&self) -> SlotId {
        self.live.slot
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            live: self.live.clone(),
            weight: self.weight,
            rank: self.rank,
        }
    }
}

/// The endpoints of one zone, or all of them.
///
/// They are kept in classes, each with weights up to twice its smallest: a class is drawn by its total weight, an entry of it
/// evenly, and kept with the chance of its weight by the largest of the class, so half of the draws succeed at the least.
#[derive(Debug)]
pub(crate) struct Tier<T> {
    /// In ascending order of weight; none is empty.
    classes: Vec<Class<T>>,
    weight: u64,
    len: usize,
}

impl<T> Tier<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The sum of the weights.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.classes.iter().flat_map(|class| class.list.iter())
    }

    /// All entries, from a random one on.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &Entry<T>> {
        (start..self.len)
            .chain(0..start)
            .filter_map(|index| self.nth(index))
    }

    /// The entry of this number, in no particular order.
    pub(crate) fn nth(&self, mut index: usize) -> Option<&Entry<T>> {
        for class in &self.classes {
            if index < class.list.len {
                return class.list.entry(index);
            }
            index -= class.list.len;
        }
        None
    }

    /// The entry at a place that [`insert`](Self::insert) gave.
    pub(crate) fn at(&self, place: Place) -> Option<&Entry<T>> {
        let found = self
            .classes
            .binary_search_by_key(&place.log(), |class| class.cap.ilog2());
        self.classes[found.ok()?].list.entry(place.index as usize)
    }

    /// Draws an entry of the window with a chance proportional to its weight.
    #[inline]
    pub(crate) fn draw(&self, window: Window, words: &mut Words) -> Option<&Entry<T>> {
        let class = match self.classes.as_slice() {
            [] => return None,
            [only] => only,
            classes => {
                let mut at = words.below(self.weight);
                classes.iter().find(|class| {
                    let found = at < class.weight;
                    at = at.saturating_sub(class.weight);
                    found
                })?
            }
        };
        class.draw(window, words)
    }

    /// Do all have the same weight?
    pub(crate) fn is_even(&self) -> bool {
        match self.classes.as_slice() {
            [] => true,
            [only] => only.heaviest as usize == only.list.len,
            _ => false,
        }
    }

    pub(crate) fn insert(&mut self, entry: Entry<T>) -> Place {
        let log = entry.weight.ilog2();
        let found = self
            .classes
            .binary_search_by_key(&log, |class| class.cap.ilog2());
        let class = match found {
            Ok(class) => class,
            Err(class) => {
                self.classes.insert(class, Class::default());
                class
            }
        };
        self.len += 1;
        self.weight += u64::from(entry.weight);
        Place::new(entry.rank, log, self.classes[class].push(entry))
    }

    /// Takes an entry out. Its place goes to the entry that is returned, if any.
    pub(crate) fn remove(&mut self, place: Place) -> Option<SlotId> {
        let found = self
            .classes
            .binary_search_by_key(&place.log(), |class| class.cap.ilog2());
        let class = found.ok()?;
        let (weight, moved) = self.classes[class].remove(place.index as usize)?;
        if self.classes[class].list.len == 0 {
            self.classes.remove(class);
        }
        self.len -= 1;
        self.weight -= u64::from(weight);
        moved
    }
}

impl<T> Default for Tier<T> {
    fn default() -> Self {
        Self {
            classes: Vec::new(),
            weight: 0,
            len: 0,
        }
    }
}

impl<T> Clone for Tier<T> {
    fn clone(&self) -> Self {
        Self {
            classes: self.classes.clone(),
            ..*self
        }
    }
}

/// Where an entry is, until the entry that is moved into a freed place is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    index: u32,
    /// That of the zone, which tells the tier.
    pub(crate) rank: u16,
    /// One more than that of the weight, which tells the class.
    log: NonZeroU8,
}

impl Place {
    fn new(rank: u16, log: u32, index: usize) -> Self {
        Self {
            index: index as u32,
            rank,
            // At most 32.
            log: NonZeroU8::MIN.saturating_add(log as u8),
        }
    }

    fn log(self) -> u32 {
        u32::from(self.log.get()) - 1
    }
}

#[derive(Debug)]
struct Class<T> {
    list: List<T>,
    weight: u64,
    /// The largest weight, and how many have it.
    cap: u32,
    heaviest: u32,
}

impl<T> Class<T> {
    #[inline]
    fn draw(&self, window: Window, words: &mut Words) -> Option<&Entry<T>> {
        let len = self.list.len;
        let (first, open) = window.of(len);
        let mut drawn = None;
        for _ in 0..REDRAWS {
            let word = words.next();
            let mut index = first + (((word >> 32) * open as u64) >> 32) as usize;
            if index >= len {
                index -= len;
            }
            let entry = self.list.entry(index)?;
            // The low half of the word decides whether it is kept.
            let kept = (u64::from(word as u32) * u64::from(self.cap)) >> 32;
            if kept < u64::from(entry.weight) {
                return Some(entry);
            }
            drawn = Some(entry);
        }
        drawn
    }

    fn push(&mut self, entry: Entry<T>) -> usize {
        self.weight += u64::from(entry.weight);
        if entry.weight > self.cap {
            (self.cap, self.heaviest) = (entry.weight, 0);
        }
        self.heaviest += u32::from(entry.weight == self.cap);
        self.list.push(entry)
    }

    fn remove(&mut self, index: usize) -> Option<(u32, Option<SlotId>)> {
        let (weight, moved) = self.list.swap_remove(index)?;
        self.weight -= u64::from(weight);
        self.heaviest -= u32::from(weight == self.cap);
        if self.heaviest == 0 {
            self.cap = self
                .list
                .iter()
                .map(|entry| entry.weight)
                .max()
                .unwrap_or(1);
            let heaviest = self.list.iter().filter(|entry| entry.weight == self.cap);
            self.heaviest = heaviest.count() as u32;
        }
        Some((weight, moved))
    }
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self {
            list: List {
                chunks: Vec::new(),
                len: 0,
            },
            weight: 0,
            cap: 0,
            heaviest: 0,
        }
    }
}

impl<T> Clone for Class<T> {
    fn clone(&self) -> Self {
        Self {
            list: self.list.clone(),
            ..*self
        }
    }
}

/// Entries without gaps.
#[derive(Debug)]
struct List<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    len: usize,
}

impl<T> List<T> {
    #[inline]
    fn entry(&self, index: usize) -> Option<&Entry<T>> {
        self.chunks.get(index / CHUNK)?.0[index % CHUNK].as_ref()
    }

    fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.0.iter().flatten())
    }

    fn push(&mut self, entry: Entry<T>) -> usize {
        let index = self.len;
        if index / CHUNK == self.chunks.len() {
            self.chunks.push(Arc::new(Chunk::default()));
        }
        self.place(index, Some(entry));
        self.len += 1;
        index
    }

    /// Takes an entry out and moves the last one there. Says what weight it had and which entry was moved.
    fn swap_remove(&mut self, index: usize) -> Option<(u32, Option<SlotId>)> {
        let last = self.len.checked_sub(1)?;
        let moved = self.place(last, None)?;
        self.len = last;
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.pop();
        }
        if index == last {
            return Some((moved.weight, None));
        }
        let slot = moved.slot();
        let removed = self.place(index, Some(moved))?;
        Some((removed.weight, Some(slot)))
    }

    fn place(&mut self, index: usize, entry: Option<Entry<T>>) -> Option<Entry<T>> {
        let chunk = Arc::make_mut(&mut self.chunks[index / CHUNK]);
        std::mem::replace(&mut chunk.0[index % CHUNK], entry)
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

#[derive(Debug)]
struct Chunk<T>([Option<Entry<T>>; CHUNK]);

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self([const { None }; CHUNK])
    }
}

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Small, since most sets are and each change copies one.
const CHUNK: usize = 32;
/// Half of the draws succeed at the least, so one in 65,000 is taken although it failed.
const REDRAWS: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::endpoint::Common;
    use super::*;
    use proptest::prelude::*;

    fn entry(index: u32, weight: u32) -> Entry<u32> {
        let slot = SlotId {
            index,
            generation: 0,
        };
        let live = Arc::new(Live::new(Arc::new(Common::for_tests()), slot, true));
        Entry {
            endpoint: Arc::new(Endpoint {
                live: live.clone(),
                value: index,
            }),
            live,
            weight,
            rank: 0,
        }
    }

    proptest! {
        #[test]
        fn draws_follow_the_weights(weights in proptest::collection::vec(1..1000_u32, 1..20), seed: u64) {
            const DRAWS: u32 = 40_000;
            let mut tier = Tier::default();
            for (index, weight) in weights.iter().enumerate() {
                tier.insert(entry(index as u32, *weight));
            }
            let mut words = Words(seed);
            let mut drawn = vec![0_u32; weights.len()];
            for _ in 0..DRAWS {
                drawn[tier.draw(Window::WHOLE, &mut words).unwrap().endpoint.value as usize] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (drawn, weight) in drawn.iter().zip(&weights) {
                let (is, should) = (f64::from(*drawn) / f64::from(DRAWS), f64::from(*weight) / f64::from(total));
                prop_assert!((is - should).abs() < 0.02, "{} instead of {}", is, should);
            }
        }

        #[test]
        fn any_history_keeps_what_is_in_and_its_weight(steps in proptest::collection::vec((0..100_u32, 1..40_u32), 1..300)) {
            let mut tier = Tier::default();
            let mut places = std::collections::HashMap::new();
            for (index, weight) in steps {
                let before = tier.clone();
                if let Some((place, _)) = places.remove(&index) {
                    if let Some(moved) = tier.remove(place) {
                        places.get_mut(&moved.index).unwrap().0 = place;
                    }
                } else {
                    places.insert(index, (tier.insert(entry(index, weight)), weight));
                }
                prop_assert_eq!(before.iter().count(), before.len(), "an earlier copy is as it was");
                let mut found: Vec<_> = tier.iter().map(|entry| (entry.endpoint.value, entry.weight)).collect();
                found.sort_unstable();
                let mut expected: Vec<_> = places.iter().map(|(index, (_, weight))| (*index, *weight)).collect();
                expected.sort_unstable();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(tier.len(), found.len());
                prop_assert_eq!(tier.weight(), found.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>());
                prop_assert_eq!(tier.iter_from(tier.len() / 2).count(), tier.len());
            }
        }
    }

    #[test]
    fn extreme_weights_are_drawn() {
        let mut tier = Tier::default();
        for (index, weight) in [1, u32::MAX, u32::MAX, 1, 7].into_iter().enumerate() {
            tier.insert(entry(index as u32, weight));
        }
        let mut words = Words(3);
        let heavy =
            (0..1000).filter(|_| tier.draw(Window::WHOLE, &mut words).unwrap().weight == u32::MAX);
        assert_eq!(heavy.count(), 1000);
    }
}
