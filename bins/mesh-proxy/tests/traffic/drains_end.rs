//! SIGTERM: what is in flight finishes, nothing new begins, and it ends in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use tokio::sync::{Notify, Semaphore};

use crate::controller::soon;
use crate::h2;
use crate::mesh::{Mesh, Proxy};
use crate::wire::{App, Wire, app};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

/// Says when a request has come and answers it when it may.
async fn waiting(mesh: &Mesh) -> (App, Arc<Notify>, Arc<Semaphore>) {
    let (asked, may) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (tell, permitted) = (asked.clone(), may.clone());
    let app = app(mesh.net.app(), move |mut wire| {
        let (asked, may) = (tell.clone(), permitted.clone());
        async move {
            while wire.request().await.is_some() {
                asked.notify_one();
                may.acquire().await.unwrap().forget();
                wire.offer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    (app, asked, may)
}

async fn refuses(address: std::net::SocketAddr) {
    soon("the listener's end", async {
        while Wire::try_connect(address).await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn drains(mesh: &Mesh, proxy: &mut Proxy, listener: std::net::SocketAddr) {
    let (_app, asked, may) = waiting(mesh).await;
    let mut idle = Wire::connect(mesh.net.web()).await;
    may.add_permits(1);
    assert_eq!(idle.ask(GET).await.status(), 200);
    asked.notified().await;
    let mut http1 = Wire::connect(mesh.net.web()).await;
    http1.send(GET).await;
    soon("the request", asked.notified()).await;
    let (mut sender, connection) = h2::connect(mesh.net.web()).await;
    let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
    let http2 = tokio::spawn(sender.send_request(request));

    // Its application speaks HTTP/1 only: what it says of the second one does not matter, only that the proxy ends.
    proxy.terminate();
    refuses(listener).await;
    assert!(proxy.is_running(), "a request is in flight");
    may.add_permits(10);
    assert_eq!(http1.response("GET").await.body_text(), "ok");
    let _ = soon("the HTTP/2 response", http2).await.unwrap();
    if listener == mesh.net.web() {
        assert!(idle.ends_within(Duration::from_secs(5)).await);
        assert!(http1.ends_within(Duration::from_secs(5)).await);
        soon("the HTTP/2 connection's end", connection)
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_client_finishes_what_is_in_flight() {
    let mesh = Mesh::start();
    let (mut client, _server) = mesh.both().await;
    drains(&mesh, &mut client, mesh.net.web()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_application_finishes_what_is_in_flight() {
    let mesh = Mesh::start();
    let (_client, mut server) = mesh.both().await;
    drains(&mesh, &mut server, mesh.net.mesh_port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_told_to_go_away() {
    let mesh = Mesh::start();
    let (mut client, _server) = mesh.both().await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    assert_eq!(wire.frame().await.unwrap().0, 4, "SETTINGS");
    client.terminate();
    let goaway = soon("GOAWAY", async {
        loop {
            let (kind, payload) = wire.frame().await.expect("GOAWAY before the end");
            if kind == 7 {
                return payload;
            }
        }
    })
    .await;
    assert_eq!(goaway[4..8], [0; 4], "NO_ERROR");
    drop(wire);
    assert_eq!(client.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_ends_is_cut_off_in_time() {
    let mesh = Mesh::start();
    let (mut client, _server) = tokio::join!(
        mesh.client("limits.drain_timeout = \"500ms\""),
        mesh.server("")
    );
    let (_app, asked, _may) = waiting(&mesh).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(GET).await;
    soon("the request", asked.notified()).await;
    let started = Instant::now();
    client.terminate();
    assert_eq!(client.ended().await.code(), Some(1));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_have_said_nothing_do_not_delay_the_end() {
    let mesh = Mesh::start();
    let (mut client, mut server) = tokio::join!(
        mesh.client("limits.header_read_timeout = \"1s\""),
        mesh.server("")
    );
    let (_app, _asked, may) = waiting(&mesh).await;
    may.add_permits(100);
    let mut silent = Vec::new();
    for address in [mesh.net.web(), mesh.net.http_proxy(), mesh.net.mesh_port()] {
        silent.push(Wire::connect(address).await);
        // One that has begun, and goes on never.
        let mut begun = Wire::connect(address).await;
        begun.send("GET http://web.test/ HTTP/1.1\r\n").await;
        silent.push(begun);
    }
    // Once this is answered, those before were accepted.
    for _ in 0..4 {
        assert_eq!(crate::wire::ask(mesh.net.web(), GET).await.status(), 200);
    }
    let started = Instant::now();
    client.terminate();
    assert_eq!(client.ended().await.code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert!(server.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_had_come_in_is_answered() {
    const CONNECTIONS: usize = 300;
    let mesh = Mesh::start();
    // The burst needs new connections, which on a busy machine may take a while.
    let patient = "limits.workers = 1\noutbound.connect_timeout = \"30s\"";
    let (mut client, _server) = tokio::join!(
        mesh.client(patient),
        mesh.server("inbound.connect_timeout = \"30s\"")
    );
    let _app = crate::wire::canned(
        mesh.net.app(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut wire = Wire::connect(mesh.net.web()).await;
        assert_eq!(wire.ask(GET).await.status(), 200);
        wires.push(wire);
    }
    // It is told to end while it has all of these to read.
    client.signal("-STOP");
    for wire in &mut wires {
        wire.send(GET).await;
    }
    client.terminate();
    client.signal("-CONT");
    for wire in &mut wires {
        let answer = wire.response("GET").await;
        assert_eq!(answer.status(), 200, "{}", answer.body_text());
        assert!(wire.ends_within(Duration::from_secs(5)).await);
    }
    assert_eq!(client.ended().await.code(), Some(0));
}
