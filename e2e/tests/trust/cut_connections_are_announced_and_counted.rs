use std::time::{Duration, Instant};

use e2e::{Carriage, Load, MESH, Network, require};
use mesh_control_api::admin::RotateTrust;
use mesh_control_api::admin::change_trust_request::Word;

use crate::fleet::{Fleet, PATIENCE, anchor_in_use};

/// With `drain: cut` nothing waits for conversations that do not end by themselves. Proxies say that connections are to end, cut
/// what is left five seconds later, say so and count it; the rotation ends without anybody's help. Everything else goes on, and so do
/// conversations whose clients end them in the time that is given.
#[test]
fn and_cost_those_nothing_who_renew_in_time() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut fleet = Fleet::start(&network, 2, "leafLifetime: 10s\nrotation: {drain: cut}");
    let processes = fleet.processes();
    let mut traffic = fleet.load(20, PATIENCE);
    // Another client's, on connections of their own between the proxies.
    let mut renewed = fleet.conversations(1, PATIENCE);
    for load in &mut renewed {
        load.wait_ok(5);
    }
    let before = fleet.mesh.trust();
    let (began, mut renewal) = (Instant::now(), Instant::now());
    let word = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(fleet.mesh.change_trust(word), Ok(()));
    let after = fleet
        .mesh
        .wait_trust("it ends by itself", PATIENCE, |trust| {
            if renewal.elapsed() > RENEWAL {
                renewed.iter_mut().for_each(Load::renew);
                renewal = Instant::now();
            }
            trust.change.is_none() && trust.anchors.len() == 1
        });
    let took = began.elapsed();
    assert_eq!(after.last_outcome, "completed");
    assert_ne!(anchor_in_use(&after), anchor_in_use(&before));
    assert_eq!(after.quarantined, [""; 0]);
    traffic.wait_ok(20);

    let cut = fleet.counted("trust_connections_cut_total");
    for proxy in fleet.proxies() {
        let warned = proxy.proxy.lines_with("their time was up");
        let told = proxy.proxy.lines_with("draining connections verified");
        assert!(told.iter().any(|line| line.contains("5s")), "{told:?}");
        let counted = crate::fleet::counted(proxy, "trust_connections_cut_total");
        assert_eq!(warned.is_empty(), counted == 0, "{counted} {warned:?}");
    }
    assert!(cut > 0, "what was cut is counted");

    for load in renewed {
        let report = load.stop();
        report.assert_no_failure(50);
        assert_eq!(report.ended, report.connections, "{report:#?}");
    }
    let (_, reports) = traffic.stop();
    let (mut sent, mut broken) = (0, 0);
    for (carriage, report) in &reports {
        println!("{}", carriage.name());
        sent += report.attempts;
        if matches!(carriage, Carriage::GrpcStream | Carriage::TcpStream) {
            println!("{:?} {:?}", report.failures, report.samples);
            assert_eq!(report.connections - report.ended, LANES, "{report:#?}");
            broken += report.connections - report.ended;
        } else {
            report.assert_no_failure(50);
        }
    }
    assert_eq!(processes, fleet.processes(), "nothing was started again");
    println!(
        "rotated in {took:.1?}: {broken} conversations were cut, as {cut} connections; nothing else failed of {sent}"
    );
}

/// How often conversations are renewed that are not to be cut.
const RENEWAL: Duration = Duration::from_secs(1);
/// Conversations of each kind that nobody renews. Each is cut once.
const LANES: u64 = 4;
