use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

use crate::PAUSE;

#[test]
fn and_comes_back_knowing_what_it_knew() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mut mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let ports = [(8080, "http"), (8081, "opaque")];
    let one = mesh.workload("web-1", "web", &ports);
    let _app_one = App::start(&one.host, "one", 8080);
    let two = mesh.workload("web-2", "web", &ports);
    let _app_two = App::start(&two.host, "two", 8080);
    let service = mesh.service("web", &ports);
    one.publish();

    let url = format!("http://{service}:8080/echo");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 4, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 4, PAUSE);
    // New connections all the while, so that handshakes go on without a controller.
    let mut once = Load::start(
        &client.host,
        Carriage::TcpOnce,
        &format!("{service}:8081"),
        2,
        PAUSE * 4,
    );
    let mut all_go_on = |more| {
        http1.wait_ok(more);
        http2.wait_ok(more);
        once.wait_ok(more / 4);
    };
    all_go_on(200);
    mesh.controller().kill();
    all_go_on(400);
    mesh.restart_controller();
    all_go_on(200);
    // It is followed again: what changes now arrives.
    two.publish();
    http1.wait_served("two", 50);
    http2.wait_served("two", 50);
    http1.stop().assert_no_failure(800);
    http2.stop().assert_no_failure(800);
    once.stop().assert_no_failure(200);
}
