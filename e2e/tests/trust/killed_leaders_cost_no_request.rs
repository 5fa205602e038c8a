use std::time::{Duration, Instant};

use e2e::{ETCD, MESH, Mesh, Network, require};
use mesh_control_api::admin::RotateTrust;
use mesh_control_api::admin::change_trust_request::Word;

use crate::fleet::{Fleet, PATIENCE, phase};

/// Three controllers on an etcd of three members: in mid rotation the controller that leads is killed, and once another leads, the
/// member of etcd that leads. The rotation ends, and nobody notices.
#[test]
fn of_controllers_and_of_etcd() {
    if !require(&MESH) || !require(&[ETCD]) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start_several(&network, "leafLifetime: 20s");
    let mut fleet = Fleet::of(mesh, 2);
    let proxies = fleet.size();
    let mut traffic = fleet.load(20, PATIENCE);
    let began = Instant::now();
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    let leader = fleet.mesh.tell_leader(&word);
    let underway = |trust: &_| !["", "preflight"].contains(&phase(trust));
    let midway = fleet
        .mesh
        .wait_trust_of_any("it is underway", PATIENCE, underway);
    let killed_in = phase(&midway).to_owned();
    fleet.mesh.kill_controller(leader);
    let (killed, generation) = (Instant::now(), midway.generation);
    let led = fleet
        .mesh
        .wait_trust_of_any("another leads", PATIENCE, |trust| phase(trust) != killed_in);
    assert!(led.generation >= midway.generation);
    let led_after = killed.elapsed();
    let member = fleet.mesh.kill_leader_of_etcd();
    let etcd_killed = Instant::now();
    let now = fleet.mesh.wait_trust_of_any("it says", PATIENCE, |_| true);
    let in_etcd = phase(&now).to_owned();
    assert!(now.change.is_some(), "it is still in the middle");
    let renewal = Duration::from_secs(1);
    let mut renewed = Instant::now();
    let mut advanced = None;
    let after = fleet
        .mesh
        .wait_trust_of_any("it has ended", PATIENCE, |trust| {
            if advanced.is_none() && phase(trust) != in_etcd {
                advanced = Some(etcd_killed.elapsed());
            }
            // Connections of before are in the way until they end.
            if renewed.elapsed() > renewal {
                traffic.renew_conversations();
                renewed = Instant::now();
            }
            trust.change.is_none() && trust.anchors.len() == 1
        });
    let took = began.elapsed();
    assert_eq!(after.last_outcome, "completed");
    assert!(after.generation > generation);
    assert_eq!(after.quarantined, [""; 0]);
    let sent = traffic.stop_without_failure();
    assert_eq!(fleet.counted("trust_connections_cut_total"), 0);
    println!(
        "{proxies} proxies, three controllers, three members of etcd: controller {leader} killed in `{killed_in}`, gone on after \
         {led_after:.1?}; etcd's leader m{member} killed in `{in_etcd}`, gone on after {:.1?}; rotated in {took:.1?}: 0 failures of {sent}",
        advanced.unwrap_or_default()
    );
}
