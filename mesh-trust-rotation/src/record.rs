//! The record: what is stored under one key, and written by one compare-and-swap.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::audit::{Chain, Entry, Hash};
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::id::{Digest, Epoch};
use crate::rotation::Rotation;
use crate::time::UnixTime;

/// The machine and its audit chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    rotation: Rotation,
    #[serde(default)]
    audit: Chain,
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRecorded {
    /// The machine does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be entered in the audit chain.
    #[error(transparent)]
    Audit(#[from] Error),
}

impl Record {
    /// The version that this crate writes. It reads this one and all before it.
    pub const VERSION: u32 = 1;

    /// The most bytes a stored record may have.
    pub const MAX_BYTES: usize = 64 * 1024 * 1024;

    /// A record of a machine with nothing in its audit chain.
    #[must_use]
    pub fn new(rotation: Rotation) -> Self {
        Self {
            version: Self::VERSION,
            rotation,
            audit: Chain::default(),
        }
    }

    /// The machine.
    #[must_use]
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// The audit chain.
    #[must_use]
    pub fn audit(&self) -> &Chain {
        &self.audit
    }

    /// Has the machine take an event, on behalf of who leads under this epoch, and enters what changed in the audit chain.
    /// Evidence, requests for leaves, leases and what clusters say of themselves are taken without an entry: leaves have
    /// the ledger, and the rest is in the grounds of the change it leads to.
    ///
    /// # Errors
    /// [`NotRecorded`]; nothing has changed then.
    pub fn apply(
        &mut self,
        epoch: Epoch,
        now: UnixTime,
        actor: &str,
        event: Event,
        hash: &impl Hash,
    ) -> Result<Vec<Action>, NotRecorded> {
        if !matches!(event, Event::Lead(_)) {
            self.rotation.fence(epoch)?;
        }
        let Some(word) = word(&event) else {
            return Ok(self.rotation.handle(now, event)?);
        };
        let mut next = self.rotation.clone();
        let actions = next.handle(now, event)?;
        if next == self.rotation {
            return Ok(actions);
        }
        let consumers =
            serde_json::to_vec(&self.rotation.consumers).map_err(|error| Error::Record {
                reason: error.to_string(),
            })?;
        let entry = Entry {
            index: 0,
            at: now,
            epoch,
            actor: actor.to_owned(),
            event: word.to_owned(),
            phase: next.change().map(|change| change.phase),
            generation: next.bundles().current(),
            gate: self.rotation.gate(now),
            inputs: hash.digest(&consumers),
            previous: Digest::new([0; 32]),
        };
        self.audit.add(entry, hash)?;
        self.rotation = next;
        Ok(actions)
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|error| Error::Record {
            reason: error.to_string(),
        })
    }

    /// Reads stored bytes, of this version or one before it.
    ///
    /// # Errors
    /// [`Error::RecordVersion`] or [`Error::Record`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let wrong = |reason: String| Error::Record { reason };
        if bytes.len() > Self::MAX_BYTES {
            return Err(wrong(format!(
                "{} bytes; at most {}",
                bytes.len(),
                Self::MAX_BYTES
            )));
        }
        let Versioned { version } =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if version > Self::VERSION {
            return Err(Error::RecordVersion {
                found: version,
                supported: Self::VERSION,
            });
        }
        let mut record: Self =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        record.rotation.settings.check()?;
        record.version = Self::VERSION;
        Ok(record)
    }
}

/// What an entry calls the event; none for those that have no entry.
fn word(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Evidence { .. }
        | Event::Certify(_)
        | Event::Served { .. }
        | Event::SigningLease { .. }
        | Event::LeaseReturned { .. } => return None,
        Event::Tick => "tick",
        Event::Lead(_) => "lead",
        Event::Start(_) => "start",
        Event::Standby(_) => "standby",
        Event::Pause => "pause",
        Event::Resume => "resume",
        Event::Abort => "abort",
        Event::Taint(_) => "taint",
        Event::Override { .. } => "override",
        Event::CarryByBridge(_) => "carry by bridge",
        Event::Restored => "restored",
        Event::Inventory { .. } => "inventory",
        Event::Joined { .. } => "joined",
        Event::Rejoined { .. } => "rejoined",
        Event::Left(_) => "left",
        Event::Quarantine(_) => "quarantine",
        Event::BridgeMade(_) => "bridge made",
        Event::Confirmed(_) => "confirmed",
    })
}
