//! Trailers arrive both ways, whichever versions they cross.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::controller::soon;
use crate::h2;
use crate::mesh::Mesh;
use crate::ways;
use crate::wire::{Wire, app};

#[tokio::test(flavor = "multi_thread")]
async fn of_http_1_requests_and_answers() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            let (asked, sum) = (request.header("te"), request.header("x-sum"));
            let seen = format!("{asked:?} {sum:?}");
            wire.send(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-back\r\n\r\n{:x}\r\n{seen}\r\n0\r\nx-back: 8\r\n\r\n",
                seen.len()
            ))
            .await;
        }
    })
    .await;
    for address in ways(&mesh) {
        let mut wire = Wire::connect(address).await;
        for _ in 0..2 {
            let seen = wire
                .ask("POST / HTTP/1.1\r\nhost: web.test\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n")
                .await;
            assert_eq!(
                seen.body_text(),
                r#"Some("trailers") Some("7")"#,
                "{address}"
            );
            assert_eq!(seen.header("x-back").as_deref(), Some("8"), "{address}");
        }
        // Who does not ask for trailers gets none, and the whole answer.
        let seen = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
        assert_eq!(
            (seen.body_text().as_str(), seen.header("x-back")),
            ("None None", None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_http_2_requests_and_answers() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = h2::app(mesh.net.app(), |request| async move {
        let trailers = request.into_body().collect().await.unwrap();
        let trailers = trailers.trailers().cloned().unwrap_or_default();
        Response::new(with_trailers("x-back", trailers["x-sum"].clone()))
    })
    .await;
    for address in ways(&mesh) {
        let (mut sender, _connection) = h2::connect(address).await;
        let request = Request::post("http://web.test/")
            .header("te", "trailers")
            .body(with_trailers("x-sum", HeaderValue::from_static("7")))
            .unwrap();
        let answer = soon("an answer", sender.send_request(request))
            .await
            .unwrap();
        let body = soon("the body", answer.into_body().collect())
            .await
            .unwrap();
        assert_eq!(body.trailers().unwrap()["x-back"], "7", "{address}");
    }
}

fn with_trailers(name: &'static str, value: HeaderValue) -> h2::Body {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value);
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"hello"))),
        Ok(Frame::trailers(trailers)),
    ];
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}
