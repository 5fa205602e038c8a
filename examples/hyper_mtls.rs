//! hyper over mutual TLS: the server knows who calls, the client calls nobody but whom it means, and both get new
//! certificates between two calls.
//!
//! `cargo run -p examples --bin hyper_mtls`

#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{
    ClientAuth, CredentialWriter, Identity, LeafKey, Tls, TlsClient, TlsServer, TrustBundle,
    TrustWriter, credential_store, trust_store,
};
use tokio::net::{TcpListener, TcpStream};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let anchor = Anchor::generate("mesh.example", 365 * DAY, SystemTime::now())?;
    let issuer = anchor.issuer("mesh.example", 30 * DAY, SystemTime::now())?;
    let authority = Authority::new(anchor.certificate().clone(), issuer)?;
    let web = Workload::join(&authority, "spiffe://mesh.example/web")?;
    let shop = Workload::join(&authority, "spiffe://mesh.example/shop")?;

    let address = serve(web.tls.server(&[b"http/1.1"], ClientAuth::Required)).await?;
    let client = shop.tls.client(&[b"http/1.1"]);

    for round in ["first certificates", "renewed certificates"] {
        println!("{round}: {}", get(&client, address, &web.identity).await?);
        // The next handshake uses them. Nothing is restarted, and connections live on.
        web.certify(&authority)?;
        shop.certify(&authority)?;
    }

    // Whoever answers must be who was meant.
    match get(
        &client,
        address,
        &Identity::parse("spiffe://mesh.example/bank")?,
    )
    .await
    {
        Ok(answer) => Err(format!("somebody else answered: {answer}").into()),
        Err(refused) => {
            println!("calling the bank there: {refused}");
            Ok(())
        }
    }
}

/// One GET from whoever is `server`.
async fn get(
    client: &TlsClient,
    address: SocketAddr,
    server: &Identity,
) -> Result<String, BoxError> {
    let tcp = TcpStream::connect(address).await?;
    // A SPIFFE URI cannot be sent as a server name, so one is given.
    let name = "web.mesh.example".try_into()?;
    let tls = client.connect(tcp, server, Some(name)).await?;
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "web.mesh.example")
        .body(Empty::<Bytes>::new())?;
    let body = requests
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Greets each caller by its identity.
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
                let answer = hyper::service::service_fn(|_| {
                    let text = format!("hello, {caller}");
                    async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text))) }
                });
                // A caller that breaks off is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    Ok(address)
}

/// Someone with an identity, and what proves it.
struct Workload {
    identity: Identity,
    tls: Tls,
    credentials: CredentialWriter,
    _trust: TrustWriter,
}

impl Workload {
    fn join(authority: &Authority, identity: &str) -> Result<Self, mesh_tls::Error> {
        let (trust_writer, trust) =
            trust_store(TrustBundle::from_der(1, [authority.anchor().clone()])?);
        let (credential_writer, credentials) = credential_store();
        let identity = Identity::parse(identity)?;
        let workload = Self {
            identity,
            tls: Tls::new(trust, credentials),
            credentials: credential_writer,
            _trust: trust_writer,
        };
        workload.certify(authority)?;
        Ok(workload)
    }

    /// The key is made here and stays here; the authority sees a request for it to be signed.
    fn certify(&self, authority: &Authority) -> Result<(), mesh_tls::Error> {
        let key = LeafKey::generate()?;
        let leaf = authority.issue(
            &key.csr(&self.identity)?,
            &self.identity,
            DAY,
            SystemTime::now(),
        )?;
        self.credentials.set(key.credentials(leaf.into_chain())?);
        Ok(())
    }
}
