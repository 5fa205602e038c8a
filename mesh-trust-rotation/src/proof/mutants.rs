//! The same models with one guard taken away: each must fall, by exactly the invariants named.
//!
//! All states are looked at in the order of the steps that lead to them. What falls after the fewest steps is what counts, not what
//! follows from it; the traces printed are shortest ones.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use stateright::{Expectation, Model};

use super::models;
use super::scenario::{Duty, Scenario};
use super::steps::Step;
use super::world::World;
use crate::guard::Guard;

/// The most states that are looked at.
const LIMIT: usize = 1_500_000;

/// The steps to each invariant that falls after the fewest.
fn fall(scenario: &Scenario) -> BTreeMap<String, Vec<Step>> {
    let mut seen = HashSet::new();
    let mut taken: Vec<(usize, Step)> = vec![(0, Step::Tick)];
    let mut level: Vec<(usize, World)> = Vec::new();
    level.extend(scenario.init_states().into_iter().map(|world| (0, world)));
    let properties = scenario.properties();
    let always = |property: &&stateright::Property<Scenario>| {
        matches!(property.expectation, Expectation::Always)
    };
    let mut fell = BTreeMap::new();
    while !level.is_empty() && fell.is_empty() && seen.len() < LIMIT {
        let mut next = Vec::new();
        for (at, world) in &level {
            for property in properties.iter().filter(always) {
                if !(property.condition)(scenario, world) {
                    let broken = world.broken.filter(|_| property.name == "step");
                    let name = broken.unwrap_or(property.name).to_owned();
                    fell.entry(name).or_insert(*at);
                }
            }
            let mut steps = Vec::new();
            scenario.actions(world, &mut steps);
            for step in steps {
                let then = scenario.next_state(world, step.clone());
                if let Some(then) = then.filter(|then| seen.insert(fingerprint(then))) {
                    next.push((taken.len(), then));
                    taken.push((*at, step));
                }
            }
        }
        level = next;
    }
    let trace = |mut at: usize| {
        let mut steps = Vec::new();
        while at > 0 {
            steps.push(taken[at].1.clone());
            at = taken[at].0;
        }
        steps.reverse();
        steps
    };
    fell.into_iter()
        .map(|(name, at)| (name, trace(at)))
        .collect()
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn falls(name: &str, scenario: &Scenario, by: &str) -> Result<(), String> {
    let (model, began) = (scenario.name, Instant::now());
    let fell = fall(scenario);
    let took = began.elapsed();
    for (property, steps) in &fell {
        println!("{name} ({model}): {property}, {took:.1?}");
        steps.iter().for_each(|step| println!("    {step:?}"));
    }
    let mut found: Vec<&str> = fell
        .keys()
        .filter_map(|property| property.split(':').next())
        .collect();
    found.sort_by_key(|number| {
        number
            .get(1..)
            .and_then(|digits| digits.parse::<u32>().ok())
    });
    found.dedup();
    let found = found.join(" ");
    if found == by {
        return Ok(());
    }
    Err(format!(
        "{name} ({model}): {by} was to fall, and `{found}` did"
    ))
}

/// A guard, the model that falls without it, and the invariants that fall first.
type Mutant = (Guard, fn() -> Scenario, &'static str);

const MUTANTS: &[Mutant] = &[
    (Guard::TrustBeforeIssue, models::normal_path, "S1 S2"),
    (Guard::DigestOfLoaded, models::forgery, "S1 S2"),
    (Guard::Freshness, models::held, "S6"),
    (Guard::Incarnation, models::replay, "S15"),
    (Guard::Authenticated, models::forgery, "S15"),
    (Guard::NoAnnotations, models::forgery, "S15"),
    (Guard::ProbeStartOnly, models::start_only, "S1 S2"),
    (Guard::Inventory, models::crashes, "S1 S2"),
    (Guard::SilentBlocks, models::offline, "S1 S2"),
    (Guard::ClusterBarrier, models::two_clusters, "S4"),
    (Guard::PublishedEverywhere, models::empty_cluster, "S4"),
    (Guard::ClusterHeard, models::held, "S6"),
    (Guard::Admission, models::offline, "S1 S2"),
    (Guard::QuarantineCertify, models::offline, "S12"),
    (Guard::RejoinBundle, models::offline, "L2"),
    (Guard::RejoinAfresh, models::blind_override, "S3"),
    (Guard::LapseOnRecord, models::offline, "S6"),
    (Guard::CanarySigning, models::normal_path, "C1"),
    (Guard::CanaryRetirement, models::normal_path, "C2"),
    (Guard::LeafConverged, models::leaves, "S3"),
    (Guard::LedgerEntered, models::skew_and_expiry, "S3"),
    (Guard::LedgerLease, models::leaves, "S3"),
    (Guard::RetireSkew, models::skew_and_expiry, "S3"),
    (Guard::LedgerBeforeRelease, models::normal_path, "S14"),
    (Guard::Tickets, models::tickets, "S3"),
    (Guard::TicketsAfterLeaves, models::normal_path, "S3"),
    (Guard::Connections, models::normal_path, "S3"),
    (Guard::ConnectionsAfterLeaves, models::late_signer, "S3"),
    (Guard::ControllerLast, models::controller, "S16"),
    (Guard::SignerPublished, models::crashes, "S4"),
    (Guard::NotBefore, models::skew_and_expiry, "S1 S2"),
    (Guard::Backdate, models::skew_and_expiry, "S1 S2"),
    (Guard::LeafCap, models::issuer_ends, "S1 S2"),
    (Guard::TimeBudget, models::skew_and_expiry, "S11"),
    (Guard::OneChange, models::crashes, "S5"),
    (Guard::Epoch, models::crashes, "S5"),
    (Guard::TaintStopsSigning, models::emergency, "S9"),
    (Guard::TaintedBridge, models::bridges, "S9"),
    (Guard::RevertKeepsBoth, models::operator, "S3 S8"),
    (Guard::OverrideNames, models::blind_override, "O1"),
    (Guard::OverrideQuorum, models::blind_override, "O2"),
    (Guard::Paused, models::operator, "P1"),
    (Guard::RestoreLedger, models::restored, "S14"),
    (Guard::RestoreSigning, models::restored, "S3"),
    (Guard::RestoreQuiet, models::restored, "S10"),
    (Guard::UndoneByGates, models::restored_abort, "S14"),
    (Guard::BridgeServed, models::bridges, "S1 S2"),
    (Guard::Newest, models::late_emergency, "S6"),
    (Guard::BridgeEnding, models::bridge_ends, "S2"),
    (Guard::Drift, models::forgery, "D1"),
    (Guard::Undeclared, models::undeclared, "S1 S2"),
    (Guard::IssuerVerified, models::bad_issuer, "S1 S2"),
    (Guard::SigningLease, models::normal_path, "S14"),
    (Guard::RestoreSigner, models::restored_emergency, "S4"),
    (Guard::TaintRemembered, models::cornered, "S9"),
    (Guard::AbandonedLeave, models::cornered, "S3"),
    (Guard::LeafAsGiven, models::late_emergency, "S3"),
    (Guard::RestoreKeepsAll, models::restored_emergency, "S3"),
    (Guard::RestoreGeneration, models::restored, "S10"),
    (Guard::LivesAsMade, models::configured, "S14"),
];

/// A duty of a process that is not done, likewise.
type Neglect = (Duty, fn() -> Scenario, &'static str);

const NEGLECTED: &[Neglect] = &[
    (Duty::AllParts, models::normal_path, "S15"),
    (Duty::PinnedKey, models::forgery, "S1 S2 S13"),
    (Duty::Upwards, models::forgery, "S10"),
    (Duty::StopAtLease, models::leaves, "S14"),
    (Duty::BoundedStep, models::leap, "N1"),
];

/// The name of each mutant, and the invariants that fall first.
pub(super) fn all() -> impl Iterator<Item = (String, &'static str)> {
    let guards = MUTANTS
        .iter()
        .map(|(guard, _, by)| (format!("{guard:?}"), *by));
    let duties = NEGLECTED
        .iter()
        .map(|(duty, _, by)| (format!("{duty:?}"), *by));
    guards.chain(duties)
}

/// Every fourth mutant, so that several are looked at at a time.
fn every_fourth_falls(from: usize) {
    let results = MUTANTS
        .iter()
        .skip(from)
        .step_by(4)
        .map(|(guard, model, by)| falls(&format!("{guard:?}"), &model().without(*guard), by));
    let survivors: Vec<String> = results.filter_map(Result::err).collect();
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}

#[test]
fn every_guard_is_needed_1() {
    every_fourth_falls(0);
}

#[test]
fn every_guard_is_needed_2() {
    every_fourth_falls(1);
}

#[test]
fn every_guard_is_needed_3() {
    every_fourth_falls(2);
}

#[test]
fn every_guard_is_needed_4() {
    every_fourth_falls(3);
}

#[test]
fn every_duty_of_a_process_is_needed() {
    let results = NEGLECTED
        .iter()
        .map(|(duty, model, by)| falls(&format!("{duty:?}"), &model().neglecting(*duty), by));
    let survivors: Vec<String> = results.filter_map(Result::err).collect();
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}
