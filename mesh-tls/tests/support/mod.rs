//! A small mesh under a manual clock, and certificates that no authority of ours would issue.

// Each test crate uses its own part of this.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use mesh_tls::{
    CredentialWriter, Error, Identity, LeafKey, ReadAhead, Tls, TlsClient, TlsServer, TrustBundle,
    TrustWriter, credential_store, crypto_provider, trust_store,
};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
    string::Ia5String,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::ServerName;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{client, server};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The moment at which every test begins.
pub fn t0() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A clock that moves when told to.
#[derive(Debug)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn at(time: SystemTime) -> Arc<Self> {
        let clock = Self(AtomicU64::new(0));
        clock.set(time);
        Arc::new(clock)
    }

    pub fn set(&self, time: SystemTime) {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.0.store(seconds.as_secs(), Ordering::SeqCst);
    }

    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Some(UnixTime::since_unix_epoch(seconds))
    }
}

pub fn identity(value: &str) -> Identity {
    Identity::parse(value).unwrap()
}

pub fn web() -> Identity {
    identity("spiffe://mesh.example/web")
}

pub fn shop() -> Identity {
    identity("spiffe://mesh.example/shop")
}

pub fn anchor() -> Anchor {
    Anchor::generate("mesh.example", 3650 * DAY, t0()).unwrap()
}

pub fn authority_of(anchor: &Anchor) -> Authority {
    let issuer = anchor.issuer("mesh.example", 365 * DAY, t0()).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

pub fn bundle(generation: u64, anchors: &[&Anchor]) -> TrustBundle {
    let anchors = anchors.iter().map(|anchor| anchor.certificate().clone());
    TrustBundle::from_der(generation, anchors).unwrap()
}

/// A workload with both of its writers at hand.
pub struct Workload {
    pub identity: Identity,
    pub tls: Tls,
    pub trust: TrustWriter,
    pub credentials: CredentialWriter,
    pub clock: Arc<Clock>,
}

impl Workload {
    pub fn uncertified(identity: Identity, bundle: TrustBundle) -> Self {
        let clock = Clock::at(t0());
        let (trust, trust_reader) = trust_store(bundle);
        let (credentials, credential_reader) = credential_store();
        let tls = Tls::new(trust_reader, credential_reader).with_time_provider(clock.clone());
        Self {
            identity,
            tls,
            trust,
            credentials,
            clock,
        }
    }

    pub fn new(identity: Identity, authority: &Authority) -> Self {
        let bundle = TrustBundle::from_der(1, [authority.anchor().clone()]).unwrap();
        let workload = Self::uncertified(identity, bundle);
        workload.certify(authority);
        workload
    }

    pub fn certify(&self, authority: &Authority) {
        let key = LeafKey::generate().unwrap();
        let csr = key.csr(&self.identity).unwrap();
        let leaf = authority
            .issue(&csr, &self.identity, DAY, self.clock.now())
            .unwrap();
        self.credentials
            .set(key.credentials(leaf.into_chain()).unwrap());
    }
}

pub type ServerStream = server::TlsStream<ReadAhead<DuplexStream>>;
pub type ClientStream = client::TlsStream<ReadAhead<DuplexStream>>;

/// Both sides' view of one handshake in memory.
pub async fn handshake(
    server: &TlsServer,
    client: &TlsClient,
    expected: &Identity,
) -> (
    Result<(ServerStream, Option<Identity>), Error>,
    Result<ClientStream, Error>,
) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(
        server.accept(far),
        client.connect(near, expected, server_name())
    )
}

/// A handshake that must succeed.
pub async fn connected(
    server: &TlsServer,
    client: &TlsClient,
    expected: &Identity,
) -> (ServerStream, Option<Identity>, ClientStream) {
    let (accepted, connected) = handshake(server, client, expected).await;
    let (stream, peer) = accepted.unwrap();
    (stream, peer, connected.unwrap())
}

/// Sends bytes each way over a live connection.
pub async fn ping_pong(
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let mut buffer = [0; 4];
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");
}

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("peer.mesh.example").unwrap()
}

/// A chain and key made with rcgen directly, signed by a real anchor.
pub struct Forged {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Forged {
    /// A proper leaf of `anchor`, but for what `spoil` does to it.
    pub fn new(anchor: &Anchor, spoil: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self::with_key(anchor, &key, spoil)
    }

    pub fn with_key(
        anchor: &Anchor,
        key: &KeyPair,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        Self::signed_by(&signer(anchor), key, spoil)
    }

    /// What `issuer` signs; its own certificate is left out of the chain.
    pub fn signed_by(
        issuer: &Issuer<'_, KeyPair>,
        key: &KeyPair,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri("spiffe://mesh.example/web")];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (t0() - HOUR).into();
        params.not_after = (t0() + HOUR).into();
        spoil(&mut params);
        let leaf = params.signed_by(key, issuer).unwrap();
        Self {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// A server that presents this chain without looking at it.
    pub fn server(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        Arc::new(config)
    }

    /// A client that presents this chain without looking at it, to any server.
    pub fn client(&self) -> Arc<ClientConfig> {
        let config = careless()
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        Arc::new(config)
    }
}

/// A client that trusts every server.
pub fn careless() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
}

pub fn signer(anchor: &Anchor) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(anchor.key_pem().expose()).unwrap();
    Issuer::from_ca_cert_der(anchor.certificate(), key).unwrap()
}

pub fn uri(value: &str) -> SanType {
    SanType::URI(Ia5String::try_from(value).unwrap())
}

pub fn dns(value: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(value).unwrap())
}

/// What our client says of a server that presents `forged`.
pub async fn client_verdict(client: &TlsClient, forged: &Forged, expected: &Identity) -> Error {
    let (near, far) = duplex(64 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(forged.server());
    let (connected, _) = tokio::join!(
        client.connect(near, expected, server_name()),
        acceptor.accept(far)
    );
    connected.expect_err("a client accepted a forged server")
}

/// What our server says of a client that presents `forged`.
pub async fn server_verdict(server: &TlsServer, forged: &Forged) -> Error {
    let (near, far) = duplex(64 * 1024);
    let connector = tokio_rustls::TlsConnector::from(forged.client());
    let (accepted, _) = tokio::join!(server.accept(far), connector.connect(server_name(), near));
    accepted.expect_err("a server accepted a forged client")
}

#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
