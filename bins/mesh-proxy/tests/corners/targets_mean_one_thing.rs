//! What a request is for: every form of target arrives as it was meant, or is refused.

use crate::h2;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{Wire, ask, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn targets_of_every_form_arrive() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for target in [
            "/",
            "/a%20b;c=d?e=f&g#",
            "//a//../b/./",
            "/%2e%2e/%00",
            "/?",
            "*",
            "http://web.test/abs?x",
            "http://web.test",
        ] {
            let method = if target == "*" { "OPTIONS" } else { "GET" };
            let seen = wire
                .ask(&format!(
                    "{method} {target} HTTP/1.1\r\nhost: web.test\r\n\r\n"
                ))
                .await;
            let text = seen.body_text();
            let line = text.lines().next().unwrap();
            let kept = target.trim_end_matches('#');
            let slash = format!("{method} {kept}/ HTTP/1.1");
            assert!(
                line == format!("{method} {kept} HTTP/1.1") || line == slash,
                "{address} {target}: {text}"
            );
            assert!(
                text.contains("\nhost: web.test\n"),
                "{address} {target}: {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_target_arrives() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let path = format!("/{}", "x".repeat(60_000));
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        let seen = wire
            .ask(&format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
            .await;
        assert_eq!(seen.status(), 200, "{address}");
        assert!(
            seen.body_text()
                .starts_with(&format!("GET {path} HTTP/1.1\n"))
        );
        let (mut sender, _connection) = h2::connect(address).await;
        let request = http::Request::get(format!("http://web.test{path}"))
            .body(h2::full(""))
            .unwrap();
        // The application speaks HTTP/1 only; but the head passed.
        assert_eq!(sender.send_request(request).await.unwrap().status(), 502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_name_no_host_or_more_than_a_host_are_refused() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        for head in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: me@web.test\r\n",
            "GET / HTTP/1.1\r\nhost: web.test\r\nhost: web.test\r\n",
            "GET http://me:secret@web.test/ HTTP/1.1\r\nhost: web.test\r\n",
            "GET /a b HTTP/1.1\r\nhost: web.test\r\n",
            "GET /\x01 HTTP/1.1\r\nhost: web.test\r\n",
            "GET / HTTP/1.1 HTTP/1.1\r\nhost: web.test\r\n",
        ] {
            // The second request of a connection: what does not look like HTTP at first may be another protocol.
            let mut wire = Wire::connect(address).await;
            let first = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
            assert_eq!(first.status(), 200);
            let seen = wire.ask(&format!("{head}\r\n")).await;
            assert_eq!(
                seen.status(),
                400,
                "{address} {head:?}: {}",
                seen.body_text()
            );
        }
    }
    let proxy = mesh.net.http_proxy();
    for head in [
        "GET http://me@web.test/ HTTP/1.1\r\nhost: web.test\r\n",
        "CONNECT me@web.test:80 HTTP/1.1\r\nhost: web.test:80\r\n",
        "GET / HTTP/1.1\r\nhost: web.test\r\n",
    ] {
        let seen = ask(proxy, &format!("{head}\r\n")).await;
        assert_eq!(seen.status(), 400, "{head:?}: {}", seen.body_text());
    }
}
