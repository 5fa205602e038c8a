//! Who trusts: the inventory that gates count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::Report;
use crate::id::{AnchorId, ClusterId, Incarnation, IssuerId};
use crate::time::UnixTime;

/// How a consumer takes a change of roots, and so what counts as evidence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Loads bundles while it runs and says which one it uses.
    Reloading,
    /// Reads roots when it starts and cannot say which; a probe handshake is its evidence. It renews with the
    /// same key and request, so that no certificate tells a restart.
    StartOnly,
    /// A controller: its own chain moves last, so that a laggard can still fetch the next bundle.
    ControlPlane,
    /// A gateway, webhook or federated peer with roots of its own; a probe handshake is its evidence.
    External,
}

impl Class {
    /// Whether only a probe handshake is evidence of what it trusts.
    #[must_use]
    pub fn needs_probe(self) -> bool {
        matches!(self, Self::StartOnly | Self::External)
    }
}

/// A consumer, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Consumer {
    /// Where it is.
    pub cluster: ClusterId,
    /// How it takes a change of roots.
    pub class: Class,
    /// Its latest known process.
    pub incarnation: Incarnation,
    /// Since when that process is known.
    pub started: UnixTime,
    /// What that process last said of itself.
    pub report: Option<Report>,
    /// Whose leaves it is given through the record, and since when; renewals by the same issuer change nothing.
    #[serde(default)]
    pub given: Option<(IssuerId, UnixTime)>,
    /// When it was last given a leaf of another issuer than before.
    #[serde(default)]
    pub turned: Option<UnixTime>,
    /// Under which anchors that process accepted a handshake, and when.
    pub probed: BTreeMap<AnchorId, UnixTime>,
    /// Until when it may be silent. Renewed by every certificate and every piece of evidence.
    pub lease_until: UnixTime,
    /// Whether gates count it.
    pub standing: Standing,
}

/// Whether a consumer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Gates wait for it.
    Required,
    /// It gets no certificate and no connection until it has joined again.
    Quarantined {
        /// Since when.
        since: UnixTime,
        /// Why.
        cause: Cause,
    },
}

/// Why a consumer was quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was silent for longer than its lease.
    LeaseLapsed,
    /// It was carried by a cross-certificate that ends.
    BridgeEnding,
    /// An operator chose to leave it behind.
    Operator,
}

impl Consumer {
    /// Whether gates wait for it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.standing == Standing::Required
    }

    /// Starts afresh with a new process: nothing that was known of the last one holds.
    pub(crate) fn restart(&mut self, incarnation: Incarnation, now: UnixTime) {
        self.incarnation = incarnation;
        self.started = now;
        self.report = None;
        self.probed.clear();
    }
}
