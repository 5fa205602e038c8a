//! Where a message ends is the same to everybody who reads it, or it is refused.

use std::time::Duration;

use crate::controller::soon;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{Wire, app, ask, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_can_be_read_in_two_ways_are_refused() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        for framing in [
            "content-length: 5\r\ncontent-length: 6",
            "content-length: 5, 6",
            "content-length: +5",
            "content-length: -5",
            "content-length: 0x5",
            "content-length: 5 5",
            "content-length: 99999999999999999999",
            "content-length: 5;",
            "content-length : 5",
            "content-length\t: 5",
            "transfer-encoding: chunked, identity",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            "transfer-encoding: \x0bchunked",
            "transfer-encoding: xchunked",
            "transfer-encoding: chunked;x=1",
            "transfer-encoding : chunked",
            "transfer-encoding:\x00chunked",
            "transfer-encoding: gzip",
            "transfer-encoding:\r\n chunked",
            "x: y\r\n transfer-encoding: chunked",
            "x: y\r\n\tcontent-length: 5",
            "x: y\rcontent-length: 5",
            " content-length: 5",
            "content-length: 5\r\n\x0btransfer-encoding: chunked",
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!(
                "POST /first HTTP/1.1\r\nhost: web.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: web.test\r\n\r\n"
            ))
            .await;
            let seen = wire.response("POST").await;
            assert!(
                matches!(seen.status(), 400 | 431 | 501),
                "{address} {framing:?}: {} {}",
                seen.first,
                seen.body_text()
            );
            assert!(
                wire.ends_within(Duration::from_secs(5)).await,
                "{framing:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        for chunks in [
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello!!\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhellothere\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!(
                "POST /first HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}GET /second HTTP/1.1\r\nhost: web.test\r\n\r\n"
            ))
            .await;
            let text = String::from_utf8_lossy(&wire.rest_if_any().await).into_owned();
            assert!(!text.contains("/second"), "{address} {chunks:?}: {text}");
            assert!(!text.contains(" 200 "), "{address} {chunks:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_kind_keep_their_framing() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for (framing, sent, kept) in [
            ("content-length: 0", "", "\ncontent-length: 0\n"),
            ("content-length: 5", "hello", "\ncontent-length: 5\n"),
            (
                "content-length: 5\r\ncontent-length: 5",
                "hello",
                "content-length: 5",
            ),
            ("content-length: 5, 5", "hello", "content-length: 5"),
            (
                "transfer-encoding: chunked",
                "0\r\n\r\n",
                "\ntransfer-encoding: chunked\n",
            ),
            (
                "transfer-encoding: Chunked",
                "5\r\nhello\r\n0\r\n\r\n",
                "\ntransfer-encoding: chunked\n",
            ),
            (
                "transfer-encoding: chunked",
                "5;ext=\"a\"\r\nhello\r\n000\r\n\r\n",
                "\ntransfer-encoding: chunked\n",
            ),
        ] {
            let seen = wire
                .ask(&format!(
                    "POST / HTTP/1.1\r\nhost: web.test\r\n{framing}\r\n\r\n{sent}"
                ))
                .await;
            if seen.status() == 400 {
                // Twice the same length may be refused (RFC 9110, section 8.6).
                assert!(
                    framing.contains("5\r\n") || framing.contains(','),
                    "{framing}"
                );
                wire = Wire::connect(address).await;
                continue;
            }
            let text = seen.body_text();
            assert!(text.contains(kept), "{address} {framing}: {text}");
            let body = if sent.contains("hello") {
                "\n\nhello"
            } else {
                "\n\n"
            };
            assert!(text.ends_with(body), "{address} {framing}: {text}");
            assert_eq!(
                text.matches("content-length").count() + text.matches("transfer-encoding").count(),
                1
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_framings_at_once_pass_no_second_request() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        for framing in [
            "content-length: 4\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\nconnection: content-length",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\nconnection: transfer-encoding",
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!(
                "POST /first HTTP/1.1\r\nhost: web.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: web.test\r\n\r\n"
            ))
            .await;
            let seen = wire.response("POST").await;
            let text = seen.body_text();
            assert!(!text.contains("/second"), "{address} {framing}: {text}");
            assert!(
                seen.status() == 400
                    || (text.contains("transfer-encoding: chunked")
                        && !text.contains("content-length")),
                "{address} {framing}: {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http_1_0_have_no_chunks() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    for address in ways(&mesh) {
        let seen = ask(
            address,
            "POST / HTTP/1.0\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
        assert_eq!(seen.status(), 400, "{address}: {}", seen.first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_can_be_read_in_two_ways_are_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    const ANSWERS: [&str; 7] = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n folded\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2x\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.1 200 OK\r\n\r\n",
        "ok\r\n\r\n",
    ];
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        let index = request.first.split(['/', ' ']).nth(2).unwrap();
        wire.send(ANSWERS[index.parse::<usize>().unwrap()]).await;
    })
    .await;
    for address in ways(&mesh) {
        for (index, answer) in ANSWERS.iter().enumerate() {
            let get = format!("GET /{index} HTTP/1.1\r\nhost: web.test\r\n\r\n");
            let seen = ask(address, &get).await;
            assert_eq!(seen.status(), 502, "{address} {answer:?}");
            assert!(seen.header("l5d-proxy-error").is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_sends_beyond_its_answer_is_nobodys() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    // Told when what comes a moment later has been sent: were it late, it would be the next request's answer.
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let _app = app(mesh.net.app(), move |mut wire| {
        let told = told.clone();
        async move {
            while let Some(request) = wire.request().await {
                let path = request.first.split(' ').nth(1).unwrap();
                let beyond = match path.chars().nth(1) {
                    // Within one segment, and a moment later.
                    Some('a') => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
                    _ => "",
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}{beyond}",
                    path.len()
                );
                if !wire.offer(answer).await {
                    return;
                }
                if path.starts_with("/b") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let _ = wire
                        .offer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                        .await;
                    told.send(()).unwrap();
                }
            }
        }
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for n in 0..30 {
            for kind in ["a", "b", "c"] {
                let path = format!("/{kind}{n}");
                wire.send(format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
                    .await;
                let seen = wire.response("GET").await;
                assert_eq!((seen.status(), seen.body_text()), (200, path), "{address}");
                if kind == "b" {
                    soon("what is beyond", tells.recv()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}
