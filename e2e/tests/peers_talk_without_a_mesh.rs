//! The control of the mesh's protocol tests: the same peers, host to host, with nothing between them.

use e2e::{App, Network, Nginx, PythonPeer, Redis, Requirement, require};

#[test]
fn nginx_answers_curl() {
    if !require(&[Requirement::Program("nginx"), Requirement::Program("curl")]) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _nginx = Nginx::start(&server, 8080, "a page");
    let answer = client.curl(&format!("http://{}:8080/", server.address()), &[]);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "a page"),
        "{answer:?}"
    );
}

#[test]
fn grpcio_makes_its_four_kinds_of_calls() {
    if !require(&[Requirement::Python("grpc")]) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _server = PythonPeer::start(&server, "grpc_server.py", &["50051"], Some(50051));
    let target = format!("{}:50051", server.address());
    let mut calls = PythonPeer::start(&client, "grpc_client.py", &[&target, "marker"], None);
    assert!(calls.process.success().starts_with("passed 7"));
}

#[test]
fn websockets_talk() {
    if !require(&[Requirement::Python("websockets")]) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _server = PythonPeer::start(&server, "websocket_server.py", &["8080"], Some(8080));
    let url = format!("ws://{}:8080/chat", server.address());
    let mut client = PythonPeer::start(&client, "websocket_client.py", &[&url, "marker"], None);
    assert_eq!(client.process.success(), "passed\n");
}

#[test]
fn redis_keeps_a_value() {
    if !require(&[
        Requirement::Program("redis-server"),
        Requirement::Program("redis-cli"),
    ]) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _redis = Redis::start(&server, 6379);
    let address = server.address().to_string();
    let cli = |arguments: &[&str]| {
        client
            .start("redis-cli", &[&["-h", &address], arguments].concat())
            .success()
    };
    assert_eq!(cli(&["set", "key", "marker"]), "OK\n");
    assert_eq!(cli(&["get", "key"]), "marker\n");
}

#[test]
fn an_upgrade_other_than_websocket_carries_bytes() {
    if !require(&[Requirement::Built("e2e-app"), Requirement::Program("curl")]) {
        return;
    }
    let network = Network::new();
    let (client, server) = (network.host("client"), network.host("server"));
    let _app = App::start(&server, "one", 8080);
    let options = [
        "-H",
        "Connection: upgrade",
        "-H",
        "Upgrade: echo",
        "-m",
        "1",
    ];
    let answer = client.curl(&format!("http://{}:8080/", server.address()), &options);
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (101, Some("echo")),
        "{answer:?}"
    );
}
