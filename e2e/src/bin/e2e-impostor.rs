//! Plays the controller with a stolen anchor: its certificate is one that every proxy believes, and what it gives them are
//! bundles of its own. It does not have the bundle key. To every other question it says that it is not available.
//!
//! Whoever reports to it is given, once a second and in turn: a bundle of an anchor of its own, signed by the stolen anchor's
//! key; the same with the highest generation there is; a document that was given out before, as it was. Each report is
//! printed as a JSON line: the workload, the generation in use, and how many documents it has refused, and why the last.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Parser;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mesh_control_api::trust::trust_server::{Trust, TrustServer};
use mesh_control_api::trust::{Document as Signed, Report, Since, Update};
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::pki_types::PrivateKeyDer;
use mesh_tls::pki_types::pem::PemObject as _;
use mesh_tls::{
    ClientAuth, Identity, LeafKey, Tls, TlsServer, TrustBundle, credential_store, trust_store,
};
use mesh_trust_rotation::Generation;
use mesh_trust_rotation::document::Document;
use rustls::SignatureScheme;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3600);
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(about = "Plays the controller with a stolen anchor")]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// The identity of the controller.
    #[arg(long)]
    name: Identity,
    #[arg(long)]
    trust_domain: String,
    /// The stolen anchor.
    #[arg(long)]
    anchor: PathBuf,
    /// Its private key.
    #[arg(long)]
    key: PathBuf,
    /// The generation after the one that is in use.
    #[arg(long)]
    generation: u64,
    /// What was given out before, as `e2e-member` writes it.
    #[arg(long)]
    documents: PathBuf,
}

/// Gives out what it should not have.
#[derive(Clone)]
struct Impostor(Arc<[Signed]>);

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "a test waits for these lines")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let key = std::fs::read(&arguments.key)?;
    let anchor = Anchor::from_pem(&std::fs::read(&arguments.anchor)?, &key)?;
    let mut documents = vec![
        forged(&arguments, arguments.generation, &key)?,
        forged(&arguments, u64::MAX, &key)?,
    ];
    for line in std::fs::read_to_string(&arguments.documents)?.lines() {
        let [payload, signature]: [String; 2] = serde_json::from_str(line)?;
        documents.push(Signed {
            payload: BASE64.decode(payload)?,
            signature: BASE64.decode(signature)?,
        });
    }
    let tls = server(&arguments.name, &anchor)?;
    let service = TrustServer::new(Impostor(documents.into()));
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, service) = (tls.clone(), service.clone());
        tokio::spawn(async move {
            if let Ok((stream, _)) = tls.accept(stream).await {
                let service = TowerToHyperService::new(service);
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let service = service.clone();
                    async move {
                        if request.uri().path().starts_with("/mesh.trust.v1.") {
                            return service.call(request).await;
                        }
                        Ok(Status::unavailable("not now").into_http())
                    }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = serving
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}

/// A bundle of an anchor that nobody else has, signed by the stolen key.
fn forged(arguments: &Arguments, generation: u64, key: &[u8]) -> Result<Signed, Failure> {
    let own = Anchor::generate("impostor", DAY, SystemTime::now())?;
    let anchors = [own.certificate().to_vec()];
    let document = Document::new(&arguments.trust_domain, Generation(generation), anchors)?;
    let payload = document.to_bytes()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ];
    let signer = key.choose_scheme(&schemes).ok_or("no scheme for the key")?;
    let signature = signer.sign(&payload)?;
    Ok(Signed { payload, signature })
}

fn server(name: &Identity, anchor: &Anchor) -> Result<TlsServer, Failure> {
    let now = SystemTime::now();
    let issuer = anchor.issuer("impostor", DAY, now)?;
    let authority = Authority::new(anchor.certificate().clone(), issuer)?;
    let key = LeafKey::generate()?;
    let leaf = authority.issue(&key.csr(name)?, name, DAY, now)?;
    let (credentials, own) = credential_store();
    credentials.set(key.credentials(leaf.into_chain())?);
    let (trust, anchors) = trust_store(TrustBundle::from_der(1, [anchor.certificate().clone()])?);
    // The stores are closed with their writers, and this is a test's program.
    std::mem::forget((trust, credentials));
    Ok(Tls::new(anchors, own).server(&[b"h2"], ClientAuth::Optional))
}

#[async_trait]
impl Trust for Impostor {
    type WatchStream = tokio_stream::wrappers::ReceiverStream<Result<Update, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<Report>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (updates, receiver) = mpsc::channel(1);
        tokio::spawn(print(request.into_inner()));
        let documents = self.0.clone();
        tokio::spawn(async move {
            for document in documents.iter().cycle() {
                let update = Update {
                    documents: vec![document.clone()],
                    ..Update::default()
                };
                if updates.send(Ok(update)).await.is_err() {
                    break;
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Response::new(receiver.into()))
    }

    async fn catch_up(&self, _: Request<Since>) -> Result<Response<Update>, Status> {
        Ok(Response::new(Update {
            documents: self.0.to_vec(),
            ..Update::default()
        }))
    }
}

#[allow(clippy::print_stdout, reason = "a test waits for these lines")]
async fn print(mut reports: Streaming<Report>) {
    while let Some(Ok(report)) = reports.next().await {
        let refused = report.refused.unwrap_or_default();
        let line = serde_json::json!({
            "workload": report.workload,
            "generation": report.loaded.map(|loaded| loaded.generation),
            "refused": refused.total,
            "reason": refused.reason().as_str_name(),
        });
        println!("{line}");
    }
}
