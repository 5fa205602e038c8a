//! The models. Each names its bounds; each is explored to the end.
//!
//! Common to all: a second is the unit of time, leaves live two, evidence is fresh for one, leases last two (consumers) or one
//! (signers); messages last two seconds. Whoever can be reached acts within a second, in any order; who is slower than that is offline, or its cluster
//! is cut off, for as long as it pleases. `horizon` is how many seconds a run has; faults are counted in `Budget`.

use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use super::scenario::{Budget, Scenario, Spec};
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

/// A canary of two workers, a workload with a connection, a controller.
pub(super) fn normal_path() -> Scenario {
    let mut scenario = Scenario::new(
        "normal path",
        vec![
            Spec::new("canary").canary().workers(2),
            Spec::new("web").fails(),
            Spec::new("control").class(Class::ControlPlane),
        ],
    );
    scenario.horizon = 5;
    scenario.budget = Budget {
        connect: 1,
        ..Budget::default()
    };
    scenario
}

/// An operator changes their mind at any time.
pub(super) fn operator() -> Scenario {
    let mut scenario = Scenario::new(
        "operator",
        vec![Spec::new("canary").canary(), Spec::new("web")],
    );
    scenario.horizon = 7;
    scenario.budget = Budget {
        abort: 1,
        pause: 1,
        ..Budget::default()
    };
    scenario
}

/// Two clusters; evidence is lost, repeated and late; the second cluster may be cut off.
pub(super) fn two_clusters() -> Scenario {
    let mut scenario = Scenario::new(
        "two clusters",
        vec![Spec::new("east-1"), Spec::new("west-1").at(1).fails()],
    );
    scenario.network = true;
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 2;
    scenario.budget = Budget {
        cut: 1,
        ..Budget::default()
    };
    scenario
}

/// Two clusters, the second one without any consumer; a consumer that the record learns of from the first one's list.
pub(super) fn empty_cluster() -> Scenario {
    let mut scenario = Scenario::new(
        "empty cluster",
        vec![Spec::new("east-1"), Spec::new("east-2").hidden()],
    );
    scenario.clusters = 2;
    scenario.horizon = 5;
    scenario.budget = Budget {
        cut: 1,
        ..Budget::default()
    };
    scenario
}

/// A machine that goes offline or a cluster that is cut off while trust is held for a while.
pub(super) fn held() -> Scenario {
    let mut scenario = Scenario::new("held", vec![Spec::new("east-1").fails()]);
    scenario.clusters = 2;
    scenario.settings.trust_hold = Duration::from_secs(2);
    scenario.settings.consumer_lease = Duration::from_secs(6);
    scenario.horizon = 6;
    scenario.budget = Budget {
        cut: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// Every write, action and confirmation is a step; a crash is that the next one does not come, and that what is due is done
/// again. Another controller still believes to lead; a second change is started.
pub(super) fn crashes() -> Scenario {
    let mut scenario = Scenario::new(
        "crashes",
        vec![Spec::new("canary").canary(), Spec::new("web").hidden()],
    );
    scenario.stepwise = true;
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 2;
    scenario.budget = Budget {
        zombie: 1,
        second_start: 1,
        ..Budget::default()
    };
    scenario
}

/// The same, of workloads with connections and session tickets.
pub(super) fn tickets() -> Scenario {
    let mut scenario = Scenario::new("tickets", vec![Spec::new("web"), Spec::new("db")]);
    scenario.stepwise = true;
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 2;
    scenario.budget = Budget {
        connect: 1,
        ..Budget::default()
    };
    scenario
}

/// A machine that goes offline and comes back, or is started again from an old template.
pub(super) fn offline() -> Scenario {
    let mut scenario = Scenario::new("offline", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.horizon = 6;
    scenario.budget = Budget {
        offline: 1,
        stale: 1,
        ..Budget::default()
    };
    scenario
}

/// A machine that is declared gone and is not; leaves signed on a lease without asking; a machine slow to renew.
pub(super) fn leaves() -> Scenario {
    let mut scenario = Scenario::new("leaves", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.settings.signing_lease = Duration::from_secs(2);
    scenario.horizon = 6;
    scenario.budget = Budget {
        leave: 1,
        detached: 1,
        lazy: 1,
        ..Budget::default()
    };
    scenario
}

/// A leaf signed on a lease by a signer that is not to sign any more, and a connection that is opened with it.
pub(super) fn late_signer() -> Scenario {
    let mut scenario = Scenario::new("late signer", vec![Spec::new("web").fails()]);
    scenario.settings.signing_lease = Duration::from_secs(2);
    scenario.settings.freshness = Duration::from_secs(4);
    scenario.settings.consumer_lease = Duration::from_secs(6);
    scenario.horizon = 6;
    scenario.prompt = false;
    scenario.budget = Budget {
        detached: 1,
        connect: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// An operator who has leaves live a third as long, and takes that back; a leaf signed on a lease by who has not heard of it.
pub(super) fn configured() -> Scenario {
    let mut scenario = Scenario::new("configured", vec![Spec::new("web").fails()]);
    scenario.settings.signing_lease = Duration::from_secs(2);
    scenario.settings.leaf_life = Duration::from_secs(3);
    scenario.settings.consumer_lease = Duration::from_secs(3);
    let mut other = scenario.settings.clone();
    other.leaf_life = Duration::from_secs(1);
    other.signing_lease = Duration::from_secs(1);
    scenario.other_settings = Some(other);
    scenario.horizon = 6;
    scenario.budget = Budget {
        detached: 1,
        configure: 2,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// A machine with a controller beside it, started again from an old template.
pub(super) fn controller() -> Scenario {
    let mut scenario = Scenario::new(
        "controller",
        vec![
            Spec::new("vm").fails(),
            Spec::new("control").class(Class::ControlPlane),
        ],
    );
    scenario.horizon = 5;
    scenario.budget = Budget {
        stale: 1,
        abort: 1,
        ..Budget::default()
    };
    scenario
}

/// Clocks a second apart either way; a new anchor that begins late and ends early.
pub(super) fn skew_and_expiry() -> Scenario {
    let mut scenario = Scenario::new(
        "skew and expiry",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.skew = Duration::from_secs(1);
    scenario.settings.backdate = Duration::from_secs(1);
    scenario.settings.phase_budget = Duration::from_secs(1);
    scenario.horizon = 8;
    scenario.new_begins = 1;
    scenario.new_ends = 13;
    scenario.old_issuer_ends = 10;
    scenario.budget = Budget {
        leave: 1,
        pause: 1,
        ..Budget::default()
    };
    scenario
}

/// As before, with no budget of time, so that the old issuer ends within the model.
pub(super) fn issuer_ends() -> Scenario {
    let mut scenario = Scenario::new(
        "issuer ends",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.skew = Duration::from_secs(1);
    scenario.settings.backdate = Duration::from_secs(1);
    scenario.horizon = 6;
    scenario.old_issuer_ends = 4;
    scenario.budget = Budget {
        pause: 1,
        ..Budget::default()
    };
    scenario
}

/// Either anchor is found to be in other hands at any time; some are left behind.
pub(super) fn emergency() -> Scenario {
    let mut scenario = Scenario::new(
        "emergency",
        vec![Spec::new("canary").canary(), Spec::new("vm").fails()],
    );
    scenario.horizon = 3;
    scenario.budget = Budget {
        taint_from: 1,
        taint_to: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// An operator who would get past the gates of an emergency without naming anybody.
pub(super) fn blind_override() -> Scenario {
    let mut scenario = Scenario::new(
        "blind override",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.emergency_quorum = 60;
    scenario.horizon = 4;
    scenario.budget = Budget {
        taint_from: 1,
        overrides: 1,
        early_override: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// Both anchors are found to be in other hands, and a third one is proposed.
pub(super) fn cornered() -> Scenario {
    let mut scenario = Scenario::new("cornered", vec![Spec::new("web").fails()]);
    scenario.horizon = 3;
    scenario.budget = Budget {
        taint_from: 1,
        taint_to: 1,
        third: 1,
        again: 1,
        ..Budget::default()
    };
    scenario
}

/// No change is underway and a standby is at hand when the anchor in use is found to be in other hands.
pub(super) fn standby() -> Scenario {
    let mut scenario = Scenario::new("standby", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.standby = true;
    scenario.idle = true;
    scenario.horizon = 3;
    scenario.budget = Budget {
        taint_from: 1,
        overrides: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// A straggler carried by a cross-certificate that ends; the old anchor may be found in other hands.
pub(super) fn bridges() -> Scenario {
    let mut scenario = Scenario::new("bridges", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.settings.bridges = true;
    scenario.horizon = 6;
    scenario.bridge_ends = 4;
    scenario.settings.consumer_lease = Duration::from_secs(4);
    scenario.budget = Budget {
        carry: 1,
        offline: 1,
        taint_from: 1,
        ..Budget::default()
    };
    scenario
}

/// A proxy that reads roots only at start.
pub(super) fn start_only() -> Scenario {
    let mut scenario = Scenario::new(
        "start only",
        vec![
            Spec::new("web"),
            Spec::new("stock").class(Class::StartOnly).fails(),
        ],
    );
    scenario.horizon = 5;
    scenario.budget = Budget {
        stale: 1,
        ..Budget::default()
    };
    scenario
}

/// Evidence that is forged or stamped on; documents that are forged or played again; a bundle edited by hand.
pub(super) fn forgery() -> Scenario {
    let mut scenario = Scenario::new("forgery", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.prompt = false;
    scenario.horizon = 2;
    scenario.budget = Budget {
        forge: 1,
        annotate: 1,
        drift: 1,
        evil_document: 1,
        ..Budget::default()
    };
    scenario
}

/// Somebody who once had the bundle key would lock everybody out with a generation far ahead.
pub(super) fn leap() -> Scenario {
    let mut scenario = Scenario::new("leap", vec![Spec::new("web"), Spec::new("vm")]);
    scenario.horizon = 4;
    scenario.budget = Budget {
        leap: 2,
        ..Budget::default()
    };
    scenario
}

/// Somebody has a certificate of the mesh and is in no inventory until an operator puts it there, if ever.
pub(super) fn undeclared() -> Scenario {
    let mut scenario = Scenario::new(
        "undeclared",
        vec![Spec::new("web"), Spec::new("stranger").undeclared()],
    );
    scenario.horizon = 4;
    scenario
}

/// The key of the new issuers is not the one that their anchor certified.
pub(super) fn bad_issuer() -> Scenario {
    let mut scenario = Scenario::new("bad issuer", vec![Spec::new("web"), Spec::new("db")]);
    scenario.bad_issuer = true;
    scenario.horizon = 2;
    scenario.budget.abort = 1;
    scenario
}

/// Evidence that is up to two seconds late, while a change is turned back as its anchor is found in other hands.
pub(super) fn late_emergency() -> Scenario {
    let mut scenario = Scenario::new("late emergency", vec![Spec::new("vm").fails()]);
    scenario.network = true;
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 1;
    scenario.budget.taint_to = 1;
    scenario
}

/// A straggler that stays away while the cross-certificate that carries it ends, long before its lease does.
pub(super) fn bridge_ends() -> Scenario {
    let mut scenario = Scenario::new(
        "bridge ends",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.bridges = true;
    scenario.settings.consumer_lease = Duration::from_secs(8);
    scenario.horizon = 6;
    scenario.bridge_ends = 4;
    scenario.budget = Budget {
        carry: 1,
        offline: 1,
        ..Budget::default()
    };
    scenario
}

/// Evidence that is lost, repeated and played again after its sender was started anew.
pub(super) fn replay() -> Scenario {
    let mut scenario = Scenario::new("replay", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.network = true;
    scenario.horizon = 1;
    scenario.budget = Budget {
        stale: 1,
        ..Budget::default()
    };
    scenario
}

/// Evidence that is up to two seconds late, of a machine whose connections come and go.
pub(super) fn late() -> Scenario {
    let mut scenario = Scenario::new("late", vec![Spec::new("vm").fails()]);
    scenario.network = true;
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 2;
    scenario.budget = Budget {
        connect: 1,
        ..Budget::default()
    };
    scenario
}

/// The store is put back to any earlier record.
pub(super) fn restored() -> Scenario {
    let mut scenario = Scenario::new("restored", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.horizon = 6;
    scenario.budget = Budget {
        backup: 1,
        ..Budget::default()
    };
    scenario
}

/// The store is put back to any earlier record, and an operator aborts before that or after it.
pub(super) fn restored_abort() -> Scenario {
    let mut scenario = restored();
    scenario.name = "restored abort";
    scenario.specs.truncate(1);
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 4;
    scenario.budget.abort = 1;
    scenario
}

/// The store is put back to any earlier record, and either anchor is found to be in other hands, before that or after it.
pub(super) fn restored_emergency() -> Scenario {
    let mut scenario = restored();
    scenario.name = "restored emergency";
    scenario.specs.truncate(1);
    scenario.settings.leaf_life = Duration::from_secs(1);
    scenario.horizon = 3;
    scenario.budget.taint_from = 1;
    scenario.budget.taint_to = 1;
    scenario
}

/// The same of two workloads, for less long.
fn restored_emergency_of_two() -> Scenario {
    let mut scenario = restored_emergency();
    scenario.name = "restored emergency of two";
    scenario.specs.push(Spec::new("vm"));
    scenario.horizon = 1;
    scenario
}

/// Issuers are replaced under the same anchor.
pub(super) fn issuers() -> Scenario {
    let mut scenario = Scenario::new(
        "issuers",
        vec![
            Spec::new("canary").canary(),
            Spec::new("vm").fails(),
            Spec::new("west-1").at(1),
        ],
    );
    scenario.issuers_only = true;
    scenario.horizon = 5;
    scenario.budget = Budget {
        offline: 1,
        abort: 1,
        ..Budget::default()
    };
    scenario
}

macro_rules! models {
    ($($test:ident: $model:ident,)*) => {
        $(
            #[test]
            fn $test() {
                holds($model());
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
        let mut scenario = offline();
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
        let mut scenario = restored_emergency_of_two();
        scenario.name = "deeper: restored emergency";
        scenario.horizon = 2;
        holds_within(50_000_000, scenario);
    }

    /// Two clusters with a bad network, for a second longer, and an operator.
    #[test]
    #[ignore = "takes minutes"]
    fn two_clusters_with_a_bad_network_hold() {
        let mut scenario = two_clusters();
        scenario.name = "deeper: two clusters";
        scenario.horizon = 3;
        scenario.budget.abort = 1;
        holds_within(50_000_000, scenario);
    }

    /// Three workloads in an emergency: a canary, a controller, and a machine that goes offline.
    #[test]
    #[ignore = "takes minutes"]
    fn emergencies_hold() {
        let mut scenario = emergency();
        scenario.name = "deeper: emergency";
        scenario
            .specs
            .push(Spec::new("control").class(Class::ControlPlane));
        scenario.horizon = 2;
        scenario.budget.third = 1;
        holds_within(50_000_000, scenario);
    }
}
