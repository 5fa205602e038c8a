use e2e::{App, Carriage, Host, Load, MESH, Mesh, Network, Process, require};

use crate::PAUSE;

const LANES: u32 = 6;
const PORTS: [(u16, &str); 1] = [(8080, "http")];

/// Requests that a server has begun to answer, and will not answer before it is told to: in flight for certain. They are not
/// idempotent, so nobody sends them a second time.
type Held = Vec<Process>;

/// Sends requests by that option of curl until each of the two servers holds one, whichever the balancer chooses. Gives
/// those of the first and those of the second.
fn hold(client: &Host, version: &str, url: &str, one: &mut App, two: &App) -> [Held; 2] {
    let mut held = [Held::new(), Held::new()];
    for id in 0.. {
        if held.iter().all(|of_one| !of_one.is_empty()) {
            break;
        }
        assert!(id < 50, "none of {id} requests went to one of the two");
        let line = format!("held {version} {id}");
        let url = format!("{url}held?as={version}&id={id}");
        let code = ["-d", "", "-o", "/dev/null", "-w", "%{http_code}\\n"];
        let curl = [
            &["-q", "-sS", "--noproxy", "*"],
            &code[..],
            &[version, &url],
        ]
        .concat();
        let request = client.start("curl", &curl);
        let mut by = None;
        one.process
            .wait_until(&format!("a server says {line:?}"), |one| {
                let said = [&*one, &two.process].map(|server| server.lines_with(&line));
                by = said.iter().position(|lines| lines.contains(&line));
                by.is_some()
            });
        held[by.unwrap_or_default()].push(request);
    }
    held
}

#[test]
fn of_a_server() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let mut one = mesh.workload("web-1", "web", &PORTS);
    let mut app_one = App::with(&one.host, "one", 8080, &["--delay-ms", "20"]);
    let two = mesh.workload("web-2", "web", &PORTS);
    let mut app_two = App::with(&two.host, "two", 8080, &["--delay-ms", "20"]);
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
    let held = ["--http1.1", "--http2-prior-knowledge"]
        .map(|version| hold(&client.host, version, &url, &mut app_one, &app_two));
    one.proxy.kill();
    let mut kept = Held::new();
    for [lost, elsewhere] in held {
        for mut request in lost {
            assert_eq!(request.success(), "502\n", "it was in flight there");
        }
        kept.extend(elsewhere);
    }
    for load in [&mut http1, &mut http2] {
        load.wait_served("two", 300);
    }
    one.restart_proxy();
    for load in [&mut http1, &mut http2] {
        load.wait_served("one", 50);
    }
    app_two.process.signal("USR1");
    for mut request in kept {
        assert_eq!(request.success(), "200\n", "it was in flight elsewhere");
    }
    for report in [http1.stop(), http2.stop()] {
        assert!(
            report.failed() <= u64::from(LANES),
            "more failed than could be in flight: {report:#?}"
        );
        assert_eq!(report.attempts, report.ok + report.failed());
    }
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
