use e2e::{App, MESH, Mesh, Network, PythonPeer, Requirement, require};

#[test]
fn of_a_stock_server_and_client() {
    if !require(&[&MESH[..], &[Requirement::Python("websockets")]].concat()) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("chat-1", "chat", &[(8080, "http")]);
    let _server = PythonPeer::start(&server.host, "websocket_server.py", &["8080"], Some(8080));
    let service = mesh.service("chat", &[(8080, "http")]);
    server.publish();

    let url = format!("ws://{service}:8080/chat");
    let mut talk = PythonPeer::start(&client.host, "websocket_client.py", &[&url, "marker"], None);
    assert_eq!(talk.process.success(), "passed\n");
}

#[test]
fn and_other_upgrades_and_refused_ones() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("web-1", "web", &[(8080, "http")]);
    let _app = App::start(&server.host, "one", 8080);
    let service = mesh.service("web", &[(8080, "http")]);
    server.publish();

    let url = format!("http://{service}:8080/");
    let upgrade = |protocol: &str| {
        let protocol = format!("Upgrade: {protocol}");
        client.host.curl(
            &url,
            &["-H", "Connection: upgrade", "-H", &protocol, "-m", "2"],
        )
    };
    let switched = upgrade("echo");
    assert_eq!(
        (switched.status, switched.header("upgrade")),
        (101, Some("echo")),
        "{switched:?}"
    );
    // A server that does not know a protocol answers as if it had not been asked.
    let refused = upgrade("unheard-of");
    assert_eq!(
        (refused.status, refused.header("x-served-by")),
        (200, Some("one")),
        "{refused:?}"
    );
}
