//! S1-S16 as statements about the world, and how runs must end.

use stateright::{Model, Property};

use super::scenario::{A, B, C, START, Scenario, anchor, anchor_of, bit, cluster, workload};
use super::steps::Step;
use super::world::{Bundle, Leaf, World};
use crate::{Class, Event, Mode, Outcome, Phase, Reason, Rotation, Standing, UnixTime};

/// What holds in every state.
pub(super) fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always("S1: whoever may talk is believed", s1),
        Property::always(
            "S2: nobody is given a leaf that somebody would not believe",
            s2,
        ),
        Property::always(
            "S2: nobody is carried by a cross-certificate that has ended",
            carried,
        ),
        Property::always("S3: nothing depends on an anchor that is removed", s3),
        Property::always("S4: who signs is in every published bundle", s4),
        Property::always("S8: a revert removes no anchor with leaves alive", s8),
        Property::always("S13: only the pinned bundle key changes a bundle", s13),
        Property::always("S14: no leaf is released that is not in the ledger", s14),
        Property::always(
            "S15: nobody is acknowledged while a part of it uses an older bundle",
            s15,
        ),
        Property::always(
            "S16: the controller is believed by all that have not lapsed",
            s16,
        ),
        Property::always("L: a run ends, safely or blocked by name", ends),
        // S5, S6, S9-S12, N1, O1, O2 and the order of canaries are about steps.
        Property::always("step", |_: &Scenario, world: &World| world.broken.is_none()),
        Property::sometimes("a run completes", |scenario: &Scenario, world: &World| {
            scenario.without.is_some()
                || scenario.neglected.is_some()
                || world.record.last_outcome().is_some()
        }),
    ]
}

/// What a tick must not do; `before` is the record before it.
pub(super) fn of_a_tick(
    scenario: &Scenario,
    world: &World,
    before: &Rotation,
) -> Option<&'static str> {
    let now = world.now;
    let was = before.change()?;
    let is = world.record.change();
    if is.is_some_and(|is| is.phase == was.phase && is.mode == was.mode) {
        return None;
    }
    if was.paused.is_some() && before.restoring_since().is_none() {
        return Some("P1: nothing advances while an operator has it stand still");
    }
    let edited = |at: &crate::Cluster| at.drifted.is_some();
    if before.clusters().values().any(edited) && before.restoring_since().is_none() {
        return Some("D1: nothing advances while a cluster serves what nobody published");
    }
    let next = is.map(|is| is.phase);
    let emergency = was.mode == Mode::Emergency;
    if was.phase > Phase::Preflight && before.restoring_since().is_none() {
        for (at, process) in world.processes.iter().enumerate() {
            let counts = matches!(
                world.standing(scenario, at),
                Some(Standing::Required) | None
            );
            let carried = was.bridged.contains(&workload(scenario.specs[at].name))
                && next < Some(Phase::Drain);
            if process.gone {
                continue;
            }
            let late = process.spoke.after(scenario.settings.freshness) < now;
            if counts
                && late
                && !carried
                && is.is_some()
                && !at_last_retirement(was.phase, scenario, at)
            {
                return Some("S6: gates count only fresh evidence of everybody");
            }
        }
        let late = |at: usize| world.sites[at].heard.after(scenario.settings.freshness) < now;
        if !emergency && (0..world.sites.len()).any(late) {
            return Some("S6: gates count only fresh evidence of everybody");
        }
    }
    if next == Some(Phase::CanaryRetirement) || next == Some(Phase::Retirement) {
        for at in 0..world.processes.len() {
            let silent_until = world.processes[at]
                .spoke
                .after(scenario.settings.consumer_lease);
            let lapsed = silent_until.after(scenario.settings.skew) < now;
            if lapsed && world.permitted(scenario, at) && !world.processes[at].gone {
                return Some("S12: a lapsed lease quarantines before anything is retired");
            }
        }
    }
    if let Some(next) = is.filter(|_| was.mode == Mode::Normal) {
        let needed = now.after(
            scenario
                .settings
                .phase_budget
                .saturating_mul(next.phase.remaining(next.kind, next.mode)),
        );
        let start = START.0;
        let mut ends = start + scenario.new_ends;
        if was.phase < Phase::Drain {
            ends = ends
                .min(start + scenario.old_anchor_ends)
                .min(start + scenario.old_issuer_ends);
        }
        if UnixTime(ends) < needed {
            return Some("S11: a phase is entered only with time for it");
        }
    }
    let canaries = || {
        let canary = |at: &usize| {
            was.canaries.contains(&workload(scenario.specs[*at].name))
                && world.permitted(scenario, *at)
        };
        (0..world.processes.len()).filter(canary)
    };
    let new = |at: usize| {
        let leaf = world.processes[at].leaf.as_ref();
        leaf.is_some_and(|leaf| was.to.signs_with(leaf.issuer))
    };
    if was.phase == Phase::CanarySigning && next == Some(Phase::Issue) && !canaries().all(new) {
        return Some("C1: canaries get new leaves first");
    }
    let from = bit(was.from.anchor);
    let without = |at: usize| {
        world.processes[at]
            .workers
            .iter()
            .all(|bundle| !bundle.has(from))
    };
    if was.phase == Phase::CanaryRetirement
        && next == Some(Phase::Retirement)
        && !canaries().all(without)
    {
        return Some("C2: canaries lose the old anchor first");
    }
    None
}

/// Whether a consumer that reads roots only at start has nothing to say in the last phase.
fn at_last_retirement(phase: Phase, scenario: &Scenario, at: usize) -> bool {
    phase == Phase::Retirement && scenario.specs[at].class.needs_probe()
}

/// S1: for every edge between two that are online and permitted: one verifies the other's chain, by any clock.
fn s1(scenario: &Scenario, world: &World) -> bool {
    let online = |at: usize| world.processes[at].online;
    believed(scenario, world, online)
}

/// S2: the same for those that are offline and may come back as they are.
fn s2(scenario: &Scenario, world: &World) -> bool {
    believed(scenario, world, |_| true)
}

/// S2: who was left to a cross-certificate is not, once that has ended.
fn carried(scenario: &Scenario, world: &World) -> bool {
    let Some(change) = world.record.change().filter(|change| change.is_signing()) else {
        return true;
    };
    let to = bit(change.to.anchor);
    let lasts = UnixTime(START.0 + scenario.bridge_ends) >= world.now;
    scenario.specs.iter().enumerate().all(|(at, spec)| {
        let process = &world.processes[at];
        lasts
            || !change.bridged.contains(&workload(spec.name))
            || !world.permitted(scenario, at)
            || process.gone
            || process.workers.iter().all(|bundle| bundle.has(to))
    })
}

fn believed(scenario: &Scenario, world: &World, counts: impl Fn(usize) -> bool) -> bool {
    let live = |at: &usize| {
        counts(*at) && world.permitted(scenario, *at) && world.leaf_alive(scenario, *at).is_some()
    };
    let all: Vec<usize> = (0..world.processes.len()).filter(live).collect();
    // What is declared gone is outside the inventory: it may present its leaf, nobody answers for what it believes.
    all.iter()
        .filter(|verifier| !world.processes[**verifier].gone)
        .all(|verifier| {
            all.iter().filter(|peer| *peer != verifier).all(|peer| {
                let leaf = world.processes[*peer].leaf.as_ref();
                let bundles = &world.processes[*verifier].workers;
                // Nobody has to believe a key that is in other hands, and who joins since does not.
                let known = |leaf: &Leaf| world.record.anchors().get(&anchor(leaf.anchor()));
                let leaf =
                    leaf.filter(|leaf| known(leaf).is_none_or(|anchor| anchor.tainted.is_none()));
                leaf.is_none_or(|leaf| {
                    bundles
                        .iter()
                        .all(|bundle| verifies(scenario, world, *bundle, leaf))
                })
            })
        })
}

fn verifies(scenario: &Scenario, world: &World, bundle: Bundle, leaf: &Leaf) -> bool {
    let skew = scenario.settings.skew;
    let (slow, fast) = (world.now.before(skew), world.now.after(skew));
    if scenario.bad_issuer && leaf.anchor() == B {
        return false;
    }
    let bridged = |(signer, ends): (u8, UnixTime)| bundle.has(signer) && ends >= fast;
    let anchored = bundle.has(leaf.anchor()) || leaf.bridge.is_some_and(bridged);
    let start = START.0;
    let (begins, ends) = match leaf.anchor() {
        A if !scenario.issuers_only => (0, scenario.old_issuer_ends.min(scenario.old_anchor_ends)),
        B => (scenario.new_begins, scenario.new_ends),
        _ => (0, super::scenario::LONG),
    };
    let begun = leaf.not_before <= slow && (begins == 0 || UnixTime(start + begins) <= slow);
    // While a fast clock takes the leaf to be valid, it takes its issuer to be valid.
    let lasts = leaf.not_after < fast || UnixTime(start + ends) >= fast;
    anchored && begun && lasts
}

/// S3: an anchor that is not in what is served is what nothing of anybody permitted depends on.
fn s3(scenario: &Scenario, world: &World) -> bool {
    if scenario.budget.drift != world.left.drift {
        // Somebody edits what is served, behind the machine's back: it freezes, and cannot undo what it could not see.
        return true;
    }
    [A, B, C]
        .into_iter()
        .filter(|bit| removed(world, *bit))
        .all(|bit| {
            (0..world.processes.len())
                .filter(|at| world.permitted(scenario, *at))
                .all(|at| {
                    let process = &world.processes[at];
                    let leaf = world
                        .leaf_alive(scenario, at)
                        .is_some_and(|leaf| leaf.anchor() == bit);
                    !leaf
                        && process.connection != Some(bit)
                        && process.ticket != Some(bit)
                        && chain_to_new(scenario, world, at, bit)
                })
        })
}

/// Whoever is online has a leaf of what stays: nobody was left to find out by its next handshake.
fn chain_to_new(scenario: &Scenario, world: &World, at: usize, gone: u8) -> bool {
    let process = &world.processes[at];
    if !process.online || process.gone || world.standing(scenario, at) != Some(Standing::Required) {
        return true;
    }
    process
        .leaf
        .as_ref()
        .is_none_or(|leaf| leaf.anchor() != gone)
}

/// Whether an anchor is missing in something served now. Before anybody depends on it, that is harmless.
fn removed(world: &World, bit: u8) -> bool {
    world.sites.iter().any(|site| {
        [Some(site.served), site.canary]
            .into_iter()
            .flatten()
            .any(|bundle| !bundle.has(bit))
    })
}

/// S4: the anchor of whoever signs, and of everything signed that is alive, is in every bundle served.
fn s4(scenario: &Scenario, world: &World) -> bool {
    if scenario.budget.drift != world.left.drift {
        return true; // as for S3
    }
    let tainted = |bit: u8| {
        world
            .record
            .anchors()
            .get(&anchor(bit))
            .is_some_and(|anchor| anchor.tainted.is_some())
    };
    let signing = world.sites.iter().map(|site| anchor_of(site.signing));
    signing.filter(|bit| !tainted(*bit)).all(|bit| {
        world.sites.iter().all(|site| {
            [Some(site.served), site.canary]
                .into_iter()
                .flatten()
                .all(|bundle| bundle.has(bit))
        })
    })
}

/// S8: in or after a revert, what is removed has no leaves alive.
fn s8(scenario: &Scenario, world: &World) -> bool {
    let reverting = world.record.change().map_or(
        world.record.last_outcome() == Some(Outcome::SafelyAborted),
        |change| change.mode == Mode::Reverting,
    );
    if !reverting {
        return true;
    }
    let served = |bit: u8| world.sites.iter().all(|site| site.served.has(bit));
    (0..world.processes.len())
        .filter(|at| world.permitted(scenario, *at))
        .filter_map(|at| world.leaf_alive(scenario, at))
        .all(|leaf| served(leaf.anchor()))
}

/// S13: nothing is in use that the pinned bundle key did not sign.
fn s13(_: &Scenario, world: &World) -> bool {
    world
        .processes
        .iter()
        .flat_map(|process| &process.workers)
        .all(|bundle| bundle.genuine)
}

/// S14: every leaf alive ends by what the ledger says is outstanding, save those of a key that is in other hands.
fn s14(scenario: &Scenario, world: &World) -> bool {
    world
        .processes
        .iter()
        .zip(&scenario.specs)
        .all(|(process, spec)| {
            let Some(leaf) = process
                .leaf
                .as_ref()
                .filter(|leaf| leaf.not_after >= world.now)
            else {
                return true;
            };
            let issuer_gone = !world.record.issuers().contains_key(&leaf.issuer);
            let anchor = world.record.anchors().get(&anchor(leaf.anchor()));
            if anchor.is_none_or(|anchor| anchor.tainted.is_some()) && issuer_gone {
                let name = workload(spec.name);
                let known = world.record.consumers().get(&name);
                return known.is_none_or(|known| !known.is_required()) || anchor.is_some();
            }
            let ledger = world.record.clusters()[&cluster(spec.cluster)]
                .ledger
                .get(&leaf.issuer);
            ledger.is_some_and(|ledger| {
                ledger.outstanding(world.record.settings().leaf_life) >= leaf.not_after
            })
        })
}

/// S15: what is believed to be loaded is loaded by all parts.
fn s15(scenario: &Scenario, world: &World) -> bool {
    scenario
        .specs
        .iter()
        .zip(&world.processes)
        .all(|(spec, process)| {
            let known = world.record.consumers().get(&workload(spec.name));
            // What is said of those that read roots only at start is not believed in the first place.
            let speaks = |known: &&crate::Consumer| {
                known.incarnation.0 == process.incarnation && !known.class.needs_probe()
            };
            let known = known.filter(speaks);
            let loaded = known.and_then(|known| known.report?.loaded);
            loaded.is_none_or(|loaded| {
                process
                    .workers
                    .iter()
                    .all(|bundle| bundle.generation >= loaded.generation)
            })
        })
}

/// S16: a controller's chain verifies under every bundle in use by whoever has not lapsed.
fn s16(scenario: &Scenario, world: &World) -> bool {
    let controllers =
        (0..world.processes.len()).filter(|at| scenario.specs[*at].class == Class::ControlPlane);
    let leaves: Vec<&Leaf> = controllers
        .filter_map(|at| world.leaf_alive(scenario, at))
        .collect();
    // While the old anchor is in force, a process from an old template has to be able to fetch the next bundle.
    let early = world
        .record
        .change()
        .is_some_and(|change| !change.is_draining() && change.mode == Mode::Normal);
    (0..world.processes.len())
        .filter(|at| world.permitted(scenario, *at) && !world.processes[*at].gone)
        .filter(|at| early || world.processes[*at].leaf.is_some())
        .flat_map(|at| &world.processes[at].workers)
        .all(|bundle| {
            leaves
                .iter()
                .all(|leaf| verifies(scenario, world, *bundle, leaf))
        })
}

/// L1-L4: where nothing more can happen within the bounds, go on without further faults: the change ends, or named
/// blockers say why it cannot; who came back is trusted again or quarantined; a tainted anchor is trusted by nobody.
fn ends(scenario: &Scenario, world: &World) -> bool {
    if world.now < scenario.end() || world.broken.is_some() || !scenario.liveness {
        return true;
    }
    let mut steps = Vec::new();
    scenario.actions(world, &mut steps);
    let settled = |step: Step| scenario.next_state(world, step).is_none();
    if !steps.into_iter().all(settled) {
        return true;
    }
    let everybody_back = settle(scenario, world, true);
    let some_gone_for_good = settle(scenario, world, false);
    ended(scenario, &everybody_back, true) && ended(scenario, &some_gone_for_good, false)
}

/// Goes on fairly: whatever can be done is done, whatever was cut is joined.
fn settle(scenario: &Scenario, world: &World, all_return: bool) -> World {
    let mut world = world.clone();
    for site in &mut world.sites {
        site.cut = false;
    }
    let _ = world.tell(Event::Resume);
    for at in 0..world.processes.len() {
        if !world.processes[at].declared {
            scenario.take(&mut world, Step::Declare(at));
        }
    }
    for round in 0..100 {
        if world.record.change().is_none() && world.record.restoring_since().is_none() && round > 2
        {
            break;
        }
        let reasons = world.record.gate(world.now);
        let cornered = |blocker: &crate::Blocker| blocker.why == Reason::NoReplacement;
        let unfit = |blocker: &crate::Blocker| blocker.why == Reason::IssuerUnverified;
        if scenario.bad_issuer && reasons.blockers().iter().any(unfit) {
            let _ = world.tell(Event::Abort);
        }
        if reasons.blockers().iter().any(cornered) {
            let _ = world.tell(Event::Start(Box::new(scenario.proposal(C))));
        }
        world.work_everywhere(scenario);
        for at in 0..world.processes.len() {
            if all_return {
                world.processes[at].online = true;
            }
            if world.processes[at].gone {
                continue;
            }
            if world.processes[at].online {
                attend(scenario, &mut world, at);
            }
        }
        scenario.take(&mut world, Step::Tick);
        if round % 3 == 2 {
            world.now.0 += 1;
        }
    }
    world
}

fn attend(scenario: &Scenario, world: &mut World, at: usize) {
    let spec = &scenario.specs[at];
    if world.processes[at].connection.is_some() {
        scenario.take(world, Step::Close(at));
    }
    let offered = world.offered(scenario, at);
    if spec.class == Class::StartOnly {
        if world.processes[at].workers[0].generation < offered.generation {
            world.restart(scenario, at, offered);
        }
    } else {
        (0..spec.workers).for_each(|worker| world.load(scenario, at, worker, offered));
    }
    if !world.permitted(scenario, at) {
        world.rejoin(scenario, at, true);
    }
    if world.wants_leaf(scenario, at) {
        world.certify(scenario, at);
    }
    world.observe(scenario, at);
}

fn ended(scenario: &Scenario, world: &World, all_return: bool) -> bool {
    if world.broken.is_some() {
        return false;
    }
    let gate = world.record.gate(world.now);
    let hopeless = |reason: Reason| matches!(reason, Reason::TooLittleTime | Reason::ForeignLeaf);
    if world.record.change().is_some() || world.record.restoring_since().is_some() {
        let blockers = gate.blockers();
        return blockers.iter().any(|blocker| hopeless(blocker.why));
    }
    let tainted = |bundle: &Bundle| {
        [A, B, C].into_iter().any(|bit| {
            let known = world.record.anchors().get(&anchor(bit));
            bundle.has(bit) && known.is_none_or(|known| known.tainted.is_some())
        })
    };
    let refused_everywhere = (0..world.processes.len())
        .filter(|at| {
            world.permitted(scenario, *at)
                && world.processes[*at].online
                && !world.processes[*at].gone
        })
        .filter(|at| !scenario.specs[*at].class.needs_probe())
        .all(|at| !world.processes[at].workers.iter().any(tainted));
    let standing =
        |at: usize| !all_return || world.permitted(scenario, at) || world.processes[at].gone;
    (refused_everywhere || !gate.blockers().is_empty()) && (0..world.processes.len()).all(standing)
}
