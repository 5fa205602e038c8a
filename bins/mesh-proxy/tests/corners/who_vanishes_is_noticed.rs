//! A peer that is gone without a word, as when its machine loses power, is noticed in time by whoever waits for it.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::controller::soon;
use crate::mesh::Mesh;
use crate::namespace::{alone, run};
use crate::wire::{Wire, app};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

/// From now on, nothing that this matches arrives.
fn drop_packets(matching: &str) {
    let rule = format!(
        "table inet gone {{\nchain input {{\ntype filter hook input priority 0\n{matching} drop\n}}\n}}"
    );
    run("nft", &[&rule]);
}

#[test]
fn a_server() {
    alone("who_vanishes_is_noticed::a_server", async {
        let mesh = Mesh::start();
        let _proxies = mesh.both().await;
        let _app = app(mesh.net.app(), |mut wire| async move {
            wire.rest_if_any().await;
        })
        .await;
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(GET).await;
        // Long enough to be on its way.
        assert!(wire.is_silent(Duration::from_millis(500)).await);
        let server = mesh.net.mesh_port().ip();
        drop_packets(&format!("ip daddr {server} drop\nip saddr {server}"));
        let started = Instant::now();
        // A ping every ten seconds, and five for its answer.
        let seen = wire.response("GET").await;
        assert_eq!(seen.status(), 502, "after {:?}", started.elapsed());
    });
}

#[test]
fn a_client() {
    alone("who_vanishes_is_noticed::a_client", async {
        let mesh = Mesh::start();
        let _proxies = tokio::join!(mesh.client("outbound.keepalive = \"1s\""), mesh.server(""));
        let (tell, mut told) = unbounded_channel();
        let _app = app(mesh.net.app(), move |mut wire| {
            let tell = tell.clone();
            async move {
                wire.request().await.unwrap();
                tell.send("asked").unwrap();
                assert!(wire.ends_within(Duration::from_secs(20)).await);
                tell.send("left").unwrap();
            }
        })
        .await;
        let stream = TcpStream::connect(mesh.net.web()).await.unwrap();
        let port = stream.local_addr().unwrap().port();
        let mut wire = Wire::over(stream);
        wire.send(GET).await;
        assert_eq!(soon("the request", told.recv()).await, Some("asked"));
        drop_packets(&format!("tcp sport {port} drop\ntcp dport {port}"));
        // A probe every second, and nine of them.
        assert_eq!(soon("the end", told.recv()).await, Some("left"));
    });
}
