//! Who signs, for whom, until when: certificates, signing leases and the ledger.

use std::collections::BTreeSet;

use crate::action::Action;
use crate::authority::Bridge;
use crate::change::Change;
use crate::consumer::Class;
use crate::error::Refusal;
use crate::event::Request;
use crate::evidence::Loaded;
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, Incarnation, IssuerId, WorkloadId};
use crate::phase::Phase;
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// Decides about one request for a leaf, and enters the leaf in the ledger.
    pub(crate) fn certify(&mut self, now: UnixTime, request: Request) -> Result<Action, Refusal> {
        let Request {
            workload,
            cluster,
            class,
            incarnation,
            loaded,
            accepted,
        } = request;
        if let Some(restoring) = &self.restoring
            && self.guards(Guard::RestoreSigning)
        {
            return Err(Refusal::Restoring {
                since: restoring.since,
            });
        }
        let known = self.consumers.get(&workload);
        if self.guards(Guard::QuarantineCertify)
            && known.is_some_and(|known| !known.is_required() || self.has_lapsed(now, known))
        {
            return Err(Refusal::Quarantined { workload });
        }
        if let Some(known) = known.filter(|known| incarnation < known.incarnation) {
            let current = known.incarnation;
            return Err(Refusal::StaleIncarnation {
                workload,
                found: incarnation,
                current,
            });
        }
        let class = known.map_or(class, |known| known.class);
        let issuer = self.issuer_for(&workload, &cluster, class)?;
        let anchor = self.usable(now, issuer)?;
        self.admit(now, &workload, class, incarnation, loaded, accepted, anchor)?;
        let known = self.consumers.get(&workload);
        if self.guards(Guard::OneTurnASecond)
            && known.is_some_and(|known| {
                known.turned == Some(now) && known.given.is_some_and(|(last, _)| last != issuer)
            })
        {
            return Err(Refusal::TooSoon { workload });
        }
        let ledger = self
            .cluster(&cluster)?
            .ledger
            .get(&issuer)
            .copied()
            .unwrap_or_default();
        if self.guards(Guard::SigningLease) && ledger.lease_until.is_none_or(|until| until <= now) {
            return Err(Refusal::NoSigningLease { cluster, issuer });
        }
        let (not_before, not_after) = self.validity(now, issuer)?;
        let bridge = self.bridge_for_leaf(now, anchor, not_after)?;

        self.consumer(now, &workload, &cluster, class);
        self.process(now, &workload, incarnation)?;
        let lease_until = now.after(self.settings.consumer_lease);
        let consumer = self.known(&workload)?;
        consumer.lease_until = consumer.lease_until.max(lease_until);
        if consumer.given.is_none_or(|(last, _)| last != issuer) {
            consumer.turned = consumer.given.map(|_| now);
            consumer.given = Some((issuer, now));
        }
        if let Some(accepted) = accepted.filter(|_| class.needs_probe()) {
            consumer.probed.insert(accepted, now);
        }
        self.undeclared.remove(&workload);
        if self.guards(Guard::LedgerBeforeRelease) {
            self.enter(&cluster, issuer, not_after)?;
        }
        Ok(Action::Sign {
            workload,
            issuer,
            not_before,
            not_after,
            bridge,
        })
    }

    /// A signer asks to go on. Only whoever is to sign gets a lease.
    pub(crate) fn lease(
        &mut self,
        now: UnixTime,
        cluster: &ClusterId,
        issuer: IssuerId,
    ) -> Result<(), Refusal> {
        self.cluster(cluster)?;
        if let Some(restoring) = &self.restoring
            && self.guards(Guard::RestoreSigning)
        {
            return Err(Refusal::Restoring {
                since: restoring.since,
            });
        }
        if !self.authorised(cluster).contains(&issuer) {
            return Err(Refusal::NotTheSigner {
                cluster: cluster.clone(),
                issuer,
            });
        }
        self.usable(now, issuer)?;
        let until = now.after(self.settings.signing_lease);
        let at = self.cluster(cluster)?;
        at.heard = now;
        let ledger = at.ledger.entry(issuer).or_default();
        ledger.lease_until = ledger.lease_until.max(Some(until));
        Ok(())
    }

    /// A signer has stopped for good: what it signed is known exactly.
    pub(crate) fn lease_returned(
        &mut self,
        now: UnixTime,
        cluster: &ClusterId,
        issuer: IssuerId,
        entered: UnixTime,
    ) -> Result<(), Refusal> {
        if self.authorised(cluster).contains(&issuer) {
            // A latecomer: it has been told to sign again since.
            return Ok(());
        }
        let cluster = self.cluster(cluster)?;
        cluster.heard = now;
        let ledger = cluster.ledger.entry(issuer).or_default();
        ledger.lease_until = None;
        ledger.entered = ledger.entered.max(entered);
        Ok(())
    }

    /// The issuers that a cluster may sign with now.
    #[must_use]
    pub fn authorised(&self, cluster: &ClusterId) -> BTreeSet<IssuerId> {
        let Some(at) = self.clusters.get(cluster) else {
            return BTreeSet::new();
        };
        let mut issuers = BTreeSet::from([at.signer]);
        if let Some(change) = &self.change {
            let here = |workload: &WorkloadId| {
                self.consumers
                    .get(workload)
                    .is_some_and(|known| known.cluster == *cluster)
            };
            if canaries_go_first(change) && change.canaries.iter().any(here) {
                issuers.extend(change.to.issuers.get(cluster));
            }
            let controller = || {
                self.required().any(|(_, known)| {
                    known.class == Class::ControlPlane && known.cluster == *cluster
                })
            };
            // Looked for last: there may be thousands of others.
            let from = change.from.issuers.get(cluster);
            if !change.is_draining()
                && from.is_some_and(|from| !issuers.contains(from))
                && controller()
            {
                issuers.extend(from);
            }
        }
        issuers
    }

    /// The anchors under which a leaf may be alive, by the slowest clock; those in other hands do not count.
    pub(crate) fn anchors_with_leaves(&self, now: UnixTime) -> BTreeSet<AnchorId> {
        let mut anchors = BTreeSet::new();
        for (id, cluster) in &self.clusters {
            for issuer in self.authorised(id) {
                anchors.extend(self.issuers.get(&issuer).map(|issuer| issuer.anchor));
            }
            for (issuer, ledger) in &cluster.ledger {
                let outstanding = ledger.outstanding(self.settings.leaf_life);
                if outstanding.after(self.settings.skew) >= now {
                    anchors.extend(self.issuers.get(issuer).map(|issuer| issuer.anchor));
                }
            }
        }
        anchors.retain(|anchor| !self.is_tainted(*anchor));
        anchors
    }

    /// Whether a leaf of this issuer may be alive, by the slowest clock.
    pub(crate) fn may_have_leaves(&self, now: UnixTime, issuer: IssuerId) -> bool {
        let ledgers = self
            .clusters
            .values()
            .filter_map(|cluster| cluster.ledger.get(&issuer));
        ledgers
            .map(|ledger| ledger.outstanding(self.settings.leaf_life))
            .any(|until| until.after(self.settings.skew) >= now)
    }

    fn issuer_for(
        &self,
        workload: &WorkloadId,
        cluster: &ClusterId,
        class: Class,
    ) -> Result<IssuerId, Refusal> {
        let unknown = || Refusal::UnknownCluster {
            cluster: cluster.clone(),
        };
        let at = self.clusters.get(cluster).ok_or_else(unknown)?;
        let Some(change) = &self.change else {
            return Ok(at.signer);
        };
        if class == Class::ControlPlane
            && self.guards(Guard::ControllerLast)
            && !change.is_emergency()
        {
            let side = if change.is_draining() {
                &change.to
            } else {
                &change.from
            };
            return side.issuers.get(cluster).copied().ok_or_else(unknown);
        }
        if canaries_go_first(change) && change.canaries.contains(workload) {
            return change.to.issuers.get(cluster).copied().ok_or_else(unknown);
        }
        Ok(at.signer)
    }

    /// The issuer's anchor, if both are valid by every clock and in nobody else's hands.
    fn usable(&self, now: UnixTime, issuer: IssuerId) -> Result<AnchorId, Refusal> {
        let issuer = self
            .issuers
            .get(&issuer)
            .ok_or(Refusal::UnknownIssuer { issuer })?;
        let anchor = issuer.anchor;
        if self.guards(Guard::TaintStopsSigning) && self.is_tainted(anchor) {
            return Err(Refusal::Tainted { anchor });
        }
        let anchor_begins = self.anchors.get(&anchor).map(|anchor| anchor.not_before);
        let begins = anchor_begins.unwrap_or_default().max(issuer.not_before);
        if self.guards(Guard::NotBefore) && begins.after(self.settings.skew) > now {
            return Err(Refusal::IssuerNotValid { issuer: issuer.id });
        }
        Ok(anchor)
    }

    /// Gives a leaf only to whom its peers' leaves would convince.
    #[allow(clippy::too_many_arguments)] // a request, taken apart
    fn admit(
        &self,
        now: UnixTime,
        workload: &WorkloadId,
        class: Class,
        incarnation: Incarnation,
        loaded: Option<Loaded>,
        accepted: Option<AnchorId>,
        signer: AnchorId,
    ) -> Result<(), Refusal> {
        if !self.guards(Guard::Admission) {
            return Ok(());
        }
        let mut needed = self.anchors_with_leaves(now);
        needed.insert(signer);
        let bundle = loaded.and_then(|loaded| self.loaded(loaded));
        // What a process before this one accepted says nothing of this one.
        let known = self
            .consumers
            .get(workload)
            .filter(|known| known.incarnation == incarnation);
        for anchor in needed {
            let trusted = if class.needs_probe() {
                let probed = known.is_some_and(|known| known.probed.contains_key(&anchor));
                // While a change is underway, who accepts the new anchor has the old one beside it.
                let beside = self
                    .change
                    .as_ref()
                    .is_some_and(|change| change.incumbent == anchor);
                probed || accepted == Some(anchor) || (beside && accepted.is_some())
            } else {
                bundle.is_some_and(|anchors| anchors.contains(&anchor))
            };
            if !trusted && !self.is_carried(now, workload, anchor) {
                let workload = workload.clone();
                return Err(Refusal::NotAdmitted { workload, anchor });
            }
        }
        Ok(())
    }

    fn validity(&self, now: UnixTime, issuer: IssuerId) -> Result<(UnixTime, UnixTime), Refusal> {
        let refused = Refusal::IssuerNotValid { issuer };
        let issuer = self
            .issuers
            .get(&issuer)
            .ok_or(Refusal::UnknownIssuer { issuer })?;
        let anchor = self
            .anchors
            .get(&issuer.anchor)
            .map(|anchor| anchor.not_after);
        let mut not_after = now.after(self.settings.leaf_life);
        if self.guards(Guard::LeafCap) {
            let above = issuer.not_after.min(anchor.unwrap_or_default());
            // Clocks that are fast see the issuer end early.
            not_after = not_after.min(above.before(self.settings.skew));
        }
        if not_after <= now {
            return Err(refused);
        }
        let not_before = if self.guards(Guard::Backdate) {
            now.before(self.settings.backdate)
        } else {
            now
        };
        Ok((not_before, not_after))
    }

    /// The cross-certificate to serve with a leaf under this anchor, if there is one that outlasts the leaf.
    fn bridge_for_leaf(
        &self,
        now: UnixTime,
        anchor: AnchorId,
        not_after: UnixTime,
    ) -> Result<Option<Bridge>, Refusal> {
        let Some(change) = &self.change else {
            return Ok(None);
        };
        // New with old carries those that trust the old anchor only; old with new those that have dropped it already.
        let is_new = change.to.anchor == anchor;
        let other = if is_new {
            change.from.anchor
        } else {
            change.to.anchor
        };
        let bridge = self
            .bridge(anchor, other)
            .filter(|bridge| bridge.not_after >= not_after.after(self.settings.skew));
        let carries = is_new
            && change.bridged.iter().any(|straggler| {
                self.consumers.get(straggler).is_some_and(|known| {
                    known.is_required() && self.mistrust(now, straggler, known, anchor).is_some()
                })
            });
        if bridge.is_none() && carries && self.guards(Guard::BridgeServed) {
            return Err(Refusal::NoBridge {
                reason: "the one that carries stragglers would end before the leaf; they are quarantined with the next tick",
            });
        }
        Ok(bridge.filter(|_| self.guards(Guard::BridgeServed)).cloned())
    }

    fn enter(
        &mut self,
        cluster: &ClusterId,
        issuer: IssuerId,
        not_after: UnixTime,
    ) -> Result<(), Refusal> {
        let ledger = self.cluster(cluster)?.ledger.entry(issuer).or_default();
        ledger.entered = ledger.entered.max(not_after);
        Ok(())
    }
}

fn canaries_go_first(change: &Change) -> bool {
    change.mode == crate::phase::Mode::Normal && change.phase >= Phase::CanarySigning
}
