//! hyper's client, balanced over three local servers of which one is slow and one leaves halfway.
//!
//! `cargo run -p examples --bin hyper_balance`

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_balance::Balance;
use mesh_balance::mesh_breaker::{AutoClassifier, ConsecutiveFailures};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::ServiceExt;
use tower::discover::Change;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let servers = [
        serve("near", Duration::ZERO).await?,
        serve("far", Duration::from_millis(10)).await?,
        serve("leaving", Duration::ZERO).await?,
    ];

    // Discovery is any stream of changes. Here: a channel.
    let (discovered, discovery) = mpsc::channel(16);
    let (balance, driver) = Balance::builder(ReceiverStream::new(discovery))
        .http(AutoClassifier::default())
        .breaker(ConsecutiveFailures::default())
        .build();
    tokio::spawn(driver);

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    for server in servers {
        // An endpoint is any tower service: the same client, told where to go.
        let endpoint = client
            .clone()
            .map_request(move |request| towards(server, request));
        discovered
            .send(Ok::<_, Infallible>(Change::Insert(server, endpoint)))
            .await?;
    }

    for round in ["three servers", "two servers"] {
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..300 {
            let request = Request::get("/").body(Empty::new())?;
            let response = balance.clone().oneshot(request).await?;
            let body = response.into_body().collect().await?.to_bytes();
            *answers
                .entry(String::from_utf8_lossy(&body).into_owned())
                .or_default() += 1;
        }
        println!("{round}: {answers:?}");
        let count = |name| answers.get(name).copied().unwrap_or(0);
        if count("far") >= count("near") {
            return Err("the slow server was called as often as the fast one".into());
        }
        if round == "two servers" && count("leaving") > 0 {
            return Err("a server that had left was called".into());
        }

        discovered.send(Ok(Change::Remove(servers[2]))).await?;
        // The driver takes the change up when it next runs.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A client of many servers needs to be told which one.
fn towards<B>(server: SocketAddr, mut request: Request<B>) -> Request<B> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Authority::try_from(server.to_string()).ok();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request
}

/// Answers every request with `name`, after a while.
async fn serve(name: &'static str, after: Duration) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |_| async move {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(name)))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    Ok(address)
}
