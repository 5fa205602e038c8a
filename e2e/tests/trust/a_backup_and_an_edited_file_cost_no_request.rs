use std::time::{Duration, Instant, SystemTime};

use e2e::{MESH, Network, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{RestoredTrust, RotateTrust};
use mesh_tls::ca::Anchor;

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, counted, phase};

/// The store of a controller that was killed in the middle of a rotation is put back when that rotation has ended long ago. Who says so
/// has it learned from the proxies what is in force: no generation is given out twice, and nobody notices.
#[test]
#[ignore = "two minutes; and leaves of 30 s have to outlast the learning, which a machine with much else to do may not finish in time"]
fn from_the_middle_of_a_rotation() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, "leafLifetime: 30s");
    let processes = fleet.processes();
    let mut traffic = fleet.load(20, PATIENCE * 2);
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
    let (store, backup) = (fleet.mesh.data("state.redb"), fleet.mesh.data("backup"));
    let copied = fleet
        .mesh
        .wait_trust("certificates are changed", PATIENCE, |trust| {
            ["issue", "leaf converged", "drain"].contains(&phase(trust))
        });
    fleet.mesh.controller().kill();
    std::fs::copy(&store, &backup).unwrap();
    fleet.mesh.restart_controller();
    let rotated = fleet.wait_ended(&mut traffic);
    assert_eq!(rotated.last_outcome, "completed");
    assert!(rotated.generation > copied.generation);
    traffic.wait_ok(20);

    fleet.mesh.controller().kill();
    std::fs::copy(&backup, &store).unwrap();
    let began = Instant::now();
    fleet.mesh.restart_controller();
    let restored = Word::Restored(RestoredTrust {});
    assert_eq!(fleet.mesh.change_trust(restored), Ok(()));
    let learned = fleet.wait_ended(&mut traffic);
    let took = began.elapsed();
    assert_eq!(learned.last_outcome, "completed");
    assert!(learned.generation > rotated.generation, "none twice");
    assert_eq!(anchor_in_use(&learned), anchor_in_use(&rotated));
    assert_eq!(learned.quarantined, [""; 0]);
    let sent = traffic.stop_without_failure();
    for proxy in fleet.proxies() {
        let used = counted(proxy, "trust_bundle_generation");
        assert_eq!(used, learned.generation, "{}", proxy.host.role());
    }
    let proxies = fleet.size();
    assert_eq!(processes[..proxies], fleet.processes()[..proxies]);
    println!(
        "put back from `{}`: what is in force was learned and the rotation ended again in {took:.1?}: 0 failures of {sent}",
        phase(&copied)
    );
}

/// Somebody edits the file of anchors for who starts: it is put right, everybody is given the right anchors anew, and it is on record.
#[test]
fn edited_anchors_are_put_right() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, "leafLifetime: 10m");
    let mut traffic = fleet.load(20, PATIENCE);
    let before = fleet.mesh.trust();
    let path = fleet.mesh.data("anchors.pem");
    let right = std::fs::read_to_string(&path).unwrap();
    let life = Duration::from_secs(24 * 3600);
    let other = Anchor::generate("another", life, SystemTime::now()).unwrap();
    for wrong in [other.certificate_pem(), String::new(), "no PEM".to_owned()] {
        let generation = fleet.mesh.trust().generation;
        std::fs::write(&path, &wrong).unwrap();
        let after = fleet
            .mesh
            .wait_trust("it is given out anew", PATIENCE, |trust| {
                trust.generation > generation
            });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), right, "{wrong:?}");
        assert_eq!(anchor_in_use(&after), anchor_in_use(&before));
        assert_eq!(after.anchors.len(), 1);
    }
    let audit = std::fs::read_to_string(fleet.mesh.data("trust-audit.jsonl")).unwrap();
    assert!(audit.matches("\"served\"").count() >= 3, "{audit}");
    // Who joins now believes the right ones.
    let mut late = fleet.mesh.joining("late", "client", &[]);
    late.wait_ready();
    traffic.wait_ok(20);
    let (_, reports) = traffic.stop();
    for (_, report) in &reports {
        report.assert_no_failure(50);
    }
    assert_eq!(fleet.counted("trust_bundles_refused_total"), 0);
}
