//! What stands in the way: who or what, since when, and what would help.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{AnchorId, ClusterId, IssuerId, WorkloadId};
use crate::time::UnixTime;

/// The gate out of the phase that a change is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// No change is underway.
    Idle,
    /// The next tick enters the next phase.
    Open,
    /// These stand in the way.
    Blocked(Vec<Blocker>),
}

impl Gate {
    /// What stands in the way.
    #[must_use]
    pub fn blockers(&self) -> &[Blocker] {
        match self {
            Self::Idle | Self::Open => &[],
            Self::Blocked(blockers) => blockers,
        }
    }

    /// Whether the next phase can be entered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocker {
    /// Who or what.
    pub who: Subject,
    /// Why.
    pub why: Reason,
    /// Since when.
    pub since: UnixTime,
    /// When it will be over at the latest, if time alone will end it.
    pub until: Option<UnixTime>,
}

/// Who or what stands in the way. What others may follow from comes first in the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Subject {
    /// The operator.
    Operator,
    /// A cluster.
    Cluster(ClusterId),
    /// An anchor.
    Anchor(AnchorId),
    /// An issuer, in a cluster.
    Issuer(ClusterId, IssuerId),
    /// A consumer.
    Workload(WorkloadId),
    /// The clock.
    Time,
}

/// Why something stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// An operator has the change stand still.
    Paused,
    /// The store was restored from a backup, and what was in force is still being learned.
    Restoring,
    /// The cluster's controller has not been heard of late.
    ClusterSilent,
    /// The cluster has not listed its consumers since the change began.
    NoInventory,
    /// The cluster is not known to give out the bundle.
    NotPublished,
    /// The cluster serves something that nobody published.
    Drift,
    /// No leaf of the issuer was seen to verify.
    IssuerUnverified,
    /// The cluster does not sign with the new issuer yet.
    IssuerNotSwitched,
    /// A cross-certificate has not been made.
    BridgeMissing,
    /// The anchor or issuer is not valid yet by every clock.
    NotYetValid,
    /// The anchor or issuer ends before the phases that remain could.
    TooLittleTime,
    /// The anchor's key is in other hands and nothing is there to replace it.
    NoReplacement,
    /// Nothing has been heard of the consumer since it started.
    NeverHeard,
    /// Nothing has been heard of the consumer of late.
    Silent,
    /// The consumer has lapsed and is quarantined with the next tick.
    Lapsed,
    /// It presented a certificate of the mesh and is in no inventory.
    Undeclared,
    /// It has loaded a bundle without the anchor.
    OldBundle,
    /// It has loaded something that nobody published: another set of anchors, or an unknown generation.
    ForeignBundle,
    /// It reads roots only at start, and no probe has found it to accept the anchor.
    NotProbed,
    /// It serves a leaf of another issuer.
    OldLeaf,
    /// It serves a leaf of an issuer that nobody knows.
    ForeignLeaf,
    /// It has a connection that was verified under the old anchor.
    OldConnection,
    /// It may have a connection that was verified under the old anchor.
    ConnectionsUnknown,
    /// Session ticket keys from before are in use.
    OldTickets,
    /// Leaves may be alive that the issuer signed.
    LeavesOutstanding,
    /// The change holds here for a while.
    Holding,
    /// The consumer is heard, but has not said which connections it has since the drain began and the last old leaf ended.
    NotSaidSince,
}

impl Reason {
    /// What would help.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Paused => "resume",
            Self::Restoring => "wait until every cluster and consumer has been heard",
            Self::ClusterSilent => "restore the connection to the cluster's controller",
            Self::NoInventory => "have the cluster's controller list its consumers",
            Self::NotPublished => "see why the cluster's controller does not give out the bundle",
            Self::Drift => "find who edits the cluster's bundle; it is being put right",
            Self::IssuerUnverified => {
                "see why a leaf of the issuer does not verify under its anchor"
            }
            Self::IssuerNotSwitched => "see why the cluster's signer does not take the issuer",
            Self::BridgeMissing => "make the cross-certificates while both keys are at hand",
            Self::NotYetValid => "wait; or set the clocks",
            Self::TooLittleTime => {
                "abort and begin anew with certificates that last longer, or renew what ends"
            }
            Self::NoReplacement => "start a change to a new anchor now",
            Self::NeverHeard | Self::Silent => {
                "start it or connect it; or declare that it has left; its lease ends by itself"
            }
            Self::Lapsed => "nothing: the next tick quarantines it",
            Self::Undeclared => "add it to its cluster's inventory, or declare that it has left",
            Self::OldBundle => {
                "see why it does not load the bundle; start it again if its template is old"
            }
            Self::ForeignBundle => {
                "find where its roots come from; after a restore from a backup, say so"
            }
            Self::NotProbed => "start it again with the new bundle, then let it be probed",
            Self::OldLeaf => "have it renew its certificate",
            Self::ForeignLeaf => "find the issuer; a backup may be older than it",
            Self::OldConnection => "close the connection, or start the workload again",
            Self::ConnectionsUnknown => "start it again, or wait",
            Self::OldTickets => "see why the cluster's proxies have not rotated ticket keys",
            Self::LeavesOutstanding => "wait until the last of them has ended",
            Self::Holding => "wait",
            Self::NotSaidSince => "wait for its next report; nothing is wrong with it",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "has paused it",
            Self::Restoring => "learning anew after a restore from a backup",
            Self::ClusterSilent => "its controller is silent",
            Self::NoInventory => "has not listed its consumers",
            Self::NotPublished => "is not known to give out the bundle",
            Self::Drift => "serves a bundle that nobody published",
            Self::IssuerUnverified => "no leaf of it was seen to verify",
            Self::IssuerNotSwitched => "does not sign with the new issuer yet",
            Self::BridgeMissing => "has no cross-certificate",
            Self::NotYetValid => "is not valid yet by every clock",
            Self::TooLittleTime => "ends before the remaining phases could",
            Self::NoReplacement => "is tainted and nothing replaces it",
            Self::NeverHeard => "has said nothing since it started",
            Self::Silent => "is silent",
            Self::Lapsed => "has lapsed",
            Self::Undeclared => "is in no inventory",
            Self::OldBundle => "has not loaded the new anchor",
            Self::ForeignBundle => "has loaded a bundle that nobody published",
            Self::NotProbed => "was not seen to accept the new anchor",
            Self::OldLeaf => "serves a leaf of another issuer",
            Self::ForeignLeaf => "serves a leaf of an issuer that nobody knows",
            Self::OldConnection => "has a connection verified under the old anchor",
            Self::ConnectionsUnknown => "may have a connection verified under the old anchor",
            Self::OldTickets => "uses session ticket keys from before",
            Self::LeavesOutstanding => "may have leaves alive",
            Self::Holding => "holds for a while",
            Self::NotSaidSince => "has not reported its connections since the last old leaf ended",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(workload) => write!(f, "workload `{workload}`"),
            Self::Cluster(cluster) => write!(f, "cluster `{cluster}`"),
            Self::Anchor(anchor) => write!(f, "anchor {anchor:?}"),
            Self::Issuer(cluster, issuer) => write!(f, "issuer {issuer:?} of cluster `{cluster}`"),
            Self::Operator => f.write_str("the operator"),
            Self::Time => f.write_str("the change"),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} since {}", self.who, self.why, self.since)?;
        if let Some(until) = self.until {
            write!(f, ", until {until}")?;
        }
        write!(f, ": {}", self.why.help())
    }
}
