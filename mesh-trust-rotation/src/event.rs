//! What can happen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::authority::Bridge;
use crate::bundle::Scope;
use crate::consumer::Class;
use crate::evidence::{Evidence, Loaded, Report, Source};
use crate::id::{
    AnchorId, ClusterId, Digest, Epoch, Generation, Incarnation, IssuerId, WorkloadId,
};
use crate::lint::Facts;
use crate::phase::Phase;
use crate::settings::Settings;
use crate::time::UnixTime;

/// An event. Each may come twice, late, or in another order than it happened in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Time has passed. Quarantines whose lease has lapsed, and enters the next phase if the gate is open.
    Tick,
    /// A controller leads from now on; whoever led before is refused.
    Lead(Epoch),

    /// Replace the anchor or the issuers.
    Start(Box<Proposal>),
    /// Keep an anchor and its issuers at hand for an emergency: everybody is given it, nobody signs with it.
    Standby(Box<Proposal>),
    /// Stand still: evidence is taken, nothing advances.
    Pause,
    /// Go on.
    Resume,
    /// Go back to where it began, by the same gates.
    Abort,
    /// The key of this anchor is in other hands.
    Taint(AnchorId),
    /// Leave these behind to get past the gate of this phase. They must be exactly the consumers that block it.
    Override {
        /// The phase whose gate is meant.
        phase: Phase,
        /// Whom it will break.
        breaks: BTreeSet<WorkloadId>,
    },
    /// Have a cross-certificate carry these, which trust the old anchor only.
    CarryByBridge(BTreeSet<WorkloadId>),
    /// Go by these settings from now on; see [`Settings`] for what may change when.
    Configure(Box<Settings>),
    /// The store was restored from a backup: what it says of generations, leases and leaves may be old.
    Restored,

    /// A cluster lists the consumers it has: all of them.
    Inventory {
        /// The cluster.
        cluster: ClusterId,
        /// All its consumers.
        consumers: BTreeMap<WorkloadId, Class>,
    },
    /// A process of a consumer has started.
    Joined {
        /// Which consumer.
        workload: WorkloadId,
        /// Where.
        cluster: ClusterId,
        /// How it takes a change of roots.
        class: Class,
        /// Which process.
        incarnation: Incarnation,
    },
    /// A consumer that was quarantined has joined again, authenticated by its host key or a join token: a new process,
    /// which has kept no leaf.
    Rejoined {
        /// Which consumer.
        workload: WorkloadId,
        /// Which process.
        incarnation: Incarnation,
        /// The bundle it has loaded.
        loaded: Loaded,
    },
    /// A consumer is gone for good. What it may still hold ends with its leaf.
    Left(WorkloadId),
    /// An operator leaves a consumer behind.
    Quarantine(WorkloadId),
    /// Something was observed about a live process.
    Evidence {
        /// Who was authenticated at the other end when it was observed.
        peer: WorkloadId,
        /// What was observed.
        evidence: Evidence,
    },
    /// A consumer asks for a leaf. The answer is one [`Action::Sign`](crate::Action::Sign).
    Certify(Request),

    /// A cluster's controller says which bundle it is really serving to everybody.
    Served {
        /// The cluster.
        cluster: ClusterId,
        /// The bundle served.
        loaded: Loaded,
        /// The highest generation it was ever told to give out, to anybody.
        highest: Generation,
    },
    /// A signer asks to sign for another while.
    SigningLease {
        /// The cluster.
        cluster: ClusterId,
        /// The issuer it would sign with.
        issuer: IssuerId,
    },
    /// A signer has stopped to use an issuer, and says up to where it had signed.
    LeaseReturned {
        /// The cluster.
        cluster: ClusterId,
        /// The issuer it no longer uses.
        issuer: IssuerId,
        /// The latest end of a leaf that it released.
        entered: UnixTime,
    },
    /// A cross-certificate was made.
    BridgeMade(Bridge),
    /// An action has taken effect.
    Confirmed(Effect),
}

impl Event {
    /// What a process said of itself, over a connection on which it was authenticated.
    #[must_use]
    pub fn said(workload: &WorkloadId, incarnation: Incarnation, report: Report) -> Self {
        let evidence = Evidence {
            workload: workload.clone(),
            incarnation,
            source: Source::Acknowledgement,
            report,
        };
        Self::Evidence {
            peer: workload.clone(),
            evidence,
        }
    }
}

/// What a change is to bring.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proposal {
    /// The new anchor; none to replace the issuers only.
    pub anchor: Option<Facts>,
    /// A new issuer for each cluster.
    pub issuers: BTreeMap<ClusterId, Facts>,
    /// Who goes first. Without any, the canary phases have nothing to wait for.
    pub canaries: BTreeSet<WorkloadId>,
}

impl Proposal {
    /// A change to another anchor, without canaries.
    #[must_use]
    pub fn to(anchor: Facts, issuers: impl IntoIterator<Item = (ClusterId, Facts)>) -> Self {
        Self {
            anchor: Some(anchor),
            issuers: issuers.into_iter().collect(),
            canaries: BTreeSet::new(),
        }
    }
}

/// A consumer's request for a leaf. The caller has verified who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub workload: WorkloadId,
    /// Where it is.
    pub cluster: ClusterId,
    /// How it takes a change of roots.
    pub class: Class,
    /// Which process asks.
    pub incarnation: Incarnation,
    /// The bundle it says that all its parts have loaded.
    pub loaded: Option<Loaded>,
    /// The anchor of the chain that it accepted on the connection it asks over, if that was seen.
    pub accepted: Option<AnchorId>,
}

/// The effect of an action, seen to be in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// A bundle has a document.
    Composed {
        /// The bundle's generation.
        generation: Generation,
        /// The digest of its set of anchors.
        digest: Digest,
    },
    /// A cluster gives out a bundle.
    Published {
        /// The cluster.
        cluster: ClusterId,
        /// To whom.
        scope: Scope,
        /// The bundle's generation.
        generation: Generation,
        /// The digest of its set of anchors.
        digest: Digest,
    },
    /// A leaf that the issuer signed was seen to verify under its anchor.
    IssuerVerified {
        /// The issuer.
        issuer: IssuerId,
    },
    /// A cluster signs with this issuer.
    IssuerSwitched {
        /// The cluster.
        cluster: ClusterId,
        /// The issuer it signs with.
        issuer: IssuerId,
    },
    /// A cluster's session ticket keys are new, and older tickets are worth nothing.
    TicketsRotated {
        /// The cluster.
        cluster: ClusterId,
        /// The bundle's generation that the rotation was asked for with.
        generation: Generation,
    },
    /// The anchor's key is destroyed or put away, and nothing uses it.
    AnchorRetired {
        /// The anchor.
        anchor: AnchorId,
    },
}
