//! A head within the limit arrives whole, whichever versions it crosses; one beyond it is 431, and nobody else notices.

use std::time::Duration;

use crate::h2;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{Wire, app, ask, mirror};

const LIMIT: usize = 65_536;

/// So many headers, of so many bytes together.
fn headers(count: usize, bytes: usize) -> String {
    (0..count)
        .map(|n| {
            let name = format!("x-{n}: ");
            let value = "v".repeat(bytes / count - name.len() - 2);
            format!("{name}{value}\r\n")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_head_just_below_the_limit_arrives() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        for count in [1, 90] {
            let headers = headers(count, LIMIT - 1_000);
            let seen = ask(
                address,
                &format!("GET / HTTP/1.1\r\nhost: web.test\r\n{headers}\r\n"),
            )
            .await;
            assert_eq!(seen.status(), 200, "{address} {count}");
            let text = seen.body_text();
            for line in headers.lines() {
                assert!(text.contains(line), "{address} {count}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_head_beyond_the_limit_is_431() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        // A request of somebody else, over the same connection between the proxies.
        let mut other = Wire::connect(address).await;
        let get = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
        assert_eq!(other.ask(get).await.status(), 200);
        for headers in [
            headers(1, 2 * LIMIT),
            headers(90, 2 * LIMIT),
            headers(150, 8_000),
        ] {
            let mut wire = Wire::connect(address).await;
            let _ = wire
                .offer(&format!(
                    "GET / HTTP/1.1\r\nhost: web.test\r\n{headers}\r\n"
                ))
                .await;
            let seen = wire.head().await.expect("an answer");
            assert_eq!(seen.status(), 431, "{address}");
            assert!(wire.ends_within(Duration::from_secs(5)).await);
        }
        let (mut sender, _connection) = h2::connect(address).await;
        let request = http::Request::get("http://web.test/")
            .header("x", "v".repeat(2 * LIMIT))
            .body(h2::full(""))
            .unwrap();
        let answer = sender.send_request(request).await;
        // h2 may tell its own client first that the server takes no such head.
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
        assert_eq!(other.ask(get).await.status(), 200, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answers_head_below_the_limit_arrives_and_beyond_is_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            let headers = match request.first.split(' ').nth(1).unwrap() {
                "/one" => headers(1, LIMIT - 1_000),
                "/many" => headers(90, LIMIT - 1_000),
                "/small" => String::new(),
                _ => headers(1, 2 * LIMIT),
            };
            if !wire
                .offer(format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{headers}\r\n"
                ))
                .await
            {
                return;
            }
        }
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for (path, status) in [
            ("/one", 200),
            ("/many", 200),
            ("/large", 502),
            ("/small", 200),
        ] {
            let seen = wire
                .ask(&format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
                .await;
            assert_eq!(seen.status(), status, "{address} {path}");
            let size: usize = seen
                .headers
                .iter()
                .filter(|(name, _)| name.starts_with("x-"))
                .map(|(name, value)| name.len() + value.len() + 4)
                .sum();
            let whole = matches!(path, "/one" | "/many");
            assert_eq!(size > LIMIT - 2_000, whole, "{address} {path}: {size}");
        }
    }
}
