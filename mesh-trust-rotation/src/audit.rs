//! Who did what, when and on what grounds, as a chain that cannot be changed in the middle.
//!
//! An entry's digest covers the entry and the digest before it. The chain's head is in the record, and so is written by the
//! same compare-and-swap as what it tells of. The record keeps the last entries; whoever wants all of them copies them away.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::blocker::Gate;
use crate::error::Error;
use crate::id::{Digest, Epoch, Generation};
use crate::phase::Phase;
use crate::time::UnixTime;

/// Computes SHA-256. The feature `crypto` has one: `Sha256`.
pub trait Hash {
    /// The digest of these bytes.
    fn digest(&self, bytes: &[u8]) -> Digest;
}

/// One change, and on what grounds it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the chain, from 0.
    pub index: u64,
    /// When.
    pub at: UnixTime,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Who: an operator, or the controller itself.
    pub actor: String,
    /// What happened, in a word.
    pub event: String,
    /// The phase after it.
    pub phase: Option<Phase>,
    /// The generation that everybody is given after it.
    pub generation: Generation,
    /// The gate before it, with the first [`Entry::BLOCKERS`] blockers; none where it decides nothing.
    pub gate: Option<Gate>,
    /// How many blockers the gate had.
    #[serde(default)]
    pub blockers: usize,
    /// A digest of what was known: of the consumer or cluster that it is about, of all consumers if it is about the change.
    pub inputs: Digest,
    /// The digest of the entry before it; zeros for the first.
    pub previous: Digest,
}

impl Entry {
    /// How many blockers an entry holds, so that a chain stays small where thousands block.
    pub const BLOCKERS: usize = 16;
}

/// The chain, as far as the record holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    head: Digest,
    length: u64,
    recent: VecDeque<Entry>,
    /// Whether a test has it take no entry.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) closed: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: Digest::new([0; 32]),
            length: 0,
            recent: VecDeque::new(),
            #[cfg(test)]
            closed: false,
        }
    }
}

impl Chain {
    /// How many entries the record holds.
    pub const RECENT: usize = 64;

    /// The digest of the last entry.
    #[must_use]
    pub fn head(&self) -> Digest {
        self.head
    }

    /// How many entries there ever were.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The last entries, the oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Entry> {
        self.recent.iter()
    }

    /// Adds an entry; its place and its predecessor are filled in.
    ///
    /// # Errors
    /// [`Error::Record`] if it cannot be written as JSON.
    pub fn add(&mut self, mut entry: Entry, hash: &impl Hash) -> Result<(), Error> {
        #[cfg(test)]
        if self.closed {
            let reason = "closed".to_owned();
            return Err(Error::Record { reason });
        }
        entry.index = self.length;
        entry.previous = self.head;
        self.head = digest(&entry, hash)?;
        self.length = self.length.saturating_add(1);
        self.recent.push_back(entry);
        while self.recent.len() > Self::RECENT {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// Checks that the entries held follow one another up to the head, and that the last ones are there.
    ///
    /// # Errors
    /// [`Error::AuditBroken`], naming the first that does not.
    pub fn verify(&self, hash: &impl Hash) -> Result<(), Error> {
        let last = self.recent.back();
        let ends = last.map_or(0, |last| last.index.saturating_add(1));
        if ends != self.length {
            return Err(Error::AuditBroken { index: ends });
        }
        verify(self.recent.iter(), self.head, hash)
    }
}

/// Checks that these entries follow one another up to a head.
///
/// # Errors
/// [`Error::AuditBroken`], naming the first that does not.
pub fn verify<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    head: Digest,
    hash: &impl Hash,
) -> Result<(), Error> {
    let mut last: Option<(u64, Digest)> = None;
    for entry in entries {
        if let Some((index, digest)) = last
            && (entry.previous != digest || Some(entry.index) != index.checked_add(1))
        {
            return Err(Error::AuditBroken { index: entry.index });
        }
        last = Some((entry.index, digest(entry, hash)?));
    }
    match last {
        Some((index, digest)) if digest != head => Err(Error::AuditBroken { index }),
        _ => Ok(()),
    }
}

fn digest(entry: &Entry, hash: &impl Hash) -> Result<Digest, Error> {
    let bytes = serde_json::to_vec(entry).map_err(|error| Error::Record {
        reason: error.to_string(),
    })?;
    Ok(hash.digest(&bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::Sha256;

    fn chain(length: u64) -> Chain {
        let mut chain = Chain::default();
        for at in 0..length {
            let entry = Entry {
                index: 0,
                at: UnixTime(at),
                epoch: Epoch(1),
                actor: "test".to_owned(),
                event: "tick".to_owned(),
                phase: None,
                generation: Generation(1),
                gate: None,
                blockers: 0,
                inputs: Digest::new([0; 32]),
                previous: Digest::new([0; 32]),
            };
            chain.add(entry, &Sha256).unwrap();
        }
        chain
    }

    #[test]
    fn the_last_entries_are_held_and_follow_one_another() {
        let chain = chain(70);
        assert_eq!((chain.length(), chain.recent().count()), (70, 64));
        assert_eq!(Chain::RECENT, 64);
        let indices: Vec<u64> = chain.recent().map(|entry| entry.index).collect();
        assert_eq!(indices, (6..70).collect::<Vec<_>>());
        assert_eq!(chain.verify(&Sha256), Ok(()));
        let last = chain.recent().last().unwrap();
        assert_eq!(digest(last, &Sha256), Ok(chain.head()));
        assert_eq!(Chain::default().verify(&Sha256), Ok(()));
    }

    #[test]
    fn what_was_changed_taken_out_or_cut_off_is_named() {
        let broken = |change: &dyn Fn(&mut Chain)| {
            let mut chain = chain(5);
            change(&mut chain);
            chain.verify(&Sha256)
        };
        let at = |index| Err(Error::AuditBroken { index });
        assert_eq!(broken(&|chain| chain.recent[2].at.0 += 1), at(3));
        assert_eq!(broken(&|chain| chain.recent[4].at.0 += 1), at(4));
        assert_eq!(broken(&|chain| drop(chain.recent.remove(2))), at(3));
        assert_eq!(broken(&|chain| drop(chain.recent.pop_back())), at(4));
        assert_eq!(broken(&|chain| chain.recent.clear()), at(0));
        assert_eq!(broken(&|chain| chain.recent[1].index = 7), at(7));
        assert_eq!(broken(&|chain| chain.recent[0].index = u64::MAX), at(1));
        assert_eq!(broken(&|chain| chain.length += 1), at(5));
        // What is not held any more is not asked for.
        assert_eq!(broken(&|chain| drop(chain.recent.pop_front())), Ok(()));
    }
}
