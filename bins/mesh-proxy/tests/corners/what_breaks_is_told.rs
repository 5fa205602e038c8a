//! What a server breaks off is broken off to the client, and costs nobody else anything.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio_stream::wrappers::ReceiverStream;

use crate::controller::soon;
use crate::h2;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{Wire, app};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_broken_whatever_its_framing() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        let framing = match request.first.split(' ').nth(1).unwrap() {
            "/length" => "content-length: 100\r\n\r\nhalf",
            "/chunks" => "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "/chunk" => "transfer-encoding: chunked\r\n\r\n10\r\nhalf",
            _ => "\r\nhalf",
        };
        wire.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        // What was sent shall arrive before the reset does.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if request.first.contains("/reset") {
            wire.reset();
        }
    })
    .await;
    for address in ways(&mesh) {
        for path in ["/length", "/chunks", "/chunk", "/reset"] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"))
                .await;
            let head = wire.head().await.unwrap();
            assert_eq!(head.status(), 200);
            let rest = wire.rest_if_any().await;
            assert!(
                rest.windows(4).any(|bytes| bytes == b"half"),
                "{address} {path}: {}",
                rest.escape_ascii()
            );
            match head.header("content-length") {
                Some(length) => assert!(rest.len() < length.parse().unwrap()),
                None => {
                    assert_eq!(head.header("transfer-encoding").as_deref(), Some("chunked"));
                    assert!(!rest.ends_with(b"0\r\n\r\n"), "{address} {path}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_off_is_reset() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = h2::app(mesh.net.app(), |_| async move {
        let (frames, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let half = Frame::data(Bytes::from_static(b"half"));
            frames.send(Ok(half)).await.unwrap();
            // The head and the half shall arrive before the reset does.
            tokio::time::sleep(Duration::from_millis(200)).await;
            frames.send(Err("no more".into())).await.unwrap();
        });
        Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
    })
    .await;
    for address in ways(&mesh) {
        let (mut sender, _connection) = h2::connect(address).await;
        for _ in 0..3 {
            let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
            let answer = soon("an answer", sender.send_request(request))
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let half = soon("half", body.frame()).await.unwrap().unwrap();
            assert_eq!(half.into_data().unwrap(), "half");
            let end = soon("the end", body.frame()).await;
            assert!(matches!(end, Some(Err(_))), "{address}: {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_without_a_word_is_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        if request.first.contains("/reset") {
            wire.reset();
        }
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for path in ["/end", "/reset", "/end"] {
            let seen = wire
                .ask(&format!(
                    "POST {path} HTTP/1.1\r\nhost: web.test\r\ncontent-length: 2\r\n\r\nhi"
                ))
                .await;
            assert_eq!(seen.status(), 502, "{address} {path}");
            assert!(seen.header("l5d-proxy-error").is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_a_body_leaves_the_connection_usable_or_ends_it() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(head) = wire.head().await {
            let early = head.first.starts_with("POST");
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
                .await;
            wire.send(if early { "early" } else { "later" }).await;
            if early {
                // It reads on, as it means to keep the connection.
                if wire.up_to(8).await.len() < 8 {
                    return;
                }
            }
        }
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        wire.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 8\r\n\r\nfour")
            .await;
        assert_eq!(
            wire.response("POST").await.body_text(),
            "early",
            "{address}"
        );
        // The rest of the body is the body's, not the next request's.
        if wire
            .offer("GET GET / HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await
            && let Some(head) = wire.head().await
        {
            assert_eq!(head.status(), 200, "{address}");
            assert_eq!(wire.exactly(5).await, b"later", "{address}");
        }
    }
}
