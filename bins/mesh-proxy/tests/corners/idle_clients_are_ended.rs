//! A client's connection without a request is ended in order after `limits.client_idle_timeout`; one in use is not.

use std::time::Duration;

use http::Request;

use crate::h2;
use crate::mesh::Mesh;
use crate::wire::{Wire, app};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn and_only_those() {
    let mesh = Mesh::start();
    let idle = "limits.client_idle_timeout = \"1s\"";
    let _proxies = tokio::join!(mesh.client(idle), mesh.server(idle));
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            if request.header("upgrade").is_some() {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
                    .await;
                let byte = wire.exactly(1).await;
                wire.send(byte).await;
                return;
            }
            if request.first.contains("/slow") {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            if !wire.offer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await {
                return;
            }
        }
    })
    .await;
    let plain = mesh.net.plain(0);
    let _outside = app(plain, |mut wire| async move {
        let byte = wire.exactly(1).await;
        wire.send(byte).await;
    })
    .await;
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let mut idle = Wire::connect(address).await;
        assert_eq!(idle.ask(GET).await.status(), 200);
        let mut slow = Wire::connect(address).await;
        slow.send("GET /slow HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await;
        let mut switched = Wire::connect(address).await;
        let upgrade =
            "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        switched.send(upgrade).await;
        assert_eq!(switched.head().await.unwrap().status(), 101);
        let (mut once, connection) = h2::connect(address).await;
        // The application does not speak HTTP/2, and it is no matter.
        let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
        once.send_request(request).await.unwrap();
        let mut tunnel = Wire::connect(mesh.net.http_proxy()).await;
        let connect = format!("CONNECT {plain} HTTP/1.1\r\nhost: {plain}\r\n\r\n");
        assert_eq!(tunnel.ask(&connect).await.status(), 200);

        assert!(idle.ends_within(Duration::from_secs(4)).await, "{address}");
        assert_eq!(slow.response("GET").await.status(), 200, "{address}");
        for wire in [&mut switched, &mut tunnel] {
            wire.send("x").await;
            assert_eq!(wire.exactly(1).await, b"x", "{address}");
        }
        // By then it was told, and had time to end.
        assert!(connection.is_finished(), "{address}");
    }
    let (mut used, connection) = h2::connect(mesh.net.web()).await;
    for _ in 0..8 {
        let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
        let _ = used.send_request(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(!connection.is_finished());
}
