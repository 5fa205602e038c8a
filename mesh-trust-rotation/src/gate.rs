//! What stands in the way of the next phase.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::blocker::{Blocker, Gate, Reason, Subject};
use crate::change::Change;
use crate::cluster::Cluster;
use crate::consumer::{Class, Consumer};
use crate::evidence::{Loaded, Report};
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, WorkloadId};
use crate::phase::{Kind, Mode, Phase};
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// The gate out of the phase that the change is in, by what is known now. Every blocker says who or what, since
    /// when, and what would help.
    #[must_use]
    pub fn gate(&self, now: UnixTime) -> Gate {
        let Some(change) = &self.change else {
            if self.restoring.is_some() {
                return Gate::Blocked(self.restoring_gate(now));
            }
            let tainted = self.tainted(self.active.anchor);
            return tainted.map_or(Gate::Idle, |blocker| Gate::Blocked(vec![blocker]));
        };
        let mut blockers = self.standing_blockers(now, change);
        blockers.extend(self.phase_blockers(now, change));
        if !self.guards(Guard::LapseOnRecord) {
            let lapsed = |workload: &WorkloadId| {
                self.consumers
                    .get(workload)
                    .is_some_and(|known| self.has_lapsed(now, known))
            };
            blockers.retain(
                |blocker| !matches!(&blocker.who, Subject::Workload(workload) if lapsed(workload)),
            );
        }
        blockers.sort_unstable();
        blockers.dedup_by(|later, earlier| later.who == earlier.who && later.why == earlier.why);
        if blockers.is_empty() {
            Gate::Open
        } else {
            Gate::Blocked(blockers)
        }
    }

    /// What holds up any phase.
    pub(crate) fn standing_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        if let Some(since) = change.paused
            && self.guards(Guard::Paused)
        {
            blockers.push(block(Subject::Operator, Reason::Paused, since, None));
        }
        if self.restoring.is_some() {
            blockers.extend(self.restoring_gate(now));
        }
        blockers.extend(self.tainted(change.to.anchor));
        for (id, cluster) in self.counted(change) {
            let who = Subject::Cluster(id.clone());
            if self.guards(Guard::ClusterHeard)
                && cluster.heard.after(self.settings.freshness) < now
            {
                blockers.push(block(
                    who.clone(),
                    Reason::ClusterSilent,
                    cluster.heard,
                    None,
                ));
            }
            if let Some(since) = cluster.drifted
                && self.guards(Guard::Drift)
            {
                blockers.push(block(who, Reason::Drift, since, None));
            }
        }
        for (workload, since) in &self.undeclared {
            let who = Subject::Workload(workload.clone());
            blockers.push(block(who, Reason::Undeclared, *since, None));
        }
        if self.guards(Guard::LapseOnRecord) {
            for (workload, consumer) in self.required() {
                if self.has_lapsed(now, consumer) {
                    let who = Subject::Workload(workload.clone());
                    blockers.push(block(who, Reason::Lapsed, consumer.lease_until, Some(now)));
                }
            }
        }
        if self.guards(Guard::TimeBudget) {
            blockers.extend(self.budget_blockers(now, change));
        }
        blockers
    }

    /// That an anchor to sign with is in other hands.
    fn tainted(&self, anchor: AnchorId) -> Option<Blocker> {
        let since = self.anchors.get(&anchor)?.tainted?;
        let who = Subject::Anchor(anchor);
        Some(block(who, Reason::NoReplacement, since, None))
    }

    /// What has to be true before the signers of a cluster change: all trust the new anchor, everywhere.
    pub(crate) fn trust_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        let anchor = change.to.anchor;
        let current = self.bundles.current();
        // Without the barrier, only the clusters that sign on the new side, and the next to, would count.
        let first = self.clusters.iter().find(|(id, cluster)| {
            change
                .to
                .issuers
                .get(*id)
                .is_some_and(|to| cluster.signing != Some(*to))
        });
        let counts = |id: &ClusterId| {
            self.guards(Guard::ClusterBarrier) || first.is_none_or(|(first, _)| id <= first)
        };
        if self.guards(Guard::PublishedEverywhere) {
            for (id, cluster) in self.counted(change).filter(|(id, _)| counts(id)) {
                if cluster.published != current {
                    let who = Subject::Cluster(id.clone());
                    blockers.push(block(who, Reason::NotPublished, change.since, None));
                }
            }
        }
        if self.guards(Guard::TrustBeforeIssue) {
            for (workload, consumer) in self
                .required()
                .filter(|(_, consumer)| counts(&consumer.cluster))
            {
                if !self.is_carried(now, workload, anchor) {
                    blockers.extend(self.mistrust(now, workload, consumer, anchor));
                }
            }
        }
        if self.guards(Guard::NotBefore) {
            blockers.extend(self.not_yet_valid(now, change));
        }
        blockers
    }

    /// Why a consumer is not known to trust an anchor.
    pub(crate) fn mistrust(
        &self,
        now: UnixTime,
        workload: &WorkloadId,
        consumer: &Consumer,
        anchor: AnchorId,
    ) -> Option<Blocker> {
        let who = || Subject::Workload(workload.clone());
        let incumbent = self
            .change
            .as_ref()
            .map_or(self.active.anchor, |change| change.incumbent);
        if consumer.class.needs_probe() && self.guards(Guard::ProbeStartOnly) {
            // It could not have come by its leaf without accepting the incumbent.
            if anchor == incumbent {
                return None;
            }
            let fresh = |at: &UnixTime| self.is_fresh(now, *at);
            if consumer.probed.get(&anchor).is_some_and(fresh) || !self.guards(Guard::SilentBlocks)
            {
                return None;
            }
            return Some(block(who(), Reason::NotProbed, consumer.started, None));
        }
        let report = match self.heard(now, workload, consumer) {
            Ok(report) => report,
            Err(blocker) => return self.guards(Guard::SilentBlocks).then_some(blocker),
        };
        let anchors = report.loaded.and_then(|loaded| self.loaded(loaded));
        let why = match anchors {
            None => Reason::ForeignBundle,
            Some(anchors) if !anchors.contains(&anchor) => Reason::OldBundle,
            Some(_) => return None,
        };
        Some(block(
            who(),
            why,
            consumer.started.max(self.phase_since()),
            None,
        ))
    }

    /// The anchors that a bundle in use stands for, if its digest is that of what was published.
    pub(crate) fn loaded(&self, loaded: Loaded) -> Option<&BTreeSet<AnchorId>> {
        let bundle = self.bundles.known(loaded.generation)?;
        let same = bundle.digest == Some(loaded.digest) || !self.guards(Guard::DigestOfLoaded);
        same.then_some(&bundle.anchors)
    }

    fn restoring_gate(&self, now: UnixTime) -> Vec<Blocker> {
        let mut blockers = self.restoring_blockers(now);
        if let (true, Some(restoring)) = (blockers.is_empty(), &self.restoring) {
            blockers.push(block(
                Subject::Time,
                Reason::Restoring,
                restoring.since,
                Some(now),
            ));
        }
        blockers
    }

    fn phase_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let trusted = || self.trust_blockers(now, change);
        let mut blockers = match change.phase {
            Phase::Preflight => self.preflight_blockers(change),
            Phase::Distribute => trusted(),
            Phase::TrustConverged => {
                let mut blockers = trusted();
                blockers.extend(hold(now, change, self.settings.trust_hold));
                blockers
            }
            Phase::CanarySigning => {
                let mut blockers = trusted();
                if self.guards(Guard::CanarySigning) {
                    blockers.extend(hold(now, change, self.canary_soak(change)));
                    blockers.extend(self.leaf_blockers(now, change, |workload, _| {
                        change.canaries.contains(workload)
                    }));
                }
                blockers
            }
            Phase::Issue => {
                let mut blockers = trusted();
                if self.guards(Guard::SignerPublished) {
                    blockers.extend(self.signer_blockers(change));
                }
                blockers
            }
            Phase::LeafConverged => {
                let mut blockers = self.own_trust_blockers(now, change);
                if self.guards(Guard::LeafConverged) {
                    let early =
                        |_: &WorkloadId, known: &Consumer| known.class != Class::ControlPlane;
                    blockers.extend(self.leaf_blockers(now, change, early));
                }
                blockers
            }
            Phase::Drain => self.retirement_blockers(now, change),
            Phase::CanaryRetirement => {
                let mut blockers = self.retirement_blockers(now, change);
                if self.guards(Guard::CanaryRetirement) {
                    blockers.extend(hold(now, change, self.canary_soak(change)));
                    blockers.extend(self.canary_bundle_blockers(now, change));
                }
                blockers
            }
            Phase::Retirement => self.retired_blockers(now, change),
        };
        if change.is_emergency() {
            // Nothing is held for its own sake.
            blockers.retain(|blocker| blocker.why != Reason::Holding);
        }
        blockers
    }

    fn preflight_blockers(&self, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        for (id, cluster) in self.counted(change) {
            let listed = cluster.inventoried.is_some_and(|at| at >= change.started);
            if !listed && self.guards(Guard::Inventory) {
                let who = Subject::Cluster(id.clone());
                blockers.push(block(who, Reason::NoInventory, change.started, None));
            }
        }
        if self.guards(Guard::IssuerVerified) {
            for (cluster, issuer) in &change.to.issuers {
                if self
                    .issuers
                    .get(issuer)
                    .is_none_or(|issuer| !issuer.verified)
                {
                    let who = Subject::Issuer(cluster.clone(), *issuer);
                    blockers.push(block(who, Reason::IssuerUnverified, change.started, None));
                }
            }
        }
        for (subject, _) in self.missing_bridges(change) {
            let who = Subject::Anchor(subject);
            blockers.push(block(who, Reason::BridgeMissing, change.started, None));
        }
        blockers
    }

    /// Cross-certificates that the settings ask for and that are not there: subject and signer of each.
    pub(crate) fn missing_bridges(&self, change: &Change) -> Vec<(AnchorId, AnchorId)> {
        let (from, to) = (change.from.anchor, change.to.anchor);
        if !self.settings.bridges || change.kind != Kind::Anchor || change.is_emergency() {
            return Vec::new();
        }
        let mut pairs = vec![(to, from), (from, to)];
        pairs.retain(|(subject, signer)| self.bridge(*subject, *signer).is_none());
        pairs
    }

    /// Everybody trusts the new anchor by itself, not by a cross-certificate.
    pub(crate) fn own_trust_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        if !self.guards(Guard::TrustBeforeIssue) {
            return Vec::new();
        }
        self.required()
            .filter_map(|(workload, consumer)| {
                self.mistrust(now, workload, consumer, change.to.anchor)
            })
            .collect()
    }

    fn not_yet_valid(&self, now: UnixTime, change: &Change) -> Option<Blocker> {
        let anchor = self
            .anchors
            .get(&change.to.anchor)
            .map(|anchor| anchor.not_before);
        let issuers = change
            .to
            .issuers
            .values()
            .filter_map(|id| self.issuers.get(id));
        let begins = issuers
            .map(|issuer| issuer.not_before)
            .chain(anchor)
            .max()?;
        let by_every_clock = begins.after(self.settings.skew);
        (by_every_clock > now).then(|| {
            let who = Subject::Anchor(change.to.anchor);
            block(
                who,
                Reason::NotYetValid,
                change.started,
                Some(by_every_clock),
            )
        })
    }

    pub(crate) fn signer_blockers(&self, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        for (id, cluster) in self.counted(change) {
            if change
                .to
                .issuers
                .get(id)
                .is_some_and(|to| cluster.signing != Some(*to))
            {
                let who = Subject::Cluster(id.clone());
                blockers.push(block(who, Reason::IssuerNotSwitched, change.since, None));
            }
        }
        blockers
    }

    pub(crate) fn leaf_blockers(
        &self,
        now: UnixTime,
        change: &Change,
        counts: impl Fn(&WorkloadId, &Consumer) -> bool,
    ) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        for (workload, consumer) in self
            .required()
            .filter(|(workload, consumer)| counts(workload, consumer))
        {
            match self.heard(now, workload, consumer) {
                Ok(report) if self.serves_new(change, consumer, &report) => {}
                Ok(_) => {
                    let who = Subject::Workload(workload.clone());
                    blockers.push(block(who, Reason::OldLeaf, change.since, None));
                }
                Err(blocker) => {
                    blockers.extend(self.guards(Guard::SilentBlocks).then_some(blocker));
                }
            }
        }
        blockers
    }

    /// Whether a consumer serves a leaf of the new side, and that was seen after it was last given one of another side.
    fn serves_new(&self, change: &Change, consumer: &Consumer, report: &Report) -> bool {
        let new = |issuer| change.to.signs_with(issuer);
        let given = |(issuer, since)| new(issuer) && since <= report.at;
        report.leaf.is_some_and(|(issuer, _)| new(issuer))
            && (consumer.given.is_none_or(given) || !self.guards(Guard::LeafAsGiven))
    }

    fn canary_soak(&self, change: &Change) -> Duration {
        let any = self
            .required()
            .any(|(workload, _)| change.canaries.contains(workload));
        if any {
            self.settings.soak
        } else {
            Duration::ZERO
        }
    }

    fn canary_bundle_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let Some(generation) = self.bundles.canary() else {
            return Vec::new();
        };
        let canaries = self
            .required()
            .filter(|(workload, _)| change.canaries.contains(*workload));
        canaries
            .filter_map(|(workload, consumer)| self.older(now, workload, consumer, generation))
            .collect()
    }

    fn budget_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let Some(next) = change.phase.next(change.kind, change.mode) else {
            return Vec::new();
        };
        let needed = now.after(
            self.settings
                .phase_budget
                .saturating_mul(next.remaining(change.kind, change.mode)),
        );
        let mut sides = vec![&change.to];
        // Who is led away from a side that ends is not kept on it.
        if !change.is_draining() && change.mode == Mode::Normal {
            sides.push(&change.from);
        }
        let mut blockers = Vec::new();
        for side in sides {
            if self
                .anchors
                .get(&side.anchor)
                .is_none_or(|anchor| anchor.not_after < needed)
            {
                blockers.push(block(
                    Subject::Anchor(side.anchor),
                    Reason::TooLittleTime,
                    change.since,
                    None,
                ));
            }
            for (cluster, issuer) in &side.issuers {
                if self
                    .issuers
                    .get(issuer)
                    .is_none_or(|issuer| issuer.not_after < needed)
                {
                    let who = Subject::Issuer(cluster.clone(), *issuer);
                    blockers.push(block(who, Reason::TooLittleTime, change.since, None));
                }
            }
        }
        blockers
    }

    /// What was last heard of a consumer, if that was of late.
    pub(crate) fn heard(
        &self,
        now: UnixTime,
        workload: &WorkloadId,
        consumer: &Consumer,
    ) -> Result<Report, Blocker> {
        let until = Some(consumer.lease_until.after(self.settings.skew));
        let who = || Subject::Workload(workload.clone());
        let Some(report) = consumer.report else {
            return Err(block(who(), Reason::NeverHeard, consumer.started, until));
        };
        if !self.is_fresh(now, report.at) {
            return Err(block(who(), Reason::Silent, report.at, until));
        }
        Ok(report)
    }

    fn is_fresh(&self, now: UnixTime, at: UnixTime) -> bool {
        !self.guards(Guard::Freshness) || at.after(self.settings.freshness) >= now
    }

    /// Clusters that gates wait for: in an emergency, only those with somebody left in them.
    pub(crate) fn counted<'a>(
        &'a self,
        change: &'a Change,
    ) -> impl Iterator<Item = (&'a ClusterId, &'a Cluster)> + 'a {
        self.clusters.iter().filter(|(id, _)| {
            !change.is_emergency()
                || self
                    .required()
                    .any(|(_, consumer)| consumer.cluster == **id)
        })
    }

    /// Since when the phase is underway; without any, the learning after a restore.
    pub(crate) fn phase_since(&self) -> UnixTime {
        let change = self.change.as_ref().map(|change| change.since);
        let since = change.or(self.restoring_since());
        since.unwrap_or_default()
    }
}

pub(crate) fn block(
    who: Subject,
    why: Reason,
    since: UnixTime,
    until: Option<UnixTime>,
) -> Blocker {
    Blocker {
        who,
        why,
        since,
        until,
    }
}

fn hold(now: UnixTime, change: &Change, how_long: Duration) -> Option<Blocker> {
    let until = change.since.after(how_long);
    (until > now).then(|| block(Subject::Time, Reason::Holding, change.since, Some(until)))
}
