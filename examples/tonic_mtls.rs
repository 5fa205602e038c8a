//! tonic over mutual TLS: a channel that calls nobody but whom it means, and a server that knows who calls.
//!
//! `cargo run -p examples --bin tonic_mtls`

#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{
    ClientAuth, Identity, LeafKey, Tls, TlsClient, TlsServer, TrustBundle, credential_store,
    trust_store,
};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let anchor = Anchor::generate("cluster.local", 365 * DAY, SystemTime::now())?;
    let issuer = anchor.issuer("cluster.local", 30 * DAY, SystemTime::now())?;
    let authority = Authority::new(anchor.certificate().clone(), issuer)?;
    let [greeter, web, bank] = ["greeter", "web", "bank"].map(|name| {
        Identity::parse(&format!(
            "{name}.default.serviceaccount.identity.linkerd.cluster.local"
        ))
    });
    let (greeter, web, bank) = (greeter?, web?, bank?);

    let address = serve(join(&authority, &greeter)?.server(&[b"h2"], ClientAuth::Required)).await?;
    let client = join(&authority, &web)?.client(&[b"h2"]);

    let channel = channel(client.clone(), address, greeter);
    for name in ["one", "two"] {
        println!("{}", hello(channel.clone(), name).await?);
    }

    // Whoever answers must be who was meant.
    match hello(self::channel(client, address, bank), "three").await {
        Ok(answer) => Err(format!("somebody else answered: {answer}").into()),
        Err(status) => {
            println!("calling the bank there: {:?}", status.code());
            Ok(())
        }
    }
}

/// A channel to `address`, provided that it is `server` who answers there. Connects when it is first used, and again
/// when it has to: each time with the certificates of that moment.
fn channel(client: TlsClient, address: SocketAddr, server: Identity) -> Channel {
    let connector = tower::service_fn(move |_| {
        let (client, server) = (client.clone(), server.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            Ok::<_, BoxError>(TokioIo::new(client.connect(tcp, &server, None).await?))
        }
    });
    Endpoint::from_static("http://greeter")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector_lazy(connector)
}

async fn hello(channel: Channel, name: &str) -> Result<String, Status> {
    // With generated code: GreeterClient::new(channel).hello(name).
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/greeter.v1.Greeter/Hello");
    let codec = ProstCodec::<String, String>::default();
    Ok(client
        .unary(Request::new(name.to_owned()), path, codec)
        .await?
        .into_inner())
}

/// Greets each caller by name and by identity.
#[derive(Clone)]
struct Greeter {
    caller: Identity,
}

impl tonic::server::UnaryService<String> for Greeter {
    type Response = String;
    type Future = std::future::Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let text = format!("hello, {}, from {}", request.into_inner(), self.caller);
        std::future::ready(Ok(Response::new(text)))
    }
}

async fn serve(tls: TlsServer) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let accepted = tokio::time::timeout(Duration::from_secs(5), tls.accept(tcp)).await;
                let Ok(Ok((stream, Some(caller)))) = accepted else {
                    return;
                };
                let answer = hyper::service::service_fn(|request| {
                    let greeter = Greeter {
                        caller: caller.clone(),
                    };
                    async {
                        let mut grpc =
                            tonic::server::Grpc::new(ProstCodec::<String, String>::default());
                        Ok::<_, Infallible>(grpc.unary(greeter, request).await)
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // A caller that breaks off is its own affair.
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(address)
}

/// The TLS configurations of someone with this identity. A program that lives longer keeps the writers, and puts new
/// certificates into them: see `hyper_mtls`.
fn join(authority: &Authority, identity: &Identity) -> Result<Tls, mesh_tls::Error> {
    let (_, trust) = trust_store(TrustBundle::from_der(1, [authority.anchor().clone()])?);
    let (writer, credentials) = credential_store();
    let key = LeafKey::generate()?;
    let leaf = authority.issue(&key.csr(identity)?, identity, DAY, SystemTime::now())?;
    writer.set(key.credentials(leaf.into_chain())?);
    Ok(Tls::new(trust, credentials))
}
