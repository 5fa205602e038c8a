//! hyper-util's client, balanced over two local servers: `cargo run -p mesh-balance --features http --example embed_hyper`
#![allow(clippy::print_stdout, reason = "an example prints")]

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_balance::Balance;
use mesh_balance::mesh_breaker::{AutoClassifier, ConsecutiveFailures};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tower::discover::Change;
use tower::{Service, ServiceExt};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let addresses = [serve("one").await?, serve("two").await?];

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let endpoints = addresses.map(|address| {
        let endpoint = client
            .clone()
            .map_request(move |request| towards(address, request));
        Ok::<_, Infallible>(Change::Insert(address, endpoint))
    });
    let (balance, driver) = Balance::builder(stream::iter(endpoints))
        .http(AutoClassifier::default())
        .breaker(ConsecutiveFailures::default())
        .build();
    tokio::spawn(driver);

    let mut answers = BTreeMap::new();
    for _ in 0..10 {
        let calls = (0..10).map(|_| call(balance.clone()));
        for answer in try_join_all(calls).await? {
            *answers.entry(answer).or_insert(0) += 1;
        }
    }
    println!("{answers:?}");
    assert_eq!(answers.len(), addresses.len(), "every server has answered");
    Ok(())
}

async fn call<S, B>(service: S) -> Result<String, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = mesh_balance::Error>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let response = service
        .oneshot(Request::get("/").body(Empty::new())?)
        .await?;
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(Into::into)?
        .to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// A client of many servers needs to be told which one.
fn towards<B>(address: SocketAddr, mut request: Request<B>) -> Request<B> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Authority::try_from(address.to_string()).ok();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request
}

async fn serve(name: &'static str) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(name)))
            });
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
            });
        }
    });
    Ok(address)
}
