use std::time::{Duration, SystemTime};

use e2e::{MESH, Network, require};

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, has_conversations, is_of_old_connection};

/// Anchors of two minutes, which are replaced by themselves. Conversations hold the change up until the anchor that it replaces ends,
/// and its issuer with it: nothing but those conversations is in the way then, everything else goes on, and so does the change
/// once they have ended.
#[test]
#[ignore = "two minutes and a half: an anchor's life"]
fn nor_does_its_issuer() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let spec = "leafLifetime: 10s\nrotation: {anchorLifetime: 120s, anchorMargin: 56s, issuerLifetime: 120s, issuerMargin: 56s, phaseBudget: 5s}";
    let mut fleet = Fleet::start(&network, 2, spec);
    let processes = fleet.processes();
    let first = fleet.mesh.trust();
    let ends = first.anchors.first().and_then(|anchor| anchor.not_after);
    let ends = SystemTime::try_from(ends.expect("it ends")).unwrap();
    let mut traffic = fleet.load(20, PATIENCE * 3);
    let only_conversations = |trust: &mesh_control_api::admin::Trust| {
        let of = |one: &_| is_of_old_connection(one) && has_conversations(one);
        !trust.blockers.is_empty() && trust.blockers.iter().all(of)
    };
    fleet.mesh.wait_trust(
        "only conversations are in the way",
        PATIENCE,
        &only_conversations,
    );
    assert!(SystemTime::now() < ends, "it began in time");
    let after = ends + Duration::from_secs(5);
    let held = fleet
        .mesh
        .wait_trust("the anchor has ended", PATIENCE, |_| {
            SystemTime::now() > after
        });
    assert!(only_conversations(&held), "{:?}", held.blockers);
    traffic.wait_ok(20);
    traffic.renew_conversations();
    let gone = anchor_in_use(&first);
    let done = fleet.mesh.wait_trust("it has gone", PATIENCE, |trust| {
        trust.anchors.iter().all(|anchor| anchor.id != gone)
    });
    assert_eq!(done.quarantined, [""; 0]);
    let sent = traffic.stop_without_failure();
    assert_eq!(fleet.counted("trust_connections_cut_total"), 0);
    assert_eq!(processes, fleet.processes(), "nothing was started again");
    println!(
        "an anchor and its issuer ended in the middle of their replacement: 0 failures of {sent}"
    );
}
