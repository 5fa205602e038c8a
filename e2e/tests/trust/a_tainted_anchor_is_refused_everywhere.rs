use std::collections::BTreeMap;
use std::time::Instant;

use e2e::{Carriage, MESH, Network, Process, identity, require};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{DeclareLeft, LeaveBehind, RotateTrust, TaintTrust};

use crate::fleet::{Fleet, PATIENCE, anchor_in_use};

/// Leaves live an hour, so nothing ends by itself. Everybody is led away from the tainted anchor while the mesh carries on; one
/// workload is cut off, blocks by name, is left behind, and joins again. What the anchor signed is good for an hour and is
/// refused by the controller and by every proxy that it is shown to.
#[test]
fn and_who_is_left_behind_joins_again() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 7, "leafLifetime: 1h");
    let mut away = fleet.mesh.workload("away", "away", &[]);
    away.publish();
    let processes = fleet.processes();
    let stranger = network.host("stranger");
    let thief = identity("thief");
    let shown: Vec<_> = fleet.servers.iter().map(|one| (one, 8080)).collect();
    let mut member = fleet.mesh.member(&stranger, &thief, &shown);
    wait_round(&mut member, "it is believed", |said| said == "accepted");
    // Nobody waits for it, so only its certificate is there.
    let workload = thief.clone();
    let gone = Word::DeclareLeft(DeclareLeft { workload });
    assert_eq!(fleet.mesh.change_trust(gone), Ok(()));
    let mut traffic = fleet.load(20, PATIENCE);
    let leaves: Vec<u64> = fleet.proxies().map(|proxy| proxy.leaf_expiry()).collect();
    away.host.cut_off();

    let before = fleet.mesh.trust();
    let anchor = anchor_in_use(&before).to_owned();
    let began = Instant::now();
    let taint = Word::Taint(TaintTrust { anchor });
    assert_eq!(fleet.mesh.change_trust(taint), Ok(()));
    let rotate = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(rotate), Ok(()));
    let away_id = format!("default/away@{}", away.identity());
    let only_away = format!("workload `{away_id}`");
    let stuck = fleet
        .mesh
        .wait_trust("only who is away is in the way", PATIENCE, |trust| {
            !trust.blockers.is_empty() && trust.blockers.iter().all(|one| one.who == only_away)
        });
    let mode = stuck.change.unwrap_or_default().mode;
    assert_eq!(mode, "emergency");
    let leave = |workload: &str| {
        let workloads = vec![workload.to_owned()];
        fleet
            .mesh
            .change_trust(Word::LeaveBehind(LeaveBehind { workloads }))
    };
    let refused = leave("default/client-1");
    assert!(refused.is_err(), "nobody else is left behind by mistake");
    assert_eq!(leave(&away_id), Ok(()));
    let after = fleet
        .mesh
        .wait_trust("it is over", PATIENCE, |trust| trust.change.is_none());
    let took = began.elapsed();
    assert_eq!(after.last_outcome, "completed");
    assert_ne!(anchor_in_use(&after), anchor_in_use(&before));
    assert_eq!(after.quarantined, [away_id]);
    let renewed: Vec<u64> = fleet.proxies().map(|proxy| proxy.leaf_expiry()).collect();
    for (old, new) in leaves.iter().zip(&renewed) {
        assert!(
            new > old,
            "everybody has another leaf: {leaves:?} {renewed:?}"
        );
    }

    let last = wait_round(&mut member, "it is refused", |said| {
        said.starts_with("refused")
    });
    println!("{last:#?}");
    traffic.wait_ok(20);
    let (_, reports) = traffic.stop();
    let cut = fleet.counted("trust_connections_cut_total");
    let (mut sent, mut broken) = (0, 0);
    for (carriage, report) in &reports {
        println!("{}", carriage.name());
        sent += report.attempts;
        // An emergency waits for nobody: what is open for long is cut, announced and counted. Nothing else is.
        if matches!(carriage, Carriage::GrpcStream | Carriage::TcpStream) {
            broken += report.connections - report.ended;
        } else {
            report.assert_no_failure(50);
        }
    }
    assert!(
        broken <= 8,
        "each lane's was cut once at most: {reports:#?}"
    );
    assert!(cut >= 1, "what was cut is counted");
    assert_eq!(processes, fleet.processes(), "nothing was started again");
    println!(
        "an emergency of {took:.1?}: 0 requests failed of {sent}; {broken} conversations were cut, as {cut} connections"
    );

    // Its roots and its leaf are worth nothing any more, so it starts again.
    away.host.reconnect();
    away.proxy.kill();
    away.restart_proxy();
    let back = fleet.mesh.wait_trust("it is back", PATIENCE, |trust| {
        trust.quarantined.is_empty() && trust.consumers == before.consumers
    });
    assert_eq!(back.start_only, [""; 0]);
}

/// Waits until somebody who shows its certificate hears the same from everybody.
fn wait_round(
    member: &mut Process,
    what: &str,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let mut round = BTreeMap::new();
    member.wait_until(what, |member| {
        let line = member.last_line().unwrap_or_default();
        round = serde_json::from_str(&line).unwrap_or_default();
        !round.is_empty() && round.values().all(|said: &String| wanted(said))
    });
    round
}
