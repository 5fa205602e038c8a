//! Somebody who has a certificate of the mesh and no proxy: has itself certified once, then shows that certificate to whoever
//! it is told to, again and again. It never renews, and trusts whatever the anchors' file says at the time.
//!
//! With `--documents` it first takes part in the stream of bundles, once, and writes down what it was given.
//!
//! Prints a JSON line for each round: by target, `accepted`, `refused: WHY` (not believed), or `unknown: WHY` (it could not
//! be tried). The first line is `certified`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Parser;
use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::CertifyRequest;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use mesh_control_api::trust::Report;
use mesh_control_api::trust::trust_client::TrustClient;
use mesh_tls::pki_types::CertificateDer;
use mesh_tls::{Identity, LeafKey, Tls, TlsClient, TrustBundle, credential_store, trust_store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const EVERY: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

#[derive(Debug, Parser)]
#[command(about = "Shows one certificate again and again")]
struct Arguments {
    #[arg(long)]
    identity: Identity,
    /// The file of a join token.
    #[arg(long)]
    token: PathBuf,
    /// The anchors of the day, PEM; read for each connection.
    #[arg(long)]
    anchors: PathBuf,
    #[arg(long)]
    controller: SocketAddr,
    #[arg(long)]
    controller_name: Identity,
    /// IDENTITY=ADDRESS:PORT of what an `e2e-app` serves behind a proxy.
    #[arg(long)]
    to: Vec<String>,
    /// The file for the bundle documents of the day: a JSON array of payload and signature a line, in base64.
    #[arg(long)]
    documents: Option<PathBuf>,
}

/// What is shown, and to whom.
struct Member {
    arguments: Arguments,
    key: LeafKey,
    chain: Vec<CertificateDer<'static>>,
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "a test waits for these lines")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let key = LeafKey::generate()?;
    let token = std::fs::read(&arguments.token)?;
    let tls = client(&arguments.anchors, None)?;
    let chain = certify(&arguments, &arguments.identity, &key, &tls, token).await?;
    let member = Member {
        arguments,
        key,
        chain,
    };
    if let Some(path) = &member.arguments.documents {
        std::fs::write(path, member.documents().await?)?;
    }
    println!("certified");
    loop {
        let mut round = BTreeMap::new();
        round.insert("controller".to_owned(), member.introduce().await);
        for target in &member.arguments.to {
            let (identity, address) = target.split_once('=').ok_or("IDENTITY=ADDRESS:PORT")?;
            round.insert(identity.to_owned(), member.call(identity, address).await);
        }
        println!("{}", serde_json::to_string(&round)?);
        tokio::time::sleep(EVERY).await;
    }
}

impl Member {
    /// What is given to somebody who reports for the first time.
    async fn documents(&self) -> Result<String, Failure> {
        let channel = channel(&self.arguments, &self.tls()?).await?;
        let report = Report {
            process: vec![7; 16],
            incarnation: 1,
            workload: r#"{"ns":"default","pod":"member"}"#.to_owned(),
            sequence: 1,
            ..Report::default()
        };
        let reports = tokio_stream::once(report).chain(tokio_stream::pending());
        let mut updates = TrustClient::new(channel).watch(reports).await?.into_inner();
        while let Some(update) = updates.message().await? {
            if !update.documents.is_empty() {
                let lines = update.documents.iter().map(|document| {
                    let parts = [&document.payload, &document.signature];
                    serde_json::to_string(&parts.map(|part| BASE64.encode(part)))
                });
                return Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"));
            }
        }
        Err("no documents".into())
    }

    /// Asks the controller for a certificate of somebody else: who is believed is told whose certificate it shows. Nothing is
    /// issued, so nobody takes it for one of the mesh's workloads.
    async fn introduce(&self) -> String {
        let somebody = &self.arguments.controller_name;
        let attempt = async {
            let tls = self.tls()?;
            certify(&self.arguments, somebody, &self.key, &tls, Vec::new()).await
        };
        let own = self.arguments.identity.as_str();
        match tokio::time::timeout(LIMIT, attempt).await {
            Ok(Ok(_)) => "unknown: it gives anything to anybody".to_owned(),
            Ok(Err(error)) if error.to_string().contains(own) => "accepted".to_owned(),
            Ok(Err(error)) => verdict(&error),
            Err(_) => format!("unknown: nothing in {LIMIT:?}"),
        }
    }

    /// Asks an application behind a proxy what identity the proxy vouches for.
    async fn call(&self, identity: &str, address: &str) -> String {
        match tokio::time::timeout(LIMIT, self.ask(identity, address)).await {
            Ok(Ok(answer)) if answer.contains(self.arguments.identity.as_str()) => {
                "accepted".to_owned()
            }
            Ok(Ok(answer)) => format!("refused: {answer}"),
            Ok(Err(error)) => verdict(&error),
            Err(_) => format!("unknown: nothing in {LIMIT:?}"),
        }
    }

    async fn ask(&self, identity: &str, address: &str) -> Result<String, Failure> {
        let server: Identity = identity.parse()?;
        let stream = TcpStream::connect(address).await?;
        let mut stream = self.tls()?.connect(stream, &server, None).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut answer)
            .await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn tls(&self) -> Result<TlsClient, Failure> {
        client(&self.arguments.anchors, Some((&self.key, &self.chain)))
    }
}

/// A client that trusts the anchors of the day.
fn client(
    anchors: &Path,
    shown: Option<(&LeafKey, &[CertificateDer<'static>])>,
) -> Result<TlsClient, Failure> {
    let (trust, anchors) = trust_store(TrustBundle::from_pem(1, &std::fs::read(anchors)?)?);
    let (credentials, own) = credential_store();
    let tls = Tls::new(anchors, own);
    let client = match shown {
        Some((key, chain)) => {
            credentials.set(key.credentials(chain.to_vec())?);
            tls.client(&[])
        }
        None => tls.anonymous_client(&[b"h2"]),
    };
    // The stores are closed with their writers, and this is a test's program.
    std::mem::forget((trust, credentials));
    Ok(client)
}

async fn certify(
    arguments: &Arguments,
    identity: &Identity,
    key: &LeafKey,
    tls: &TlsClient,
    token: Vec<u8>,
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let request = CertifyRequest {
        identity: identity.to_string(),
        token,
        certificate_signing_request: key.csr(identity)?,
    };
    let channel = channel(arguments, tls).await?;
    let answer = IdentityClient::new(channel).certify(request).await?;
    let answer = answer.into_inner();
    let chain = std::iter::once(answer.leaf_certificate).chain(answer.intermediate_certificates);
    Ok(chain.map(CertificateDer::from).collect())
}

async fn channel(arguments: &Arguments, tls: &TlsClient) -> Result<Channel, Failure> {
    let (tls, address) = (tls.clone(), arguments.controller);
    let controller = arguments.controller_name.clone();
    let connector = tower::service_fn(move |_| {
        let (tls, controller) = (tls.clone(), controller.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let stream = tls.connect(stream, &controller, None).await;
            stream.map(TokioIo::new).map_err(io::Error::other)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Whether an error says that the certificate was not believed.
fn verdict(error: &Failure) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let status = error.downcast_ref::<Status>().map(Status::code);
    let told = matches!(status, Some(Code::Unauthenticated | Code::PermissionDenied));
    // TLS 1.3 has the client done before the server has looked at its certificate: the alert comes instead of an answer.
    if told || text.contains("received fatal alert") {
        format!("refused: {text}")
    } else {
        format!("unknown: {text}")
    }
}
