//! A stock proxy follows our controller: what changes arrives, and costs no request.

use std::time::{Duration, Instant};

use e2e::{App, Carriage, Load, Mesh, Network, PATIENCE, Program};

use crate::{PAUSE, is_possible};

const PORTS: [(u16, &str); 2] = [(8080, "http"), (8081, "opaque")];

#[test]
fn endpoints_of_both_kinds_come_and_go_without_an_error() {
    if !is_possible(&[]) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.published(Program::Stock, "client", "client", &[]);
    let one = mesh.published(Program::Stock, "web-1", "web", &PORTS);
    let app_one = App::start(&one.host, "one", 8080);
    let service = mesh.service("web", &PORTS);

    let url = format!("http://{service}:8080/echo");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 4, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 4, PAUSE);
    http1.wait_served("one", 100);
    http2.wait_served("one", 100);

    let mut two = mesh.workload("web-2", "web", &PORTS);
    let app_two = App::start(&two.host, "two", 8080);
    two.publish();
    http1.wait_served("two", 100);
    http2.wait_served("two", 100);

    one.withdraw();
    let mut out_of_use = |server: &str, other: &str| {
        for load in [&mut http1, &mut http2] {
            let mut seen = (0, 0);
            load.wait_for("the endpoint is out of use", |report| {
                if report.served(server) != seen.0 {
                    seen = (report.served(server), report.served(other));
                }
                report.served(other) >= seen.1 + 300
            });
        }
    };
    out_of_use("one", "two");
    drop((one, app_one));

    // The same the other way around, with one of ours that drains.
    let mut three = mesh.published(Program::Stock, "web-3", "not-yet", &PORTS);
    let _app_three = App::start(&three.host, "three", 8080);
    three.publish_for("web");
    two.withdraw();
    two.proxy.terminate();
    out_of_use("two", "three");
    drop((two, app_two));
    for load in [http1, http2] {
        load.stop().assert_no_failure(700);
    }
}

#[test]
fn the_controller_dies_and_comes_back_without_an_error() {
    if !is_possible(&[]) {
        return;
    }
    let network = Network::new();
    let mut mesh = Mesh::start(&network, "");
    let client = mesh.published(Program::Stock, "client", "client", &[]);
    let one = mesh.published(Program::Stock, "web-1", "web", &PORTS);
    let _app_one = App::start(&one.host, "one", 8080);
    let two = mesh.workload("web-2", "web", &PORTS);
    let _app_two = App::start(&two.host, "two", 8080);
    let service = mesh.service("web", &PORTS);

    let url = format!("http://{service}:8080/echo");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 4, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 4, PAUSE);
    http1.wait_ok(200);
    mesh.controller().kill();
    http1.wait_ok(300);
    http2.wait_ok(300);
    mesh.restart_controller();
    two.publish();
    http1.wait_served("two", 50);
    http2.wait_served("two", 50);
    http1.stop().assert_no_failure(500);
    http2.stop().assert_no_failure(350);
}

/// The shortest life that a stock proxy renews in time: it asks at 70% of it, but never more often than every 10 seconds.
const LEAF_LIFETIME: Duration = Duration::from_secs(20);

#[test]
fn its_certificate_is_renewed_without_an_error() {
    if !is_possible(&[]) {
        return;
    }
    let network = Network::new();
    let seconds = LEAF_LIFETIME.as_secs();
    let mut mesh = Mesh::start(&network, &format!("leafLifetime: {seconds}s"));
    let client = mesh.published(Program::Stock, "client", "client", &[]);
    let server = mesh.published(Program::Stock, "web-1", "web", &PORTS);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &PORTS);
    // Each a new connection, so a handshake with the leaves of that moment.
    let target = format!("{service}:8081");
    let mut once = Load::start(&client.host, Carriage::TcpOnce, &target, 2, PAUSE * 4);
    let mut expiries = Vec::new();
    let deadline = Instant::now() + LEAF_LIFETIME * 2;
    while Instant::now() < deadline {
        let expiry = client.leaf_expiry();
        if expiries.last() != Some(&expiry) {
            expiries.push(expiry);
        }
        once.wait_ok(10);
    }
    assert!(expiries.len() >= 2, "over two lifetimes: {expiries:?}");
    // Renewals go by the certificate: the token need not be good any more.
    let joins = mesh.controller().lines_with("joined with a token");
    assert_eq!(joins.len(), 2, "{joins:#?}");
    once.stop().assert_no_failure(200);
}

#[test]
fn who_may_call_and_when_an_endpoint_is_out_change_with_the_manifests() {
    if !is_possible(&[]) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.published(Program::Stock, "client", "client", &[]);
    let server = mesh.published(Program::Stock, "web-1", "web", &PORTS);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &PORTS);
    let url = format!("http://{service}:8080/");
    client.host.wait_status(&url, 200);
    let policy = "config.linkerd.io/default-inbound-policy";
    mesh.service_at(service, "web", &PORTS, &[(policy, "deny")]);
    client.host.wait_status(&url, 403);
    let breaker = "balancer.linkerd.io/failure-accrual";
    let failures = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
    // Longer than requests wait for an endpoint, which is 3 seconds.
    let penalty = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
    let annotations = [
        (breaker, "unified"),
        (failures, "3"),
        (penalty, "6s"),
        ("balancer.alpha.linkerd.io/penalize-failures", "true"),
        (
            "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after",
            "true",
        ),
    ];
    mesh.service_at(service, "web", &PORTS, &annotations);
    client.host.wait_status(&url, 200);
    // With its only endpoint out, the proxy answers itself. The change takes a moment to arrive.
    let deadline = Instant::now() + PATIENCE;
    loop {
        for _ in 0..3 {
            let failure = client.host.curl(&format!("{url}status?code=503"), &[]);
            assert!(matches!(failure.status, 503 | 504), "{failure:?}");
        }
        let answer = client.host.curl(&url, &[]);
        if answer.status == 504 && answer.header("x-served-by").is_none() {
            break;
        }
        assert!(Instant::now() < deadline, "no breaker opened: {answer:?}");
    }
    client.host.wait_status(&url, 200);
    for workload in [&client, &server] {
        let lines = workload.proxy.lines_with("misconfigured");
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
