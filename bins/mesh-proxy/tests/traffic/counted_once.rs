//! One request is one count, whatever became of it.

use std::time::Duration;

use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, app, ask};

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_counted_once_with_its_status() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            let status = request.first.split(' ').nth(1).unwrap()[1..].to_owned();
            if status == "break" {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                    .await;
                return;
            }
            wire.send(format!(
                "HTTP/1.1 {status} Said\r\ncontent-length: 2\r\n\r\nok"
            ))
            .await;
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for status in [200, 200, 200, 404, 404, 503] {
        let seen = wire
            .ask(&format!("GET /{status} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
            .await;
        assert_eq!(seen.status(), status);
    }
    let mut broken = Wire::connect(mesh.net.web()).await;
    broken
        .send("GET /break HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert!(broken.ends_within(Duration::from_secs(5)).await);
    for (proxy, direction) in [(&client, "outbound_http_route"), (&server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
        let statuses = format!("{direction}_statuses_total");
        proxy.metric_becomes(&statuses, &[], 6.0).await;
        for (status, count) in [("\"200\"", 3.0), ("\"404\"", 2.0), ("\"503\"", 1.0)] {
            proxy.metric_becomes(&statuses, &[status], count).await;
        }
        let failures = format!("{direction}_failures_total");
        proxy.metric_becomes(&failures, &[], 1.0).await;
        proxy.metric_becomes(&failures, &["reset"], 1.0).await;
        assert!(
            (proxy
                .metric(&format!("{direction}_requests_total"), &[])
                .await
                - 7.0)
                .abs()
                < 0.5
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_on_a_dead_endpoint_is_no_second_request() {
    let mesh = Mesh::start();
    let client = mesh.client("").await;
    let _app = crate::wire::canned(
        mesh.net.plain(0),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    mesh.says.endpoints(
        "web.test:80",
        (0..3).map(|n| policy::plain(mesh.net.plain(n))).collect(),
    );
    for _ in 0..10 {
        assert_eq!(
            ask(mesh.net.web(), "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n")
                .await
                .status(),
            200
        );
    }
    client
        .metric_becomes("outbound_http_route_statuses_total", &[], 10.0)
        .await;
    assert!(
        (client
            .metric("outbound_http_route_requests_total", &[])
            .await
            - 10.0)
            .abs()
            < 0.5
    );
}
