//! Who is not authorized does not reach the application, and nobody passes for somebody else.

use std::time::Duration;

use tonic::Code;

use crate::controller::messages;
use crate::h2;
use crate::http2_and_grpc_are_streamed::{client, unary};
use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::wire::{Wire, app, ask, mirror};

const FORGED: &str = "GET / HTTP/1.1\r\nhost: web.test\r\nl5d-client-id: admin.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_client_id_is_the_verified_one_or_none() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let meshed = ask(mesh.net.web(), FORGED).await;
    assert_eq!(
        meshed.body_text(),
        "GET / HTTP/1.1\nhost: web.test\nl5d-client-id: client.test\n\n"
    );
    let plaintext = ask(mesh.net.mesh_port(), FORGED).await;
    assert_eq!(plaintext.body_text(), "GET / HTTP/1.1\nhost: web.test\n\n");
    // Nor through a request that may switch protocols.
    let upgrade = FORGED.replace("\r\n\r\n", "\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    let meshed = ask(mesh.net.web(), &upgrade).await.body_text();
    assert!(
        meshed.contains("\nl5d-client-id: client.test\n") && !meshed.contains("admin"),
        "{meshed}"
    );
    let plaintext = ask(mesh.net.mesh_port(), &upgrade).await.body_text();
    assert!(!plaintext.contains("l5d-client-id"), "{plaintext}");
    // Nor as a claim that the request was carried by a proxy.
    let orig = FORGED.replace("l5d-client-id: admin.test", "l5d-orig-proto: HTTP/1.0");
    let plaintext = ask(mesh.net.mesh_port(), &orig).await.body_text();
    assert_eq!(plaintext, "GET / HTTP/1.1\nhost: web.test\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unauthorized_are_refused_by_name() {
    let mesh = Mesh::start();
    mesh.says
        .server(mesh.net.app().port(), policy::only("somebody.else"));
    let (_client, server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let seen = ask(address, "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
        assert_eq!(
            (seen.status(), seen.header("l5d-proxy-error").as_deref()),
            (403, Some("the client is not authorized"))
        );
    }
    let mut grpc = client(mesh.net.web()).await;
    let refused = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(
        refused.metadata().get("l5d-proxy-error").unwrap(),
        "the client is not authorized"
    );
    let mut opaque = Wire::connect(mesh.net.web()).await;
    opaque.send(b"\0abc").await;
    assert_eq!(opaque.rest().await, b"");
    server
        .metric_becomes("inbound_http_failures_total", &["unauthorized"], 3.0)
        .await;

    mesh.says
        .server(mesh.net.app().port(), policy::only(CLIENT));
    let again = || ask(mesh.net.web(), "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n");
    crate::controller::soon("the new policy", async {
        while again().await.status() != 200 {}
    })
    .await;
    assert_eq!(
        ask(
            mesh.net.mesh_port(),
            "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n"
        )
        .await
        .status(),
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tightened_policy_reaches_connections_that_live() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        if wire.exactly(1).await == b"\0" {
            wire.send("opaque").await;
            wire.rest().await;
        } else {
            while wire.request().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    let request = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
    let mut http = Wire::connect(mesh.net.web()).await;
    let mut plaintext = Wire::connect(mesh.net.mesh_port()).await;
    let mut opaque = Wire::connect(mesh.net.web()).await;
    opaque.send(b"\0").await;
    assert_eq!(opaque.exactly(6).await, b"opaque");
    assert_eq!(
        (
            http.ask(request).await.status(),
            plaintext.ask(request).await.status()
        ),
        (200, 200)
    );

    mesh.says
        .server(mesh.net.app().port(), policy::only("somebody.else"));
    // The opaque connection ends when the policy is in force; from then on, requests are refused.
    assert!(opaque.ends_within(Duration::from_secs(5)).await);
    assert_eq!(
        (
            http.ask(request).await.status(),
            plaintext.ask(request).await.status()
        ),
        (403, 403)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_of_an_unknown_kind_lets_nobody_in() {
    let mesh = Mesh::start();
    mesh.says
        .server(mesh.net.app().port(), policy::unknown_authorization());
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    assert_eq!(
        ask(mesh.net.web(), "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await
            .status(),
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_name_is_not_sent_anything() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut endpoint = policy::meshed(mesh.net.mesh_port());
    if let Some(linkerd2_proxy_api::destination::tls_identity::Strategy::DnsLikeIdentity(name)) =
        endpoint
            .tls_identity
            .as_mut()
            .and_then(|tls| tls.strategy.as_mut())
    {
        name.name = "impostor.test".to_owned();
    }
    mesh.says.policy(
        "other.test:80",
        messages::balanced("other", "other.test:80"),
    );
    mesh.says.endpoints("other.test:80", vec![endpoint]);
    assert_eq!(
        ask(mesh.net.other(), "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await
            .status(),
        502
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_id_has_no_other_spelling_and_no_second_place() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for (address, id) in [
        (mesh.net.web(), "l5d-client-id: client.test\n"),
        (mesh.net.mesh_port(), ""),
    ] {
        for name in ["L5d_Client_Id", "l5d_client-id", "l5d.client.id"] {
            let request = FORGED.replace("l5d-client-id", name);
            assert_eq!(
                ask(address, &request).await.body_text(),
                format!("GET / HTTP/1.1\nhost: web.test\n{id}\n")
            );
        }
        let trailers = "POST / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\ntrailer: l5d-client-id, l5d_client_id, x-sum\r\n\r\n\
             2\r\nhi\r\n0\r\nl5d-client-id: admin.test\r\nl5d_client_id: admin.test\r\nx-sum: 1\r\n\r\n";
        assert_eq!(
            ask(address, trailers).await.body_text(),
            format!(
                "POST / HTTP/1.1\nhost: web.test\n{id}trailer: l5d-client-id, l5d_client_id, x-sum\ntransfer-encoding: chunked\nx-sum: 1\n\nhi"
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unauthorized_do_not_stay() {
    let mesh = Mesh::start();
    mesh.says
        .server(mesh.net.app().port(), policy::only("somebody.else"));
    let _server = mesh.server("").await;
    let mut wire = Wire::connect(mesh.net.mesh_port()).await;
    let seen = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
    assert_eq!(
        (seen.status(), seen.header("connection").as_deref()),
        (403, Some("close"))
    );
    assert!(wire.ends_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_sees_the_host_that_was_authorized() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let request = "GET http://public.test/ HTTP/1.1\r\nhost: secret.test\r\n\r\n";
    for (address, id) in [
        (mesh.net.web(), "l5d-client-id: client.test\n"),
        (mesh.net.mesh_port(), ""),
    ] {
        let upgrade = request.replace("\r\n\r\n", "\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
        for request in [request, &upgrade] {
            let seen = ask(address, request).await.body_text();
            assert!(
                seen.contains("\nhost: public.test\n")
                    && seen.contains(id)
                    && !seen.contains("secret"),
                "{seen}"
            );
        }
        let two = request.replace("\r\n\r\n", "\r\nhost: public.test\r\n\r\n");
        assert_eq!(ask(address, &two).await.status(), 400);
    }
}

/// Answers with the authority and the hosts that it sees.
async fn authorities(address: std::net::SocketAddr) -> h2::App {
    h2::app(address, |request| async move {
        let hosts: Vec<_> = request.headers().get_all("host").iter().collect();
        let seen = format!("{:?} {hosts:?}", request.uri().authority());
        http::Response::new(h2::full(seen))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_sees_the_authority_that_was_authorized() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = authorities(mesh.net.app()).await;
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let (mut sender, _connection) = h2::connect(address).await;
        let both = http::Request::get("http://public.test/").header("host", "secret.test");
        // With a version of HTTP/1, hyper sends a target without authority.
        let host_only = http::Request::get("/")
            .version(http::Version::HTTP_11)
            .header("host", "public.test");
        for request in [both, host_only] {
            let request = request.body(h2::full("")).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await;
            assert_eq!(body.unwrap().to_bytes(), "Some(public.test) []");
        }
    }
}
