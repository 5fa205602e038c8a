//! Processes, clusters and the network as they really are.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scenario::{
    A, B, Budget, C, LONG, START, Scenario, anchor, anchor_of, bit, cluster, digest, issuer,
    workload,
};
use crate::{
    Action, Bridge, Class, Connections, Effect, Event, Evidence, Generation, Incarnation, IssuerId,
    Loaded, Refusal, Report, Request, Rotation, Scope, Source, Standing, UnixTime,
};

/// Everything there is. What the machine believes is in `record`; everything else is true.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) now: UnixTime,
    pub(super) record: Arc<Rotation>,
    pub(super) sites: Vec<Site>,
    pub(super) processes: Vec<Process>,
    /// Evidence that was ever sent, with who sent it.
    pub(super) sent: BTreeSet<(usize, Evidence)>,
    /// What the record was when a backup was made.
    pub(super) backup: Option<Arc<Rotation>>,
    /// The faults that are left.
    pub(super) left: Budget,
    /// An invariant about a step that was broken by the last step.
    pub(super) broken: Option<&'static str>,
}

/// A cluster's controller, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) served: Bundle,
    pub(super) canary: Option<Bundle>,
    pub(super) signing: IssuerId,
    /// The leases it knows it has: it signs on them without asking while it can.
    pub(super) leases: Vec<(IssuerId, UnixTime)>,
    /// Nothing gets through between it and the coordinator.
    pub(super) cut: bool,
    pub(super) heard: UnixTime,
}

/// A bundle as it is loaded: the generation it claims, and the anchors that are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bundle {
    pub(super) generation: Generation,
    pub(super) anchors: u8,
    /// Whether the pinned bundle key signed it.
    pub(super) genuine: bool,
}

/// A process, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) online: bool,
    pub(super) incarnation: u64,
    /// How often what it would report has changed.
    pub(super) changes: u64,
    /// What each of its workers uses.
    pub(super) workers: Vec<Bundle>,
    pub(super) leaf: Option<Leaf>,
    /// Under which anchor its open connection and its session ticket were verified.
    pub(super) connection: Option<u8>,
    pub(super) ticket: Option<u8>,
    /// It was declared gone, and goes on without asking anybody.
    pub(super) gone: bool,
    /// When it last spoke to anybody who would tell the machine.
    pub(super) spoke: UnixTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    pub(super) issuer: IssuerId,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    /// The end of the cross-certificate that it is served with, and the anchor that signed that.
    pub(super) bridge: Option<(u8, UnixTime)>,
}

impl Bundle {
    pub(super) fn has(self, anchor: u8) -> bool {
        self.anchors & anchor != 0
    }

    fn first() -> Self {
        Self {
            generation: Generation(1),
            anchors: A,
            genuine: true,
        }
    }

    pub(super) fn loaded(self) -> Loaded {
        Loaded {
            generation: self.generation,
            digest: digest(self.anchors),
        }
    }
}

impl Leaf {
    pub(super) fn anchor(&self) -> u8 {
        anchor_of(self.issuer)
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut rotation =
            Rotation::new(scenario.settings.clone(), scenario.mesh(), START).unwrap();
        rotation.without = scenario.without;
        let sites = (0..scenario.clusters).map(|at| Site {
            served: Bundle::first(),
            canary: None,
            signing: issuer(A, at, false),
            leases: Vec::new(),
            cut: false,
            heard: START,
        });
        let not_after = START.after(scenario.settings.leaf_life);
        let processes = scenario.specs.iter().map(|spec| Process {
            online: true,
            incarnation: 1,
            changes: 0,
            workers: vec![Bundle::first(); spec.workers],
            leaf: Some(Leaf {
                issuer: issuer(A, spec.cluster, false),
                not_before: START.before(scenario.settings.backdate),
                not_after,
                bridge: None,
            }),
            connection: None,
            ticket: None,
            gone: false,
            spoke: START,
        });
        let mut world = Self {
            now: START,
            sites: sites.collect(),
            processes: processes.collect(),
            record: Arc::new(rotation),
            sent: BTreeSet::new(),
            backup: None,
            left: scenario.budget,
            broken: None,
        };
        for at in 0..scenario.clusters {
            world.lease(scenario, at);
        }
        for (at, spec) in scenario.specs.iter().enumerate() {
            if spec.known {
                let request = world.request(scenario, at);
                world.tell(Event::Certify(request)).unwrap();
            }
        }
        if scenario.standby {
            world
                .tell(Event::Standby(Box::new(scenario.proposal(C))))
                .unwrap();
            world.work_everywhere(scenario);
            for process in &mut world.processes {
                process.workers.fill(world.sites[0].served);
            }
        }
        let to = if scenario.issuers_only { A } else { B };
        if !scenario.idle {
            world
                .tell(Event::Start(Box::new(scenario.proposal(to))))
                .unwrap();
        }
        world.broken = None;
        world
    }

    /// Has the leading controller handle an event.
    pub(super) fn tell(&mut self, event: Event) -> Result<Vec<Action>, Refusal> {
        let now = self.now;
        Arc::make_mut(&mut self.record).handle(now, event)
    }

    pub(super) fn standing(&self, scenario: &Scenario, at: usize) -> Option<Standing> {
        let known = self
            .record
            .consumers()
            .get(&workload(scenario.specs[at].name));
        known.map(|known| known.standing)
    }

    /// Whether others may talk to it: it is not quarantined on record.
    pub(super) fn permitted(&self, scenario: &Scenario, at: usize) -> bool {
        !matches!(
            self.standing(scenario, at),
            Some(Standing::Quarantined { .. })
        )
    }

    pub(super) fn leaf_alive(&self, scenario: &Scenario, at: usize) -> Option<&Leaf> {
        let alive = |leaf: &&Leaf| leaf.not_after.after(scenario.settings.skew) >= self.now;
        self.processes[at].leaf.as_ref().filter(alive)
    }

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
                    self.release(at, action);
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

    fn release(&mut self, at: usize, action: Action) {
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
        let tainted = |bits: u8| {
            self.record
                .anchors()
                .get(&anchor(bits))
                .is_some_and(|anchor| anchor.tainted.is_some())
        };
        let bridged = bridge
            .as_ref()
            .is_some_and(|bridge| tainted(bit(bridge.signer)));
        if tainted(anchor_of(issuer)) || bridged {
            self.broken = Some("S9: a tainted anchor never signs or bridges again");
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

    /// What a cluster's controller does when it gets to work: hears what is due, does it, confirms it.
    pub(super) fn work(&mut self, scenario: &Scenario, at: usize) {
        if self.sites[at].cut {
            return;
        }
        self.greet(scenario, at);
        // Once for what has to be composed, once for what can be published then.
        for _ in 0..2 {
            for action in self.record.pending(self.now) {
                self.carry_out(scenario, at, &action);
                self.confirm(scenario, at, &action);
            }
        }
        self.lease(scenario, at);
    }

    pub(super) fn work_everywhere(&mut self, scenario: &Scenario) {
        for at in 0..self.sites.len() {
            self.work(scenario, at);
        }
    }

    /// A cluster says what it serves and whom it has, if that was not said of late.
    pub(super) fn greet(&mut self, scenario: &Scenario, at: usize) {
        let id = cluster(at);
        let known = &self.record.clusters()[&id];
        let started = self.record.change().map(|change| change.started);
        let restoring = self.record.restoring_since().is_some() && known.inventoried.is_none();
        if restoring
            || started.is_some_and(|started| known.inventoried.is_none_or(|at| at < started))
        {
            let all = scenario.specs.iter().zip(&self.processes);
            let here = all.filter(|(spec, process)| spec.cluster == at && !process.gone);
            let consumers = here
                .map(|(spec, _)| (workload(spec.name), spec.class))
                .collect();
            self.tell(Event::Inventory {
                cluster: id.clone(),
                consumers,
            })
            .unwrap();
        }
        let known = &self.record.clusters()[&id];
        let served = self.sites[at].served;
        let canary = self.sites[at]
            .canary
            .map_or(Generation(0), |canary| canary.generation);
        let highest = canary.max(served.generation);
        let drifted = self
            .record
            .bundles()
            .known(served.generation)
            .and_then(|bundle| bundle.digest);
        let drifted = drifted.is_some_and(|digest| digest != served.loaded().digest);
        if restoring || known.heard < self.now || drifted != known.drifted.is_some() {
            self.tell(Event::Served {
                cluster: id,
                loaded: served.loaded(),
                highest,
            })
            .unwrap();
        }
        self.sites[at].heard = self.now;
    }

    /// Carries an action out, as far as it is this cluster's.
    pub(super) fn carry_out(&mut self, scenario: &Scenario, at: usize, action: &Action) {
        let here = |id: &crate::ClusterId| *id == cluster(at);
        match action {
            Action::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } if here(cluster) => {
                let anchors = anchors.iter().map(|anchor| bit(*anchor)).sum();
                let bundle = Bundle {
                    generation: *generation,
                    anchors,
                    genuine: true,
                };
                let site = &mut self.sites[at];
                match scope {
                    Scope::All => {
                        if site.served.generation <= *generation {
                            site.served = bundle;
                        }
                        site.canary = site.canary.filter(|canary| canary.generation > *generation);
                    }
                    Scope::Canaries => site.canary = Some(bundle),
                }
            }
            Action::SwitchIssuer { cluster, issuer } if here(cluster) => {
                self.sites[at].signing = *issuer;
            }
            Action::RotateTickets { cluster, .. } if here(cluster) => {
                for (process, spec) in self.processes.iter_mut().zip(&scenario.specs) {
                    if spec.cluster == at {
                        process.ticket = None;
                    }
                }
            }
            Action::DrainConnections {
                workload: name,
                anchor,
                cut: true,
            } => {
                for (process, spec) in self.processes.iter_mut().zip(&scenario.specs) {
                    let meant = spec.cluster == at && workload(spec.name) == *name;
                    if meant && process.online && process.connection == Some(bit(*anchor)) {
                        process.connection = None;
                        process.changes += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// Confirms an action, if its effect is to be seen.
    pub(super) fn confirm(&mut self, scenario: &Scenario, at: usize, action: &Action) {
        let id = cluster(at);
        let site = &self.sites[at];
        let event = match action {
            Action::Publish {
                cluster,
                scope,
                generation,
                ..
            } if *cluster == id => {
                let seen = match scope {
                    Scope::All => Some(site.served),
                    Scope::Canaries => site.canary,
                };
                let Some(seen) = seen.filter(|seen| seen.generation == *generation) else {
                    return;
                };
                Event::Confirmed(Effect::Published {
                    cluster: id,
                    scope: *scope,
                    generation: *generation,
                    digest: seen.loaded().digest,
                })
            }
            Action::SwitchIssuer { cluster, issuer }
                if *cluster == id && site.signing == *issuer =>
            {
                Event::Confirmed(Effect::IssuerSwitched {
                    cluster: id,
                    issuer: *issuer,
                })
            }
            Action::RotateTickets {
                cluster,
                generation,
            } if *cluster == id => {
                let old = scenario.specs.iter().zip(&self.processes);
                if old
                    .into_iter()
                    .any(|(spec, process)| spec.cluster == at && process.ticket.is_some())
                {
                    return;
                }
                Event::Confirmed(Effect::TicketsRotated {
                    cluster: id,
                    generation: *generation,
                })
            }
            Action::Compose {
                generation,
                anchors,
            } => Event::Confirmed(Effect::Composed {
                generation: *generation,
                digest: digest(anchors.iter().map(|anchor| bit(*anchor)).sum()),
            }),
            Action::VerifyIssuer { issuer } => {
                Event::Confirmed(Effect::IssuerVerified { issuer: *issuer })
            }
            Action::RetireAnchor { anchor } => {
                Event::Confirmed(Effect::AnchorRetired { anchor: *anchor })
            }
            Action::MakeBridge { subject, signer } => Event::BridgeMade(Bridge {
                subject: *subject,
                signer: *signer,
                not_after: UnixTime(START.0 + scenario.bridge_ends.min(LONG)),
            }),
            _ => return,
        };
        // What the machine refuses here it has not asked for: a confirmation of long ago.
        let _ = self.tell(event);
    }

    /// Renews signing leases that have ended; gives back those that are not to be used any more.
    pub(super) fn lease(&mut self, scenario: &Scenario, at: usize) {
        let id = cluster(at);
        for issuer in self.record.authorised(&id) {
            let ledger = self.record.clusters()[&id]
                .ledger
                .get(&issuer)
                .copied()
                .unwrap_or_default();
            if ledger.lease_until.is_none_or(|until| until <= self.now) {
                let asked = self.tell(Event::SigningLease {
                    cluster: id.clone(),
                    issuer,
                });
                if asked.is_ok() && scenario.budget.detached > 0 {
                    let until = self.now.after(scenario.settings.signing_lease);
                    let leases = &mut self.sites[at].leases;
                    leases.retain(|(other, _)| *other != issuer);
                    leases.push((issuer, until));
                }
            }
        }
        // With detached signers the lease is never given back: the hardest case.
        if scenario.budget.detached == 0 {
            let authorised = self.record.authorised(&id);
            let ledger = self.record.clusters()[&id].ledger.clone();
            for (issuer, ledger) in ledger {
                if ledger.lease_until.is_some() && !authorised.contains(&issuer) {
                    let entered = ledger.entered;
                    let _ = self.tell(Event::LeaseReturned {
                        cluster: id.clone(),
                        issuer,
                        entered,
                    });
                }
            }
        }
    }

    /// What a process would load next: canaries are given their own.
    pub(super) fn offered(&self, scenario: &Scenario, at: usize) -> Bundle {
        let spec = &scenario.specs[at];
        let site = &self.sites[spec.cluster];
        match site.canary.filter(|_| spec.canary) {
            Some(canary) if canary.generation > site.served.generation => canary,
            _ => site.served,
        }
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
        let ending = leaf.not_after.since(self.now) * 2 <= scenario.settings.leaf_life;
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
