//! The models: each names its bounds, and is explored to its end.
//!
//! Common to all: a second is the unit of time, leaves live two, evidence is fresh for one, leases last two (consumers) or one
//! (signers); messages last two seconds. Whoever can be reached acts within a second, in any order; who is slower than that is offline, or its cluster
//! is cut off, for as long as it pleases. `horizon` is how many seconds a run has; faults are counted in `Budget`.

use std::time::Duration;

use super::scenario::{Scenario, Spec};
use crate::Class;

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
    scenario.budget.connect = 1;
    scenario
}

/// An operator changes their mind at any time.
pub(super) fn operator() -> Scenario {
    let mut scenario = Scenario::new(
        "operator",
        vec![Spec::new("canary").canary(), Spec::new("web")],
    );
    scenario.horizon = 7;
    scenario.budget.abort = 1;
    scenario.budget.pause = 1;
    scenario
}

/// Two clusters; evidence is lost, repeated and late; the second cluster may be cut off.
pub(super) fn two_clusters() -> Scenario {
    let mut scenario = Scenario::new(
        "two clusters",
        vec![Spec::new("east-1"), Spec::new("west-1").at(1).fails()],
    );
    scenario.network = true;
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 2;
    scenario.budget.cut = 1;
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
    scenario.budget.cut = 1;
    scenario
}

/// A machine that goes offline or a cluster that is cut off while trust is held for a while.
pub(super) fn held() -> Scenario {
    let mut scenario = Scenario::new("held", vec![Spec::new("east-1").fails()]);
    scenario.clusters = 2;
    scenario.settings.trust_hold = seconds(2);
    scenario.settings.consumer_lease = seconds(6);
    scenario.horizon = 6;
    scenario.budget.cut = 1;
    scenario.budget.offline = 1;
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
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 2;
    scenario.budget.zombie = 1;
    scenario.budget.second_start = 1;
    scenario
}

/// The same, of workloads with connections and session tickets.
pub(super) fn tickets() -> Scenario {
    let mut scenario = Scenario::new("tickets", vec![Spec::new("web"), Spec::new("db")]);
    scenario.stepwise = true;
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 2;
    scenario.budget.connect = 1;
    scenario
}

/// A machine that goes offline and comes back, or is started again from an old template.
pub(super) fn offline() -> Scenario {
    let mut scenario = Scenario::new("offline", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.horizon = 6;
    scenario.budget.offline = 1;
    scenario.budget.stale = 1;
    scenario
}

/// A machine that is declared gone and is not; leaves signed on a lease without asking; a machine slow to renew.
pub(super) fn leaves() -> Scenario {
    let mut scenario = Scenario::new("leaves", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.settings.signing_lease = seconds(2);
    scenario.horizon = 6;
    scenario.budget.leave = 1;
    scenario.budget.detached = 1;
    scenario.budget.lazy = 1;
    scenario
}

/// A leaf signed on a lease by a signer that is not to sign any more, and a connection that is opened with it.
pub(super) fn late_signer() -> Scenario {
    let mut scenario = Scenario::new("late signer", vec![Spec::new("web").fails()]);
    scenario.settings.signing_lease = seconds(2);
    scenario.settings.freshness = seconds(4);
    scenario.settings.consumer_lease = seconds(6);
    scenario.horizon = 6;
    scenario.prompt = false;
    scenario.budget.detached = 1;
    scenario.budget.connect = 1;
    scenario.budget.offline = 1;
    scenario
}

/// An operator who has leaves live a third as long, and takes that back; a leaf signed on a lease by who has not heard of it.
pub(super) fn configured() -> Scenario {
    let mut scenario = Scenario::new("configured", vec![Spec::new("web").fails()]);
    scenario.settings.signing_lease = seconds(2);
    scenario.settings.leaf_life = seconds(3);
    scenario.settings.consumer_lease = seconds(3);
    let mut other = scenario.settings.clone();
    other.leaf_life = seconds(1);
    other.signing_lease = seconds(1);
    scenario.other_settings = Some(other);
    scenario.horizon = 6;
    scenario.budget.detached = 1;
    scenario.budget.configure = 2;
    scenario.budget.offline = 1;
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
    scenario.budget.stale = 1;
    scenario.budget.abort = 1;
    scenario
}

/// Clocks a second apart either way; a new anchor that begins late and ends early.
pub(super) fn skew_and_expiry() -> Scenario {
    let mut scenario = Scenario::new(
        "skew and expiry",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.skew = seconds(1);
    scenario.settings.backdate = seconds(1);
    scenario.settings.phase_budget = seconds(1);
    scenario.horizon = 8;
    scenario.new_begins = 1;
    scenario.new_ends = 13;
    scenario.old_issuer_ends = 10;
    scenario.budget.leave = 1;
    scenario.budget.pause = 1;
    scenario
}

/// As before, with no budget of time, so that the old issuer ends within the model.
pub(super) fn issuer_ends() -> Scenario {
    let mut scenario = Scenario::new(
        "issuer ends",
        vec![Spec::new("web"), Spec::new("vm").fails()],
    );
    scenario.settings.skew = seconds(1);
    scenario.settings.backdate = seconds(1);
    scenario.horizon = 6;
    scenario.old_issuer_ends = 4;
    scenario.budget.pause = 1;
    scenario
}

/// Either anchor is found to be in other hands at any time; some are left behind.
pub(super) fn emergency() -> Scenario {
    let mut scenario = Scenario::new(
        "emergency",
        vec![Spec::new("canary").canary(), Spec::new("vm").fails()],
    );
    scenario.horizon = 3;
    scenario.budget.taint_from = 1;
    scenario.budget.taint_to = 1;
    scenario.budget.offline = 1;
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
    scenario.budget.taint_from = 1;
    scenario.budget.overrides = 1;
    scenario.budget.early_override = 1;
    scenario.budget.offline = 1;
    scenario
}

/// Both anchors are found to be in other hands, and a third one is proposed.
pub(super) fn cornered() -> Scenario {
    let mut scenario = Scenario::new("cornered", vec![Spec::new("web").fails()]);
    scenario.horizon = 3;
    scenario.budget.taint_from = 1;
    scenario.budget.taint_to = 1;
    scenario.budget.third = 1;
    scenario.budget.again = 1;
    scenario
}

/// No change is underway and a standby is at hand when the anchor in use is found to be in other hands.
pub(super) fn standby() -> Scenario {
    let mut scenario = Scenario::new("standby", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.standby = true;
    scenario.idle = true;
    scenario.horizon = 3;
    scenario.budget.taint_from = 1;
    scenario.budget.overrides = 1;
    scenario.budget.offline = 1;
    scenario
}

/// A straggler carried by a cross-certificate that ends; the old anchor may be found in other hands.
pub(super) fn bridges() -> Scenario {
    let mut scenario = Scenario::new("bridges", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.settings.bridges = true;
    scenario.horizon = 6;
    scenario.bridge_ends = 4;
    scenario.settings.consumer_lease = seconds(4);
    scenario.budget.carry = 1;
    scenario.budget.offline = 1;
    scenario.budget.taint_from = 1;
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
    scenario.budget.stale = 1;
    scenario
}

/// Evidence that is forged or stamped on; documents that are forged or played again; a bundle edited by hand.
pub(super) fn forgery() -> Scenario {
    let mut scenario = Scenario::new("forgery", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.prompt = false;
    scenario.horizon = 2;
    scenario.budget.forge = 1;
    scenario.budget.annotate = 1;
    scenario.budget.drift = 1;
    scenario.budget.evil_document = 1;
    scenario
}

/// Somebody who once had the bundle key would lock everybody out with a generation far ahead.
pub(super) fn leap() -> Scenario {
    let mut scenario = Scenario::new("leap", vec![Spec::new("web"), Spec::new("vm")]);
    scenario.horizon = 4;
    scenario.budget.leap = 2;
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
    scenario.settings.leaf_life = seconds(1);
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
    scenario.settings.consumer_lease = seconds(8);
    scenario.horizon = 6;
    scenario.bridge_ends = 4;
    scenario.budget.carry = 1;
    scenario.budget.offline = 1;
    scenario
}

/// Evidence that is lost, repeated and played again after its sender was started anew.
pub(super) fn replay() -> Scenario {
    let mut scenario = Scenario::new("replay", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.network = true;
    scenario.horizon = 1;
    scenario.budget.stale = 1;
    scenario
}

/// Evidence that is up to two seconds late, of a machine whose connections come and go.
pub(super) fn late() -> Scenario {
    let mut scenario = Scenario::new("late", vec![Spec::new("vm").fails()]);
    scenario.network = true;
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 2;
    scenario.budget.connect = 1;
    scenario
}

/// The store is put back to any earlier record.
pub(super) fn restored() -> Scenario {
    let mut scenario = Scenario::new("restored", vec![Spec::new("web"), Spec::new("vm").fails()]);
    scenario.horizon = 6;
    scenario.budget.backup = 1;
    scenario
}

/// The store is put back to any earlier record, and an operator aborts before that or after it.
pub(super) fn restored_abort() -> Scenario {
    let mut scenario = restored();
    scenario.name = "restored abort";
    scenario.specs.truncate(1);
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 4;
    scenario.budget.abort = 1;
    scenario
}

/// The store is put back to any earlier record, and either anchor is found to be in other hands, before that or after it.
pub(super) fn restored_emergency() -> Scenario {
    let mut scenario = restored();
    scenario.name = "restored emergency";
    scenario.specs.truncate(1);
    scenario.settings.leaf_life = seconds(1);
    scenario.horizon = 3;
    scenario.budget.taint_from = 1;
    scenario.budget.taint_to = 1;
    scenario
}

/// The same of two workloads, for less long.
pub(super) fn restored_emergency_of_two() -> Scenario {
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
    scenario.budget.offline = 1;
    scenario.budget.abort = 1;
    scenario
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
