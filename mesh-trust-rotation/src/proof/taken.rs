//! What taking a step does to the world.

use std::sync::Arc;

use super::invariants;
use super::scenario::{A, B, Duty, START, Scenario, anchor, cluster, workload};
use super::steps::Step;
use super::world::{Bundle, Leaf, World};
use crate::{Connections, Epoch, Event, Generation, Phase, Source, Subject, document::MAX_STEP};

impl Scenario {
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
            | Step::Configure
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
        let Some((issuer, _, life)) = site.leases.iter().find(|(_, until, _)| live(*until)) else {
            return;
        };
        let (issuer, life) = (*issuer, *life);
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
            not_after: world.now.after(life),
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
            Step::Configure => {
                let to = match &self.other_settings {
                    Some(other) if world.record.settings() != other => other,
                    _ => &self.settings,
                };
                if world.tell(Event::Configure(Box::new(to.clone()))).is_ok() {
                    world.left.configure -= 1;
                }
            }
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
