//! A tonic client, balanced over three local gRPC servers of which one fails every call.
//!
//! `cargo run -p examples --bin tonic_balance`

#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::net::SocketAddr;

use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_balance::Balance;
use mesh_balance::mesh_breaker::{AutoClassifier, ConsecutiveFailures};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::discover::Change;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let servers = [
        serve(Greeter::Well).await?,
        serve(Greeter::Well).await?,
        serve(Greeter::Broken).await?,
    ];

    // Discovery that never changes: a stream that ends leaves the endpoints as they are.
    let channels = servers.map(|server| {
        let channel = Endpoint::from_shared(format!("http://{server}"))?.connect_lazy();
        Ok::<_, tonic::transport::Error>(Change::Insert(server, channel))
    });
    let (balance, driver) = Balance::builder(tokio_stream::iter(channels))
        // gRPC says in its trailers what a call came to: HTTP status 200 is not success.
        .http(AutoClassifier::default())
        .breaker(ConsecutiveFailures::default())
        .build();
    tokio::spawn(driver);

    // With generated code: GreeterClient::new(balance).
    let mut greeter = tonic::client::Grpc::new(balance);
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..300 {
        greeter.ready().await?;
        let path = PathAndQuery::from_static("/greeter.v1.Greeter/Hello");
        let codec = ProstCodec::<String, String>::default();
        match greeter
            .unary(Request::new("mesh".to_owned()), path, codec)
            .await
        {
            Ok(_) => answered += 1,
            Err(_) => failed += 1,
        }
    }
    println!(
        "{answered} calls answered, {failed} failed before the breaker took the broken server out"
    );
    if failed == 0 || failed > 20 {
        return Err("the breaker did not open".into());
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Greeter {
    Well,
    Broken,
}

impl tonic::server::UnaryService<String> for Greeter {
    type Response = String;
    type Future = std::future::Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        std::future::ready(match self {
            Self::Well => Ok(Response::new(format!("hello, {}", request.into_inner()))),
            Self::Broken => Err(Status::internal("out of order")),
        })
    }
}

async fn serve(greeter: Greeter) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |request| async move {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
                Ok::<_, Infallible>(grpc.unary(greeter, request).await)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(address)
}
