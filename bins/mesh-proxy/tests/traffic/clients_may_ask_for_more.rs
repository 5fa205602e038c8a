//! By `l5d-*` headers a client changes timeouts and retries where its route lets it, and nowhere else; they go no further.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, app, ask};

/// A service of which `/fails` fails every other time, `/hangs` never answers and the rest is mirrored in part.
async fn service(allowed: bool) -> (Mesh, Proxy, App) {
    let mesh = Mesh::start();
    let policy = policy::changed(|rule| rule.allow_l5d_request_headers = allowed);
    mesh.says.policy("web.test:80", policy);
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let asked = Arc::new(AtomicUsize::new(0));
    let app = app(mesh.net.plain(0), move |mut wire| {
        let asked = asked.clone();
        async move {
            while let Some(request) = wire.request().await {
                let path = request.first.split(' ').nth(1).unwrap();
                if path == "/hangs" {
                    wire.rest_if_any().await;
                    return;
                }
                let fails = path == "/fails" && asked.fetch_add(1, SeqCst).is_multiple_of(2);
                let status = if fails { "503 Failed" } else { "200 OK" };
                let own = request
                    .headers
                    .iter()
                    .filter(|(name, _)| name.starts_with("l5d-"));
                let body = format!("{} of ours", own.count());
                let length = body.len();
                wire.send(format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
                ))
                .await;
            }
        }
    })
    .await;
    let client = mesh.client("").await;
    (mesh, client, app)
}

async fn status(mesh: &Mesh, path: &str, headers: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n{headers}\r\n");
    ask(mesh.net.web(), &request).await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_route_allows() {
    let (mesh, _client, _app) = service(true).await;
    for retry in [
        "l5d-retry-http: 5xx\r\n",
        "l5d-retry-http: 503\r\nl5d-retry-limit: 2\r\n",
    ] {
        assert_eq!(status(&mesh, "/fails", retry).await, 200, "{retry}");
    }
    for other in [
        "",
        "l5d-retry-http: 500\r\n",
        "l5d-retry-http: 5xx\r\nl5d-retry-limit: 0\r\n",
    ] {
        assert_eq!(status(&mesh, "/fails", other).await, 503, "{other}");
        assert_eq!(status(&mesh, "/fails", other).await, 200, "{other}");
    }
    for limit in [
        "l5d-timeout: 100ms\r\n",
        "l5d-request-timeout: 100ms\r\nl5d-timeout: 1h\r\n",
        "l5d-response-timeout: 100ms\r\n",
    ] {
        assert_eq!(status(&mesh, "/hangs", limit).await, 504, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nowhere_else() {
    let (mesh, client, _app) = service(false).await;
    let retry = "l5d-retry-http: 5xx\r\nl5d-retry-limit: 5\r\n";
    assert_eq!(status(&mesh, "/fails", retry).await, 503);
    let family = "outbound_http_route_retry_requests_total";
    assert!(client.metric(family, &[]).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn and_the_application_sees_none_of_it() {
    for allowed in [true, false] {
        let (mesh, _client, _app) = service(allowed).await;
        let all = "l5d-timeout: 10s\r\nl5d-request-timeout: 10s\r\nl5d-response-timeout: 10s\r\nl5d-retry-http: 5xx\r\n\
                   l5d-retry-grpc: internal\r\nl5d-retry-limit: 1\r\nl5d-retry-timeout: 10s\r\n";
        let request = format!("GET / HTTP/1.1\r\nhost: web.test\r\n{all}\r\n");
        let answer = ask(mesh.net.web(), &request).await;
        assert_eq!(answer.body_text(), "0 of ours", "{allowed}");
    }
}
