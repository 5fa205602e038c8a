//! A request that a server turned away unread is sent again, to another endpoint if there is one, whatever it asks for and
//! though no route says so; but not for ever.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use linkerd2_proxy_api::destination::ProtocolHint;
use linkerd2_proxy_api::destination::WeightedAddr;
use linkerd2_proxy_api::destination::protocol_hint::{H2, Protocol};

use crate::h2;
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{self, Wire, app, ask};

const POST: &str = "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 5\r\n\r\nhello";
const BOTH: [TurnsAway; 2] = [TurnsAway::Stream, TurnsAway::Connection];

/// What an HTTP/2 server says when it turns away a stream that it did not look at.
#[derive(Clone, Copy, Debug, PartialEq)]
enum TurnsAway {
    Stream,
    Connection,
}

async fn turning_away(address: SocketAddr, how: TurnsAway) -> (wire::App, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let app = app(address, move |mut wire| {
        let counted = counted.clone();
        async move {
            // The client's preface; then an empty SETTINGS.
            wire.exactly(24).await;
            wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            while let Some((kind, _)) = wire.frame().await {
                // HEADERS, of stream 1, 3 and so on.
                if kind != 1 {
                    continue;
                }
                let turned = counted.fetch_add(1, SeqCst);
                let answered = match how {
                    TurnsAway::Stream => {
                        let stream = u8::try_from(2 * turned + 1).unwrap();
                        // RST_STREAM with REFUSED_STREAM.
                        wire.offer([0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, 7])
                            .await
                    }
                    // GOAWAY after stream 0, without an error.
                    TurnsAway::Connection => {
                        wire.offer([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                            .await
                    }
                };
                if !answered {
                    return;
                }
            }
        }
    })
    .await;
    (app, seen)
}

fn http2(at: SocketAddr) -> WeightedAddr {
    WeightedAddr {
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: None,
        }),
        ..policy::plain(at)
    }
}

/// A client of a service that consists of so many plain addresses that take HTTP/2.
async fn mesh(endpoints: u16) -> (Mesh, Proxy) {
    let mesh = Mesh::start();
    let all = (0..endpoints).map(|n| http2(mesh.net.plain(n)));
    mesh.says.endpoints("web.test:80", all.collect());
    let client = mesh.client("limits.workers = 1").await;
    (mesh, client)
}

/// Answers with what it was sent.
async fn echo(address: SocketAddr) -> h2::App {
    h2::app(address, |request| async {
        let body = http_body_util::BodyExt::collect(request.into_body()).await;
        http::Response::new(h2::full(body.unwrap().to_bytes()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_with_its_body() {
    for how in BOTH {
        let (mesh, client) = mesh(2).await;
        let (_failing, turned) = turning_away(mesh.net.plain(0), how).await;
        let _app = echo(mesh.net.plain(1)).await;
        for _ in 0..10 {
            let answer = ask(mesh.net.web(), POST).await;
            assert_eq!(answer.status(), 200, "{how:?}: {:?}", answer.headers);
            assert_eq!(answer.body_text(), "hello");
        }
        let turned = turned.load(SeqCst);
        assert!(turned > 0, "{how:?}");
        let family = "outbound_http_route_retry_requests_total";
        assert!(client.metric(family, &[]).await < 0.5, "no route says so");
        // Each try is an attempt of its own; what was turned away is a failure of the endpoint's.
        let family = "outbound_http_route_backend_failures_total";
        let failed = client.metric(family, &["reset"]).await;
        assert!((failed - turned as f64).abs() < 0.5, "{failed} of {turned}");
    }
}

/// Turned away by a connection that is ending, it is sent on that once more before the ending is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn whole_though_it_was_not_sent_at_all_in_between() {
    let (mesh, _client) = mesh(1).await;
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let (connections, came) = (AtomicUsize::new(0), arrived.clone());
    let _app = app(mesh.net.plain(0), move |mut wire| {
        let first = connections.fetch_add(1, SeqCst) == 0;
        let came = came.clone();
        async move {
            wire.exactly(24).await;
            wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            let mut requests = 0;
            while let Some((kind, payload)) = wire.frame().await {
                requests += usize::from(kind == 1);
                if first && requests == 2 {
                    // RST_STREAM of stream 3 with REFUSED_STREAM, GOAWAY after stream 3; stream 1 goes on.
                    let refused = [0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 7];
                    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
                    wire.send([&refused[..], &goaway].concat()).await;
                    requests = 0;
                } else if !first && kind == 0 {
                    came.lock().unwrap().extend_from_slice(&payload);
                    // HEADERS with :status 200, which end stream 1.
                    wire.send([0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]).await;
                }
            }
        }
    })
    .await;
    let mut held = Wire::connect(mesh.net.web()).await;
    held.send("GET /held HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    // It is stream 1.
    assert!(held.is_silent(Duration::from_millis(300)).await);
    let answer = ask(mesh.net.web(), POST).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.headers);
    assert_eq!(*arrived.lock().unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_the_only_endpoint_that_there_is_twice() {
    for how in BOTH {
        let (mesh, _client) = mesh(1).await;
        let (_failing, turned) = turning_away(mesh.net.plain(0), how).await;
        let answer = ask(mesh.net.web(), POST).await;
        assert_eq!(answer.status(), 503, "{how:?}: {:?}", answer.headers);
        assert_eq!(
            answer.header("l5d-proxy-error").as_deref(),
            Some("the endpoint turned the request away unread")
        );
        assert_eq!(turned.load(SeqCst), 3, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_the_application_that_a_proxy_stands_before() {
    for how in BOTH {
        let mesh = Mesh::start();
        let at = policy::meshed(mesh.net.mesh_port());
        mesh.says.endpoints("web.test:80", vec![at]);
        let _proxies = mesh.both().await;
        let (_failing, turned) = turning_away(mesh.net.app(), how).await;
        let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
        let request = http::Request::post("http://web.test/")
            .body(h2::full("hello"))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 503, "{how:?}: {:?}", answer.headers());
        assert_eq!(turned.load(SeqCst), 3, "{how:?}");
    }
}
