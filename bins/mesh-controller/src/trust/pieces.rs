//! How the record lies in the store: a head, and shards of the consumers, so that no value outgrows what a store takes and a change
//! of one workload does not write all of them.
//!
//! The head is compared with every write, and says which of its two places each shard is in. What fits into one transaction is
//! written so, in the places that are in use. What does not is written beside them first, in several transactions; then the head
//! turns to it, all at once. Who reads sees one moment of the whole. What is in the place that is not in use stays there
//! until it is written over: two keys a shard at the most, so that a record takes twice its size.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_trust_rotation::Record;

use super::TrustError;
use crate::store::{Expected, StateStore, StoreError, Version, Versioned};

/// What is known of the record's pieces since it was read or written last.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The head's.
    pub(super) version: Version,
    /// None where the record is one value, as it was written before there were pieces.
    slots: Option<Slots>,
}

/// Where each shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slots(Vec<Slot>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nobody is in the shard.
    Empty,
    A,
    B,
}

/// What there is to read.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no record.
    None,
    /// It is as it was before.
    Unchanged,
    /// Another one.
    Record(Layout, Arc<Record>),
}

/// Reads the record; only what differs from `before`, if that is known.
///
/// # Errors
/// [`TrustError::Store`], [`TrustError::Rotation`].
pub(super) async fn read(
    store: &dyn StateStore,
    before: Option<(&Layout, &Record)>,
) -> Result<Found, TrustError> {
    if let Some((layout, record)) = before {
        // Shards that are written beside what is in use are nothing to read yet.
        let head = store.get(KEY).await?;
        if head.is_some_and(|head| head.version == layout.version) {
            return Ok(Found::Unchanged);
        }
        let written = store.written(KEY, Some(layout.version)).await?;
        let slots = layout.slots.as_ref().map(|slots| (slots, record));
        if let Some((layout, record)) = put_together(written, slots)? {
            return Ok(Found::Record(layout, record.into()));
        }
    }
    let all = store.written(KEY, None).await?;
    if all.iter().all(|(key, _)| key != KEY) {
        return Ok(Found::None);
    }
    let read = put_together(all, None)?;
    let lacks = || StoreError::Io("the record of trust lacks a shard; restore a backup".into());
    let (layout, record) = read.ok_or_else(lacks)?;
    Ok(Found::Record(layout, record.into()))
}

/// Writes what differs from `before`, if the record is still as the layout says.
///
/// # Errors
/// [`StoreError::Conflict`] in [`TrustError::Store`] if it is not; others as they come.
pub(super) async fn write(
    store: &dyn StateStore,
    layout: &Layout,
    before: &Record,
    record: &Record,
) -> Result<Layout, TrustError> {
    let differing = record.shards_to_bytes(layout.slots.as_ref().map(|_| before))?;
    let old = layout.slots.clone().unwrap_or_else(Slots::empty);
    let head = record.head_to_bytes()?;
    let most = store.most();
    let places = |beside: bool| {
        let (mut slots, mut values) = (old.clone(), Vec::new());
        for (shard, bytes) in &differing {
            let slot = &mut slots.0[usize::from(*shard)];
            *slot = match (&bytes, *slot) {
                (None, _) => Slot::Empty,
                (Some(_), Slot::Empty) => Slot::A,
                (Some(_), used) if !beside => used,
                (Some(_), Slot::A) => Slot::B,
                (Some(_), Slot::B) => Slot::A,
            };
            values.extend(
                bytes
                    .clone()
                    .zip(key(*shard, *slot))
                    .map(|(bytes, key)| (key, bytes)),
            );
        }
        (slots, values)
    };
    let unchanged = (KEY.to_owned(), Expected::At(layout.version));
    let (slots, mut values) = places(false);
    let written = |version, slots| Layout {
        version,
        slots: Some(slots),
    };
    let bytes: usize = values.iter().map(size).sum();
    if values.len() < most.keys && bytes + head.len() + ENVELOPE <= most.bytes {
        values.push((KEY.to_owned(), slots.before(&head)));
        let version = store.commit(vec![unchanged], values).await?;
        return Ok(written(version, slots));
    }
    let (slots, values) = places(true);
    let mut expected = vec![unchanged];
    let mut batch = vec![(BESIDE.to_owned(), Vec::new())];
    let mut values = values.into_iter().peekable();
    while let Some(value) = values.next() {
        batch.push(value);
        let bytes: usize = batch.iter().map(size).sum();
        let fits = |next: &(String, Vec<u8>)| bytes + size(next) <= most.bytes;
        if batch.len() < most.keys && values.peek().is_some_and(fits) {
            continue;
        }
        let version = store
            .commit(expected.clone(), std::mem::take(&mut batch))
            .await?;
        // Whoever begins to write beside as well takes this away.
        if expected.len() == 1 {
            expected.push((BESIDE.to_owned(), Expected::At(version)));
        }
    }
    let head = vec![(KEY.to_owned(), slots.before(&head))];
    let version = store.commit(expected, head).await?;
    Ok(written(version, slots))
}

/// Waits a while if it was another who writes beside, so that not both begin again and again.
pub(super) async fn make_way(conflict: &str) {
    if conflict == BESIDE {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let some = now.unwrap_or_default().subsec_micros() % 300;
        tokio::time::sleep(Duration::from_millis(some.into())).await;
    }
}

/// None if what was written is not enough to know the record.
fn put_together(
    written: Vec<(String, Versioned)>,
    before: Option<(&Slots, &Record)>,
) -> Result<Option<(Layout, Record)>, TrustError> {
    let mut written: BTreeMap<String, Versioned> = written.into_iter().collect();
    let Some(head) = written.remove(KEY) else {
        return Ok(None);
    };
    let version = head.version;
    let Some((slots, head)) = Slots::split(&head.value) else {
        let record = Record::from_bytes(&head.value)?;
        let slots = None;
        return Ok(Some((Layout { version, slots }, record)));
    };
    let mut shards = BTreeMap::new();
    for shard in 0..Record::SHARDS {
        let slot = slots.0[usize::from(shard)];
        let was = before.map(|(slots, _)| slots.0[usize::from(shard)]);
        let Some(key) = key(shard, slot) else {
            shards.insert(shard, None);
            continue;
        };
        match written.remove(&key) {
            Some(found) => {
                shards.insert(shard, Some(found.value));
            }
            None if was == Some(slot) => {}
            None => return Ok(None),
        }
    }
    let record = Record::from_pieces(head, &shards, before.map(|(_, record)| record))?;
    let slots = Some(slots);
    Ok(Some((Layout { version, slots }, record)))
}

impl Slots {
    fn empty() -> Self {
        Self(vec![Slot::Empty; Record::SHARDS.into()])
    }

    /// The value that is stored: no JSON, so that nobody takes the head for a whole record.
    fn before(&self, head: &[u8]) -> Vec<u8> {
        let mut value = MARK.to_vec();
        value.extend(self.0.iter().map(|slot| match slot {
            Slot::Empty => b'.',
            Slot::A => b'a',
            Slot::B => b'b',
        }));
        value.push(b'\n');
        value.extend(head);
        value
    }

    fn split(value: &[u8]) -> Option<(Self, &[u8])> {
        let rest = value.strip_prefix(MARK)?;
        let (slots, head) = rest.split_at_checked(Record::SHARDS.into())?;
        let head = head.strip_prefix(b"\n")?;
        let slot = |byte: &u8| match byte {
            b'.' => Some(Slot::Empty),
            b'a' => Some(Slot::A),
            b'b' => Some(Slot::B),
            _ => None,
        };
        let slots: Option<Vec<Slot>> = slots.iter().map(slot).collect();
        Some((Self(slots?), head))
    }
}

fn key(shard: u16, slot: Slot) -> Option<String> {
    match slot {
        Slot::Empty => None,
        Slot::A => Some(format!("{KEY}/{shard:03}/a")),
        Slot::B => Some(format!("{KEY}/{shard:03}/b")),
    }
}

fn size((key, value): &(String, Vec<u8>)) -> usize {
    key.len() + value.len()
}

pub(super) const KEY: &str = "trust/record";
/// Who writes shards beside those in use holds this one.
const BESIDE: &str = "trust/beside";
const MARK: &[u8] = b"record in 512 shards ";
/// What is around a head, and around each value on its way.
const ENVELOPE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_told_from_a_whole_record() {
        let mut slots = Slots::empty();
        slots.0[3] = Slot::B;
        let value = slots.before(b"{}");
        assert_eq!(Slots::split(&value), Some((slots, &b"{}"[..])));
        assert!(Record::from_bytes(&value).is_err());
        assert_eq!(Slots::split(b"{\"version\":1}"), None);
        assert_eq!(Slots::split(b"record in 512 shards ..x"), None);
    }
}
