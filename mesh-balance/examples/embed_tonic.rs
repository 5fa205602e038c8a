//! tonic channels, balanced over two local gRPC servers of which one fails every call:
//! `cargo run -p mesh-balance --features http --example embed_tonic`
#![allow(clippy::print_stdout, reason = "an example prints")]

use futures_util::stream;
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use mesh_balance::Balance;
use mesh_balance::mesh_breaker::{AutoClassifier, ConsecutiveFailures};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::discover::Change;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let addresses = [
        serve(Greeter { healthy: true }).await?,
        serve(Greeter { healthy: false }).await?,
    ];

    let channels = addresses.map(|address| {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
        Ok::<_, tonic::transport::Error>(Change::Insert(address, channel))
    });
    let (balance, driver) = Balance::builder(stream::iter(channels))
        .http(AutoClassifier::default())
        .breaker(ConsecutiveFailures::default())
        .build();
    tokio::spawn(driver);

    let mut greeter = tonic::client::Grpc::new(balance); // or a generated client: GreeterClient::new(balance)
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..200 {
        greeter.ready().await?;
        let path = PathAndQuery::from_static("/greeter.Greeter/Greet");
        let codec = ProstCodec::<String, String>::default();
        match greeter
            .unary(Request::new("mesh".to_owned()), path, codec)
            .await
        {
            Ok(response) => {
                assert_eq!(response.into_inner(), "hello, mesh");
                answered += 1;
            }
            Err(_) => failed += 1,
        }
    }
    println!("{answered} answered, {failed} failed before the broken server was out");
    assert!(failed <= 7, "seven failures in a row open the breaker");
    Ok(())
}

#[derive(Clone, Copy)]
struct Greeter {
    healthy: bool,
}

impl tonic::server::UnaryService<String> for Greeter {
    type Response = String;
    type Future = std::future::Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        std::future::ready(if self.healthy {
            Ok(Response::new(format!("hello, {}", request.into_inner())))
        } else {
            Err(Status::internal("out of order"))
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
                Ok::<_, std::convert::Infallible>(grpc.unary(greeter, request).await)
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
