use std::time::{Duration, Instant};

use e2e::{Carriage, MESH, Network, require};

use crate::fleet::{Fleet, PATIENCE, anchor_in_use, has_conversations, is_of_old_connection};

/// Anchors of a bit more than a minute, which are replaced by themselves. Conversations hold the first change up until the anchor that it
/// replaces ends, and its issuer with it: nothing but those is in the way, and the change goes on to its end.
#[test]
fn nor_does_its_issuer() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let spec = "leafLifetime: 10s\nrotation: {anchorLifetime: 75s, anchorMargin: 56s, issuerLifetime: 75s, issuerMargin: 56s, phaseBudget: 5s}";
    let began = Instant::now();
    let mut fleet = Fleet::start(&network, 2, spec);
    let processes = fleet.processes();
    let first = anchor_in_use(&fleet.mesh.trust()).to_owned();
    let mut traffic = fleet.load(20, PATIENCE * 2);
    let held = fleet
        .mesh
        .wait_trust("conversations are in the way", PATIENCE, |trust| {
            let of = |one: &_| is_of_old_connection(one) && has_conversations(one);
            !trust.blockers.is_empty() && trust.blockers.iter().all(of)
        });
    println!("held after {:.1?}: {:?}", began.elapsed(), held.blockers);
    let mut last = String::new();
    let after = fleet
        .mesh
        .wait_trust("the old anchor has gone", PATIENCE, |trust| {
            let now = format!(
                "{:?} {:?} {:?}",
                trust.change.as_ref().map(|c| &c.mode),
                crate::fleet::phase(trust),
                trust.blockers
            );
            if now != last {
                println!("{:.1?} {now}", began.elapsed());
                last = now;
            }
            trust.anchors.iter().all(|anchor| anchor.id != first)
        });
    println!("gone after {:.1?} {after:#?}", began.elapsed());
    traffic.wait_ok(20);
    let (_, reports) = traffic.stop();
    for (carriage, report) in &reports {
        println!("{} {:#?}", carriage.name(), report);
    }
    println!("cut {}", fleet.counted("trust_connections_cut_total"));
    let _ = (Carriage::TcpOnce, Duration::ZERO, processes);
}
