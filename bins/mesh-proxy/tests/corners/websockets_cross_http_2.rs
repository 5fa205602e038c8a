//! Extended CONNECT (RFC 8441): a stream of an HTTP/2 connection becomes a WebSocket's, over the mesh and to real servers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::controller::soon;
use crate::h2;
use crate::mesh::Mesh;
use crate::policy;
use crate::programs::{found, haproxy, python_module};
use crate::wire::{Wire, mirror};

fn connect_request(path: &str) -> Request<h2::Body> {
    Request::connect(format!("http://web.test{path}"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("l5d-client-id", "nobody.test")
        .body(h2::full(""))
        .unwrap()
}

/// Permits extended CONNECT, answers in brackets, says `bye` once the client has ended; `/no` is refused. Tells what it was
/// asked for, and how it ended.
async fn websocket_app(address: SocketAddr) -> (JoinHandle<()>, UnboundedReceiver<String>) {
    let (tell, told) = unbounded_channel();
    let listener = TcpListener::bind(address).await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                let protocol = request.extensions().get::<Protocol>();
                let protocol = protocol.map(|protocol| protocol.as_str().to_owned());
                let seen = format!(
                    "{} {protocol:?} {} {:?}",
                    request.method(),
                    request.uri(),
                    request.headers().get("l5d-client-id")
                );
                tell.send(seen).unwrap();
                let no = request.uri().path() == "/no";
                let (tell, upgrade) = (tell.clone(), hyper::upgrade::on(&mut request));
                tokio::spawn(async move {
                    if let Ok(upgraded) = upgrade.await {
                        let ended = echo(TokioIo::new(upgraded)).await;
                        let _ = tell.send(ended.to_owned());
                    }
                });
                let mut response = Response::new(h2::full(if no { "no" } else { "" }));
                if no {
                    *response.status_mut() = http::StatusCode::FORBIDDEN;
                }
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.enable_connect_protocol();
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (serving, told)
}

async fn echo(mut io: TokioIo<Upgraded>) -> &'static str {
    let mut bytes = [0; 64];
    loop {
        match io.read(&mut bytes).await {
            Ok(0) => {
                let _ = io.write_all(b"bye").await;
                let _ = io.shutdown().await;
                return "ended";
            }
            Ok(read) => {
                let answer = [b"<", &bytes[..read], b">"].concat();
                if io.write_all(&answer).await.is_err() {
                    return "reset";
                }
            }
            Err(_) => return "reset",
        }
    }
}

async fn opened(
    sender: &mut hyper::client::conn::http2::SendRequest<h2::Body>,
    path: &str,
) -> Wire<TokioIo<Upgraded>> {
    let answer = soon("an answer", sender.send_request(connect_request(path)));
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.headers());
    let upgraded = soon("a stream", hyper::upgrade::on(&mut answer)).await;
    Wire::over(TokioIo::new(upgraded.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_each_direction_ends_on_its_own() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let (app, mut events) = websocket_app(mesh.net.app()).await;
    for address in crate::ways(&mesh) {
        let (mut sender, _connection) = h2::connect(address).await;
        let meshed = address == mesh.net.web();
        let id = if meshed {
            r#"Some("client.test")"#
        } else {
            "None"
        };
        let mut streams = Vec::new();
        for n in 0..3 {
            let stream = opened(&mut sender, &format!("/chat?{n}")).await;
            let seen = soon("a request", events.recv()).await.unwrap();
            // Past the proxies, what a client says of itself is not looked at.
            let id = if address == mesh.net.other() {
                r#"Some("nobody.test")"#
            } else {
                id
            };
            assert_eq!(
                seen,
                format!(r#"CONNECT Some("websocket") http://web.test/chat?{n} {id}"#)
            );
            streams.push(stream);
        }
        for stream in &mut streams {
            for _ in 0..3 {
                stream.send("abc").await;
                assert_eq!(stream.exactly(5).await, b"<abc>");
            }
        }
        for mut stream in streams {
            stream.finish().await;
            assert_eq!(stream.rest().await, b"bye");
            assert_eq!(soon("an end", events.recv()).await.unwrap(), "ended");
        }
        // A refusal is an answer like any, with its body.
        let refused = sender.send_request(connect_request("/no")).await.unwrap();
        assert_eq!(refused.status(), 403);
        let body = http_body_util::BodyExt::collect(refused.into_body()).await;
        assert_eq!(body.unwrap().to_bytes(), "no");
        soon("a request", events.recv()).await;
    }
    for (proxy, direction) in [(&client, "outbound_http_route"), (&server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
    }
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_one_side_ends_the_other() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (app, mut events) = websocket_app(mesh.net.app()).await;
    let stream = std::net::TcpStream::connect(mesh.net.web()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let cut = stream.try_clone().unwrap();
    let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let mut kept = opened(&mut sender, "/kept").await;
    let dropped = opened(&mut sender, "/dropped").await;
    for _ in 0..2 {
        soon("a request", events.recv()).await;
    }
    drop(dropped);
    let how = soon("an end", events.recv()).await.unwrap();
    assert!(matches!(how.as_str(), "reset" | "ended"), "{how}");
    kept.send("a").await;
    assert_eq!(kept.exactly(3).await, b"<a>");
    // The client's whole connection goes.
    cut.shutdown(std::net::Shutdown::Both).unwrap();
    let how = soon("an end", events.recv()).await.unwrap();
    assert!(matches!(how.as_str(), "reset" | "ended"), "{how}");
    connection.abort();
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_no_longer_let_in_is_ended() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (app, _events) = websocket_app(mesh.net.app()).await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let mut stream = opened(&mut sender, "/chat").await;
    stream.send("a").await;
    assert_eq!(stream.exactly(3).await, b"<a>");
    let port = mesh.net.app().port();
    mesh.says.server(port, policy::only("another.test"));
    assert!(stream.ends_within(Duration::from_secs(10)).await);
    let refused = sender.send_request(connect_request("/chat")).await.unwrap();
    assert_eq!(refused.status(), 403);
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_permit_it_is_501() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _http1 = mirror(mesh.net.app()).await;
    let _http2 = h2::app(mesh.net.plain(1), |_| async {
        Response::new(h2::full("ok"))
    })
    .await;
    let ways = crate::ways(&mesh);
    mesh.says
        .endpoints("other.test:80", vec![policy::plain(mesh.net.plain(1))]);
    for address in ways {
        let (mut sender, _connection) = h2::connect(address).await;
        for _ in 0..2 {
            let answer = soon("an answer", sender.send_request(connect_request("/"))).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 501, "{address}");
            assert!(answer.headers().contains_key("l5d-proxy-error"));
        }
        // An ordinary CONNECT has no place in a service.
        let request = Request::connect("web.test:80").body(h2::full("")).unwrap();
        let answer = soon("an answer", sender.send_request(request)).await;
        assert_eq!(answer.unwrap().status(), 501, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_websocket_server_behind_haproxy_echoes() {
    if !found(&["haproxy", "python:websockets"]) {
        return;
    }
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (behind, address) = (mesh.net.plain(1), mesh.net.app());
    let _server = python_module(
        "import sys, websockets.sync.server as s\n\
         def echo(socket):\n\
         \x20for message in socket: socket.send('<' + message + '>')\n\
         s.serve(echo, sys.argv[1], int(sys.argv[2])).serve_forever()\n",
        behind,
    )
    .await;
    // It makes of the stream what HTTP/1 calls an upgrade.
    let _haproxy = haproxy(
        address,
        &format!(
            "frontend f\n bind {address} proto h2\n default_backend b\nbackend b\n server s {behind}\n"
        ),
    )
    .await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let mut stream = opened(&mut sender, "/").await;
    for text in ["hello", "again"] {
        // A masked text frame, with a mask of zeros (RFC 6455, section 5.2).
        let frame = [&[0x81, 0x80 | 5, 0, 0, 0, 0], text.as_bytes()].concat();
        stream.send(frame).await;
        let answer = format!("<{text}>");
        let expected = [&[0x81, 7], answer.as_bytes()].concat();
        assert_eq!(stream.exactly(9).await, expected);
    }
    // Close, 1000; which is answered so.
    stream.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await;
    assert_eq!(stream.exactly(4).await, [0x88, 2, 0x03, 0xe8]);
}
