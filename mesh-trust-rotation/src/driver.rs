//! The loop around the machine, over a trait for the store: read, gather, handle, write, act, confirm.
//!
//! It keeps nothing between two turns but the epoch it leads under. So a crash anywhere is followed by an ordinary turn: what
//! was written and not done is due again, and what was done and not confirmed is done again, which changes nothing.

use std::convert::Infallible;

use crate::action::Action;
use crate::audit::Hash;
use crate::event::Event;
use crate::id::Epoch;
use crate::record::{NotRecorded, Record};
use crate::rotation::Rotation;
use crate::time::UnixTime;

pub use crate::site::Site;

/// Where the record is kept: one key, one compare-and-swap.
pub trait Store {
    /// What is wrong with it.
    type Error;

    /// The record and the version it has in the store.
    ///
    /// # Errors
    /// Whatever the store's are.
    fn read(&mut self) -> Result<(u64, Record), Self::Error>;

    /// Writes the record if the store still has this version; false if not.
    ///
    /// # Errors
    /// Whatever the store's are.
    fn write(&mut self, version: u64, record: &Record) -> Result<bool, Self::Error>;
}

/// A record in memory, for tests and for what may forget.
#[derive(Clone, Debug)]
pub struct Memory {
    version: u64,
    record: Record,
}

impl Memory {
    /// Keeps a record.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { version: 0, record }
    }

    /// The record as it is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Store for Memory {
    type Error = Infallible;

    fn read(&mut self) -> Result<(u64, Record), Infallible> {
        Ok((self.version, self.record.clone()))
    }

    fn write(&mut self, version: u64, record: &Record) -> Result<bool, Infallible> {
        if version != self.version {
            return Ok(false);
        }
        self.version += 1;
        self.record = record.clone();
        Ok(true)
    }
}

/// The world: what the machine hears of, and what acts for it.
pub trait World {
    /// What has happened since it was asked last. May repeat itself.
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event>;

    /// Carries an action out, and says what is to be seen of it: a confirmation, or nothing yet. May be asked twice.
    fn act(&mut self, action: &Action) -> Option<Event>;
}

/// One controller, leading under an epoch.
#[derive(Clone, Debug)]
pub struct Driver {
    epoch: Epoch,
    name: String,
}

/// How a turn ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Turn {
    /// The record was written and everything due was done; these events were refused.
    Done(Vec<NotRecorded>),
    /// Another writer was faster; nothing was done. Take another turn.
    Lost,
    /// Another controller leads. Stop.
    Deposed,
}

impl Driver {
    /// A controller that has been given an epoch higher than any before it.
    #[must_use]
    pub fn new(epoch: Epoch, name: &str) -> Self {
        Self {
            epoch,
            name: name.to_owned(),
        }
    }

    /// Takes one turn.
    ///
    /// # Errors
    /// The store's.
    pub fn turn<S: Store>(
        &self,
        now: UnixTime,
        store: &mut S,
        world: &mut impl World,
        hash: &impl Hash,
    ) -> Result<Turn, S::Error> {
        let (version, mut record) = store.read()?;
        if record.rotation().epoch() > self.epoch {
            return Ok(Turn::Deposed);
        }
        let mut refused = Vec::new();
        let mut due = Vec::new();
        let mut events = vec![Event::Lead(self.epoch)];
        events.extend(world.gather(record.rotation()));
        events.push(Event::Tick);
        for event in events {
            match record.apply(self.epoch, now, &self.name, event, hash) {
                // Leaves are signed once, for the request that asked.
                Ok(actions) => due.extend(
                    actions
                        .into_iter()
                        .filter(|action| matches!(action, Action::Sign { .. })),
                ),
                Err(error) => refused.push(error),
            }
        }
        due.extend(record.rotation().pending(now));
        // The intent is on record before anything is done.
        if !store.write(version, &record)? {
            return Ok(Turn::Lost);
        }
        let confirmations: Vec<Event> = due.iter().filter_map(|action| world.act(action)).collect();
        if confirmations.is_empty() {
            return Ok(Turn::Done(refused));
        }
        let (version, mut record) = store.read()?;
        for event in confirmations {
            if let Err(error) = record.apply(self.epoch, now, &self.name, event, hash) {
                refused.push(error);
            }
        }
        // If this write is lost, the actions are due again, and are confirmed then.
        if !store.write(version, &record)? {
            return Ok(Turn::Lost);
        }
        Ok(Turn::Done(refused))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::Sha256;
    use crate::{
        Anchor, AnchorId, ClusterId, Digest, Generation, Issuer, IssuerId, Mesh, Settings,
    };

    fn memory() -> Memory {
        let id = AnchorId::new([1; 32]);
        let anchor = Anchor {
            id,
            subject: Digest::new([1; 32]),
            not_before: UnixTime(0),
            not_after: UnixTime(u64::MAX),
            tainted: None,
        };
        let issuer = Issuer {
            id: IssuerId::new([2; 32]),
            anchor: id,
            not_before: UnixTime(0),
            not_after: UnixTime(u64::MAX),
            verified: true,
        };
        let mesh = Mesh {
            anchor,
            issuers: [(ClusterId::new("east").unwrap(), issuer)].into(),
            generation: Generation(1),
            digest: Digest::new([1; 32]),
        };
        Memory::new(Record::new(
            Rotation::new(Settings::default(), mesh, UnixTime(5)).unwrap(),
        ))
    }

    /// Another writer is faster, while `act` or `gather` runs.
    struct Rival {
        store: Memory,
    }

    impl World for Rival {
        fn gather(&mut self, _: &Rotation) -> Vec<Event> {
            let (version, record) = self.store.read().unwrap();
            assert!(self.store.write(version, &record).unwrap());
            Vec::new()
        }

        fn act(&mut self, _: &Action) -> Option<Event> {
            None
        }
    }

    #[test]
    fn whoever_read_an_older_version_does_not_write() {
        let mut store = memory();
        let (first, record) = store.read().unwrap();
        assert!(store.write(first, &record).unwrap());
        assert!(!store.write(first, &record).unwrap());
        let (second, _) = store.read().unwrap();
        assert!(second > first);
        assert!(store.write(second, &record).unwrap());
        assert!(!store.write(first, &record).unwrap());
        assert!(!store.write(second, &record).unwrap());
    }

    #[test]
    fn a_turn_leads_until_another_does() {
        let mut store = memory();
        let mut rival = Rival { store: memory() };
        let turn = |epoch, store: &mut Memory, rival: &mut Rival| {
            let driver = Driver::new(Epoch(epoch), "test");
            driver.turn(UnixTime(6), store, rival, &Sha256).unwrap()
        };
        assert!(matches!(turn(2, &mut store, &mut rival), Turn::Done(_)));
        assert_eq!(store.record().rotation().epoch(), Epoch(2));
        assert!(matches!(turn(2, &mut store, &mut rival), Turn::Done(_)));
        let before = store.record().clone();
        assert!(matches!(turn(1, &mut store, &mut rival), Turn::Deposed));
        assert_eq!(*store.record(), before);
    }
}
