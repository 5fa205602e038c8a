//! reqwest's client, balanced over three servers that admit 20, 40 and 140 requests a second and answer 429 beyond.
//!
//! `cargo run -p examples --bin reqwest_balance`

#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use mesh_balance::mesh_breaker::AutoClassifier;
use mesh_balance::{Balance, Error};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::discover::Change;
use tower::{ServiceBuilder, ServiceExt};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let client = reqwest::Client::new();
    let mut endpoints = Vec::new();
    for limit in [20.0, 40.0, 140.0] {
        let server = serve(limit).await?;
        let endpoint = ServiceBuilder::new()
            // What is balanced is a request without an authority: each endpoint puts its own.
            .map_request(move |path: &'static str| {
                let url = format!("http://{server}{path}");
                reqwest::Request::new(reqwest::Method::GET, url.parse().expect("a URL"))
            })
            // With a response of the crate `http`, the classifiers of mesh-breaker can read it.
            .map_response(|response: reqwest::Response| Response::<reqwest::Body>::from(response))
            .service(client.clone());
        endpoints.push(Ok::<_, Infallible>(Change::Insert(server, endpoint)));
    }
    let (balance, driver) = Balance::builder(tokio_stream::iter(endpoints))
        .http(AutoClassifier::default())
        .build();
    driver.await?;

    // 180 requests a second for 5 s: nine tenths of what the three admit together.
    let mut calls = JoinSet::new();
    let mut every = tokio::time::interval(Duration::from_secs(1) / 180);
    for _ in 0..900 {
        every.tick().await;
        calls.spawn(balance.clone().oneshot("/"));
    }
    let (mut served, mut refused, mut shed) = (0, 0, 0);
    while let Some(answer) = calls.join_next().await {
        match answer? {
            Ok(response) if response.status() == StatusCode::OK => served += 1,
            Ok(_) => refused += 1,
            Err(Error::Limited { .. }) => shed += 1,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{served} served, {refused} refused by a server, {shed} not even sent");
    for (_, stats) in balance.picker().snapshot().stats(Instant::now()) {
        println!(
            "learned limit: {:?} requests a second",
            stats.limit.map(f64::round)
        );
    }
    if served < 780 {
        return Err("round robin would have had 67% served, and this was little better".into());
    }
    Ok(())
}

/// Answers `limit` requests a second, and what a fifth of a second of them is at once.
async fn serve(limit: f64) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let bucket = Arc::new(Mutex::new((limit / 5.0, Instant::now())));
    let admits = move || {
        let mut bucket = bucket.lock().expect("nobody panics with it");
        let (tokens, since) = *bucket;
        let tokens = (tokens + since.elapsed().as_secs_f64() * limit).min(limit / 5.0);
        let admits = tokens >= 1.0;
        *bucket = (tokens - f64::from(u8::from(admits)), Instant::now());
        admits
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let admits = admits.clone();
            let answer = hyper::service::service_fn(move |_| {
                let status = if admits() {
                    StatusCode::OK
                } else {
                    StatusCode::TOO_MANY_REQUESTS
                };
                let response = Response::builder()
                    .status(status)
                    .header("retry-after", "1")
                    .body(Empty::<Bytes>::new());
                async move { response }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    Ok(address)
}
