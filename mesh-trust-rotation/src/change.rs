//! The change underway.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{AnchorId, ClusterId, IssuerId, WorkloadId};
use crate::phase::{Kind, Mode, Phase};
use crate::time::UnixTime;

/// A replacement of an anchor or of the issuers, from start to end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// What is replaced.
    pub kind: Kind,
    /// How it goes.
    pub mode: Mode,
    /// The anchor that leaves. A revert exchanges `from` and `to`.
    pub from: Side,
    /// The anchor that stays. The same one if only issuers change.
    pub to: Side,
    /// The anchor that was in use when it began.
    pub incumbent: AnchorId,
    /// Where it is.
    pub phase: Phase,
    /// Since when it is there.
    pub since: UnixTime,
    /// When it began.
    pub started: UnixTime,
    /// Since when it is an emergency.
    pub emergency_since: Option<UnixTime>,
    /// Since when what the old side verified is being let go.
    pub draining_since: Option<UnixTime>,
    /// Since when an operator has it stand still.
    pub paused: Option<UnixTime>,
    /// Who goes first.
    pub canaries: BTreeSet<WorkloadId>,
    /// Stragglers that an operator has a cross-certificate carry.
    pub bridged: BTreeSet<WorkloadId>,
    /// Anchors that leave with `from`: changes to and from them were underway when their keys were found in other hands.
    #[serde(default)]
    pub abandoned: BTreeSet<AnchorId>,
}

/// An anchor and who signs under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Side {
    /// The anchor.
    pub anchor: AnchorId,
    /// The issuer of each cluster.
    pub issuers: BTreeMap<ClusterId, IssuerId>,
}

/// How the last change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new anchor or issuers are in force and the old ones are gone.
    Completed,
    /// It was undone: what was in force before is, and nothing depends on what was to come.
    SafelyAborted,
}

impl Side {
    /// Whether the issuer is one of this side's.
    #[must_use]
    pub fn signs_with(&self, issuer: IssuerId) -> bool {
        self.issuers.values().any(|own| *own == issuer)
    }
}

impl Change {
    /// Whether leaves may be signed on the new side.
    #[must_use]
    pub fn is_signing(&self) -> bool {
        self.phase >= Phase::CanarySigning
    }

    /// Whether what the old side verified is to be gone: from here on nothing is signed there.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase >= Phase::Drain
    }

    /// Whether the anchor is to be gone in the end.
    #[must_use]
    pub fn is_leaving(&self, anchor: AnchorId) -> bool {
        self.kind == Kind::Anchor
            && (self.from.anchor == anchor || self.abandoned.contains(&anchor))
    }

    pub(crate) fn is_emergency(&self) -> bool {
        self.mode == Mode::Emergency
    }
}
