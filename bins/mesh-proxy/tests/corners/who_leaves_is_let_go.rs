//! A client that is gone, by whatever way, frees what was done for it: the application hears of it, and the proxies forget it.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::controller::soon;
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, Wire, app};

/// An application that answers nothing after `first`, and tells when it has a connection and when that ends.
async fn waits(
    address: std::net::SocketAddr,
    first: &'static str,
) -> (App, UnboundedReceiver<&'static str>) {
    let (tell, told) = unbounded_channel();
    let app = app(address, move |mut wire| {
        let tell = tell.clone();
        async move {
            assert!(!wire.up_to(4096).await.is_empty());
            wire.send(first).await;
            tell.send("asked").unwrap();
            assert!(wire.ends_within(Duration::from_secs(10)).await);
            tell.send("left").unwrap();
        }
    })
    .await;
    (app, told)
}

async fn told(events: &mut UnboundedReceiver<&'static str>, event: &str) {
    assert_eq!(soon(event, events.recv()).await, Some(event));
}

async fn forgotten(proxies: &(Proxy, Proxy)) {
    let (client, server) = proxies;
    for (proxy, direction) in [(client, "outbound_http_route"), (server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
    }
    for (proxy, direction) in [(client, "outbound"), (server, "inbound")] {
        proxy
            .metric_becomes(&format!("{direction}_tcp_open_connections"), &[], 0.0)
            .await;
    }
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn by_a_reset_or_an_end_before_and_within_the_answer() {
    let mesh = Mesh::start();
    let proxies = mesh.both().await;
    for first in ["", ANSWER] {
        let (_app, mut events) = waits(mesh.net.app(), first).await;
        for request in [
            "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 100\r\n\r\nhalf",
            "POST / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            for reset in [false, true] {
                let mut wire = Wire::connect(mesh.net.web()).await;
                wire.send(request).await;
                told(&mut events, "asked").await;
                if !first.is_empty() {
                    assert_eq!(wire.head().await.unwrap().status(), 200);
                }
                if reset {
                    wire.reset();
                } else {
                    drop(wire);
                }
                told(&mut events, "left").await;
            }
        }
        forgotten(&proxies).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(_app);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_reset_of_a_tunnel_or_an_upgraded_connection() {
    let mesh = Mesh::start();
    let proxies = mesh.both().await;
    {
        let (_app, mut events) = waits(mesh.net.app(), SWITCH).await;
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(
            "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        )
        .await;
        told(&mut events, "asked").await;
        assert_eq!(wire.head().await.unwrap().status(), 101);
        wire.reset();
        told(&mut events, "left").await;
    }
    let (_plain, mut events) = waits(mesh.net.plain(0), "").await;
    let plain = mesh.net.plain(0);
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    let connect = format!("CONNECT {plain} HTTP/1.1\r\nhost: {plain}\r\n\r\n");
    assert_eq!(wire.ask(&connect).await.status(), 200);
    wire.send("\0bytes").await;
    told(&mut events, "asked").await;
    wire.reset();
    told(&mut events, "left").await;

    mesh.says.policy("other.test:80", policy::opaque("other"));
    mesh.says
        .endpoints("other.test:80", vec![policy::plain(plain)]);
    let mut wire = Wire::connect(mesh.net.other()).await;
    wire.send("bytes").await;
    told(&mut events, "asked").await;
    wire.reset();
    told(&mut events, "left").await;
    forgotten(&proxies).await;
}
