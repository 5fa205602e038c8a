use std::time::Instant;

use e2e::{MESH, Network, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{AbortTrust, RotateTrust};

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, phase};

/// Aborted when everybody has a leaf of the new anchor already: the sides change places, and it goes back by the same gates.
#[test]
fn when_everybody_has_a_leaf_of_the_new_anchor() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, "leafLifetime: 10s");
    let processes = fleet.processes();
    let mut traffic = fleet.load(20, PATIENCE);
    let before = fleet.mesh.trust();
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
    let midway = fleet
        .mesh
        .wait_trust("everybody has a new leaf", PATIENCE, |trust| {
            phase(trust) == "drain"
        });
    assert_eq!(midway.anchors.len(), 2, "{:?}", midway.anchors);
    traffic.renew_conversations();
    let began = Instant::now();
    assert_eq!(fleet.mesh.change_trust(Word::Abort(AbortTrust {})), Ok(()));
    let mode = fleet.mesh.trust().change.unwrap_or_default().mode;
    assert_eq!(mode, "reverting");
    let after = fleet.wait_ended(&mut traffic);
    let took = began.elapsed();
    assert_eq!(after.last_outcome, "safely aborted");
    assert_eq!(anchor_in_use(&after), anchor_in_use(&before));
    assert!(after.generation > midway.generation, "never back");
    assert_eq!(after.quarantined, [""; 0]);
    let sent = traffic.stop_without_failure();
    assert_eq!(fleet.counted("trust_connections_cut_total"), 0);
    assert_eq!(processes, fleet.processes(), "nothing was started again");
    println!("aborted in `drain`, back after {took:.1?}: 0 failures of {sent}");
}
