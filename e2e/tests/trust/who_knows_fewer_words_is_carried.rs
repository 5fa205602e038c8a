use std::time::{Duration, Instant};

use e2e::{MESH, Network, identity, require};
use mesh_control_api::admin::RotateTrust;
use mesh_control_api::admin::change_trust_request::Word;

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, phase};

/// Beside proxies there is somebody who has only the first words of `mesh.trust.v1`: it does not say what time it has, answers no
/// probe, and passes over orders that it does not know. It is waited for as anybody else, gets every bundle and a certificate of the
/// new issuer, and is in nobody's way.
#[test]
fn through_a_rotation_beside_proxies_that_know_all() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let fleet = Fleet::start(&network, 2, "leafLifetime: 10s");
    let host = network.host("elder");
    let name = identity("elder");
    let mut elder = fleet.mesh.elder(&host, &name);
    let everybody = fleet.size() as u64 + 2;
    let before =
        fleet
            .mesh
            .wait_trust("it is one of those who are waited for", PATIENCE, |trust| {
                trust.consumers == everybody
            });
    assert_eq!(before.start_only, [""; 0], "it says what it trusts");
    let mut traffic = fleet.load(20, PATIENCE);
    let rotate = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(rotate), Ok(()));
    let mut renewed = Instant::now();
    let after = fleet.mesh.wait_trust("it is over", PATIENCE, |trust| {
        if renewed.elapsed() > RENEWAL {
            traffic.renew_conversations();
            renewed = Instant::now();
        }
        trust.change.is_none() && trust.anchors.len() == 1
    });
    assert_eq!(after.last_outcome, "completed");
    assert_ne!(anchor_in_use(&after), anchor_in_use(&before));
    assert_eq!(after.quarantined, [""; 0]);
    assert_eq!(after.start_only, [""; 0]);
    assert_eq!(after.consumers, everybody);
    elder.wait_line(&format!("reports generation {}", after.generation));
    traffic.wait_ok(20);

    // Where it stands still, it is named.
    elder.signal("STOP");
    assert_eq!(
        fleet
            .mesh
            .change_trust(Word::Rotate(RotateTrust { issuer_only: false })),
        Ok(())
    );
    let named = format!("workload `default/member@{name}`");
    fleet
        .mesh
        .wait_trust("it is in the way, by name", PATIENCE, |trust| {
            let [blocker] = &trust.blockers[..] else {
                return false;
            };
            phase(trust) == "distribute" && blocker.who == named
        });
    elder.signal("CONT");
    fleet.mesh.wait_trust("it is no more", PATIENCE, |trust| {
        !["", "preflight", "distribute"].contains(&phase(trust))
    });
    let (_, reports) = traffic.stop();
    for (carriage, report) in &reports {
        println!("{}", carriage.name());
        report.assert_no_failure(50);
    }
    assert_eq!(elder.ended(), None, "it goes on");
    let sent: u64 = reports.iter().map(|(_, report)| report.ok).sum();
    println!("carried with the words of the first proxies: 0 failures of {sent}");
}

/// How often conversations end: those of before hold the change up.
const RENEWAL: Duration = Duration::from_secs(1);
