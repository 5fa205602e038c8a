//! Values kept once and named by small integers.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
};

use hashbrown::HashTable;

/// The id of a value in an [`Interner`], valid while somebody holds a reference to it.
pub(crate) struct Id<T: ?Sized> {
    index: u32,
    of: PhantomData<fn() -> Box<T>>,
}

/// An interned string.
pub(crate) type Symbol = Id<str>;

/// An interned set of labels.
pub(crate) type LabelSet = Id<[(Symbol, Symbol)]>;

/// Counts references, so that names of what is long gone do not pile up.
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    ids: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot<T: ?Sized> {
    value: Option<Box<T>>,
    references: u32,
}

impl<T: ?Sized + Hash + Eq> Interner<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes one reference to the value, storing it when it is new. True when it is.
    pub(crate) fn acquire(&mut self, value: &T) -> (Id<T>, bool)
    where
        for<'a> Box<T>: From<&'a T>,
    {
        if let Some(id) = self.find(value) {
            self.slots[id.index()].references += 1;
            return (id, false);
        }
        let slot = Slot {
            value: Some(value.into()),
            references: 1,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u32_of(self.slots.len() - 1)
            }
        };
        let Self {
            slots, ids, hasher, ..
        } = self;
        ids.insert_unique(hasher.hash_one(value), index, |&index| {
            let value = slots[index as usize].value.as_deref();
            value.map_or(0, |value| hasher.hash_one(value))
        });
        (Id::new(index), true)
    }

    /// Gives one reference back; the value itself when that was the last one.
    pub(crate) fn release(&mut self, id: Id<T>) -> Option<Box<T>> {
        let slot = &mut self.slots[id.index()];
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let value = slot.value.take()?;
        let hash = self.hasher.hash_one(&*value);
        if let Ok(entry) = self.ids.find_entry(hash, |&index| index == id.index) {
            entry.remove();
        }
        self.free.push(id.index);
        Some(value)
    }

    pub(crate) fn find(&self, value: &T) -> Option<Id<T>> {
        self.ids
            .find(self.hasher.hash_one(value), |&index| {
                self.slots[index as usize].value.as_deref() == Some(value)
            })
            .map(|&index| Id::new(index))
    }

    pub(crate) fn resolve(&self, id: Id<T>) -> Option<&T> {
        self.slots.get(id.index())?.value.as_deref()
    }
}

impl Interner<str> {
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        self.resolve(symbol).unwrap_or_default()
    }
}

impl<T: ?Sized> Id<T> {
    fn new(index: u32) -> Self {
        Self {
            index,
            of: PhantomData,
        }
    }

    fn index(self) -> usize {
        self.index as usize
    }
}

/// Ids are 32 bits wide: a registry of four thousand million names does not fit in memory first.
pub(crate) fn u32_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl<T: ?Sized> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Id<T> {}

impl<T: ?Sized> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<T: ?Sized> Eq for Id<T> {}

impl<T: ?Sized> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: ?Sized> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.index.cmp(&other.index)
    }
}

impl<T: ?Sized> Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_stored_once_and_leaves_with_its_last_reference() {
        let mut interner = Interner::<str>::new();
        let (a, new) = interner.acquire("eu-1a");
        assert!(new);
        assert_eq!(interner.acquire("eu-1a"), (a, false));
        assert_eq!(interner.text(a), "eu-1a");

        assert_eq!(interner.release(a), None);
        assert_eq!(interner.find("eu-1a"), Some(a));
        assert_eq!(interner.release(a).as_deref(), Some("eu-1a"));
        assert_eq!(interner.find("eu-1a"), None);

        let (b, _) = interner.acquire("eu-1b");
        assert_eq!(b, a, "the slot is used again");
    }

    #[test]
    fn ids_survive_growth() {
        let mut interner = Interner::<str>::new();
        let ids: Vec<_> = (0..10_000)
            .map(|n| interner.acquire(&format!("w-{n}")).0)
            .collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(interner.find(&format!("w-{n}")), Some(*id));
        }
    }
}
