//! Everything that can happen next.

use std::sync::Arc;

use stateright::{Model, Property};

use super::invariants;
use super::scenario::{A, B, Duty, START, Scenario, anchor, cluster, workload};
use super::world::{Bundle, Leaf, World};
use crate::{
    Action, Class, Connections, Epoch, Event, Generation, Phase, Source, Subject,
    document::MAX_STEP,
};

/// A step. Numbers are places in the scenario's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A second passes.
    Second,
    /// The controller looks whether it can go on.
    Tick,
    /// A cluster's controller does what is due, and confirms it.
    Work(usize),
    /// The same in parts, between which everything else may happen, a crash as well: after it, what is due is due again.
    CarryOut(usize, Action),
    Confirm(usize, Action),
    Greet(usize),
    Lease(usize),
    Load(usize, usize),
    Certify(usize),
    Observe(usize),
    Send(usize),
    Deliver(usize),
    Connect(usize),
    Close(usize),
    Offline(usize),
    Return(usize),
    Restart(usize),
    RestartStale(usize),
    Snapshot(usize),
    Rejoin(usize, bool),
    Abort,
    Pause,
    Unpause,
    Taint(u8),
    Override,
    Carry,
    Forge(usize),
    Annotate(usize),
    Drift(usize),
    Cut(usize),
    Detached(usize),
    /// A controller that led before still believes to lead.
    Zombie,
    Backup,
    Restore,
    EvilDocument(usize, u64),
    Leap(usize),
    Declare(usize),
    Again,
    SecondStart,
    Leave(usize),
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        steps.push(Step::Tick);
        for at in 0..self.clusters {
            if self.stepwise {
                steps.extend([Step::Greet(at), Step::Lease(at)]);
                for action in world.record.pending(world.now) {
                    steps.push(Step::CarryOut(at, action.clone()));
                    steps.push(Step::Confirm(at, action));
                }
            } else {
                steps.push(Step::Work(at));
            }
            if world.left.cut > 0 && at > 0 {
                steps.push(Step::Cut(at));
            }
            if world.left.drift > 0 {
                steps.push(Step::Drift(at));
            }
        }
        for at in 0..self.specs.len() {
            self.process_steps(world, at, steps);
        }
        steps.extend((0..world.sent.len()).map(Step::Deliver));
        self.operator_steps(world, steps);
        if world.now < self.end() {
            steps.push(Step::Second);
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        if step == Step::Second && !self.is_idle(last) {
            return None;
        }
        let mut world = last.clone();
        self.take(&mut world, step);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::all()
    }
}

impl Scenario {
    /// Whether everybody who can be reached has done what is to be done in this second. Who is slower than that is
    /// offline, or its cluster is cut off: both are faults of the model.
    fn is_idle(&self, world: &World) -> bool {
        let mut steps = Vec::new();
        self.actions(world, &mut steps);
        steps.into_iter().all(|step| {
            let urgent = match &step {
                Step::Tick => !self.stepwise,
                Step::Certify(at) => self.budget.lazy == 0 || !self.specs[*at].fails,
                Step::Work(_) | Step::Load(..) | Step::Observe(_) | Step::Send(_) => true,
                _ => false,
            };
            if !urgent {
                return true;
            }
            let mut next = world.clone();
            self.take(&mut next, step);
            next == *world
        })
    }

    fn process_steps(&self, world: &World, at: usize, steps: &mut Vec<Step>) {
        let spec = &self.specs[at];
        let process = &world.processes[at];
        let left = &world.left;
        let reachable = !world.sites[spec.cluster].cut;
        if process.gone {
            return;
        }
        if !process.online {
            steps.push(Step::Return(at));
            if left.stale > 0 && spec.fails {
                steps.push(Step::RestartStale(at));
            }
            return;
        }
        if spec.class != Class::StartOnly {
            steps.extend((0..spec.workers).map(|worker| Step::Load(at, worker)));
        } else if process.workers[0].generation < world.sites[spec.cluster].served.generation {
            // It is started again with the bundle of the day, when its operator likes.
            steps.push(Step::Restart(at));
        }
        if reachable {
            if world.permitted(self, at) {
                if world.wants_leaf(self, at) {
                    steps.push(Step::Certify(at));
                }
                if self.network && spec.fails {
                    steps.push(Step::Send(at));
                } else {
                    steps.push(Step::Observe(at));
                }
            } else {
                steps.extend([
                    Step::Rejoin(at, true),
                    Step::Rejoin(at, false),
                    Step::Certify(at),
                    Step::Observe(at),
                ]);
            }
        }
        if left.connect > 0 && process.leaf.is_some() && process.connection.is_none() {
            steps.push(Step::Connect(at));
        }
        if process.connection.is_some() && !process.gone {
            steps.push(Step::Close(at));
        }
        if spec.fails {
            if left.leave > 0 {
                steps.push(Step::Leave(at));
            }
            if left.offline > 0 {
                steps.push(Step::Offline(at));
            }
            if left.restart > 0 {
                steps.push(Step::Restart(at));
            }
            if left.stale > 0 {
                steps.push(Step::RestartStale(at));
            }
            if left.snapshot > 0 {
                steps.push(Step::Snapshot(at));
            }
        }
        if left.forge > 0 {
            steps.push(Step::Forge(at));
        }
        if left.annotate > 0 {
            steps.push(Step::Annotate(at));
        }
        if left.detached > 0 && spec.fails {
            steps.push(Step::Detached(at));
        }
        if left.leap > 0 {
            steps.push(Step::Leap(at));
        }
        if !process.declared {
            steps.push(Step::Declare(at));
        }
        if left.evil_document > 0 {
            let generation = process.workers[0].generation.0;
            steps.push(Step::EvilDocument(at, generation + 1));
            steps.push(Step::EvilDocument(at, generation + MAX_STEP + 1));
            steps.push(Step::EvilDocument(at, generation.saturating_sub(1)));
        }
    }

    fn operator_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let left = &world.left;
        let change = world.record.change();
        if left.abort > 0 && change.is_some() {
            steps.push(Step::Abort);
        }
        if left.pause > 0 && change.is_some() {
            steps.push(Step::Pause);
        }
        if change.is_some_and(|change| change.paused.is_some()) {
            steps.push(Step::Unpause);
        }
        if left.again > 0 && change.is_none() {
            steps.push(Step::Again);
        }
        if left.taint_from > 0 {
            steps.push(Step::Taint(A));
        }
        if left.taint_to > 0 && change.is_some() {
            steps.push(Step::Taint(B));
        }
        if (left.overrides > 0 || left.early_override > 0) && change.is_some() {
            steps.push(Step::Override);
        }
        if left.carry > 0 && change.is_some() {
            steps.push(Step::Carry);
        }
        if left.zombie > 0 {
            steps.push(Step::Zombie);
        }
        if left.backup > 0 {
            if world.backup.is_none() {
                steps.push(Step::Backup);
            } else {
                steps.push(Step::Restore);
            }
        }
        let cornered = || {
            let to = change.and_then(|change| world.record.anchors().get(&change.to.anchor));
            to.is_some_and(|to| to.tainted.is_some())
        };
        if left.second_start > 0 || (left.third > 0 && cornered()) {
            steps.push(Step::SecondStart);
        }
    }

    pub(super) fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Second => {
                world.now.0 += 1;
                let now = world.now.0;
                world
                    .sent
                    .retain(|(_, evidence)| evidence.report.at.0 + 1 >= now);
                // What is said every second, by everybody whom nothing keeps from it.
                if !self.stepwise {
                    for at in 0..self.clusters {
                        if !world.sites[at].cut {
                            world.greet(self, at);
                        }
                    }
                    for (at, spec) in self.specs.iter().enumerate() {
                        let reachable = world.processes[at].online
                            && !world.processes[at].gone
                            && !world.sites[spec.cluster].cut;
                        if reachable && world.permitted(self, at) && !(self.network && spec.fails) {
                            world.observe(self, at);
                        }
                    }
                }
            }
            Step::Tick => {
                let before = Arc::clone(&world.record);
                let _ = world.tell(Event::Tick);
                if let Some(broken) = invariants::of_a_tick(self, world, &before) {
                    world.broken = Some(broken);
                }
            }
            Step::Work(at) => world.work(self, at),
            Step::CarryOut(at, action) => world.carry_out(self, at, &action),
            Step::Confirm(at, action) => world.confirm(self, at, &action),
            Step::Greet(at) => world.greet(self, at),
            Step::Lease(at) => world.lease(self, at),
            Step::Load(at, worker) => {
                let bundle = world.offered(self, at);
                if bundle.generation > world.processes[at].workers[worker].generation {
                    world.load(self, at, worker, bundle);
                    self.say(world, at);
                }
            }
            Step::Certify(at) => {
                world.certify(self, at);
                self.say(world, at);
            }
            Step::Observe(at) => world.observe(self, at),
            Step::Send(at) => {
                if let Some(evidence) = world.evidence(self, at) {
                    world.sent.insert((at, evidence));
                }
            }
            Step::Deliver(message) => self.deliver(world, message),
            Step::Connect(at) => {
                let process = &mut world.processes[at];
                let leaf = process
                    .leaf
                    .as_ref()
                    .filter(|leaf| leaf.not_after >= world.now);
                if let Some(bit) = leaf.map(Leaf::anchor) {
                    process.connection = Some(bit);
                    process.ticket = Some(bit);
                    process.changes += 1;
                    world.left.connect -= 1;
                    self.say(world, at);
                }
            }
            Step::Close(at) => {
                world.processes[at].connection = None;
                world.processes[at].changes += 1;
                self.say(world, at);
            }
            Step::Offline(at) => {
                world.processes[at].online = false;
                world.left.offline -= 1;
            }
            Step::Return(at) => world.processes[at].online = true,
            Step::Restart(at) => {
                if self.specs[at].fails && world.left.restart > 0 {
                    world.left.restart -= 1;
                }
                let bundle = world.offered(self, at);
                world.restart(self, at, bundle);
            }
            Step::RestartStale(at) => {
                world.left.stale -= 1;
                world.restart(self, at, World::stale_bundle());
            }
            Step::Snapshot(at) => {
                world.left.snapshot -= 1;
                let first = World::new(self);
                let process = &mut world.processes[at];
                process.workers.clone_from(&first.processes[at].workers);
                process.leaf.clone_from(&first.processes[at].leaf);
                process.changes += 1;
            }
            Step::Rejoin(at, afresh) => world.rejoin(self, at, afresh),
            Step::Detached(at) => self.detached(world, at),
            Step::Forge(at) | Step::Annotate(at) => self.forge(world, &step, at),
            Step::Leave(at) => {
                world.left.leave -= 1;
                let _ = world.tell(Event::Left(workload(self.specs[at].name)));
                world.processes[at].gone = true;
            }
            Step::Drift(at) => {
                world.left.drift = world.left.drift.saturating_sub(1);
                let site = &mut world.sites[at];
                site.served.anchors = A;
            }
            Step::Cut(at) => {
                world.left.cut -= 1;
                world.sites[at].cut = true;
            }
            Step::Zombie => self.zombie(world),
            Step::EvilDocument(at, generation) => {
                world.left.evil_document -= 1;
                // Signed through a stolen anchor, or an old document played again.
                let genuine = generation < world.processes[at].workers[0].generation.0;
                let anchors = if genuine { A } else { 8 };
                let bundle = Bundle {
                    generation: Generation(generation),
                    anchors,
                    genuine,
                };
                world.load(self, at, 0, bundle);
            }
            Step::Leap(at) => {
                world.left.leap -= 1;
                let bundle = Bundle {
                    generation: Generation(
                        world.processes[at].workers[0].generation.0 + MAX_STEP + 1,
                    ),
                    ..Bundle::first()
                };
                world.load(self, at, 0, bundle);
            }
            Step::Declare(at) => {
                world.processes[at].declared = true;
                world.list(self, self.specs[at].cluster);
            }
            Step::Again
            | Step::Abort
            | Step::Pause
            | Step::Unpause
            | Step::Taint(_)
            | Step::Override
            | Step::Carry
            | Step::Backup
            | Step::Restore
            | Step::SecondStart => self.operate(world, &step),
        }
    }

    /// A process that is prompt says what has changed.
    fn say(&self, world: &mut World, at: usize) {
        let process = &world.processes[at];
        let reachable = process.online && !process.gone && !world.sites[self.specs[at].cluster].cut;
        if self.prompt && !(self.network && self.specs[at].fails) && reachable {
            world.observe(self, at);
        }
    }

    fn deliver(&self, world: &mut World, message: usize) {
        let Some((at, evidence)) = world.sent.iter().nth(message).cloned() else {
            return;
        };
        let peer = workload(self.specs[at].name);
        let said = evidence.report.at;
        let known = |world: &World| {
            let known = world.record.consumers().get(&peer)?;
            Some((known.incarnation, known.report?.sequence))
        };
        let before = known(world);
        let mut after = world.clone();
        let _ = after.tell(Event::Evidence {
            peer: peer.clone(),
            evidence: evidence.clone(),
        });
        if known(&after) < before {
            world.broken = Some("S6: what is believed of a process never goes back");
        }
        if world.tell(Event::Evidence { peer, evidence }).is_ok() {
            world.processes[at].spoke = world.processes[at].spoke.max(said);
            let cluster = self.specs[at].cluster;
            world.sites[cluster].heard = world.sites[cluster].heard.max(said);
        }
    }

    /// Another workload speaks for this one, or something stamps it: it is said to have all that is wanted.
    fn forge(&self, world: &mut World, step: &Step, at: usize) {
        let Some(change) = world.record.change().cloned() else {
            return;
        };
        let Some(mut evidence) = world.evidence(self, at) else {
            return;
        };
        let current = world.record.bundles().current();
        let digest = world
            .record
            .bundles()
            .known(current)
            .and_then(|bundle| bundle.digest);
        if let (Some(digest), Some(loaded)) = (digest, &mut evidence.report.loaded) {
            *loaded = crate::Loaded {
                generation: current,
                digest,
            };
        }
        evidence.report.connections = Connections::None;
        if change.phase >= Phase::LeafConverged {
            let own = change.to.issuers.get(&cluster(self.specs[at].cluster));
            evidence.report.leaf =
                own.map(|issuer| (*issuer, world.now.after(self.settings.leaf_life)));
        }
        evidence.report.sequence += 32;
        let mut peer = evidence.workload.clone();
        if matches!(step, Step::Annotate(_)) {
            evidence.source = Source::Annotation;
            world.left.annotate -= 1;
        } else {
            peer = workload("mallory");
            world.left.forge -= 1;
        }
        let _ = world.tell(Event::Evidence { peer, evidence });
    }

    /// A signer signs on its lease, and the record learns nothing of it.
    fn detached(&self, world: &mut World, at: usize) {
        let spec = &self.specs[at];
        let site = &world.sites[spec.cluster];
        let live = |until: crate::UnixTime| until > world.now || !self.does(Duty::StopAtLease);
        let Some((issuer, _)) = site.leases.iter().find(|(_, until)| live(*until)) else {
            return;
        };
        let issuer = *issuer;
        let Some(process) = world
            .processes
            .get_mut(at)
            .filter(|process| process.leaf.is_some())
        else {
            return;
        };
        process.leaf = Some(Leaf {
            issuer,
            not_before: world.now.before(self.settings.backdate),
            not_after: world.now.after(self.settings.leaf_life),
            bridge: None,
        });
        process.changes += 1;
        world.left.detached -= 1;
    }

    /// Another has led since; the one that led before tries to write.
    fn zombie(&self, world: &mut World) {
        world.left.zombie -= 1;
        let _ = world.tell(Event::Lead(Epoch(2)));
        let now = world.now;
        let record = Arc::make_mut(&mut world.record);
        if record.fence(Epoch(1)).is_ok() {
            let _ = record.handle(now, Event::Abort);
            world.broken = Some("S5: every write carries the current epoch");
        }
    }

    fn operate(&self, world: &mut World, step: &Step) {
        let left = &mut world.left;
        match step {
            Step::Abort => {
                left.abort -= 1;
                let _ = world.tell(Event::Abort);
            }
            Step::Pause => {
                left.pause -= 1;
                let _ = world.tell(Event::Pause);
            }
            Step::Unpause => {
                let _ = world.tell(Event::Resume);
            }
            Step::Taint(bit) => {
                if *bit == A {
                    left.taint_from -= 1;
                } else {
                    left.taint_to -= 1;
                }
                if world.tell(Event::Taint(anchor(*bit))).is_ok() {
                    world.stolen |= bit;
                }
            }
            Step::Again => {
                left.again -= 1;
                let _ = world.tell(Event::Start(Box::new(self.proposal(B))));
            }
            Step::Override => self.leave_behind(world),
            Step::Carry => {
                left.carry -= 1;
                let stragglers = self
                    .specs
                    .iter()
                    .filter(|spec| spec.fails)
                    .map(|spec| workload(spec.name));
                let stragglers = stragglers.collect();
                let _ = world.tell(Event::CarryByBridge(stragglers));
            }
            Step::Backup => world.backup = Some(Arc::clone(&world.record)),
            Step::Restore => {
                left.backup -= 1;
                if let Some(backup) = world.backup.take() {
                    world.record = backup;
                    // What was found since has to be said again, by the operator.
                    let said = |bit: &u8| {
                        let known = world.record.anchors().get(&anchor(*bit));
                        known.is_some_and(|known| known.tainted.is_some())
                    };
                    world.stolen = [A, B].into_iter().filter(said).sum();
                    let _ = world.tell(Event::Restored);
                }
            }
            Step::SecondStart => {
                left.second_start = left.second_start.saturating_sub(1);
                left.third = left.third.saturating_sub(1);
                let anchors = world.record.anchors();
                let to = |change: &crate::Change| anchors.get(&change.to.anchor);
                let underway = world.record.change().is_some_and(|change| {
                    to(change).is_some_and(|anchor| anchor.tainted.is_none())
                });
                let started = world
                    .tell(Event::Start(Box::new(self.proposal(super::scenario::C))))
                    .is_ok();
                if underway && started {
                    world.broken = Some("S5: one unfinished rotation per trust domain");
                }
            }
            _ => {}
        }
    }

    /// The operator leaves behind whoever blocks; or, early, says nothing of whom.
    fn leave_behind(&self, world: &mut World) {
        let Some(change) = world.record.change() else {
            return;
        };
        let gate = world.record.gate(world.now);
        let blocking = gate
            .blockers()
            .iter()
            .filter_map(|blocker| match &blocker.who {
                Subject::Workload(workload) => Some(workload.clone()),
                _ => None,
            });
        let mut breaks: std::collections::BTreeSet<_> = blocking.collect();
        let phase = change.phase;
        let blind = world.left.early_override > 0;
        if blind {
            world.left.early_override -= 1;
            breaks.clear();
        } else {
            world.left.overrides -= 1;
        }
        let blocked = !gate.is_open() && !gate.blockers().is_empty();
        let named = !breaks.is_empty();
        let since = change.emergency_since.unwrap_or(START);
        let deadline = world.now >= since.after(self.settings.emergency_deadline);
        let all = world.record.required().count();
        let ready = all.saturating_sub(breaks.len());
        let quorum = ready * 100 >= all * usize::from(self.settings.emergency_quorum);
        if world.tell(Event::Override { phase, breaks }).is_ok() && blocked {
            if !named {
                world.broken = Some("O1: whom an emergency breaks is named");
            } else if !deadline && !quorum {
                world.broken = Some(
                    "O2: an emergency leaves others behind only with a quorum or after its deadline",
                );
            }
        }
    }
}
