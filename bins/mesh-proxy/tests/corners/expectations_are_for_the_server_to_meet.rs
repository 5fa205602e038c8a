//! `Expect: 100-continue`: the body is sent when the server asks for it, and not before.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::controller::soon;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{App, Wire, app, mirror};

const PUT: &str =
    "PUT /up HTTP/1.1\r\nhost: web.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
/// Less than the proxies wait for a server that says nothing.
const SOON: Duration = Duration::from_millis(300);

/// Answers `interim` after a pause, reads the body if that asks for it, and answers `last`. Tells the bodies it read, and what
/// came after them.
async fn serves(
    address: std::net::SocketAddr,
    interim: &'static str,
    last: &'static str,
) -> (App, UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = unbounded_channel();
    let app = app(address, move |mut wire| {
        let tell = tell.clone();
        async move {
            while let Some(head) = wire.head().await {
                assert_eq!(head.header("expect").as_deref(), Some("100-continue"));
                assert!(wire.is_silent(SOON).await, "nobody has asked for the body");
                wire.send(interim).await;
                if interim.starts_with("HTTP/1.1 100") {
                    tell.send(wire.exactly(4).await).unwrap();
                }
                wire.send(last).await;
                if last.starts_with("HTTP/1.1 4") {
                    tell.send(wire.rest_if_any().await).unwrap();
                }
            }
        }
    })
    .await;
    (app, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_told_to_go_on_when_the_server_says_so() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (_app, mut bodies) = serves(
        mesh.net.app(),
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        // Twice: the connections stay.
        for _ in 0..2 {
            let started = Instant::now();
            let interim = wire.ask(PUT).await;
            assert_eq!(interim.status(), 100, "{address}");
            assert!(started.elapsed() >= SOON, "{address}: before the server");
            assert!(wire.is_silent(SOON).await);
            wire.send("body").await;
            let seen = wire.response("PUT").await;
            assert_eq!((seen.status(), seen.body_text().as_str()), (201, "ok"));
            assert_eq!(soon("the body", bodies.recv()).await.unwrap(), b"body");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_without_100_and_no_byte_of_the_body_is_sent() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (_app, mut rests) = serves(
        mesh.net.app(),
        "",
        "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno",
    )
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        let seen = wire.ask(PUT).await;
        assert_eq!((seen.status(), seen.body_text().as_str()), (417, "no"));
        // What would come next could be the body or a request.
        assert_eq!(seen.header("connection").as_deref(), Some("close"));
        assert!(wire.ends_within(Duration::from_secs(5)).await, "{address}");
        let rest = soon("the end", rests.recv()).await.unwrap();
        assert!(rest.is_empty(), "{address}: {}", rest.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_refusal_arrives_whole() {
    const LENGTH: usize = 3 << 20;
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.head().await.unwrap();
        let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {LENGTH}\r\n\r\n");
        wire.send(head).await;
        wire.send(vec![b'x'; LENGTH]).await;
        wire.rest_if_any().await;
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        let seen = wire.ask(PUT).await;
        assert_eq!((seen.status(), seen.body.len()), (403, LENGTH), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_100_is_an_answer() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (_app, _) = serves(
        mesh.net.app(),
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        wire.send(PUT).await;
        let mut seen = wire.response("PUT").await;
        if seen.status() == 100 {
            seen = wire.response("PUT").await;
        }
        assert_eq!((seen.status(), seen.body_text().as_str()), (200, "ok"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_of_expectations_gets_the_body() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        // A client that goes on by itself, and one that waits until it is told to.
        for waits in [false, true] {
            let mut wire = Wire::connect(address).await;
            wire.send(PUT).await;
            if !waits {
                wire.send("body").await;
            }
            let mut seen = wire.response("PUT").await;
            if seen.status() == 100 {
                if waits {
                    wire.send("body").await;
                }
                seen = wire.response("PUT").await;
            }
            assert_eq!(seen.status(), 200);
            assert!(seen.body_text().ends_with("\n\nbody"), "{address} {waits}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_do_not_disturb_and_do_not_ask_for_the_body() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (_app, mut rests) = serves(
        mesh.net.app(),
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno",
    )
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        let seen = wire.ask(PUT).await;
        assert_eq!((seen.status(), seen.header("link")), (413, None));
        assert!(soon("the end", rests.recv()).await.unwrap().is_empty());
    }
}
