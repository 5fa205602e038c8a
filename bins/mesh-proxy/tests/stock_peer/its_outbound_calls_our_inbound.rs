//! What a stock proxy was recorded sending is understood, and answered as it expects.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use mesh_http::transport_header::ALPN;

use crate::h2;
use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::recorded::{
    ABSOLUTE_FORM, CHUNKED, GRPC, HEADERS, HTTP1, HTTP2, IDLE, OPAQUE, Recorded, UPGRADE, message,
};
use crate::wire::{app, mirror};

/// A mesh whose application only the client may reach, so that who arrives was recognised.
fn mesh() -> Mesh {
    let mesh = Mesh::start();
    mesh.says
        .server(mesh.net.app().port(), policy::only(CLIENT));
    mesh
}

/// What the application saw of a recorded request, as it mirrors it.
async fn seen(recorded: Recorded) -> String {
    let mesh = mesh();
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    wire.send(recorded.c2s).await;
    let (frames, data) = message(&mut wire).await;
    assert_eq!(frames[0].kind, HEADERS, "{frames:?}");
    String::from_utf8(data).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_in_http2() {
    assert_eq!(
        seen(HTTP1).await,
        "GET /a?b=c HTTP/1.1\naccept: */*\nhost: web.example:8080\nl5d-client-id: client.test\nuser-agent: curl/7.88.1\n\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_with_a_target_in_absolute_form() {
    assert_eq!(
        seen(ABSOLUTE_FORM).await,
        "GET http://somewhere.example/a HTTP/1.1\naccept: */*\nhost: somewhere.example\nl5d-client-id: client.test\n\
         user-agent: curl/7.88.1\n\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_with_a_body_of_unknown_length() {
    let seen = seen(CHUNKED).await;
    assert!(
        seen.starts_with("POST /echo HTTP/1.1\n")
            && seen.contains("\ntransfer-encoding: chunked\n")
            && seen.ends_with("\n\nhello"),
        "{seen}"
    );
}

/// Answers with the request's own body and a trailer that says how it came.
async fn echo(request: Request<Incoming>) -> Response<h2::Body> {
    let how = format!(
        "{:?} {} te={:?} client={:?}",
        request.version(),
        request.uri().path(),
        request.headers().get("te").unwrap(),
        request.headers().get("l5d-client-id").unwrap(),
    );
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(!request.headers().contains_key("l5d-orig-proto"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-how", how.parse().unwrap());
    let body = Full::new(Bytes::from([&body[..], how.as_bytes()].concat()));
    let body = body.with_trailers(async move { Some(Ok(trailers)) });
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_and_grpc_with_trailers() {
    for (recorded, sent, path) in [
        (HTTP2, &b"hello"[..], "/echo"),
        (GRPC, b"\0\0\0\0\x05hello", "/e2e.Peer/Unary"),
    ] {
        let mesh = mesh();
        let _server = mesh.server("").await;
        let _app = h2::app(mesh.net.app(), echo).await;
        let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
        wire.send(recorded.c2s).await;
        let (frames, data) = message(&mut wire).await;
        let how = format!("HTTP/2.0 {path} te=\"trailers\" client=\"client.test\"");
        assert_eq!(data, [sent, how.as_bytes()].concat());
        let last = frames.last().unwrap();
        assert_eq!(last.kind, HEADERS, "trailers end it: {frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_which_comes_as_http1() {
    let mesh = mesh();
    let _server = mesh.server("").await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        assert_eq!(request.first, "GET /up HTTP/1.1");
        assert_eq!(request.header("l5d-client-id").as_deref(), Some(CLIENT));
        wire.send(UPGRADE.s2c).await;
        let bytes = wire.exactly(4).await;
        wire.send([b"<", &bytes[..], b">"].concat()).await;
    })
    .await;
    // It opens one for HTTP/2 too, and leaves it idle.
    let mut idle = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    idle.send(IDLE.c2s).await;
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    wire.send(UPGRADE.c2s).await;
    let head = wire.head().await.unwrap();
    assert_eq!(head.status(), 101, "{head:?}");
    assert_eq!(head.header("upgrade").as_deref(), Some("echo"));
    wire.send("ping").await;
    assert_eq!(wire.exactly(6).await, b"<ping>");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_transport_header() {
    let mesh = Mesh::start();
    let inbound = mesh.net.inbound();
    let _server = mesh
        .server(&format!("inbound.listen = \"{inbound}\""))
        .await;
    // The recorded header names it.
    let port = 8101;
    mesh.says
        .server(port, policy::as_opaque(policy::only(CLIENT)));
    let _app = app(SocketAddr::new(inbound.ip(), port), |mut wire| async move {
        let bytes = wire.exactly(5).await;
        wire.send(bytes).await;
    })
    .await;
    let mut wire = mesh.tls(inbound, Some(CLIENT), &[ALPN]).await;
    wire.send(OPAQUE.c2s).await;
    assert_eq!(wire.exactly(OPAQUE.s2c.len()).await, OPAQUE.s2c);
}
