//! Away from a key in other hands.

use std::collections::BTreeSet;

use crate::blocker::Subject;
use crate::change::{Outcome, Side};
use crate::consumer::{Cause, Standing};
use crate::error::Refusal;
use crate::guard::Guard;
use crate::id::{AnchorId, WorkloadId};
use crate::phase::{Kind, Mode, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// An anchor's key is in other hands: it signs and bridges nothing from now on, and everybody is led away from it.
    pub(crate) fn taint(&mut self, now: UnixTime, anchor: AnchorId) -> Result<(), Refusal> {
        let known = self
            .anchors
            .get_mut(&anchor)
            .ok_or(Refusal::UnknownAnchor { anchor })?;
        if known.tainted.is_some() {
            return Ok(());
        }
        known.tainted = Some(now);
        if self.guards(Guard::TaintedBridge) {
            self.drop_bridges(anchor);
        }
        if self
            .standby
            .as_ref()
            .is_some_and(|standby| standby.anchor == anchor)
        {
            self.standby = None;
            self.retiring.insert(anchor);
            self.publish_for_phase();
            return Ok(());
        }
        let Some(change) = &self.change else {
            if anchor == self.active.anchor {
                self.flee_to_standby(now);
            }
            return Ok(());
        };
        let (from, to, phase) = (change.from.anchor, change.to.anchor, change.phase);
        if change.kind == Kind::Issuer {
            if anchor == to {
                // New issuers under this anchor help nobody.
                self.stop_issuer_change();
                self.flee_to_standby(now);
            }
        } else if anchor == to && phase == Phase::Preflight {
            self.forget_change();
        } else if anchor == to && !self.is_tainted(from) {
            self.turn_back(now, Mode::Emergency);
            self.in_emergency_since(now);
        } else if anchor == from || anchor == to {
            self.in_emergency_since(now);
        }
        Ok(())
    }

    /// Leaves consumers behind to get past a gate: those, and only those, that block it.
    pub(crate) fn leave_behind(
        &mut self,
        now: UnixTime,
        phase: Phase,
        breaks: &BTreeSet<WorkloadId>,
    ) -> Result<(), Refusal> {
        let refused = |reason| Err(Refusal::OverrideNotAllowed { reason });
        let change = self.change.as_ref().ok_or(Refusal::NothingUnderway)?;
        if !change.is_emergency() {
            return refused("there is no emergency; quarantine a consumer by name instead");
        }
        if change.phase != phase {
            return refused("the change is in another phase by now");
        }
        let mut blocking = BTreeSet::new();
        for blocker in self.gate(now).blockers() {
            match &blocker.who {
                Subject::Workload(workload) => {
                    blocking.insert(workload.clone());
                }
                Subject::Cluster(cluster) => {
                    let there = self
                        .required()
                        .filter(|(_, consumer)| consumer.cluster == *cluster);
                    blocking.extend(there.map(|(workload, _)| workload.clone()));
                }
                _ => return refused("something other than consumers and clusters blocks"),
            }
        }
        if self.guards(Guard::OverrideNames) && *breaks != blocking {
            return Err(Refusal::OverrideNames {
                blocking: blocking.into_iter().collect(),
            });
        }
        let all = self.required().count();
        let ready = all.saturating_sub(blocking.len());
        let quorum = ready * 100 >= all * usize::from(self.settings.emergency_quorum);
        let since = change.emergency_since.unwrap_or(change.started);
        let late = now >= since.after(self.settings.emergency_deadline);
        if self.guards(Guard::OverrideQuorum) && !quorum && !late {
            return refused("neither the quorum nor the deadline is reached");
        }
        for workload in blocking {
            self.undeclared.remove(&workload);
            if let Some(consumer) = self.consumers.get_mut(&workload) {
                consumer.standing = Standing::Quarantined {
                    since: now,
                    cause: Cause::Operator,
                };
            }
        }
        Ok(())
    }

    fn in_emergency_since(&mut self, now: UnixTime) {
        if let Some(change) = &mut self.change {
            change.mode = Mode::Emergency;
            change.emergency_since.get_or_insert(now);
            change.paused = None;
        }
    }

    fn flee_to_standby(&mut self, now: UnixTime) {
        if let Some(standby) = self.standby.take() {
            self.begin(now, Kind::Anchor, Mode::Emergency, standby, BTreeSet::new());
        }
    }

    /// Ends a change of issuers where it is: each cluster keeps the one it has.
    fn stop_issuer_change(&mut self) {
        if self.change.take().is_some() {
            let issuers = self
                .clusters
                .iter()
                .map(|(id, cluster)| (id.clone(), cluster.signer));
            self.active = Side {
                anchor: self.active.anchor,
                issuers: issuers.collect(),
            };
            self.last = Some(Outcome::SafelyAborted);
        }
    }
}
