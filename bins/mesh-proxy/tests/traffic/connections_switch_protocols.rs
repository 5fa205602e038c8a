//! Upgrades and tunnels: after the switch, bytes pass both ways until each side has ended.

use std::time::Duration;

use crate::mesh::{CLIENT, Mesh};
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

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_not_switched_to() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for (address, id) in [
        (mesh.net.web(), "l5d-client-id: client.test\n"),
        (mesh.net.mesh_port(), ""),
    ] {
        for protocols in ["h2c", "websocket, H2C"] {
            let mut wire = Wire::connect(address).await;
            let seen = wire
                .ask(&format!(
                    "GET /a HTTP/1.1\r\nhost: web.test\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocols}\r\nhttp2-settings: AAMAAABk\r\n\r\n"
                ))
                .await;
            assert_eq!(
                seen.body_text(),
                format!("GET /a HTTP/1.1\nhost: web.test\n{id}\n")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_takes_no_header_along() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let request = "GET /ws HTTP/1.1\r\nhost: web.test\r\nconnection: upgrade, l5d-client-id, host, x-hop\r\nupgrade: websocket\r\nx-hop: 1\r\n\r\n";
    for (address, id) in [
        (mesh.net.web(), "l5d-client-id: client.test\n"),
        (mesh.net.mesh_port(), ""),
    ] {
        let seen = crate::wire::ask(address, request).await;
        assert_eq!(
            seen.body_text(),
            format!(
                "GET /ws HTTP/1.1\nconnection: upgrade\nhost: web.test\n{id}upgrade: websocket\n\n"
            )
        );
    }
    // Nor from a client in the mesh that removes nothing itself.
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    let seen = wire.ask(request).await;
    assert_eq!(
        seen.body_text(),
        "GET /ws HTTP/1.1\nconnection: upgrade\nhost: web.test\nl5d-client-id: client.test\nupgrade: websocket\n\n"
    );
    // Nor does a request that is none.
    let plain = request
        .replace("upgrade: websocket\r\n", "")
        .replace("upgrade, ", "");
    let expected = "GET /ws HTTP/1.1\nhost: web.test\nl5d-client-id: client.test\n\n";
    let seen = crate::wire::ask(mesh.net.web(), &plain).await;
    assert_eq!(seen.body_text(), expected);
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    assert_eq!(wire.ask(&plain).await.body_text(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_never_answered_is_late_once() {
    let mesh = Mesh::start();
    mesh.says.policy(
        "web.test:80",
        policy::with_timeouts(linkerd2_proxy_api::http_route::Timeouts {
            request: policy::duration(Duration::from_millis(300)),
            ..Default::default()
        }),
    );
    let (client, _server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.rest_if_any().await;
    })
    .await;
    let seen = crate::wire::ask(mesh.net.web(), UPGRADE).await;
    assert_eq!(
        (seen.status(), seen.header("l5d-proxy-error").as_deref()),
        (
            504,
            Some("the deadline passed before the endpoint answered")
        )
    );
    client
        .metric_becomes("outbound_http_route_requests_active", &[], 0.0)
        .await;
    for family in ["outbound_http_route", "outbound_http_route_backend"] {
        let failures = format!("{family}_failures_total");
        client.metric_becomes(&failures, &["timeout"], 1.0).await;
        client.metric_becomes(&failures, &[], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_proxy_listener_does_not_lead_back_to_the_proxy() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let net = mesh.net;
    for own in [net.http_proxy(), net.web(), net.other(), net.admin(1)] {
        // The second one leads to the same address.
        for host in [
            own.to_string(),
            format!("[::ffff:{}]:{}", own.ip(), own.port()),
            format!("0.0.0.0:{}", own.port()),
        ] {
            for request in [
                format!("GET http://{host}/ready HTTP/1.1\r\nhost: {host}\r\n\r\n"),
                format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            ] {
                let seen = crate::wire::ask(net.http_proxy(), &request).await;
                assert_eq!(
                    (seen.status(), seen.header("l5d-proxy-error").as_deref()),
                    (501, Some("requests of this kind are not carried")),
                    "{request}"
                );
            }
        }
    }
}
