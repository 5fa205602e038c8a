//! Each model is explored to its end, and holds.

use std::time::Instant;

use stateright::{Checker, Model};

use super::models;
use super::scenario::{Scenario, Spec};
use crate::Class;

/// The most states that a model may have.
const LIMIT: usize = 5_000_000;

/// Explores a model to the end, prints how much there was, and fails with the trace of what broke.
fn holds(scenario: Scenario) {
    holds_within(LIMIT, scenario);
}

fn holds_within(limit: usize, scenario: Scenario) {
    let (name, horizon) = (scenario.name, scenario.horizon);
    let began = Instant::now();
    let checker = scenario
        .checker()
        .threads(2)
        .target_state_count(4 * limit)
        .spawn_bfs()
        .join();
    println!(
        "{name}: {} states, {} steps, depth {}, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for (property, path) in checker.discoveries() {
        if property == "a run completes" {
            continue;
        }
        let last = path.last_state().clone();
        let steps: Vec<String> = path
            .into_actions()
            .iter()
            .map(|step| format!("{step:?}"))
            .collect();
        panic!(
            "{name}: {property} {:?}\n{}\n{:#?}",
            last.broken,
            steps.join("\n"),
            last
        );
    }
    // Steps are counted too, and end an exploration that would not.
    let (states, steps) = (checker.unique_state_count(), checker.state_count());
    assert!(states < limit && steps < 4 * limit, "{name} is too large");
    if horizon >= 4 {
        checker.assert_any_discovery("a run completes");
    }
}

macro_rules! models {
    ($($test:ident: $model:ident,)*) => {
        $(
            #[test]
            fn $test() {
                holds(models::$model());
            }
        )*
    };
}

models! {
    the_normal_path_holds: normal_path,
    an_operator_who_changes_their_mind_holds: operator,
    two_clusters_with_a_bad_network_hold: two_clusters,
    a_cluster_without_consumers_holds: empty_cluster,
    faults_while_trust_is_held_hold: held,
    crashes_between_any_two_steps_hold: crashes,
    crashes_with_session_tickets_hold: tickets,
    offline_machines_hold: offline,
    leaves_and_leases_hold: leaves,
    settings_that_change_hold: configured,
    signers_that_hear_late_hold: late_signer,
    controllers_hold: controller,
    skew_and_expiry_hold: skew_and_expiry,
    an_issuer_that_ends_holds: issuer_ends,
    emergencies_hold: emergency,
    blind_overrides_hold: blind_override,
    both_anchors_in_other_hands_hold: cornered,
    a_standby_holds: standby,
    bridges_hold: bridges,
    start_only_consumers_hold: start_only,
    forged_evidence_and_documents_hold: forgery,
    replayed_evidence_holds: replay,
    late_evidence_holds: late,
    late_evidence_in_an_emergency_holds: late_emergency,
    generations_far_ahead_hold: leap,
    who_is_in_no_inventory_holds: undeclared,
    an_issuer_that_does_not_fit_holds: bad_issuer,
    a_cross_certificate_that_ends_holds: bridge_ends,
    a_restored_store_holds: restored,
    a_store_restored_in_an_emergency_holds: restored_emergency,
    a_store_restored_around_an_abort_holds: restored_abort,
    a_store_of_two_restored_in_an_emergency_holds: restored_emergency_of_two,
    a_change_of_issuers_holds: issuers,
}

/// Deeper: `cargo test -p mesh-trust-rotation --lib deeper -- --ignored --nocapture --test-threads 1`. What it found on one
/// machine is in `docs/why-it-is-safe.md`.
mod deeper {
    use super::*;

    /// Three workloads, of which one fails three times.
    #[test]
    #[ignore = "takes minutes"]
    fn offline_machines_hold() {
        let mut scenario = models::offline();
        scenario.name = "deeper: offline";
        scenario.specs.push(Spec::new("canary").canary());
        scenario.horizon = 7;
        scenario.budget.leave = 1;
        holds_within(50_000_000, scenario);
    }

    /// Two workloads, a store restored in an emergency, and time for leaves to end in it.
    #[test]
    #[ignore = "takes minutes"]
    fn a_store_restored_in_an_emergency_holds() {
        let mut scenario = models::restored_emergency_of_two();
        scenario.name = "deeper: restored emergency";
        scenario.horizon = 2;
        holds_within(50_000_000, scenario);
    }

    /// Two clusters with a bad network, for a second longer, and an operator.
    #[test]
    #[ignore = "takes minutes"]
    fn two_clusters_with_a_bad_network_hold() {
        let mut scenario = models::two_clusters();
        scenario.name = "deeper: two clusters";
        scenario.horizon = 3;
        scenario.budget.abort = 1;
        holds_within(50_000_000, scenario);
    }

    /// Three workloads in an emergency: a canary, a controller, and a machine that goes offline.
    #[test]
    #[ignore = "takes minutes"]
    fn emergencies_hold() {
        let mut scenario = models::emergency();
        scenario.name = "deeper: emergency";
        scenario
            .specs
            .push(Spec::new("control").class(Class::ControlPlane));
        scenario.horizon = 2;
        scenario.budget.third = 1;
        holds_within(50_000_000, scenario);
    }
}
