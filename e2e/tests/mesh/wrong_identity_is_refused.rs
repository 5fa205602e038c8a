use std::time::Duration;

use e2e::{App, MESH, Mesh, Network, identity, require};

#[test]
fn of_a_server() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("web-1", "web", &[(8080, "http"), (8081, "opaque")]);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &[(8080, "http"), (8081, "opaque")]);

    // The manifest promises someone else than who answers.
    server.publish_as(&identity("web-2"));
    let url = format!("http://{service}:8080/");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = client.host.curl(&url, &[version]);
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
        assert!(answer.header("l5d-proxy-error").is_some(), "{answer:?}");
        assert_eq!(answer.header("x-served-by"), None, "{answer:?}");
    }
    let opaque = client
        .host
        .curl(&format!("http://{service}:8081/"), &["--http0.9"]);
    assert!(opaque.body.is_empty(), "not a byte came back: {opaque:?}");

    // The control: the same processes, the right name.
    server.publish();
    client.host.wait_status(&url, 200);
}

#[test]
fn of_a_client_without_one() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "inbound: {defaultPolicy: all-authenticated}");
    let stranger = network.host("stranger");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("web-1", "web", &[(8080, "http")]);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &[(8080, "http")]);
    server.publish();
    client
        .host
        .wait_status(&format!("http://{service}:8080/"), 200);

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let forged = format!("l5d-client-id: {}", client.identity());
        let answer = stranger.curl(
            &format!("http://{}:8080/", server.host.address()),
            &[version, "-H", &forged],
        );
        assert!(matches!(answer.status, 0 | 403), "{answer:?}");
        assert_eq!(answer.header("x-served-by"), None, "{answer:?}");
    }
}

#[test]
fn of_a_client_of_another_mesh() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let (ours, theirs) = (Mesh::start(&network, ""), Mesh::start(&network, ""));
    let ports = [(8080, "http")];
    let server = ours.workload("web-1", "web", &ports);
    let _app = App::start(&server.host, "one", 8080);
    let friend = ours.workload("client", "client", &[]);
    // The same names in both meshes; only the anchors differ.
    let foe = theirs.workload("client", "client", &[]);
    let service = ours.service("web", &ports);
    assert_eq!(theirs.service("web", &ports), service);
    server.publish();
    theirs.declare(&server);

    let url = format!("http://{service}:8080/");
    friend.host.wait_status(&url, 200);
    let answer = foe.host.curl(&url, &[]);
    assert!(matches!(answer.status, 502..=504), "{answer:?}");
    assert_eq!(answer.header("x-served-by"), None, "{answer:?}");
}

#[test]
fn of_a_workload_whose_token_is_for_another() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let mut right = mesh.joining("web-1", "web", &[]);
    let mut wrong = mesh.joining_as("web-2", "web", &[], &identity("web-3"));
    right.wait_ready();
    // The same start, and as long again.
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        !wrong.is_ready(),
        "it was given a certificate for {}",
        wrong.identity()
    );
    assert!(
        wrong.proxy.ended().is_none(),
        "it keeps trying, as its token may be replaced: {}",
        wrong.proxy.tail()
    );
}
