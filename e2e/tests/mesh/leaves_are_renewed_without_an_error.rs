use std::time::Duration;

use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

use crate::PAUSE;

/// Short, so that several renewals, and the expiry of the first leaves, happen within the test.
const LEAF_LIFETIME: Duration = Duration::from_secs(15);

#[test]
fn under_load_and_past_the_first_ones_expiry() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(
        &network,
        &format!("leafLifetime: {}s", LEAF_LIFETIME.as_secs()),
    );
    let client = mesh.workload("client", "client", &[]);
    let ports = [(8080, "http"), (8081, "opaque")];
    let server = mesh.workload("web-1", "web", &ports);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &ports);
    server.publish();

    let url = format!("http://{service}:8080/echo");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 2, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 2, PAUSE);
    // Each a new mTLS connection, so a handshake with the leaves of that moment.
    let mut once = Load::start(
        &client.host,
        Carriage::TcpOnce,
        &format!("{service}:8081"),
        2,
        PAUSE * 4,
    );
    let mut expiries = [Vec::new(), Vec::new()];
    let deadline = std::time::Instant::now() + LEAF_LIFETIME * 5 / 2;
    while std::time::Instant::now() < deadline {
        for (workload, seen) in [&client, &server].into_iter().zip(&mut expiries) {
            let expiry = workload.leaf_expiry();
            if seen.last() != Some(&expiry) {
                seen.push(expiry);
            }
        }
        once.wait_ok(10);
    }
    for seen in &expiries {
        assert!(
            seen.len() >= 3,
            "expiries over two and a half lifetimes: {seen:?}"
        );
        assert!(seen.is_sorted(), "{seen:?}");
    }
    for load in [&mut http1, &mut http2, &mut once] {
        load.wait_ok(20);
    }
    http1.stop().assert_no_failure(500);
    http2.stop().assert_no_failure(500);
    once.stop().assert_no_failure(200);
}
