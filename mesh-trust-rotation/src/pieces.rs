//! A record in pieces, for stores that take values of a bounded size: a head, and shards of the consumers.
//!
//! Which shard a consumer is in is told by its name and never changes. A change of one consumer changes its shard and the head; the
//! head has the audit chain, so it changes with everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::consumer::Consumer;
use crate::error::Error;
use crate::id::WorkloadId;
use crate::record::{Record, json};

impl Record {
    /// How many shards there are: of 20,000 consumers each has some forty.
    pub const SHARDS: u16 = 512;

    /// The shard that a consumer is in: FNV-1a of its name, so that every version and every host says the same.
    #[must_use]
    pub fn shard_of(workload: &WorkloadId) -> u16 {
        let bytes = workload.as_str().bytes();
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV-1a are its weakest.
        let folded = (hash ^ (hash >> 32)) % u64::from(Self::SHARDS);
        u16::try_from(folded).unwrap_or_default()
    }

    /// The bytes of everything but the consumers. It reads as a record of nobody: store it as what who reads whole records does not
    /// take for one.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn head_to_bytes(&self) -> Result<Vec<u8>, Error> {
        json(&self.with(self.rotation().without_consumers()))
    }

    /// The bytes of each shard in which something differs from `before`; of each in which anybody is, without one. None where
    /// nobody is left.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn shards_to_bytes(
        &self,
        before: Option<&Self>,
    ) -> Result<BTreeMap<u16, Option<Vec<u8>>>, Error> {
        let none = BTreeMap::new();
        let before = before.map_or(&none, |before| &before.rotation().consumers);
        let now = &self.rotation().consumers;
        let differs = |(id, known): &(&WorkloadId, &Consumer)| before.get(*id) != Some(*known);
        let mut differing: BTreeSet<u16> = now
            .iter()
            .filter(differs)
            .map(|(id, _)| Self::shard_of(id))
            .collect();
        let gone = before.keys().filter(|id| !now.contains_key(*id));
        differing.extend(gone.map(Self::shard_of));
        let mut shards: BTreeMap<u16, BTreeMap<WorkloadId, &Consumer>> = BTreeMap::new();
        if !differing.is_empty() {
            for (id, known) in now {
                let shard = Self::shard_of(id);
                if differing.contains(&shard) {
                    let shard = shards.entry(shard).or_default();
                    shard.insert(id.clone(), known);
                }
            }
        }
        let bytes = |shard: u16| match shards.get(&shard) {
            Some(consumers) => json(consumers).map(|bytes| (shard, Some(bytes))),
            None => Ok((shard, None)),
        };
        differing.into_iter().map(bytes).collect()
    }

    /// Puts a record together: its head, the shards that differ from `before`, and all others from there. A shard is none where
    /// nobody is in it any more.
    ///
    /// # Errors
    /// [`Error::RecordVersion`] or [`Error::Record`], also where a consumer is in a shard that is not its own.
    pub fn from_pieces(
        head: &[u8],
        shards: &BTreeMap<u16, Option<Vec<u8>>>,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Record { reason };
        let sizes = shards.values().flatten().map(Vec::len);
        let size = sizes.fold(head.len(), usize::saturating_add);
        if size > Self::MAX_BYTES {
            let reason = format!("{size} bytes; at most {}", Self::MAX_BYTES);
            return Err(wrong(reason));
        }
        let mut record = Self::from_bytes(head)?;
        let kept = before.map(|before| before.rotation().consumers.iter());
        let kept = kept.into_iter().flatten();
        let kept = kept.filter(|(id, _)| !shards.contains_key(&Self::shard_of(id)));
        let mut consumers: BTreeMap<WorkloadId, Consumer> = kept
            .map(|(id, known)| (id.clone(), known.clone()))
            .collect();
        for (shard, bytes) in shards {
            let Some(bytes) = bytes else { continue };
            let found: BTreeMap<WorkloadId, Consumer> =
                serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
            for (id, known) in found {
                if Self::shard_of(&id) != *shard {
                    return Err(wrong(format!(
                        "{id} is in shard {shard}, which is not its own"
                    )));
                }
                consumers.insert(id, known);
            }
        }
        record.put_consumers(consumers);
        Ok(record)
    }
}
