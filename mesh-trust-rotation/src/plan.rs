//! What is to come, as a dry run: the phases that remain, what is already known to stand in the way, and when each could
//! be entered at the earliest.

use serde::{Deserialize, Serialize};

use crate::blocker::Blocker;
use crate::change::Change;
use crate::phase::{Kind, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

/// One phase of what is to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The phase.
    pub phase: Phase,
    /// When it could be left at the earliest, if everybody did at once what is theirs.
    pub earliest: UnixTime,
    /// What stands in the way now; known for the present phase only.
    pub blockers: Vec<Blocker>,
}

impl Rotation {
    /// The phases that remain, the present one first; empty while nothing changes.
    #[must_use]
    pub fn plan(&self, now: UnixTime) -> Vec<Step> {
        let Some(change) = &self.change else {
            return Vec::new();
        };
        let gate = self.gate(now);
        let mut steps = Vec::new();
        let mut at = now;
        let mut next = Some(change.phase);
        while let Some(phase) = next {
            let began = if phase == change.phase {
                change.since
            } else {
                at
            };
            at = at.max(self.earliest(change, phase, began));
            let blockers = if phase == change.phase {
                gate.blockers().to_vec()
            } else {
                Vec::new()
            };
            at = blockers
                .iter()
                .filter_map(|blocker| blocker.until)
                .fold(at, UnixTime::max);
            steps.push(Step {
                phase,
                earliest: at,
                blockers,
            });
            next = phase.next(change.kind, change.mode);
        }
        steps
    }

    fn earliest(&self, change: &Change, phase: Phase, began: UnixTime) -> UnixTime {
        let settings = &self.settings;
        if change.is_emergency() {
            return began;
        }
        match phase {
            Phase::TrustConverged => began.after(settings.trust_hold),
            Phase::CanarySigning | Phase::CanaryRetirement if !change.canaries.is_empty() => {
                began.after(settings.soak)
            }
            // The old issuers may sign until they are switched, which is just before.
            Phase::Drain => {
                let known = self.clusters.values().flat_map(|cluster| &cluster.ledger);
                let known = known
                    .filter(|(issuer, _)| change.from.signs_with(**issuer))
                    .map(|(_, ledger)| ledger.outstanding(settings.leaf_life))
                    .max();
                let signs_until = match change.kind {
                    _ if change.phase > Phase::LeafConverged => None,
                    Kind::Anchor | Kind::Issuer => Some(began.after(settings.leaf_life)),
                };
                known.max(signs_until).unwrap_or(began).after(settings.skew)
            }
            _ => began,
        }
    }
}
