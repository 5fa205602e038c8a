//! The same models with one guard taken away: each must fall, and by the invariant that the guard is for.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::models;
use super::scenario::{Duty, Scenario};
use crate::guard::Guard;

/// Looks for counterexamples: the invariants that fell, each with the steps to it.
fn fall(scenario: Scenario) -> Vec<(String, Vec<String>)> {
    let checker = scenario
        .checker()
        .threads(1)
        .target_state_count(1_500_000)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker
        .discoveries()
        .into_iter()
        .filter(|(property, _)| *property != "a run completes");
    let mut found: Vec<_> = found
        .map(|(property, path)| {
            let broken = path.last_state().broken.filter(|_| property == "step");
            let steps: Vec<String> = path
                .into_actions()
                .iter()
                .map(|step| format!("{step:?}"))
                .collect();
            (broken.unwrap_or(property).to_owned(), steps)
        })
        .collect();
    found.sort_by_key(|(_, steps)| steps.len());
    found
}

fn falls(name: &str, scenario: Scenario, by: &str) -> Result<(), String> {
    let model = scenario.name;
    let began = Instant::now();
    let fell = fall(scenario);
    let meant = |(property, _): &&(String, Vec<String>)| {
        by.split(' ')
            .any(|number| property.split(':').next() == Some(number))
    };
    let Some((property, steps)) = fell.iter().find(meant) else {
        let others: Vec<&String> = fell.iter().map(|(property, _)| property).collect();
        return Err(format!(
            "{name} ({model}): {by} did not fall; {others:?} did, {:.1?}",
            began.elapsed()
        ));
    };
    println!(
        "{name} ({model}): {property}, {:.1?}\n    {}",
        began.elapsed(),
        steps.join("\n    ")
    );
    Ok(())
}

/// A guard, the model that falls without it, and the invariants of which one falls first.
type Mutant = (Guard, fn() -> Scenario, &'static str);

const MUTANTS: &[Mutant] = &[
    (Guard::TrustBeforeIssue, models::normal_path, "S1 S2"),
    (Guard::DigestOfLoaded, models::forgery, "S1 S2"),
    (Guard::Freshness, models::offline, "S6"),
    (Guard::Incarnation, models::replay, "S2 S15 S6"),
    (Guard::Authenticated, models::forgery, "S2 S15"),
    (Guard::NoAnnotations, models::forgery, "S2 S15"),
    (Guard::ProbeStartOnly, models::start_only, "S1 S2 S6"),
    (Guard::Inventory, models::crashes, "S1 S2 S6"),
    (Guard::SilentBlocks, models::offline, "S1 S2 S6"),
    (Guard::ClusterBarrier, models::two_clusters, "S1 S2 S4"),
    (Guard::PublishedEverywhere, models::empty_cluster, "S4"),
    (Guard::ClusterHeard, models::empty_cluster, "S6"),
    (Guard::Admission, models::offline, "S1 S2"),
    (Guard::QuarantineCertify, models::offline, "S12"),
    (Guard::RejoinBundle, models::offline, "L2"),
    (Guard::RejoinAfresh, models::blind_override, "S1 S2 S3 S14"),
    (Guard::LapseOnRecord, models::offline, "S12 S6"),
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
    (Guard::RevertKeepsBoth, models::operator, "S8 S3"),
    (Guard::OverrideNames, models::blind_override, "O1"),
    (Guard::OverrideQuorum, models::blind_override, "O2"),
    (Guard::Paused, models::operator, "P1"),
    (Guard::RestoreLedger, models::restored, "S3 S14"),
    (Guard::RestoreSigning, models::restored, "S1 S2 S3"),
    (Guard::RestoreQuiet, models::restored, "S10"),
    (Guard::UndoneByGates, models::restored_abort, "S14 S3"),
    (Guard::BridgeServed, models::bridges, "S1 S2"),
    (Guard::Newest, models::late_emergency, "S6"),
    (Guard::BridgeEnding, models::bridge_ends, "S2"),
    (Guard::Drift, models::forgery, "D1"),
    (Guard::Undeclared, models::undeclared, "S1 S2 S6"),
    (Guard::IssuerVerified, models::bad_issuer, "S1 S2"),
    (Guard::SigningLease, models::normal_path, "S14"),
    (Guard::RestoreSigner, models::restored_emergency, "S4"),
    (Guard::TaintRemembered, models::cornered, "S9"),
    (Guard::AbandonedLeave, models::cornered, "S3"),
    (Guard::LeafAsGiven, models::late_emergency, "S3 S8"),
    (Guard::RestoreKeepsAll, models::restored_emergency, "S3 S4"),
    (Guard::RestoreGeneration, models::restored, "L S10"),
];

/// A duty of a process that is not done, likewise.
type Neglect = (Duty, fn() -> Scenario, &'static str);

const NEGLECTED: &[Neglect] = &[
    (Duty::AllParts, models::normal_path, "S15"),
    (Duty::PinnedKey, models::forgery, "S13"),
    (Duty::Upwards, models::forgery, "S10"),
    (Duty::StopAtLease, models::leaves, "S14"),
    (Duty::BoundedStep, models::leap, "S2"),
];

/// The name of each mutant, and the invariants of which one falls.
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
        .map(|(guard, model, by)| falls(&format!("{guard:?}"), model().without(*guard), by));
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
        .map(|(duty, model, by)| falls(&format!("{duty:?}"), model().neglecting(*duty), by));
    let survivors: Vec<String> = results.filter_map(Result::err).collect();
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}
