//! Listeners, services, endpoints and applications may have IPv6 addresses.

use std::time::Duration;

use crate::controller::soon;
use crate::h2;
use crate::mesh::{Mesh, Net};
use crate::policy;
use crate::wire::{Wire, app, ask, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn from_end_to_end_over_the_mesh_and_past_it() {
    let mesh = Mesh::start_at(Net::take_ipv6());
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    assert!(mesh.net.web().is_ipv6() && mesh.net.app().is_ipv6());
    for address in crate::ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for _ in 0..2 {
            let seen = wire.ask("GET /a HTTP/1.1\r\nhost: [::1]:80\r\n\r\n").await;
            assert_eq!(seen.status(), 200, "{address}");
            let text = seen.body_text();
            assert!(
                text.starts_with("GET /a HTTP/1.1\nhost: [::1]:80\n"),
                "{text}"
            );
            let meshed = address == mesh.net.web();
            assert_eq!(
                text.contains("l5d-client-id: client.test"),
                meshed,
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_http_proxy_form_and_in_tunnels() {
    let mesh = Mesh::start_at(Net::take_ipv6());
    let _client = mesh.client("").await;
    let plain = mesh.net.plain(0);
    let _outside = mirror(plain).await;
    let seen = ask(
        mesh.net.http_proxy(),
        &format!("GET http://{plain}/x HTTP/1.1\r\nhost: {plain}\r\n\r\n"),
    )
    .await;
    assert_eq!(
        seen.body_text(),
        format!("GET /x HTTP/1.1\nhost: {plain}\n\n")
    );
    let mut wire = Wire::connect(mesh.net.http_proxy()).await;
    let connect = format!("CONNECT {plain} HTTP/1.1\r\nhost: {plain}\r\n\r\n");
    assert_eq!(wire.ask(&connect).await.status(), 200);
    let seen = wire.ask("GET /y HTTP/1.1\r\nhost: y\r\n\r\n").await;
    assert_eq!(seen.body_text(), "GET /y HTTP/1.1\nhost: y\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_http_2_and_in_bytes() {
    let mesh = Mesh::start_at(Net::take_ipv6());
    let _proxies = mesh.both().await;
    let port = mesh.net.app().port();
    let _h2 = h2::app(mesh.net.app(), |request| async move {
        http::Response::new(h2::full(request.uri().to_string()))
    })
    .await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let request = http::Request::get("http://[::1]/a")
        .body(h2::full(""))
        .unwrap();
    let answer = soon("an answer", sender.send_request(request))
        .await
        .unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "http://[::1]/a");

    let _echo = app(mesh.net.plain(0), |mut wire| async move {
        let asked = wire.rest().await;
        wire.send([b"<", &asked[..], b">"].concat()).await;
    })
    .await;
    mesh.says.policy("other.test:80", policy::opaque("other"));
    mesh.says
        .endpoints("other.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let mut wire = Wire::connect(mesh.net.other()).await;
    wire.send("bytes").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, b"<bytes>");

    // With a transport header, whose port is of the same host.
    let meshed = policy::meshed_opaque(mesh.net.mesh_port(), port);
    mesh.says.endpoints("web.test:80", vec![meshed]);
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let asking = async {
        loop {
            let request = http::Request::get("http://web.test/")
                .body(h2::full(""))
                .unwrap();
            if sender.send_request(request).await.unwrap().status() == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("an answer", asking).await;
}
