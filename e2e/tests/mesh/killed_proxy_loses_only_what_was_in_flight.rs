use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

use crate::PAUSE;

const LANES: u32 = 6;
const PORTS: [(u16, &str); 1] = [(8080, "http")];

#[test]
fn of_a_server() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let mut one = mesh.workload("web-1", "web", &PORTS);
    let _app_one = App::with(&one.host, "one", 8080, &["--delay-ms", "20"]);
    let two = mesh.workload("web-2", "web", &PORTS);
    let _app_two = App::with(&two.host, "two", 8080, &["--delay-ms", "20"]);
    let service = mesh.service("web", &PORTS);
    one.publish();
    two.publish();

    let url = format!("http://{service}:8080/");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, LANES, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, LANES, PAUSE);
    for load in [&mut http1, &mut http2] {
        load.wait_served("one", 50);
        load.wait_served("two", 50);
    }
    one.proxy.kill();
    for load in [&mut http1, &mut http2] {
        load.wait_served("two", 300);
    }
    one.restart_proxy();
    for load in [&mut http1, &mut http2] {
        load.wait_served("one", 50);
    }
    let mut lost = 0;
    for report in [http1.stop(), http2.stop()] {
        assert!(
            report.failed() <= u64::from(LANES),
            "more failed than could be in flight: {report:#?}"
        );
        assert_eq!(report.attempts, report.ok + report.failed());
        lost += report.failed();
    }
    assert!(lost > 0, "nothing was in flight, so this proves nothing");
}

#[test]
fn of_a_client_while_another_goes_on() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let mut killed = mesh.workload("client-1", "client", &[]);
    let spared = mesh.workload("client-2", "client", &[]);
    let server = mesh.workload("web-1", "web", &PORTS);
    let _app = App::with(&server.host, "one", 8080, &["--delay-ms", "20"]);
    let service = mesh.service("web", &PORTS);
    server.publish();

    let url = format!("http://{service}:8080/");
    let mut hit = Load::start(&killed.host, Carriage::Http1, &url, LANES, PAUSE);
    let mut other = Load::start(&spared.host, Carriage::Http1, &url, LANES, PAUSE);
    hit.wait_ok(100);
    other.wait_ok(100);
    killed.proxy.kill();
    hit.wait_for("its attempts are refused", |report| {
        report.failures.contains_key("connect")
    });
    killed.restart_proxy();
    hit.wait_ok(100);
    other.wait_ok(100);
    other.stop().assert_no_failure(200);
    let report = hit.stop();
    let refused = report.failures["connect"];
    assert!(
        report.failed() - refused <= u64::from(LANES),
        "more failed than could be in flight: {report:#?}"
    );
}
