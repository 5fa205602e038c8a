//! Somebody who has a certificate of the mesh and no proxy: has itself certified once, then shows that certificate to whoever
//! it is told to, again and again. It never renews, and trusts whatever the anchors' file says at the time.
//!
//! With `--documents` it first takes part in the stream of bundles, once, and writes down what it was given.
//!
//! With `--follow` it does nothing but follow bundles as the first proxies did: it reports what there was in `mesh.trust.v1` at the
//! beginning, answers no probe, and passes over all orders but those for another certificate. It prints a line for each report.
//!
//! Prints a JSON line for each round: by target, `accepted`, `refused: WHY` (not believed), or `unknown: WHY` (it could not
//! be tried). The first line is `certified`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Parser;
use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::CertifyRequest;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use mesh_control_api::metadata as names;
use mesh_control_api::trust::trust_client::TrustClient;
use mesh_control_api::trust::{self as api, Report};
use mesh_tls::pki_types::CertificateDer;
use mesh_tls::{
    CredentialReader, CredentialWriter, Identity, KeyId, LeafKey, Tls, TlsClient, TrustBundle,
    TrustWriter, credential_store, trust_store,
};
use mesh_trust_rotation::crypto::Ed25519;
use mesh_trust_rotation::document::{Pin, SignedDocument};
use mesh_trust_rotation::{Error, Generation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WORKLOAD: &str = r#"{"ns":"default","pod":"member"}"#;
/// How old its certificate gets where it follows bundles.
const RENEWAL: Duration = Duration::from_secs(5);
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
    /// The file of the bundle key.
    #[arg(long)]
    follow: Option<PathBuf>,
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
    if let Some(pinned) = &arguments.follow {
        return Follower::begin(&arguments, pinned, key)?
            .follow(tls, token)
            .await;
    }
    let chain = certify(&arguments, &arguments.identity, &key, &tls, token, None).await?;
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
            workload: WORKLOAD.to_owned(),
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
            certify(&self.arguments, somebody, &self.key, &tls, Vec::new(), None).await
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

/// Follows bundles, with no more words than there were at first.
struct Follower<'a> {
    arguments: &'a Arguments,
    key: LeafKey,
    pin: Pin,
    trust: TrustWriter,
    credentials: CredentialWriter,
    own: CredentialReader,
    tls: Tls,
    sequence: u64,
}

impl<'a> Follower<'a> {
    fn begin(arguments: &'a Arguments, pinned: &Path, key: LeafKey) -> Result<Self, Failure> {
        let pinned = std::fs::read_to_string(pinned)?.trim().to_owned();
        let domain = arguments.identity.trust_domain().ok_or("a trust domain")?;
        let pin = Pin::new(domain.as_str(), pinned.try_into()?, Generation(0));
        let anchors = std::fs::read(&arguments.anchors)?;
        let (trust, anchors) = trust_store(TrustBundle::from_pem(0, &anchors)?);
        let (credentials, own) = credential_store();
        let tls = Tls::new(anchors, own.clone());
        Ok(Self {
            arguments,
            key,
            pin,
            trust,
            credentials,
            own,
            tls,
            sequence: 0,
        })
    }

    async fn follow(mut self, anonymous: TlsClient, token: Vec<u8>) -> Result<(), Failure> {
        self.certify(&anonymous, token).await?;
        loop {
            self.session().await?;
            let tls = self.tls.client(&[b"h2"]);
            self.certify(&tls, Vec::new()).await?;
        }
    }

    async fn certify(&mut self, tls: &TlsClient, token: Vec<u8>) -> Result<(), Failure> {
        let (to, report) = (self.arguments, self.report());
        let chain = certify(to, &to.identity, &self.key, tls, token, Some(&report)).await?;
        self.credentials.set(self.key.credentials(chain)?);
        Ok(())
    }

    /// One stream, until another certificate is asked for or due.
    async fn session(&mut self) -> Result<(), Failure> {
        let channel = channel(self.arguments, &self.tls.client(&[b"h2"])).await?;
        let (reports, queue) = mpsc::channel(16);
        reports.send(self.report()).await?;
        let queue = ReceiverStream::new(queue);
        let mut updates = TrustClient::new(channel).watch(queue).await?.into_inner();
        let due = tokio::time::sleep(RENEWAL);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
                update = updates.message() => {
                    let update = update?.ok_or("the controller ended the stream")?;
                    self.adopt(update.documents)?;
                    if update.reissue.is_some() {
                        return Ok(());
                    }
                }
            }
            reports.send(self.report()).await?;
        }
    }

    fn adopt(&mut self, documents: Vec<api::Document>) -> Result<(), Failure> {
        for document in documents {
            let signed = SignedDocument::new(document.payload, document.signature);
            match self.pin.accept(&signed, &Ed25519) {
                Ok(document) => {
                    let anchors = document.anchors().map(|der| der.to_vec().into());
                    let generation = document.generation().0;
                    self.trust
                        .set(TrustBundle::from_der(generation, anchors)?)?;
                }
                // The one in use may be repeated.
                Err(Error::StaleGeneration { found, current }) if found == current => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[allow(clippy::print_stdout, reason = "a test waits for these lines")]
    fn report(&mut self) -> Report {
        self.sequence += 1;
        let trust = self.trust.load();
        let leaf = self.own.load().map(|own| {
            let keys = own.verify(&trust, SystemTime::now()).ok();
            let issuer = keys.map(|keys| keys.issuer).or(own.issuer());
            let bytes =
                |key: Option<KeyId>| key.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
            api::Leaf {
                issuer: bytes(issuer),
                anchor: bytes(keys.map(|keys| keys.anchor)),
                not_after: Some(own.not_after().into()),
            }
        });
        println!("reports generation {}", trust.generation());
        Report {
            process: vec![7; 16],
            incarnation: 1,
            workload: WORKLOAD.to_owned(),
            sequence: self.sequence,
            loaded: Some(api::Loaded {
                generation: trust.generation(),
                digest: trust.digest().as_bytes().to_vec(),
            }),
            leaf,
            highest_generation: trust.generation(),
            bundle_key: self.pin.key().as_bytes().to_vec(),
            ..Report::default()
        }
    }
}

/// Puts into the metadata of a call who asks and what it trusts.
fn state(report: &Report, metadata: &mut MetadataMap) -> Result<(), Failure> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let loaded = report.loaded.as_ref().ok_or("what is loaded")?;
    metadata.insert(names::GENERATION, loaded.generation.into());
    metadata.insert(names::INCARNATION, report.incarnation.into());
    metadata.insert(names::DIGEST, hex(&loaded.digest).parse()?);
    metadata.insert(names::PROCESS, hex(&report.process).parse()?);
    metadata.insert(names::WORKLOAD, report.workload.parse()?);
    Ok(())
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
    report: Option<&Report>,
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let mut request = Request::new(CertifyRequest {
        identity: identity.to_string(),
        token,
        certificate_signing_request: key.csr(identity)?,
    });
    if let Some(report) = report {
        state(report, request.metadata_mut())?;
    }
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
