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

macro_rules! mutants {
    ($($guard:ident in $model:ident: $by:literal,)*) => {
        #[test]
        fn every_guard_is_needed() {
            let results = [
                $(falls(stringify!($guard), models::$model().without(Guard::$guard), $by),)*
            ];
            let survivors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
            assert!(survivors.is_empty(), "{}", survivors.join("\n"));
        }
    };
}

mutants! {
    TrustBeforeIssue in normal_path: "S1 S2",
    DigestOfLoaded in forgery: "S1 S2",
    Freshness in offline: "S6",
    Incarnation in replay: "S2 S15 S6",
    Authenticated in forgery: "S2 S15",
    NoAnnotations in forgery: "S2 S15",
    ProbeStartOnly in start_only: "S1 S2 S6",
    Inventory in crashes: "S1 S2 S6",
    SilentBlocks in offline: "S1 S2 S6",
    ClusterBarrier in two_clusters: "S1 S2 S4",
    PublishedEverywhere in empty_cluster: "S4",
    ClusterHeard in empty_cluster: "S6",
    Admission in offline: "S1 S2",
    QuarantineCertify in offline: "S12",
    RejoinBundle in offline: "L2",
    RejoinAfresh in blind_override: "S1 S2 S3 S14",
    LapseOnRecord in offline: "S12 S6",
    CanarySigning in normal_path: "C1",
    CanaryRetirement in normal_path: "C2",
    LeafConverged in leaves: "S3",
    LedgerEntered in skew_and_expiry: "S3",
    LedgerLease in leaves: "S3",
    RetireSkew in skew_and_expiry: "S3",
    LedgerBeforeRelease in normal_path: "S14",
    Tickets in tickets: "S3",
    TicketsAfterLeaves in normal_path: "S3",
    Connections in normal_path: "S3",
    ControllerLast in controller: "S16",
    SignerPublished in crashes: "S4",
    NotBefore in skew_and_expiry: "S1 S2",
    Backdate in skew_and_expiry: "S1 S2",
    LeafCap in issuer_ends: "S1 S2",
    TimeBudget in skew_and_expiry: "S11",
    OneChange in crashes: "S5",
    Epoch in crashes: "S5",
    TaintStopsSigning in emergency: "S9",
    TaintedBridge in bridges: "S9",
    RevertKeepsBoth in operator: "S8 S3",
    OverrideNames in blind_override: "O1",
    OverrideQuorum in blind_override: "O2",
    Paused in operator: "P1",
    RestoreLedger in restored: "S3 S14",
    RestoreSigning in restored: "S1 S2",
    BridgeServed in bridges: "S1 S2",
}

#[test]
fn a_generation_learned_anew_is_needed_to_go_on() {
    let mut scenario = models::restored().without(Guard::RestoreGeneration);
    scenario.liveness = true;
    falls("RestoreGeneration", scenario, "L").unwrap();
}

#[test]
fn every_duty_of_a_process_is_needed() {
    let results = [
        falls(
            "AllParts",
            models::normal_path().neglecting(Duty::AllParts),
            "S15",
        ),
        falls(
            "PinnedKey",
            models::forgery().neglecting(Duty::PinnedKey),
            "S13",
        ),
        falls(
            "Upwards",
            models::forgery().neglecting(Duty::Upwards),
            "S10",
        ),
        falls(
            "StopAtLease",
            models::leaves().neglecting(Duty::StopAtLease),
            "S14",
        ),
    ];
    let survivors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}
