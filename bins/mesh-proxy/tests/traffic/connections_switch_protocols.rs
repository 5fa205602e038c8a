//! Upgrades and tunnels: after the switch, bytes pass both ways until each side has ended.

use std::time::Duration;

use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, app, mirror};

const UPGRADE: &str =
    "GET /chat HTTP/1.1\r\nhost: web.test\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";

/// Switches to a protocol of lines, each answered in brackets; says `bye` once the client has ended.
async fn echo(address: std::net::SocketAddr) -> crate::wire::App {
    app(address, |mut wire| async move {
        let request = wire.head().await.unwrap();
        assert_eq!(request.header("upgrade").as_deref(), Some("echo"));
        assert_eq!(
            request
                .header("connection")
                .map(|value| value.to_lowercase())
                .as_deref(),
            Some("upgrade")
        );
        // The first bytes of the new protocol follow the head at once.
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello",
        )
        .await;
        loop {
            let bytes = wire.up_to(3).await;
            if bytes.is_empty() {
                wire.send("bye").await;
                return;
            }
            wire.send([b"<", &bytes[..], b">"].concat()).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_carries_bytes_both_ways_and_half_closes() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let _app = echo(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(UPGRADE).await;
    let seen = wire.head().await.unwrap();
    assert_eq!(
        (seen.status(), seen.header("upgrade").as_deref()),
        (101, Some("echo"))
    );
    assert_eq!(wire.exactly(5).await, b"hello");
    for _ in 0..3 {
        wire.send("abc").await;
        assert_eq!(wire.exactly(5).await, b"<abc>");
    }
    wire.finish().await;
    assert_eq!(wire.rest().await, b"bye");
    for (proxy, direction) in [(&client, "outbound_http_route"), (&server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
        proxy
            .metric_becomes(&format!("{direction}_statuses_total"), &["101"], 1.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_not_taken_for_a_head_that_never_ends() {
    let mesh = Mesh::start();
    let (_client, _server) = tokio::join!(
        mesh.client("limits.header_read_timeout = \"1s\""),
        mesh.server("limits.header_read_timeout = \"1s\"")
    );
    let _app = echo(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(UPGRADE).await;
    assert_eq!(wire.head().await.unwrap().status(), 101);
    assert_eq!(wire.exactly(5).await, b"hello");
    for _ in 0..4 {
        wire.send("abc").await;
        assert_eq!(wire.exactly(5).await, b"<abc>");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_declined_is_a_response_like_any() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..2 {
        let seen = wire.ask(UPGRADE).await;
        assert_eq!(seen.status(), 200);
        assert!(
            seen.body_text().contains("\nupgrade: echo\n"),
            "{}",
            seen.body_text()
        );
    }
    let seen = wire
        .ask("GET /plain HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert!(seen.body_text().starts_with("GET /plain HTTP/1.1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_proxy_listener_takes_absolute_targets_and_sends_origin_form() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let _outside = mirror(mesh.net.plain(0)).await;
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    let seen = wire.ask("GET http://web.test/a?b HTTP/1.1\r\nhost: ignored\r\nproxy-connection: keep-alive\r\n\r\n").await;
    assert_eq!(
        seen.body_text(),
        "GET /a?b HTTP/1.1\nhost: web.test\nl5d-client-id: client.test\n\n"
    );
    let plain = mesh.net.plain(0);
    let seen = wire
        .ask(&format!(
            "GET http://{plain}/x HTTP/1.1\r\nhost: ignored\r\n\r\n"
        ))
        .await;
    assert_eq!(
        seen.body_text(),
        format!("GET /x HTTP/1.1\nhost: {plain}\n\n")
    );
    let seen = wire
        .ask("GET /no-target HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert_eq!(seen.status(), 400);
    assert!(seen.header("l5d-proxy-error").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_opens_a_tunnel_to_a_service_and_to_an_address() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    let seen = wire
        .ask("CONNECT web.test:80 HTTP/1.1\r\nhost: web.test:80\r\n\r\n")
        .await;
    assert_eq!(seen.status(), 200);
    for path in ["/1", "/2"] {
        let seen = wire
            .ask(&format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
            .await;
        assert_eq!(
            seen.body_text(),
            format!("GET {path} HTTP/1.1\nhost: web.test\nl5d-client-id: client.test\n\n")
        );
    }

    let _outside = app(mesh.net.plain(0), |mut wire| async move {
        let asked = wire.rest().await;
        wire.send([b"<", &asked[..], b">"].concat()).await;
    })
    .await;
    let plain = mesh.net.plain(0);
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    assert_eq!(
        wire.ask(&format!(
            "CONNECT {plain} HTTP/1.1\r\nhost: {plain}\r\n\r\n"
        ))
        .await
        .status(),
        200
    );
    wire.send(b"\0bytes").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, b"<\0bytes>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_not_taken_for_a_head_that_never_ends() {
    let mesh = Mesh::start();
    let _client = mesh.client("limits.header_read_timeout = \"1s\"").await;
    let _outside = app(mesh.net.plain(0), |mut wire| async move {
        loop {
            let bytes = wire.exactly(2).await;
            wire.send(bytes).await;
        }
    })
    .await;
    let plain = mesh.net.plain(0);
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    assert_eq!(
        wire.ask(&format!(
            "CONNECT {plain} HTTP/1.1\r\nhost: {plain}\r\n\r\n"
        ))
        .await
        .status(),
        200
    );
    for _ in 0..4 {
        wire.send(b"\0x").await;
        assert_eq!(wire.exactly(2).await, b"\0x");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_ends_when_its_client_is_no_longer_let_in() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = echo(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(UPGRADE).await;
    assert_eq!(wire.head().await.unwrap().status(), 101);
    assert_eq!(wire.exactly(5).await, b"hello");
    mesh.says
        .server(mesh.net.app().port(), policy::only("somebody.else"));
    assert!(wire.ends_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_the_http_proxy_listener_and_reaches_outside_the_mesh() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = echo(mesh.net.app()).await;
    let _outside = echo(mesh.net.plain(0)).await;
    let plain = mesh.net.plain(0).to_string();
    for host in ["web.test", plain.as_str()] {
        let mut wire = Wire::connect(mesh.net.http_proxy()).await;
        wire.send(UPGRADE.replace("/chat", &format!("http://{host}/chat")))
            .await;
        assert_eq!(wire.head().await.unwrap().status(), 101, "{host}");
        assert_eq!(wire.exactly(5).await, b"hello");
        wire.send("abc").await;
        assert_eq!(wire.exactly(5).await, b"<abc>");
    }
}
