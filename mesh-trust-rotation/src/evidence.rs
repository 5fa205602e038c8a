//! What is known about live processes, and from whom.

use serde::{Deserialize, Serialize};

use crate::id::{AnchorId, Digest, Generation, Incarnation, IssuerId, WorkloadId};
use crate::time::UnixTime;

/// One observation of one process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// Whom it is about.
    pub workload: WorkloadId,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// How it was observed.
    pub source: Source,
    /// What was observed.
    pub report: Report,
}

/// How evidence came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A handshake in which it accepted a chain to this anchor. The strongest.
    Probe(AnchorId),
    /// Said by the process on an authenticated stream, after all its parts had loaded.
    Acknowledgement,
    /// Something stamped on it by another, such as an annotation. A hint, which opens no gate.
    Annotation,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Report {
    /// Its place among what was observed of that process; later is higher. Repeats and latecomers change nothing.
    pub sequence: u64,
    /// When it was observed, by the observer's clock.
    pub at: UnixTime,
    /// The bundle that all its parts have loaded, if it can say.
    pub loaded: Option<Loaded>,
    /// The issuer of the leaf it serves, and that leaf's end; none before its first.
    pub leaf: Option<(IssuerId, UnixTime)>,
    /// Under which anchor its oldest connection was verified.
    pub connections: Connections,
}

/// A bundle in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Loaded {
    /// Its generation.
    pub generation: Generation,
    /// Its digest, computed from the anchors in use, not copied from a document.
    pub digest: Digest,
}

impl Loaded {
    /// What a process of several parts (workers, control clients) may report: the oldest that any part uses. None
    /// without parts.
    #[must_use]
    pub fn by_all(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().min()
    }
}

/// The oldest connection of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connections {
    /// It has none.
    None,
    /// The oldest was verified under this anchor.
    Oldest(AnchorId),
    /// It cannot say.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_old_as_its_oldest_part() {
        let loaded = |generation| Loaded {
            generation: Generation(generation),
            digest: Digest::new([generation as u8; 32]),
        };
        assert_eq!(
            Loaded::by_all([loaded(3), loaded(2), loaded(3)]),
            Some(loaded(2))
        );
        assert_eq!(Loaded::by_all([]), None);
    }
}
