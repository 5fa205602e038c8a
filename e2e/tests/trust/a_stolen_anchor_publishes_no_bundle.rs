use std::collections::BTreeMap;

use e2e::{MESH, Mesh, Network, identity, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{AbortTrust, DeclareLeft, RotateTrust};

use crate::fleet::{Fleet, PATIENCE, phase};

/// Whoever stole the anchor that is in use takes the controller's place, and every proxy believes that it is the controller.
/// A bundle that the anchor's key signed, one of the highest generation there is, and one that was given out before are
/// refused by every proxy, each with a word in its log, in its metrics and to whom it reports; requests go on, and so does the
/// mesh when the controller is back.
#[test]
fn nor_a_replayed_one_nor_one_of_a_huge_generation() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    // Nobody gets a leaf of the other side, so that an abort waits for none to end.
    let spec = "leafLifetime: 10m\nrotation: {trustHold: 5m}";
    let mut fleet = Fleet::start(&network, 3, spec);
    let stranger = network.host("stranger");
    let thief = identity("thief");
    fleet.mesh.take_documents(&stranger, &thief);
    for workload in [thief.clone(), format!("default/member@{thief}")] {
        let gone = Word::DeclareLeft(DeclareLeft { workload });
        assert_eq!(fleet.mesh.change_trust(gone), Ok(()));
    }
    to_and_fro(&fleet.mesh);
    let generation = fleet.mesh.trust().generation;
    assert!(generation > 1, "what was taken is of the past");
    let mut traffic = fleet.load(20, PATIENCE);

    let mut impostor = fleet.mesh.impostor();
    let size = fleet.size();
    let mut said = BTreeMap::new();
    impostor.wait_within(PATIENCE, "everybody has refused two of each", |impostor| {
        for line in impostor.lines_with("\"reason\"") {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            assert_eq!(line["generation"], generation, "{line}");
            let refused = line["refused"].as_u64().unwrap_or_default();
            said.insert(line["workload"].to_string(), refused);
        }
        said.len() == size && said.values().all(|refused| *refused >= 6)
    });
    traffic.wait_ok(20);
    impostor.kill();
    let mut counts = [0; 2];
    for proxy in fleet.proxies() {
        let metrics = proxy.admin("/metrics");
        let value = |line: &str| {
            let line = metrics.lines().find(|found| found.starts_with(line));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("no {line:?} in\n{metrics}"))
        };
        assert_eq!(value("trust_bundle_generation"), generation);
        for (count, reason) in counts.iter_mut().zip(["signature", "stale"]) {
            let refused = value(&format!(
                "trust_bundles_refused_total{{reason=\"{reason}\"}}"
            ));
            assert!(refused >= 2, "{reason}: {refused}");
            *count += refused;
        }
        let alarms = proxy.proxy.lines_with("refused a trust bundle");
        assert!(alarms.len() >= 2, "{alarms:?}");
        assert!(
            alarms.iter().all(|line| line.contains("ERROR")),
            "{alarms:?}"
        );
    }

    fleet.mesh.restart_controller();
    to_and_fro(&fleet.mesh);
    assert!(fleet.mesh.trust().generation > generation);
    let sent = traffic.stop_without_failure();
    println!(
        "{size} proxies refused {} bundles for their signature and {} as stale; 0 failures of {sent}",
        counts[0], counts[1]
    );
}

/// Begins a rotation, and takes it back as soon as everybody has the next bundle.
fn to_and_fro(mesh: &Mesh<'_>) {
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(mesh.change_trust(word), Ok(()));
    mesh.wait_trust("everybody has both anchors", PATIENCE, |trust| {
        phase(trust) == "trust converged"
    });
    assert_eq!(mesh.change_trust(Word::Abort(AbortTrust {})), Ok(()));
    let after = mesh.wait_trust("it is back", PATIENCE, |trust| {
        trust.change.is_none() && trust.anchors.len() == 1
    });
    assert_eq!(after.last_outcome, "safely aborted");
}
