use std::time::Duration;

use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

use crate::PAUSE;

/// Well under the proxy's own limit.
const DRAIN: Duration = Duration::from_secs(20);
const PORTS: [(u16, &str); 1] = [(8080, "http")];

#[test]
fn a_servers_proxy_under_load() {
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
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 6, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 6, PAUSE);
    let mut slow = Load::start(
        &client.host,
        Carriage::Http2,
        &format!("{url}slow?ms=1000"),
        4,
        PAUSE,
    );
    for load in [&mut http1, &mut http2] {
        load.wait_served("one", 50);
        load.wait_served("two", 50);
    }
    slow.wait_ok(8);
    one.proxy.terminate();
    let status = one.proxy.wait(DRAIN);
    assert!(status.success(), "{status}\n{}", one.proxy.tail());
    for load in [&mut http1, &mut http2] {
        load.wait_served("two", 200);
    }
    slow.wait_ok(8);
    http1.stop().assert_no_failure(300);
    http2.stop().assert_no_failure(300);
    slow.stop().assert_no_failure(16);
}

#[test]
fn a_clients_proxy_with_answers_on_their_way() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let mut client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("web-1", "web", &PORTS);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &PORTS);
    server.publish();
    client
        .host
        .wait_status(&format!("http://{service}:8080/"), 200);

    let url = format!("http://{service}:8080/stream?chunks=30&ms=100");
    let mut streams: Vec<_> = ["--http1.1", "--http2-prior-knowledge"]
        .map(|version| {
            client.host.start(
                "curl",
                &["-q", "-sS", "-N", "--noproxy", "*", version, &url],
            )
        })
        .into();
    for stream in &mut streams {
        stream.wait_line("chunk 29");
    }
    client.proxy.terminate();
    for stream in &mut streams {
        assert_eq!(
            stream.success().lines().count(),
            30,
            "the whole body, though the drain began after its first piece"
        );
    }
    let status = client.proxy.wait(DRAIN);
    assert!(status.success(), "{status}\n{}", client.proxy.tail());
    assert_eq!(
        client.host.curl(&url, &[]).status,
        0,
        "nothing new is taken"
    );
}
