//! What is to be done about it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::authority::Bridge;
use crate::bundle::Scope;
use crate::event::{Effect, Event};
use crate::id::{AnchorId, ClusterId, Digest, Generation, IssuerId, WorkloadId};
use crate::time::UnixTime;

/// An action. Each may be carried out twice. What has to be confirmed is asked for again until it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Compute the digest of a bundle, and make and store its document. Confirmed by
    /// [`Effect::Composed`](crate::Effect::Composed), before anybody is given it.
    Compose {
        /// The bundle's generation.
        generation: Generation,
        /// The anchors in it.
        anchors: BTreeSet<AnchorId>,
    },
    /// Give out a bundle. Confirmed by [`Effect::Published`](crate::Effect::Published).
    Publish {
        /// By which cluster.
        cluster: ClusterId,
        /// To whom.
        scope: Scope,
        /// Under which generation.
        generation: Generation,
        /// The anchors in it.
        anchors: BTreeSet<AnchorId>,
    },
    /// Sign with the issuer's key and verify under its anchor. Confirmed by
    /// [`Effect::IssuerVerified`](crate::Effect::IssuerVerified).
    VerifyIssuer {
        /// The issuer.
        issuer: IssuerId,
    },
    /// Make a cross-certificate, while both keys are at hand. Confirmed by [`Event::BridgeMade`](crate::Event::BridgeMade).
    MakeBridge {
        /// The anchor whose key it certifies.
        subject: AnchorId,
        /// The anchor that signs it.
        signer: AnchorId,
    },
    /// Sign with this issuer from now on. Confirmed by [`Effect::IssuerSwitched`](crate::Effect::IssuerSwitched).
    SwitchIssuer {
        /// In which cluster.
        cluster: ClusterId,
        /// The issuer.
        issuer: IssuerId,
    },
    /// Shake hands with a leaf of this anchor, and see whether it is accepted.
    Probe {
        /// With whom.
        workload: WorkloadId,
        /// Under which anchor.
        anchor: AnchorId,
    },
    /// Ask these for a new certificate request, spread over a while.
    Reissue {
        /// Whom.
        workloads: Vec<WorkloadId>,
        /// Over how long.
        within: Duration,
    },
    /// Start these again: they read roots only at start. As many are named as may be down at once, less those that were
    /// started again and have not been seen to accept the new anchor yet.
    Restart {
        /// Whom.
        workloads: Vec<WorkloadId>,
        /// A process that was started later is not meant: so it is safe to be asked twice.
        started_before: UnixTime,
    },
    /// Make new session ticket keys. Confirmed by [`Effect::TicketsRotated`](crate::Effect::TicketsRotated).
    RotateTickets {
        /// In which cluster.
        cluster: ClusterId,
        /// To be named in the confirmation.
        generation: Generation,
    },
    /// End connections that were verified under this anchor. Evidence shows when they have.
    DrainConnections {
        /// Of whom.
        workload: WorkloadId,
        /// The anchor.
        anchor: AnchorId,
        /// Whether to close them, or to have them end by themselves.
        cut: bool,
    },
    /// Destroy or put away the anchor's key. Confirmed by [`Effect::AnchorRetired`](crate::Effect::AnchorRetired).
    RetireAnchor {
        /// The anchor.
        anchor: AnchorId,
    },
    /// Sign one leaf and release it. The ledger's entry is in the record that this came with: write that first.
    Sign {
        /// For whom.
        workload: WorkloadId,
        /// With which issuer.
        issuer: IssuerId,
        /// The start of its validity.
        not_before: UnixTime,
        /// The end of its validity.
        not_after: UnixTime,
        /// A cross-certificate to serve with the chain.
        bridge: Option<Bridge>,
    },
}

impl Action {
    /// Whether carrying it out again after a confirmation would be needless: those that are asked for until confirmed.
    #[must_use]
    pub fn needs_confirmation(&self) -> bool {
        matches!(
            self,
            Self::Compose { .. }
                | Self::Publish { .. }
                | Self::VerifyIssuer { .. }
                | Self::MakeBridge { .. }
                | Self::SwitchIssuer { .. }
                | Self::RotateTickets { .. }
                | Self::RetireAnchor { .. }
        )
    }

    /// What to tell the machine once this is done and seen to be in force; none for what evidence shows by itself.
    /// `digest_of` computes the digest of a set of anchors, as the feature `x509` does with `x509::Anchors`.
    #[must_use]
    pub fn done(&self, digest_of: impl FnOnce(&BTreeSet<AnchorId>) -> Digest) -> Option<Event> {
        Some(Event::Confirmed(match self {
            Self::Compose {
                generation,
                anchors,
            } => Effect::Composed {
                generation: *generation,
                digest: digest_of(anchors),
            },
            Self::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } => Effect::Published {
                cluster: cluster.clone(),
                scope: *scope,
                generation: *generation,
                digest: digest_of(anchors),
            },
            Self::VerifyIssuer { issuer } => Effect::IssuerVerified { issuer: *issuer },
            Self::SwitchIssuer { cluster, issuer } => Effect::IssuerSwitched {
                cluster: cluster.clone(),
                issuer: *issuer,
            },
            Self::RotateTickets {
                cluster,
                generation,
            } => Effect::TicketsRotated {
                cluster: cluster.clone(),
                generation: *generation,
            },
            Self::RetireAnchor { anchor } => Effect::AnchorRetired { anchor: *anchor },
            _ => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_until_confirmed_is_told_apart_from_what_evidence_shows() {
        let anchor = AnchorId::new([1; 32]);
        assert!(Action::RetireAnchor { anchor }.needs_confirmation());
        let workloads = Vec::new();
        let within = Duration::ZERO;
        assert!(!Action::Reissue { workloads, within }.needs_confirmation());
    }
}
