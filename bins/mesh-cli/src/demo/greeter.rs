//! Says hello, over gRPC. The service is `quickstart/greeter.proto`.

use std::convert::Infallible;

use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::Place;
use crate::Error;

const HELLO: &str = "/quickstart.v1.Greeter/Hello";

/// Who asks.
#[derive(Clone, PartialEq, prost::Message)]
struct HelloRequest {
    #[prost(string, tag = "1")]
    name: String,
}

/// What is said to them.
#[derive(Clone, PartialEq, prost::Message)]
struct HelloReply {
    #[prost(string, tag = "1")]
    text: String,
}

pub(super) async fn serve(listener: TcpListener, place: Place) -> Result<(), Error> {
    let greeter = Greeter { place };
    loop {
        let (stream, _) = listener.accept().await.map_err(Error::Runtime)?;
        // Small messages both ways: waiting to fill a packet would only add latency.
        let _ = stream.set_nodelay(true);
        let greeter = greeter.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<Incoming>| {
                let greeter = greeter.clone();
                async move { Ok::<_, Infallible>(greeter.answer(request.map(Body::new)).await) }
            });
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Calls the greeter behind `channel`.
pub(super) async fn hello(channel: Channel, name: &str) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<HelloRequest, HelloReply> = ProstCodec::default();
    let request = Request::new(HelloRequest {
        name: name.to_owned(),
    });
    Ok(client
        .unary(request, PathAndQuery::from_static(HELLO), codec)
        .await?
        .into_inner()
        .text)
}

#[derive(Debug, Clone)]
struct Greeter {
    place: Place,
}

impl Greeter {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != HELLO {
            return Status::unimplemented(format!("only {HELLO} is here")).into_http();
        }
        let codec: ProstCodec<HelloReply, HelloRequest> = ProstCodec::default();
        Grpc::new(codec).unary(self, request).await
    }
}

impl UnaryService<HelloRequest> for Greeter {
    type Response = HelloReply;
    type Future = std::future::Ready<Result<Response<HelloReply>, Status>>;

    fn call(&mut self, request: Request<HelloRequest>) -> Self::Future {
        let name = request.into_inner().name;
        let name = if name.is_empty() { "stranger" } else { &name };
        let Place { workload, zone } = &self.place;
        std::future::ready(Ok(Response::new(HelloReply {
            text: format!("hello, {name}, from {workload} in {zone}"),
        })))
    }
}
