//! What processes do and say.

use super::scenario::{Scenario, anchor, anchor_of, bit, cluster, workload};
use super::world::{Bundle, Leaf, World};
use crate::{
    Action, Class, Connections, Event, Evidence, Incarnation, Loaded, Refusal, Report, Request,
    Source,
};

impl World {
    pub(super) fn request(&self, scenario: &Scenario, at: usize) -> Request {
        let spec = &scenario.specs[at];
        let process = &self.processes[at];
        let mut request = Request {
            workload: workload(spec.name),
            cluster: cluster(spec.cluster),
            class: spec.class,
            incarnation: Incarnation(process.incarnation),
            loaded: None,
            accepted: None,
        };
        if spec.class.needs_probe() {
            // The controller shows a chain to the new anchor to who accepts it, or to the old one while it has one.
            let active = bit(self.record.active().anchor);
            let change = self.record.change();
            let to = change.map_or(active, |change| bit(change.to.anchor));
            let old = change.is_some_and(|change| !change.is_draining());
            let accepts = |bits: &u8| process.workers[0].has(*bits);
            let shown = [to, if old { active } else { to }];
            request.accepted = shown.into_iter().find(accepts).map(anchor);
        } else {
            request.loaded = Some(self.says(scenario, at));
        }
        request
    }

    /// What a process says that it has loaded.
    pub(super) fn says(&self, scenario: &Scenario, at: usize) -> Loaded {
        let parts = self.processes[at]
            .workers
            .iter()
            .map(|bundle| bundle.loaded());
        let said = if scenario.does(super::scenario::Duty::AllParts) {
            Loaded::by_all(parts)
        } else {
            parts.max()
        };
        said.unwrap()
    }

    /// What would be observed of a process now; none if nothing would be.
    pub(super) fn evidence(&self, scenario: &Scenario, at: usize) -> Option<Evidence> {
        let spec = &scenario.specs[at];
        let process = &self.processes[at];
        let mut report = Report {
            sequence: self.now.0 * 64 + process.changes,
            at: self.now,
            loaded: None,
            leaf: process
                .leaf
                .as_ref()
                .map(|leaf| (leaf.issuer, leaf.not_after)),
            connections: process
                .connection
                .map_or(Connections::None, |bit| Connections::Oldest(anchor(bit))),
        };
        let mut source = Source::Acknowledgement;
        if spec.class.needs_probe() {
            // What it was given at start is said by others; what it accepts is seen.
            let to = self.record.change()?.to.anchor;
            if process.workers[0].has(bit(to)) {
                source = Source::Probe(to);
            }
            report.loaded = Some(self.sites[spec.cluster].served.loaded());
            report.connections = Connections::Unknown;
        } else {
            report.loaded = Some(self.says(scenario, at));
        }
        Some(Evidence {
            workload: workload(spec.name),
            incarnation: Incarnation(process.incarnation),
            source,
            report,
        })
    }

    pub(super) fn observe(&mut self, scenario: &Scenario, at: usize) {
        let Some(evidence) = self.evidence(scenario, at) else {
            return;
        };
        let peer = evidence.workload.clone();
        if self.tell(Event::Evidence { peer, evidence }).is_ok() {
            self.processes[at].spoke = self.now;
            let cluster = scenario.specs[at].cluster;
            self.sites[cluster].heard = self.now;
        }
    }

    /// Asks for a leaf, over a connection to the leading controller.
    pub(super) fn certify(&mut self, scenario: &Scenario, at: usize) {
        let request = self.request(scenario, at);
        let had = self.leaf_alive(scenario, at).is_some();
        let emergency = self
            .record
            .anchors()
            .values()
            .any(|anchor| anchor.tainted.is_some());
        let permitted = self.permitted(scenario, at);
        match self.tell(Event::Certify(request)) {
            Ok(actions) => {
                if !permitted {
                    self.broken = Some("S12: who is quarantined gets no leaf");
                }
                for action in actions {
                    self.release(scenario, at, action);
                }
            }
            Err(Refusal::NotAdmitted { .. })
                if had
                    && self.permitted(scenario, at)
                    && !emergency
                    && scenario.without.is_none() =>
            {
                self.broken = Some("N1: nobody who was trusted is refused");
            }
            Err(_) => {}
        }
    }

    fn release(&mut self, scenario: &Scenario, at: usize, action: Action) {
        let Action::Sign {
            issuer,
            not_before,
            not_after,
            bridge,
            ..
        } = action
        else {
            return;
        };
        let bridged = bridge.as_ref().map_or(0, |bridge| bit(bridge.signer));
        if self.stolen & (anchor_of(issuer) | bridged) != 0 {
            self.broken = Some("S9: a tainted anchor never signs or bridges again");
        }
        let ledger = &self.record.clusters()[&cluster(scenario.specs[at].cluster)].ledger;
        let lease = ledger.get(&issuer).and_then(|ledger| ledger.lease_until);
        if lease.is_none_or(|until| until <= self.now) {
            self.broken = Some("S14: no leaf is released without a live signing lease");
        }
        let process = &mut self.processes[at];
        let leaf = Some(Leaf {
            issuer,
            not_before,
            not_after,
            bridge: bridge.map(|bridge| (bit(bridge.signer), bridge.not_after)),
        });
        process.changes += u64::from(process.leaf != leaf);
        process.leaf = leaf;
        process.spoke = self.now;
    }

    /// Has one worker take a bundle, by the rules of documents.
    pub(super) fn load(&mut self, scenario: &Scenario, at: usize, worker: usize, bundle: Bundle) {
        use super::scenario::Duty;
        let current = self.processes[at].workers[worker];
        let refused = match crate::document::step(current.generation, bundle.generation) {
            Err(crate::Error::StaleGeneration { .. }) => scenario.does(Duty::Upwards),
            Err(_) => scenario.does(Duty::BoundedStep),
            Ok(()) => false,
        };
        if refused || current == bundle || (!bundle.genuine && scenario.does(Duty::PinnedKey)) {
            return;
        }
        if bundle.generation < current.generation {
            self.broken = Some("S10: an adopted generation never goes down");
        }
        let process = &mut self.processes[at];
        process.workers[worker] = bundle;
        process.changes += 1;
    }

    pub(super) fn restart(&mut self, scenario: &Scenario, at: usize, bundle: Bundle) {
        let workers = scenario.specs[at].workers;
        let process = &mut self.processes[at];
        process.online = true;
        process.incarnation += 1;
        process.workers = vec![bundle; workers];
        process.leaf = None;
        process.connection = None;
        process.ticket = None;
        process.changes += 1;
    }

    pub(super) fn stale_bundle() -> Bundle {
        Bundle::first()
    }

    /// A process that is quarantined joins again: started anew, with the bundle it is given as it joins; or as it is, which
    /// is to be refused.
    pub(super) fn rejoin(&mut self, scenario: &Scenario, at: usize, afresh: bool) {
        let spec = &scenario.specs[at];
        let before = self.processes[at].clone();
        if afresh {
            let bundle = self.processes[at].workers[0];
            self.restart(scenario, at, bundle);
        }
        let event = Event::Rejoined {
            workload: workload(spec.name),
            incarnation: Incarnation(self.processes[at].incarnation),
            loaded: self.says(scenario, at),
        };
        if self.tell(event).is_ok() {
            self.processes[at].spoke = self.now;
            let signer = anchor_of(self.sites[spec.cluster].signing);
            let tainted = self
                .record
                .anchors()
                .get(&anchor(signer))
                .is_none_or(|anchor| anchor.tainted.is_some());
            if !tainted
                && !self.processes[at]
                    .workers
                    .iter()
                    .all(|bundle| bundle.has(signer))
            {
                self.broken = Some("L2: who returns trusts what is signed");
            }
        } else {
            self.processes[at] = before;
        }
    }

    /// What the old anchor's leaf of a class is to be; for renewals.
    pub(super) fn wants_leaf(&self, scenario: &Scenario, at: usize) -> bool {
        let spec = &scenario.specs[at];
        let process = &self.processes[at];
        let Some(leaf) = &process.leaf else {
            return true;
        };
        let ending = leaf.not_after.since(self.now) * 2 <= self.record.settings().leaf_life;
        let Some(change) = self.record.change() else {
            return ending;
        };
        let last = scenario.without != Some(crate::guard::Guard::ControllerLast);
        let controllers_later = spec.class == Class::ControlPlane && !change.is_draining() && last;
        let first = spec.canary && change.is_signing();
        let switched = self.record.clusters()[&cluster(spec.cluster)].signer != leaf.issuer;
        ending || (!controllers_later && (switched || first) && !change.to.signs_with(leaf.issuer))
    }
}
