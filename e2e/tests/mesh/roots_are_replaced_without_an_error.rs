use std::time::{Duration, Instant};

use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

/// Short, as a rotation waits until the leaves of the old anchor have ended.
const LEAF_LIFETIME: Duration = Duration::from_secs(12);
const ROTATIONS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Three in a row, each under load of its own: HTTP/1.1, HTTP/2 and new TCP connections all the while. Clients never retry.
#[test]
fn three_times_in_a_row() {
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
    let servers: Vec<_> = (1..=3)
        .map(|number| mesh.workload(&format!("web-{number}"), "web", &ports))
        .collect();
    let _apps: Vec<_> = servers
        .iter()
        .map(|server| App::start(&server.host, "one", 8080))
        .collect();
    let service = mesh.service("web", &ports);
    for server in &servers {
        server.publish();
    }
    let url = format!("http://{service}:8080/echo");
    let raw = format!("{service}:8081");
    let pause = Duration::from_millis(20);
    let mut generation = mesh.trust().generation;
    let mut sent = 0;
    for rotation in 1..=ROTATIONS {
        let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 2, pause);
        let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 2, pause);
        let mut once = Load::start(&client.host, Carriage::TcpOnce, &raw, 2, pause);
        for load in [&mut http1, &mut http2, &mut once] {
            load.wait_ok(20);
        }
        let began = Instant::now();
        let trust = mesh.rotate(PATIENCE);
        let took = began.elapsed();
        assert_eq!(trust.last_outcome, "completed");
        assert_eq!(trust.anchors.len(), 1, "{:?}", trust.anchors);
        assert!(trust.generation > generation);
        assert_eq!(trust.quarantined, [""; 0]);
        assert_eq!(trust.start_only, [""; 0], "everybody says what it trusts");
        generation = trust.generation;
        for load in [&mut http1, &mut http2, &mut once] {
            load.wait_ok(20);
        }
        for load in [http1, http2, once] {
            let report = load.stop();
            sent += report.ok;
            report.assert_no_failure(100);
        }
        println!(
            "rotation {rotation}: {took:.1?}, bundle generation {generation}, {} consumers, 0 failures so far of {sent}",
            trust.consumers
        );
    }
}
