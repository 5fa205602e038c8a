//! Everything that can happen next.

use stateright::{Model, Property};

use super::invariants;
use super::scenario::{A, B, Scenario};
use super::world::World;
use crate::{Action, Class, document::MAX_STEP};

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
    Configure,
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
        if left.configure > 0 {
            steps.push(Step::Configure);
        }
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
}
