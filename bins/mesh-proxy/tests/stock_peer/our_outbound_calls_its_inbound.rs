//! What we send is what a stock proxy sends, and what one was recorded answering is understood.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_http::transport_header::ALPN;
use mesh_tls::ClientAuth;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;

use crate::controller::soon;
use crate::h2;
use crate::mesh::{CLIENT, Mesh, SERVER};
use crate::policy;
use crate::recorded::{GRPC, HTTP1, HTTP2, OPAQUE, PREFACE, Recorded, UPGRADE, message};
use crate::wire::{Wire, ask};

type Stream = TlsStream<mesh_tls::ReadAhead<TcpStream>>;

/// Serves each connection in mesh TLS that a client with an identity opens to the server's mesh port. It asks for the protocol
/// of the transport header or for none, as a stock proxy does.
async fn peer<F>(mesh: &Mesh, serve: impl Fn(Stream) -> F + Send + Sync + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let tls = mesh.tls_server(SERVER, &[ALPN], ClientAuth::Required);
    let listener = TcpListener::bind(mesh.net.mesh_port()).await.unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (tls, serve) = (tls.clone(), serve.clone());
            tokio::spawn(async move {
                let (stream, client) = tls.accept(stream).await.unwrap();
                assert_eq!(client.unwrap().as_str(), CLIENT);
                serve(stream).await;
            });
        }
    })
}

/// Answers the first request of each connection as it was recorded, once it has come as a whole.
async fn replays(mesh: &Mesh, recorded: &'static Recorded) -> JoinHandle<()> {
    peer(mesh, move |stream| async move {
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        let mut wire = Wire::over(stream);
        assert_eq!(wire.exactly(PREFACE.len()).await, PREFACE);
        message(&mut wire).await;
        wire.send(recorded.s2c).await;
        wire.rest_if_any().await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_goes_in_http2_with_all_that_a_stock_proxy_hands_on() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let sees = seen.clone();
    let _peer = peer(&mesh, move |stream| {
        let sees = sees.clone();
        async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut lines: Vec<String> = request
                    .headers()
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                    .collect();
                lines.sort();
                let (method, uri) = (request.method(), request.uri());
                assert_eq!(request.version(), Version::HTTP_2);
                let seen = format!("{method} {uri}\n{}", lines.join("\n"));
                sees.lock().unwrap().push(seen);
                async { Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default())) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;

    for (sent, expected) in [
        (
            "GET /a?b=c HTTP/1.1\r\nhost: web.example:8080\r\nconnection: x-hop\r\nx-hop: 1\r\naccept: */*\r\n\r\n",
            "GET http://web.example:8080/a?b=c\naccept: */*\nhost: web.example:8080\nl5d-orig-proto: HTTP/1.1",
        ),
        // The target outranks Host.
        (
            "GET http://somewhere.example/a HTTP/1.1\r\nhost: other.example\r\n\r\n",
            "GET http://somewhere.example/a\nhost: somewhere.example\nl5d-orig-proto: HTTP/1.1; absolute-form",
        ),
        (
            "GET /old HTTP/1.0\r\nhost: web.example\r\n\r\n",
            "GET http://web.example/old\nhost: web.example\nl5d-orig-proto: HTTP/1.0",
        ),
        (
            "POST /p HTTP/1.1\r\nhost: web.example\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST http://web.example/p\nhost: web.example\nl5d-orig-proto: HTTP/1.1",
        ),
    ] {
        assert_eq!(ask(mesh.net.web(), sent).await.status(), 200);
        let seen = seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_answer_to_http1_is_one_of_http1() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let _peer = replays(&mesh, &HTTP1).await;
    let answer = ask(
        mesh.net.web(),
        "GET /a?b=c HTTP/1.1\r\nhost: web.example:8080\r\n\r\n",
    )
    .await;
    assert_eq!(answer.first, "HTTP/1.1 200 OK");
    assert_eq!(answer.header("x-served-by").as_deref(), Some("one"));
    assert_eq!(
        answer.header("l5d-orig-proto"),
        None,
        "only between proxies"
    );
    assert!(answer.body_text().contains("web.example:8080"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_answer_keeps_its_trailers() {
    for (recorded, body, trailer) in [
        (&HTTP2, &b"hello"[..], ("x-echoed", "whole")),
        (&GRPC, b"\0\0\0\0\x05hello", ("grpc-status", "0")),
    ] {
        let mesh = Mesh::start();
        let _client = mesh.client("").await;
        let _peer = replays(&mesh, recorded).await;
        let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
        let request = Request::post("http://web.test/x")
            .body(h2::full("a"))
            .unwrap();
        let response = soon("a response", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let whole = soon("a body", response.into_body().collect())
            .await
            .unwrap();
        let trailers = whole.trailers().cloned().unwrap();
        assert_eq!(trailers[trailer.0], trailer.1);
        assert_eq!(whole.to_bytes(), body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_as_http1_and_its_recorded_answer_switches() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let _peer = peer(&mesh, |stream| async move {
        let mut wire = Wire::over(stream);
        let Some(head) = wire.head().await else {
            return;
        };
        assert_eq!(head.first, "GET /up HTTP/1.1");
        assert_eq!(head.header("host").as_deref(), Some("web.example"));
        assert_eq!(head.header("upgrade").as_deref(), Some("echo"));
        assert_eq!(head.header("connection").as_deref(), Some("upgrade"));
        assert_eq!(head.header("l5d-orig-proto"), None);
        wire.send(UPGRADE.s2c).await;
        let sent = wire.exactly(4).await;
        wire.send(sent).await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(
        "GET /up HTTP/1.1\r\nhost: web.example\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    )
    .await;
    let answer = wire.head().await.unwrap();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.header("upgrade").as_deref(), Some("echo"));
    wire.send("ping").await;
    assert_eq!(wire.exactly(4).await, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_behind_the_header_that_a_stock_proxy_sends() {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", policy::opaque("web"));
    // The port that the recorded header names.
    let endpoint = policy::meshed_opaque(mesh.net.mesh_port(), 8101);
    mesh.says.endpoints("web.test:80", vec![endpoint]);
    let _client = mesh.client("").await;
    let _peer = peer(&mesh, |stream| async move {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
        let mut wire = Wire::over(stream);
        assert_eq!(wire.exactly(OPAQUE.c2s.len()).await, OPAQUE.c2s);
        wire.send(OPAQUE.s2c).await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("hello").await;
    assert_eq!(wire.rest().await, OPAQUE.s2c);
}
