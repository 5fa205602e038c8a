use std::time::Duration;

use e2e::{
    App, Carriage, Load, MESH, Mesh, Network, Program, Requirement, linkerd2_proxy, require,
};
use mesh_control_api::admin::change_trust_request::Word;
use mesh_control_api::admin::{DeclareLeft, RotateTrust};

use crate::fleet::{PATIENCE, phase};

/// Ours in its place, so that there is no need for one.
#[test]
fn a_stand_in_for_a_stock_proxy() {
    if require(&[&MESH[..], &[Requirement::Built("mesh")]].concat()) {
        blocks_until_it_restarts(Program::StandIn, 10);
    }
}

#[test]
fn a_stock_linkerd2_proxy() {
    if !require(&[&MESH[..], &[Requirement::Built("mesh")]].concat()) {
        return;
    }
    if linkerd2_proxy().is_none() {
        println!("SKIPPED: LINKERD2_PROXY names no stock linkerd2-proxy to test against");
        return;
    }
    // It renews every ten seconds at most.
    blocks_until_it_restarts(Program::Stock, 30);
}

/// It says nothing of itself, so the controller calls it with a certificate of the new anchor.
#[allow(clippy::print_stdout, reason = "what a test has shown")]
fn blocks_until_it_restarts(program: Program, leaf_seconds: u32) {
    let network = Network::new();
    let mut mesh = Mesh::start(&network, &format!("leafLifetime: {leaf_seconds}s"));
    let client = mesh.workload("client", "client", &[]);
    client.publish();
    let ports = [(8080, "http")];
    let mut server = mesh.published(program, "web-1", "web", &ports);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &ports);
    let url = format!("http://{service}:8080/echo");
    let load = || Load::open(&client.host, Carriage::Http1, &url, 1, 20, PATIENCE);

    let mut before = load();
    before.wait_ok(20);
    let rotate = Word::Rotate(RotateTrust { issuer_only: false });
    assert_eq!(mesh.change_trust(rotate), Ok(()));
    let named = format!("workload `{}`", server.identity());
    let why = "was not seen to accept the new anchor";
    mesh.wait_trust("only it is in the way", PATIENCE, |trust| {
        let [blocker] = &trust.blockers[..] else {
            return false;
        };
        phase(trust) == "distribute" && blocker.who == named && blocker.why.contains(why)
    });
    // It has been called, and has said no.
    mesh.controller()
        .wait_line("does not accept the new anchor");
    before.wait_ok(20);
    before.stop().assert_no_failure(40);
    assert_eq!(phase(&mesh.trust()), "distribute");

    server.proxy.kill();
    mesh.set_up_again(&server);
    server.restart_proxy();
    mesh.wait_trust("it was seen to accept the new anchor", PATIENCE, |trust| {
        !["", "distribute"].contains(&phase(trust))
    });
    let mut after = load();
    after.wait_ok(20);
    // It cannot say which connections it has. After a day none is left; or somebody knows better.
    let trust = mesh.wait_trust("only its connections are not known", PATIENCE, |trust| {
        let [blocker] = &trust.blockers[..] else {
            return false;
        };
        phase(trust) == "drain" && blocker.who == named
    });
    let blocker = &trust.blockers[0];
    assert!(blocker.why.contains("connection"), "{blocker:?}");
    let workload = server.identity();
    let left = Word::DeclareLeft(DeclareLeft { workload });
    assert_eq!(mesh.change_trust(left), Ok(()));
    let trust = mesh.wait_trust("it is over", PATIENCE, |trust| {
        trust.change.is_none() && trust.anchors.len() == 1
    });
    assert_eq!(trust.last_outcome, "completed");
    // Another leaf of everybody's, under the one anchor that is left.
    let expiry = client.leaf_expiry();
    after.wait_ok(20);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while client.leaf_expiry() == expiry {
        assert!(std::time::Instant::now() < deadline, "no other leaf");
        std::thread::sleep(Duration::from_millis(100));
    }
    after.wait_ok(20);
    after.stop().assert_no_failure(60);
    println!("{program:?}: named in `distribute` until it was started again, then 0 failures");
}
