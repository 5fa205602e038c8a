//! A frame of DATA that is empty and not the last says nothing: a connection that carries one with each request lives on, and one
//! that carries nothing else is ended.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use mesh_http::client::{ClientSettings, Http2Pool};
use mesh_http::connections::Connections;
use mesh_http::{Error, Incoming, ServerLimits};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

/// More than `h2` takes in a connection's life.
const REQUESTS: usize = 300;
/// Of frames without anything else.
const FLOOD: usize = 20_000;

/// The answers of a server that sends so many empty frames before the end of each.
async fn answer(io: DuplexStream, empty: usize) {
    let mut served = server::handshake(io).await.unwrap();
    while let Some(Ok((_, mut respond))) = served.accept().await {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        for _ in 0..empty {
            // Who has ended the connection takes no more.
            let _ = body.send_data(Bytes::new(), false);
        }
        let _ = body.send_trailers(HeaderMap::new());
    }
}

/// Asks a server of that kind `requests` times on one connection.
async fn ask(requests: usize, empty: usize) -> Result<(), String> {
    let pool = Rc::new(Http2Pool::new(ClientSettings::default()));
    let (near, far) = duplex(1 << 20);
    spawn_local(answer(far, empty));
    let mut stream = pool
        .connect(|| async move { Ok::<_, Error>(near) })
        .await
        .unwrap();
    for number in 0..requests {
        let request = Request::get("http://web/").body(Empty::<Bytes>::new());
        let sent = stream.send(request.unwrap()).await;
        let response = sent.map_err(|unanswered| format!("{number}: {}", unanswered.error))?;
        let body = response.into_body().collect().await;
        body.map_err(|error| format!("{number}: {error}"))?;
        stream = pool.get().ok_or("the connection has ended")?;
    }
    Ok(())
}

/// Sends so many empty frames in each of so many requests to a server of ours.
async fn send(requests: usize, empty: usize) -> Result<(), h2::Error> {
    let (near, far) = duplex(1 << 20);
    let connections = Connections::new(1, 10);
    let connection = connections.open().await;
    spawn_local(async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let limits = ServerLimits::default();
        let _ = mesh_http::server::http2(far, &limits, &connection, service).await;
    });
    let (sender, driven) = client::handshake(near).await?;
    spawn_local(driven);
    for _ in 0..requests {
        let mut sender = sender.clone().ready().await?;
        let request = Request::post("http://web/").body(()).unwrap();
        let (response, mut body) = sender.send_request(request, false)?;
        for _ in 0..empty {
            body.send_data(Bytes::new(), false)?;
        }
        body.send_trailers(HeaderMap::new())?;
        response.await?;
    }
    Ok(())
}

#[tokio::test]
async fn one_in_each_answer_ends_no_connection() {
    let asked = LocalSet::new().run_until(ask(REQUESTS, 1)).await;
    assert_eq!(asked, Ok(()));
}

#[tokio::test]
async fn one_in_each_request_ends_no_connection() {
    let sent = LocalSet::new().run_until(send(REQUESTS, 1)).await;
    assert!(sent.is_ok(), "{sent:?}");
}

#[tokio::test]
async fn a_flood_of_them_does() {
    let asked = LocalSet::new().run_until(ask(1, FLOOD)).await;
    assert!(asked.is_err());
    let sent = LocalSet::new().run_until(send(1, FLOOD)).await;
    assert!(sent.is_err());
}
