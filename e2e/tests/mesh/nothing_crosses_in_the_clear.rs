use e2e::{App, Capture, Carriage, Load, MESH, Mesh, Network, Requirement, require};

use crate::PAUSE;

const PATH: &str = "a-secret-path";
const HEADER: &str = "a-secret-header";
const BODY: &str = "a-secret-body";

#[test]
fn of_http_upgrades_and_opaque_tcp() {
    if !require(&[&MESH[..], &[Requirement::Program("tcpdump")]].concat()) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    // Captured from the start: joining, watching and the first connections too.
    let controller_link = Capture::start(mesh.host());
    let client = mesh.workload("client", "client", &[]);
    let ports = [(8080, "http"), (8081, "opaque"), (8082, "opaque")];
    let server = mesh.workload("web-1", "web", &ports);
    let _app = App::start(&server.host, "a-secret-name", 8080);
    let service = mesh.service("web", &ports);
    server.publish();
    let client_link = Capture::start(&client.host);
    let server_link = Capture::start(&server.host);

    let url = format!("http://{service}:8080/{PATH}");
    let header = format!("x-marker: {HEADER}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = client
            .host
            .curl(&url, &[version, "-H", &header, "--data", BODY]);
        assert!(
            answer.status == 200 && answer.body.contains(HEADER),
            "the application saw it: {answer:?}"
        );
    }
    let upgrade = [
        "-H",
        "Connection: upgrade",
        "-H",
        "Upgrade: echo",
        "-H",
        &header,
        "-m",
        "1",
    ];
    assert_eq!(client.host.curl(&url, &upgrade).status, 101);
    let mut load = Load::start(
        &client.host,
        Carriage::ServerFirst,
        &format!("{service}:8082"),
        1,
        PAUSE,
    );
    load.wait_served("hello a-secret-name", 20);
    load.stop().assert_no_failure(20);

    // The identities in certificates are encrypted too, as TLS 1.3 has it; a server name may not be.
    let markers = [
        PATH,
        HEADER,
        BODY,
        "a-secret-name",
        "x-served-by",
        "HTTP/1.1",
    ];
    client_link.stop().assert_without(&markers, 40);
    server_link.stop().assert_without(&markers, 40);
    let token = mesh.last_token();
    controller_link
        .stop()
        .assert_without(&[&token, "mesh1.", "10.78.0."], 20);
}
