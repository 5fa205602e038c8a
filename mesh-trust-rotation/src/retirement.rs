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
            blockers.extend(self.ticket_blockers(now, change));
            blockers.extend(self.connection_blockers(now, change));
        }
        blockers
    }

    /// Leaves of the old side that may be alive.
    pub(crate) fn ledger_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        let alive = self.old_leaves(change).filter(|(_, until)| *until >= now);
        alive
            .map(|(who, until)| block(who, Reason::LeavesOutstanding, change.since, Some(until)))
            .collect()
    }

    /// Until when leaves of the old side may be alive, by the slowest clock; an emergency does not wait for that.
    fn old_leaves<'a>(
        &'a self,
        change: &'a Change,
    ) -> impl Iterator<Item = (Subject, UnixTime)> + 'a {
        let counts = |issuer| !change.is_emergency() && self.is_leaving(change, issuer);
        let ledgers = self.clusters.iter().flat_map(|(id, cluster)| {
            let ledgers = cluster.ledger.iter();
            ledgers.map(move |(issuer, ledger)| (id, *issuer, *ledger))
        });
        ledgers
            .filter(move |(_, issuer, _)| counts(*issuer))
            .map(|(id, issuer, mut ledger)| {
                if !self.guards(Guard::LedgerEntered) {
                    ledger.entered = UnixTime(0);
                }
                if !self.guards(Guard::LedgerLease) {
                    ledger.lease_until = None;
                }
                let mut until = ledger.outstanding(self.settings.leaf_life);
                if self.guards(Guard::RetireSkew) {
                    until = until.after(self.settings.skew);
                }
                (Subject::Issuer(id.clone(), issuer), until)
            })
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

    /// Whether anybody may serve an old leaf: as long as that may be, tickets are made with it.
    pub(crate) fn too_early_for_tickets(&self, now: UnixTime, change: &Change) -> bool {
        let served = if change.is_emergency() {
            self.leaf_blockers(now, change, |_, _| true)
        } else {
            self.ledger_blockers(now, change)
        };
        !served.is_empty() && self.guards(Guard::TicketsAfterLeaves)
    }

    fn ticket_blockers(&self, now: UnixTime, change: &Change) -> Vec<Blocker> {
        // What makes it too early blocks by itself.
        if self.too_early_for_tickets(now, change) || !self.guards(Guard::Tickets) {
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
        let mut last = draining;
        if self.guards(Guard::ConnectionsAfterLeaves) {
            // Whoever has an old leaf may open another connection with it until that has ended.
            let ended = self.old_leaves(change).map(|(_, until)| until.next());
            last = ended.fold(last, UnixTime::max);
        }
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
                    let until = last.after(self.settings.unreported_connection_life);
                    if consumer.started < last && until >= now {
                        blockers.push(block(
                            who,
                            Reason::ConnectionsUnknown,
                            draining,
                            Some(until),
                        ));
                    }
                }
                Connections::None | Connections::Oldest(_) => {
                    // Before that, the leaves block by themselves.
                    if report.at < last && last <= now {
                        blockers.push(block(who, Reason::NotSaidSince, report.at, None));
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
            } else if self.is_tainted(change.from.anchor)
                && consumer.started <= self.cleared(consumer, change)
            {
                // It trusts the tainted anchor until it starts again; what started in this very second may have read the last bundle.
                let who = Subject::Workload(workload.clone());
                blockers.push(block(who, Reason::OldBundle, change.since, None));
            }
        }
        blockers
    }

    /// Until when a process may have read the bundle of before the retirement underway where this consumer starts.
    fn cleared(&self, consumer: &Consumer, change: &Change) -> UnixTime {
        let cluster = self.clusters.get(&consumer.cluster);
        let cleared = cluster.and_then(|cluster| cluster.cleared);
        cleared.unwrap_or(change.since).max(change.since)
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
