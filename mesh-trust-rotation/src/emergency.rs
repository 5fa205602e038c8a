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
            self.lose_standby(now);
            return Ok(());
        }
        let Some(change) = &self.change else {
            if anchor == self.active.anchor {
                self.flee_to_standby(now);
            }
            return Ok(());
        };
        let (from, to) = (change.from.anchor, change.to.anchor);
        let without_effect = self.is_without_effect(change);
        if change.kind == Kind::Issuer {
            if anchor == to {
                // New issuers under this anchor help nobody.
                self.stop_issuer_change();
                self.flee_to_standby(now);
            }
        } else if anchor == to && without_effect && !self.is_tainted(from) {
            self.forget_change();
        } else if anchor == to && !self.is_tainted(from) {
            self.turn_back(now, Mode::Emergency);
            self.in_emergency_since(now);
        } else if anchor == from || anchor == to {
            self.in_emergency_since(now);
            if self.is_tainted(to) {
                self.flee_to_standby(now);
            }
        }
        Ok(())
    }

    /// The standby's key is in other hands. Nobody has leaves of it, unless a store was restored that did not know better: then
    /// they are led away as from any other.
    fn lose_standby(&mut self, now: UnixTime) {
        let Some(standby) = self.standby.take() else {
            return;
        };
        let used = standby
            .issuers
            .values()
            .any(|issuer| self.may_have_leaves(now, *issuer));
        match &mut self.change {
            Some(change) if used && change.kind == Kind::Anchor => {
                change.abandoned.insert(standby.anchor);
            }
            None if used => {
                let to = self.active.clone();
                self.begin(now, Kind::Anchor, Mode::Emergency, to, BTreeSet::new());
                if let Some(change) = &mut self.change {
                    change.from = standby;
                }
            }
            _ => {
                self.issuers
                    .retain(|_, issuer| issuer.anchor != standby.anchor);
                self.retiring.insert(standby.anchor);
            }
        }
        self.publish_for_phase(now);
    }

    /// Goes on to another anchor, as the one that a change led to is in other hands.
    pub(crate) fn go_elsewhere(&mut self, now: UnixTime, to: Side) {
        // Nothing depends on what is about to go: it is not given out again.
        if self
            .change
            .as_ref()
            .is_some_and(|change| change.phase >= Phase::CanaryRetirement)
        {
            self.finish();
        }
        let last = self.change.take();
        self.begin(now, Kind::Anchor, Mode::Emergency, to, BTreeSet::new());
        let all_leave = self.guards(Guard::AbandonedLeave);
        if let (Some(last), Some(change)) = (last, &mut self.change) {
            change.abandoned = last.abandoned;
            change.abandoned.extend([last.from.anchor, last.to.anchor]);
            change.abandoned.remove(&change.from.anchor);
            change.abandoned.retain(|_| all_leave);
            change.emergency_since = last.emergency_since.or(change.emergency_since);
            change.incumbent = last.incumbent;
        }
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
            self.go_elsewhere(now, standby);
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
