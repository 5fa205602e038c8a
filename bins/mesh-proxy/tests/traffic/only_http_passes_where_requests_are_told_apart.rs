//! Where the policy tells requests apart, nothing passes that is none, and nothing that is one passes as bytes.

use std::net::SocketAddr;
use std::time::Duration;

use linkerd2_proxy_api::inbound::Server;
use linkerd2_proxy_api::inbound::proxy_protocol::{Grpc, Http1, Http2, Kind};
use mesh_http::transport_header::{ALPN, TransportHeader};

use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::wire::{App, Wire, app, ask, mirror};

/// Policies that know requests and let everybody in.
fn policies() -> [Server; 4] {
    [
        policy::with_protocol(policy::open(), Kind::Http1(Http1::default())),
        policy::with_protocol(policy::open(), Kind::Http2(Http2::default())),
        policy::with_protocol(policy::open(), Kind::Grpc(Grpc::default())),
        policy::routed(policy::open(), &[("/", CLIENT)]),
    ]
}

/// The announcement of bytes that are not to be looked into.
fn header(mesh: &Mesh) -> TransportHeader {
    TransportHeader {
        port: mesh.net.app().port(),
        name: None,
        session: None,
    }
}

async fn greets(address: SocketAddr) -> App {
    app(address, |mut wire| async move {
        wire.offer("reached").await;
        wire.rest_if_any().await;
    })
    .await
}

/// What the application says to bytes that come in plaintext, in mesh TLS, and behind a transport header.
async fn bytes(mesh: &Mesh) -> [Vec<u8>; 3] {
    let to = mesh.net.mesh_port();
    let mut plaintext = Wire::connect(to).await;
    plaintext.send(b"\0abc").await;
    plaintext.finish().await;
    let mut tls = mesh.tls(to, Some(CLIENT), &[]).await;
    tls.send(b"\0abc").await;
    tls.close().await;
    let mut announced = mesh.tls(to, Some(CLIENT), &[ALPN]).await;
    announced
        .send([&header(mesh).encode()[..], b"\0abc"].concat())
        .await;
    announced.close().await;
    [
        plaintext.rest_if_any().await,
        tls.rest_if_any().await,
        announced.rest_if_any().await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_refused() {
    for server in policies() {
        let mesh = Mesh::start();
        mesh.says.server(mesh.net.app().port(), server.clone());
        let _server = mesh.server("").await;
        let _app = greets(mesh.net.app()).await;
        let nothing: [Vec<u8>; 3] = Default::default();
        assert_eq!(bytes(&mesh).await, nothing, "{:?}", server.protocol);
    }
    let mesh = Mesh::start();
    let _server = mesh.server("").await;
    let _app = greets(mesh.net.app()).await;
    let reached = || b"reached".to_vec();
    assert_eq!(bytes(&mesh).await, [reached(), reached(), reached()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_announced_as_bytes_are_requests() {
    let mesh = Mesh::start();
    let routes = [("/mine", CLIENT), ("/", "somebody.else")];
    mesh.says.server(
        mesh.net.app().port(),
        policy::routed(policy::nobody(), &routes),
    );
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let to = mesh.net.mesh_port();
    for (path, status) in [("/mine", 200), ("/theirs", 403)] {
        let mut wire = mesh.tls(to, Some(CLIENT), &[ALPN]).await;
        wire.send(header(&mesh).encode()).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: web.test\r\nl5d-client-id: admin.test\r\n\r\n");
        let seen = wire.ask(&request).await;
        assert_eq!(seen.status(), status, "{path}");
        if status == 200 {
            assert_eq!(
                seen.body_text(),
                "GET /mine HTTP/1.1\nhost: web.test\nl5d-client-id: client.test\n\n"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_before_a_request_hide_nothing() {
    let mesh = Mesh::start();
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let to = mesh.net.mesh_port();
    let request = "GET / HTTP/1.1\r\nhost: web.test\r\nl5d-client-id: admin.test\r\n\r\n";
    let expected = "GET / HTTP/1.1\nhost: web.test\n\n";
    for lines in ["\r\n", "\n", "\r\n\r\n\r\n"] {
        let mut wire = Wire::connect(to).await;
        wire.send(lines).await;
        wire.send(request).await;
        assert_eq!(wire.response("GET").await.body_text(), expected);
        let at_once = [lines, request].concat();
        let mut wire = Wire::connect(to).await;
        wire.send(at_once).await;
        assert_eq!(wire.response("GET").await.body_text(), expected);
    }
    let mesh = Mesh::start();
    mesh.says.server(
        mesh.net.app().port(),
        policy::routed(policy::nobody(), &[("/", "somebody.else")]),
    );
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let seen = ask(mesh.net.mesh_port(), &["\r\n", request].concat()).await;
    assert_eq!(seen.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_speaks_what_the_policy_names() {
    let request = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
    let settings = "inbound.detect_timeout = \"20ms\"";
    let wait = || tokio::time::sleep(Duration::from_millis(200));
    let http1 = Kind::Http1(Http1::default());
    for (kind, taken) in [(Some(http1), true), (None, false)] {
        let mesh = Mesh::start();
        let server = match kind {
            Some(kind) => policy::with_protocol(policy::open(), kind),
            None => policy::detected_within(policy::open(), Duration::from_millis(20)),
        };
        mesh.says.server(mesh.net.app().port(), server);
        let _server = mesh.server(settings).await;
        // What is taken for bytes reaches it as they are.
        let _app = mirror(mesh.net.app()).await;
        for said in [0, 2] {
            let mut plaintext = Wire::connect(mesh.net.mesh_port()).await;
            let mut tls = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
            plaintext.send(&request[..said]).await;
            tls.send(&request[..said]).await;
            wait().await;
            plaintext.send(&request[said..]).await;
            tls.send(&request[said..]).await;
            let seen = tls.response("GET").await.body_text();
            assert_eq!(seen.contains("l5d-client-id"), taken, "{seen}");
            assert_eq!(plaintext.response("GET").await.status(), 200);
        }
    }

    let mesh = Mesh::start();
    let server = policy::with_protocol(policy::open(), Kind::Grpc(Grpc::default()));
    mesh.says.server(mesh.net.app().port(), server);
    let _server = mesh.server(settings).await;
    let mut wire = Wire::connect(mesh.net.mesh_port()).await;
    wait().await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    // SETTINGS, by which a server of HTTP/2 begins.
    assert_eq!(wire.frame().await.unwrap().0, 4);
}
