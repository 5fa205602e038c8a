//! What is due: the difference between what is to be and what is known to be. So whoever starts again after a crash does
//! not need to know what was done before: what was confirmed is not due, what was not is.

use crate::action::Action;
use crate::bundle::Scope;
use crate::change::Change;
use crate::consumer::Class;
use crate::evidence::Connections;
use crate::id::WorkloadId;
use crate::phase::{Kind, Phase};
use crate::rotation::Rotation;
use crate::settings::Drain;
use crate::time::UnixTime;

impl Rotation {
    /// Everything that is due now. All of it may be carried out again.
    #[must_use]
    pub fn pending(&self, now: UnixTime) -> Vec<Action> {
        let mut due = Vec::new();
        if self.knows_generations() {
            self.publications(&mut due);
        }
        if self.restoring.is_some() {
            return due;
        }
        for anchor in &self.retiring {
            due.push(Action::RetireAnchor { anchor: *anchor });
        }
        for (id, cluster) in &self.clusters {
            if cluster.signing != Some(cluster.signer) {
                due.push(Action::SwitchIssuer {
                    cluster: id.clone(),
                    issuer: cluster.signer,
                });
            }
        }
        let sides = self
            .change
            .iter()
            .map(|change| &change.to)
            .chain(&self.standby);
        for issuer in sides.flat_map(|side| side.issuers.values()) {
            if self
                .issuers
                .get(issuer)
                .is_some_and(|issuer| !issuer.verified)
            {
                due.push(Action::VerifyIssuer { issuer: *issuer });
            }
        }
        if let Some(change) = &self.change
            && change.paused.is_none()
        {
            self.bridges_due(change, &mut due);
            self.consumers_due(now, change, &mut due);
            self.drain_due(now, change, &mut due);
        }
        due
    }

    fn publications(&self, due: &mut Vec<Action>) {
        let current = self.bundles.current();
        for generation in [Some(current), self.bundles.canary()].into_iter().flatten() {
            if let Some(bundle) = self
                .bundles
                .known(generation)
                .filter(|bundle| bundle.digest.is_none())
            {
                due.push(Action::Compose {
                    generation,
                    anchors: bundle.anchors.clone(),
                });
            }
        }
        for (id, cluster) in &self.clusters {
            let mut publish = |scope, generation| {
                // What is loaded before its digest is on record could not be told from what nobody published.
                if let Some(bundle) = self
                    .bundles
                    .known(generation)
                    .filter(|bundle| bundle.digest.is_some())
                {
                    due.push(Action::Publish {
                        cluster: id.clone(),
                        scope,
                        generation,
                        anchors: bundle.anchors.clone(),
                    });
                }
            };
            if cluster.published != current {
                publish(Scope::All, current);
            }
            if let Some(canary) = self.bundles.canary()
                && cluster.published_to_canaries != Some(canary)
            {
                publish(Scope::Canaries, canary);
            }
        }
    }

    fn bridges_due(&self, change: &Change, due: &mut Vec<Action>) {
        if change.phase == Phase::Preflight {
            for (subject, signer) in self.missing_bridges(change) {
                due.push(Action::MakeBridge { subject, signer });
            }
        }
    }

    fn consumers_due(&self, now: UnixTime, change: &Change, due: &mut Vec<Action>) {
        if change.phase == Phase::Preflight {
            return;
        }
        let (mut restart, mut starting) = (Vec::new(), 0);
        for (workload, consumer) in self
            .required()
            .filter(|(_, consumer)| consumer.class.needs_probe())
        {
            let anchor = change.to.anchor;
            if self.mistrust(now, workload, consumer, anchor).is_some() {
                due.push(Action::Probe {
                    workload: workload.clone(),
                    anchor,
                });
                if consumer.class != Class::StartOnly || consumer.probed.contains_key(&anchor) {
                    continue;
                }
                if consumer.started >= change.started {
                    // It was started again and is not back yet: it counts as down.
                    starting += 1;
                } else if self.heard(now, workload, consumer).is_ok() {
                    restart.push(workload.clone());
                }
            }
        }
        restart.truncate(self.settings.restart_batch.saturating_sub(starting));
        if !restart.is_empty() {
            let started_before = change.started;
            due.push(Action::Restart {
                workloads: restart,
                started_before,
            });
        }
        if !change.is_signing() {
            return;
        }
        let turn = |workload: &WorkloadId, class| match change.phase {
            Phase::CanarySigning | Phase::Issue => change.canaries.contains(workload),
            Phase::LeafConverged => class != Class::ControlPlane,
            _ => true,
        };
        let blockers = self.leaf_blockers(now, change, |workload, consumer| {
            turn(workload, consumer.class)
        });
        // Who is silent cannot be asked, and would keep others from being asked.
        let workloads: Vec<WorkloadId> = blockers
            .into_iter()
            .filter(|blocker| blocker.why == crate::blocker::Reason::OldLeaf)
            .filter_map(|blocker| match blocker.who {
                crate::blocker::Subject::Workload(workload) => Some(workload),
                _ => None,
            })
            .take(self.settings.reissue_batch)
            .collect();
        if !workloads.is_empty() {
            let within = self.settings.reissue_jitter;
            due.push(Action::Reissue { workloads, within });
        }
    }

    fn drain_due(&self, now: UnixTime, change: &Change, due: &mut Vec<Action>) {
        if !change.is_draining() || change.kind != Kind::Anchor {
            return;
        }
        let early = self.too_early_for_tickets(now, change);
        for (id, cluster) in &self.clusters {
            if cluster.tickets != self.ticket_round && !early {
                let generation = self.ticket_round;
                due.push(Action::RotateTickets {
                    cluster: id.clone(),
                    generation,
                });
            }
        }
        let cut = change.is_emergency() || self.settings.drain == Drain::Cut;
        for (workload, consumer) in self.required() {
            if let Some(Connections::Oldest(anchor)) =
                consumer.report.map(|report| report.connections)
                && change.is_leaving(anchor)
            {
                due.push(Action::DrainConnections {
                    workload: workload.clone(),
                    anchor,
                    cut,
                });
            }
        }
    }
}
