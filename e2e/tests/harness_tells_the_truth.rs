//! Without a mesh: the harness sees what is there, and would see it if it went wrong.

use std::time::Duration;

use e2e::{App, Capture, Carriage, Load, Network, Redirect, Requirement, require};

const PAUSE: Duration = Duration::from_millis(1);
const NEEDS: [Requirement; 5] = [
    Requirement::Built("e2e-app"),
    Requirement::Built("e2e-load"),
    Requirement::Program("curl"),
    Requirement::Program("nft"),
    Requirement::Program("tcpdump"),
];

#[test]
fn every_carriage_counts_what_it_does() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _app = App::start(&server, "one", 8080);
    for (carriage, port, path) in [
        (Carriage::Http1, 8080, "/echo"),
        (Carriage::Http2, 8080, "/echo"),
        (Carriage::Grpc, 8080, "/e2e.Peer/Unary"),
        (Carriage::Tcp, 8081, ""),
        (Carriage::TcpOnce, 8081, ""),
        (Carriage::ServerFirst, 8082, ""),
    ] {
        let scheme = if path.is_empty() { "" } else { "http://" };
        let mut load = Load::start(
            &client,
            carriage,
            &format!("{scheme}{}:{port}{path}", server.address()),
            3,
            PAUSE,
        );
        load.wait_ok(50);
        let report = load.stop();
        report.assert_no_failure(50);
        let (connections, server) = match carriage {
            Carriage::Http1 => (3, "one"),
            Carriage::Http2 | Carriage::Grpc => (1, "one"),
            Carriage::ServerFirst => (3, "hello one"),
            Carriage::Tcp => (3, ""),
            _ => (report.attempts, ""),
        };
        assert_eq!(
            (report.connections, report.served(server)),
            (connections, report.ok),
            "{carriage:?}: {report:#?}"
        );
    }
}

#[test]
fn an_open_loop_begins_what_is_due_whatever_has_become_of_the_rest() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _app = App::start(&server, "one", 8080);
    // No answer comes while those after it are due.
    let url = format!("http://{}:8080/slow?ms=500", server.address());
    let load = |rate| Load::open(&client, Carriage::Http1, &url, 1, rate, Load::LIMIT);
    let mut load = load(100);
    load.wait_ok(100);
    let report = load.stop();
    report.assert_no_failure(100);
    assert!(report.connections > 20, "{report:#?}");
}

#[test]
fn conversations_are_kept_until_they_are_renewed_and_tell_when_they_break() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    for (carriage, target) in [
        (
            Carriage::GrpcStream,
            format!("http://{}:8080/e2e.Peer/BothStreams", server.address()),
        ),
        (Carriage::TcpStream, format!("{}:8081", server.address())),
    ] {
        let mut app = App::start(&server, "one", 8080);
        let mut load = Load::open(&client, carriage, &target, 3, 100, Load::LIMIT);
        load.wait_ok(30);
        assert_eq!(load.so_far().connections, 3);
        load.renew();
        load.wait_for("all are others", |report| report.connections == 6);
        load.wait_ok(30);
        let report = load.so_far();
        assert_eq!((report.ended, report.failed()), (3, 0), "{report:#?}");
        app.process.kill();
        load.wait_for("all break", |report| report.failed() >= 3);
        let report = load.stop();
        assert!(
            report.failures.keys().any(|kind| kind != "connect"),
            "{report:#?}"
        );
        assert_eq!(report.ended, 3, "what broke did not end well");
        assert_eq!(report.attempts, report.ok + report.failed());
    }
}

#[test]
fn a_load_reports_a_server_that_dies() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let url = format!("http://{}:8080/slow?ms=50", server.address());
    for carriage in [Carriage::Http1, Carriage::Http2] {
        let mut app = App::start(&server, "one", 8080);
        let mut load = Load::start(&client, carriage, &url, 4, PAUSE);
        load.wait_ok(8);
        app.process.kill();
        load.wait_for("attempts fail", |report| {
            report.failures.contains_key("connect")
        });
        let report = load.stop();
        let in_flight = report.failed() - report.failures["connect"];
        assert!(
            (1..=4).contains(&in_flight),
            "four lanes lose at most four: {report:#?}"
        );
        assert_eq!(report.attempts, report.ok + report.failed());
    }
}

#[test]
fn a_load_reports_bad_answers() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _app = App::start(&server, "one", 8080);
    let url = format!("http://{}:8080/status?code=503", server.address());
    let mut load = Load::start(&client, Carriage::Http1, &url, 1, PAUSE);
    load.wait_for("an answer is bad", |report| {
        report.failures.contains_key("status")
    });
    let report = load.stop();
    assert_eq!((report.ok, report.statuses[&503]), (0, report.attempts));
}

#[test]
fn a_capture_finds_what_is_sent_in_the_clear() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _app = App::start(&server, "one", 8080);
    let capture = Capture::start(&server);
    let url = format!("http://{}:8080/a-secret-path", server.address());
    let answer = client.curl(&url, &["-H", "x-marker: a-secret-header"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let packets = capture.stop();
    assert!(
        packets.with(b"a-secret-path") >= 2,
        "in the request and in the answer, of {} packets",
        packets.len()
    );
    assert!(packets.with(b"a-secret-header") >= 2);
    assert_eq!(packets.with(b"a-secret-nobody-sent"), 0);
}

#[test]
fn a_redirect_catches_applications_and_spares_the_proxy() {
    if !require(&NEEDS) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    // Stand-ins for the two proxies, and the application that must not be reached past them.
    let _outbound = App::start(&client, "outbound", 4140);
    let _inbound = App::start(&server, "inbound", 4143);
    let _app = App::start(&server, "app", 8080);
    let served_by = |user, url: &str| {
        let answer = client.curl_as(user, url, &[]);
        answer
            .header("x-served-by")
            .map(str::to_owned)
            .ok_or(answer.error)
    };
    let url = format!("http://{}:8080/", server.address());
    assert_eq!(served_by(e2e::APP_USER, &url).as_deref(), Ok("app"));
    Redirect::default().incoming(&server, &[8080]);
    assert_eq!(served_by(e2e::APP_USER, &url).as_deref(), Ok("inbound"));
    Redirect::default().outgoing(&client);
    assert_eq!(served_by(e2e::APP_USER, &url).as_deref(), Ok("outbound"));
    assert_eq!(
        served_by(e2e::APP_USER, "http://10.78.0.1/").as_deref(),
        Ok("outbound"),
        "an address of no host"
    );
    assert_eq!(served_by(e2e::PROXY_USER, &url).as_deref(), Ok("inbound"));
    assert_eq!(
        served_by(e2e::APP_USER, "http://127.0.0.1:4140/").as_deref(),
        Ok("outbound")
    );
}
