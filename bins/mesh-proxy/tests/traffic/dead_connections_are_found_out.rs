//! A connection between HTTP/2 peers that died unnoticed, as where a link goes and takes all packets with it, costs no request that
//! may be sent twice; one that may not be, or that a new connection died of, is sent once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use linkerd2_proxy_api::destination::ProtocolHint;
use linkerd2_proxy_api::destination::WeightedAddr;
use linkerd2_proxy_api::destination::protocol_hint::{H2, Protocol};

use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{self, app, ask};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const DELETE: &str = "DELETE / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 0\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 5\r\n\r\nhello";

/// Answers so many requests on a connection, and resets it at the next. Counts requests.
async fn dying_after(address: SocketAddr, answered: u8) -> (wire::App, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let app = app(address, move |mut wire| {
        let counted = counted.clone();
        async move {
            // The client's preface; then an empty SETTINGS.
            wire.exactly(24).await;
            wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            let mut requests = 0;
            while let Some((kind, _)) = wire.frame().await {
                // HEADERS, of stream 1, 3 and so on.
                if kind != 1 {
                    continue;
                }
                counted.fetch_add(1, SeqCst);
                if requests == answered {
                    wire.reset();
                    return;
                }
                // HEADERS with :status 200, which end the stream.
                let stream = 2 * requests + 1;
                wire.send([0, 0, 1, 1, 5, 0, 0, 0, stream, 0x88]).await;
                requests += 1;
            }
        }
    })
    .await;
    (app, seen)
}

/// A client of a service of one plain address that takes HTTP/2.
async fn mesh() -> (Mesh, Proxy) {
    let mesh = Mesh::start();
    let endpoint = WeightedAddr {
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: None,
        }),
        ..policy::plain(mesh.net.plain(0))
    };
    mesh.says.endpoints("web.test:80", vec![endpoint]);
    let client = mesh.client("limits.workers = 1").await;
    (mesh, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_failure_where_it_may_be_sent_twice() {
    let (mesh, client) = mesh().await;
    let (_app, seen) = dying_after(mesh.net.plain(0), 1).await;
    for n in 0..10 {
        let request = [GET, DELETE][n % 2];
        let answer = ask(mesh.net.web(), request).await;
        assert_eq!(answer.status(), 200, "{n}: {:?}", answer.headers);
    }
    // All but the first come to the connection of the one before them.
    assert_eq!(seen.load(SeqCst), 10 + 9);
    let family = "outbound_http_route_retry_requests_total";
    assert!(client.metric(family, &[]).await < 0.5, "no route says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_where_it_may_not() {
    for request in [POST, PUT] {
        let (mesh, _client) = mesh().await;
        let (_app, seen) = dying_after(mesh.net.plain(0), 1).await;
        assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
        let answer = ask(mesh.net.web(), request).await;
        assert_eq!(answer.status(), 502, "{request}: {:?}", answer.headers);
        assert_eq!(seen.load(SeqCst), 2, "{request}");
    }
}

/// It may be what the server dies of.
#[tokio::test(flavor = "multi_thread")]
async fn once_where_the_connection_was_made_for_it() {
    let (mesh, _client) = mesh().await;
    let (_app, seen) = dying_after(mesh.net.plain(0), 0).await;
    let answer = ask(mesh.net.web(), GET).await;
    assert_eq!(answer.status(), 502, "{:?}", answer.headers);
    assert_eq!(seen.load(SeqCst), 1);
}
