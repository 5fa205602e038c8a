//! Cross-certificates: carrying stragglers that trust the old anchor only.

use std::collections::BTreeSet;

use crate::authority::Bridge;
use crate::change::Change;
use crate::consumer::{Cause, Standing};
use crate::error::Refusal;
use crate::guard::Guard;
use crate::id::{AnchorId, WorkloadId};
use crate::phase::{Kind, Mode, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// A cross-certificate is there. One with a tainted end is refused: whoever has that key could have made it.
    pub(crate) fn bridge_made(&mut self, now: UnixTime, bridge: Bridge) -> Result<(), Refusal> {
        for anchor in [bridge.subject, bridge.signer] {
            if !self.anchors.contains_key(&anchor) {
                return Err(Refusal::UnknownAnchor { anchor });
            }
            if self.is_tainted(anchor) && self.guards(Guard::TaintedBridge) {
                return Err(Refusal::Tainted { anchor });
            }
        }
        if bridge.not_after <= now {
            return Err(Refusal::NoBridge {
                reason: "it has ended",
            });
        }
        // The longest-lasting one of a pair is kept.
        let pair =
            |other: &Bridge| other.subject == bridge.subject && other.signer == bridge.signer;
        if self
            .bridges
            .iter()
            .any(|other| pair(other) && other.not_after >= bridge.not_after)
        {
            return Ok(());
        }
        self.bridges.retain(|other| !pair(other));
        self.bridges.insert(bridge);
        Ok(())
    }

    /// Has stragglers carried.
    pub(crate) fn carry(
        &mut self,
        now: UnixTime,
        stragglers: BTreeSet<WorkloadId>,
    ) -> Result<(), Refusal> {
        let change = self.change.as_ref().ok_or(Refusal::NothingUnderway)?;
        let refused = |reason| Err(Refusal::NoBridge { reason });
        if !self.settings.bridges {
            return refused("the settings do not allow them");
        }
        if change.kind != Kind::Anchor || change.mode != Mode::Normal {
            return refused("they carry only a planned change of the anchor");
        }
        if !matches!(change.phase, Phase::Distribute | Phase::TrustConverged) {
            return refused("leaves without one may be out already");
        }
        if let Some(workload) = stragglers
            .iter()
            .find(|workload| !self.consumers.contains_key(*workload))
        {
            return Err(Refusal::UnknownConsumer {
                workload: workload.clone(),
            });
        }
        let lasts = self
            .bridge_end(change)
            .is_some_and(|end| end >= now.after(self.settings.phase_budget));
        if !lasts {
            return refused("none from the old anchor to the new lasts a phase and a leaf's life");
        }
        if let Some(change) = &mut self.change {
            change.bridged = stragglers;
        }
        Ok(())
    }

    /// The cross-certificates that were made, of anchors that are known.
    pub fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        self.bridges.iter()
    }

    /// The cross-certificate of a pair. There is none of a tainted anchor: those it had are dropped, others are refused.
    pub(crate) fn bridge(&self, subject: AnchorId, signer: AnchorId) -> Option<&Bridge> {
        self.bridges
            .iter()
            .find(|bridge| bridge.subject == subject && bridge.signer == signer)
    }

    /// Whether a cross-certificate makes up for a straggler's not trusting the new anchor.
    pub(crate) fn is_carried(
        &self,
        now: UnixTime,
        workload: &WorkloadId,
        anchor: AnchorId,
    ) -> bool {
        let Some(change) = &self.change else {
            return false;
        };
        change.to.anchor == anchor
            && change.bridged.contains(workload)
            && !change.is_draining()
            && self
                .bridge_end(change)
                .is_some_and(|end| now <= end || !self.guards(Guard::BridgeEnding))
    }

    /// Quarantines stragglers before new leaves can no longer have the cross-certificate.
    pub(crate) fn quarantine_uncarried(&mut self, now: UnixTime) {
        let Some(change) = &self.change else {
            return;
        };
        if self.bridge_end(change).is_none_or(|end| now <= end) && !change.is_emergency()
            || !self.guards(Guard::BridgeEnding)
            || change.bridged.is_empty()
        {
            return;
        }
        let to = change.to.anchor;
        let lost: Vec<WorkloadId> = change
            .bridged
            .iter()
            .filter(|workload| {
                self.consumers.get(*workload).is_some_and(|known| {
                    known.is_required() && self.mistrust(now, workload, known, to).is_some()
                })
            })
            .cloned()
            .collect();
        for workload in lost {
            if let Some(consumer) = self.consumers.get_mut(&workload) {
                consumer.standing = Standing::Quarantined {
                    since: now,
                    cause: Cause::BridgeEnding,
                };
            }
        }
        if let Some(change) = &mut self.change {
            change.bridged.clear();
        }
    }

    /// Until when a new leaf can be served with the cross-certificate for all its life.
    fn bridge_end(&self, change: &Change) -> Option<UnixTime> {
        let bridge = self.bridge(change.to.anchor, change.from.anchor)?;
        Some(
            bridge
                .not_after
                .before(self.settings.leaf_life)
                .before(self.settings.skew),
        )
    }
}
