//! Learning anew after the store was restored from a backup.
//!
//! What the record says may be old: generations may have been given out that it does not know, and leaves signed that are
//! in no ledger. So nothing is signed and nothing advances until every cluster and consumer has been heard, a bundle of
//! all anchors is out under a generation above any that is in use, and everybody has loaded it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::blocker::{Blocker, Reason, Subject};
use crate::document::MAX_STEP;
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, Generation};
use crate::phase::{Kind, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

/// How far the learning is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Restoring {
    pub(crate) since: UnixTime,
    /// Whether a bundle of all anchors is being given out.
    pub(crate) republished: bool,
    /// Which clusters have said what they serve.
    pub(crate) served: BTreeSet<ClusterId>,
}

impl Rotation {
    pub(crate) fn restored(&mut self, now: UnixTime) {
        self.restoring = Some(Restoring {
            since: now,
            republished: false,
            served: BTreeSet::new(),
        });
        let settings = &self.settings;
        let lease_until = now.after(settings.consumer_lease);
        for consumer in self.consumers.values_mut() {
            consumer.report = None;
            consumer.probed.clear();
            consumer.lease_until = consumer.lease_until.max(lease_until);
        }
        let ask = self.guards(Guard::RestoreSigner);
        for cluster in self.clusters.values_mut() {
            cluster.inventoried = None;
            cluster.published = Generation(0);
            cluster.published_to_canaries = None;
            cluster.tickets = Generation(0);
            cluster.signing = cluster.signing.filter(|_| !ask);
        }
        self.assume_leaves(now);
    }

    /// Takes every issuer to have signed until now, and to go on for a lease.
    pub(crate) fn assume_leaves(&mut self, now: UnixTime) {
        if !self.guards(Guard::RestoreLedger) {
            return;
        }
        let settings = &self.settings;
        let assumed = now.after(settings.signing_lease).after(settings.leaf_life);
        for cluster in self.clusters.values_mut() {
            for issuer in self.issuers.keys() {
                let ledger = cluster.ledger.entry(*issuer).or_default();
                ledger.entered = ledger.entered.max(assumed);
                ledger.lease_until = None;
            }
        }
    }

    /// Goes a step further if nothing stands in the way.
    pub(crate) fn relearn(&mut self, now: UnixTime) {
        let Some(restoring) = self.restoring.clone() else {
            return;
        };
        if !self.restoring_blockers(now).is_empty() {
            return;
        }
        if !restoring.republished {
            if self.guards(Guard::RestoreGeneration) {
                let highest = self.bundles.highest();
                let reported = self
                    .consumers
                    .values()
                    .filter_map(|consumer| consumer.report?.loaded)
                    .map(|loaded| loaded.generation)
                    .filter(|generation| generation.0 <= highest.0.saturating_add(MAX_STEP))
                    .max();
                self.bundles.learn(reported.unwrap_or(highest));
            }
            self.restoring = Some(Restoring {
                republished: true,
                ..restoring
            });
            self.publish_all_again(now);
            return;
        }
        self.restoring = None;
        if let Some(change) = &mut self.change
            && change.phase > Phase::Preflight
        {
            change.phase = match change.kind {
                Kind::Anchor => Phase::Distribute,
                Kind::Issuer => Phase::TrustConverged,
            };
            change.since = now;
        }
    }

    /// Gives out all anchors that anybody may depend on. Before generations are learned, nothing is: it could be one that was
    /// given out already, for something else.
    pub(crate) fn publish_all_again(&mut self, now: UnixTime) {
        if !self.knows_generations() {
            return;
        }
        let relied_on = self.relied_on(now);
        let wanted = |anchor: &AnchorId| {
            relied_on.contains(anchor)
                || !(self.is_tainted(*anchor) || self.retiring.contains(anchor))
        };
        let anchors = self.anchors.keys().copied().filter(wanted).collect();
        self.bundles.republish(anchors);
    }

    /// Whether generations given out from now on are above those that are in use.
    pub(crate) fn knows_generations(&self) -> bool {
        let restoring = self.restoring.as_ref();
        restoring.is_none_or(|restoring| restoring.republished) || !self.guards(Guard::RestoreQuiet)
    }

    /// The anchors that leaves may still depend on: nobody knows where a change went after the backup, so all that were signed
    /// with do, for a leaf's life. A tainted one among them stays until everybody has been led away from it: to drop it
    /// sooner would break whoever has nothing else.
    fn relied_on(&self, now: UnixTime) -> BTreeSet<AnchorId> {
        let mut anchors = BTreeSet::from([self.active.anchor]);
        anchors.extend(self.change.as_ref().map(|change| change.to.anchor));
        if self.guards(Guard::RestoreKeepsAll) {
            anchors.extend(self.issuers.values().filter_map(|issuer| {
                self.may_have_leaves(now, issuer.id)
                    .then_some(issuer.anchor)
            }));
        }
        anchors
    }

    /// What stands in the way of the next step.
    pub(crate) fn restoring_blockers(&self, now: UnixTime) -> Vec<Blocker> {
        let Some(restoring) = &self.restoring else {
            return Vec::new();
        };
        let mut blockers = Vec::new();
        for (id, cluster) in &self.clusters {
            if cluster.inventoried.is_none() || !restoring.served.contains(id) {
                blockers.push(Blocker {
                    who: Subject::Cluster(id.clone()),
                    why: Reason::NoInventory,
                    since: restoring.since,
                    until: None,
                });
            }
        }
        for (workload, consumer) in self.required() {
            let who = Subject::Workload(workload.clone());
            let until = Some(consumer.lease_until.after(self.settings.skew));
            let since = restoring.since;
            let Some(report) = consumer.report else {
                blockers.push(Blocker {
                    who,
                    why: Reason::NeverHeard,
                    since,
                    until,
                });
                continue;
            };
            if report
                .leaf
                .is_some_and(|(issuer, _)| !self.issuers.contains_key(&issuer))
            {
                blockers.push(Blocker {
                    who,
                    why: Reason::ForeignLeaf,
                    since,
                    until: None,
                });
                continue;
            }
            if restoring.republished {
                let all = self.bundles.current_anchors();
                let mistrusted = all
                    .iter()
                    .find_map(|anchor| self.mistrust(now, workload, consumer, *anchor));
                // Not just the same anchors: a bundle of before may be on its way to whoever has not taken this one.
                let older = || {
                    let says = !consumer.class.needs_probe();
                    says.then(|| self.older(now, workload, consumer, self.bundles.current()))
                        .flatten()
                };
                blockers.extend(mistrusted.or_else(older));
            }
        }
        blockers
    }
}
