//! What has to be true before an anchor goes: nothing alive that it signed, no ticket, no connection that it verified.

use crate::blocker::{Blocker, Reason, Subject};
use crate::change::Change;
use crate::consumer::Consumer;
use crate::evidence::Connections;
use crate::gate::block;
use crate::guard::Guard;
use crate::id::{Generation, IssuerId, WorkloadId};
use crate::phase::Kind;
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// What has to be true before anybody stops to trust the old anchor.
    pub(crate) fn retirement_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let mut blockers = self.own_trust_blockers(now, change);
        if self.guards(Guard::SignerPublished) {
            blockers.extend(self.signer_blockers(change));
        }
        if self.guards(Guard::LeafConverged) {
            blockers.extend(self.leaf_blockers(now, change, |_, _| true));
        }
        blockers.extend(self.ledger_blockers(now, change));
        if change.kind == Kind::Anchor {
            blockers.extend(self.ticket_blockers(change));
            blockers.extend(self.connection_blockers(now, change));
        }
        blockers
    }

    fn ledger_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        if change.is_emergency() {
            return blockers;
        }
        for (id, cluster) in &self.clusters {
            for (issuer, ledger) in &cluster.ledger {
                if !self.is_leaving(change, *issuer) {
                    continue;
                }
                let mut counted = *ledger;
                if !self.guards(Guard::LedgerEntered) {
                    counted.entered = UnixTime(0);
                }
                if !self.guards(Guard::LedgerLease) {
                    counted.lease_until = None;
                }
                let mut until = counted.outstanding(self.settings.leaf_life);
                if self.guards(Guard::RetireSkew) {
                    until = until.after(self.settings.skew);
                }
                if until >= now {
                    let who = Subject::Issuer(id.clone(), *issuer);
                    blockers.push(block(
                        who,
                        Reason::LeavesOutstanding,
                        change.since,
                        Some(until),
                    ));
                }
            }
        }
        blockers
    }

    fn is_leaving(&self, change: &Change, issuer: IssuerId) -> bool {
        match change.kind {
            Kind::Issuer => change.from.signs_with(issuer),
            Kind::Anchor => self
                .issuers
                .get(&issuer)
                .is_some_and(|issuer| issuer.anchor == change.from.anchor),
        }
    }

    fn ticket_blockers(&self, change: &Change) -> Vec<Blocker> {
        if !self.guards(Guard::Tickets) {
            return Vec::new();
        }
        self.counted(change)
            .filter(|(_, cluster)| cluster.tickets != self.ticket_round)
            .map(|(id, _)| {
                block(
                    Subject::Cluster(id.clone()),
                    Reason::OldTickets,
                    change.since,
                    None,
                )
            })
            .collect()
    }

    fn connection_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        if !self.guards(Guard::Connections) {
            return blockers;
        }
        let draining = change.draining_since.unwrap_or(change.since);
        for (workload, consumer) in self.required() {
            let who = Subject::Workload(workload.clone());
            let report = match self.heard(now, workload, consumer) {
                Ok(report) => report,
                Err(blocker) => {
                    blockers.push(blocker);
                    continue;
                }
            };
            match report.connections {
                Connections::Oldest(anchor) if change.is_leaving(anchor) => {
                    blockers.push(block(who, Reason::OldConnection, draining, None));
                }
                Connections::Unknown => {
                    let until = draining.after(self.settings.unreported_connection_life);
                    if consumer.started < draining && until >= now {
                        blockers.push(block(
                            who,
                            Reason::ConnectionsUnknown,
                            draining,
                            Some(until),
                        ));
                    }
                }
                Connections::None | Connections::Oldest(_) => {
                    if report.at < draining {
                        blockers.push(block(who, Reason::Silent, report.at, None));
                    }
                }
            }
        }
        blockers
    }

    pub(crate) fn retired_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let current = self.bundles.current();
        let mut blockers = Vec::new();
        for (id, cluster) in self.counted(change) {
            if cluster.published != current {
                blockers.push(block(
                    Subject::Cluster(id.clone()),
                    Reason::NotPublished,
                    change.since,
                    None,
                ));
            }
        }
        for (workload, consumer) in self.required() {
            if !consumer.class.needs_probe() {
                blockers.extend(self.older(now, workload, consumer, current));
            } else if self.is_tainted(change.from.anchor) && consumer.started < change.since {
                // It trusts the tainted anchor until it starts again.
                let who = Subject::Workload(workload.clone());
                blockers.push(block(who, Reason::OldBundle, change.since, None));
            }
        }
        blockers
    }

    /// Why a consumer is not known to use this bundle or a later one.
    pub(crate) fn older(
        &self,
        now: UnixTime,
        workload: &WorkloadId,
        consumer: &Consumer,
        generation: Generation,
    ) -> Option<Blocker> {
        let report = match self.heard(now, workload, consumer) {
            Ok(report) => report,
            Err(blocker) => return Some(blocker),
        };
        let loaded = report
            .loaded
            .filter(|loaded| self.loaded(*loaded).is_some());
        let why = match loaded {
            None => Reason::ForeignBundle,
            Some(loaded) if loaded.generation < generation => Reason::OldBundle,
            Some(_) => return None,
        };
        Some(block(
            Subject::Workload(workload.clone()),
            why,
            self.phase_since(),
            None,
        ))
    }
}
