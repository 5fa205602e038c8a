//! The certificate verifiers of both sides.
//!
//! Each holds the bundle it was built from, so a handshake sees one bundle from beginning to end.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::bundle::TrustBundle;
use crate::certificate::{Leaf, Usage};
use crate::crypto::crypto_provider;
use crate::error::Error;
use crate::identity::{Identity, TrustDomain};
use crate::key_id::{ChainKeys, KeyId};
use crate::proven::{ChainDigest, Proven};

/// Who a peer proved to be, and by which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// Who it is.
    pub identity: Identity,
    /// The keys that its chain was verified by.
    pub keys: ChainKeys,
}

/// What both sides check of a peer's certificates.
pub(crate) struct PeerPolicy {
    trust: Arc<TrustBundle>,
    trust_domain: Option<TrustDomain>,
    proven: Proven,
}

impl PeerPolicy {
    pub(crate) fn new(trust: Arc<TrustBundle>, trust_domain: Option<TrustDomain>) -> Self {
        Self {
            trust,
            trust_domain,
            proven: Proven::default(),
        }
    }

    /// Whether it is for this very snapshot.
    pub(crate) fn is_for(&self, trust: &Arc<TrustBundle>) -> bool {
        Arc::ptr_eq(&self.trust, trust)
    }

    /// Whom the chain proves. The leaf's form comes first, so that a leaf of the wrong form is called
    /// that, whoever signed it; its usage is judged with the path.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<VerifiedPeer, Error> {
        let chain = ChainDigest::of(leaf, intermediates, usage);
        if let Some(peer) = self.proven.peer(chain, now) {
            return Ok(peer);
        }
        let facts = Leaf::parse(leaf)?;
        let keys = path(leaf, intermediates, &self.trust, usage, now)?;
        if let Some(domain) = &self.trust_domain {
            facts.identity.require_trust_domain(domain)?;
        }
        let peer = VerifiedPeer {
            identity: facts.identity,
            keys,
        };
        self.proven.remember(chain, &peer, leaf, intermediates);
        Ok(peer)
    }

    /// Who it was that showed this chain in a handshake which has just ended.
    #[cfg(feature = "tokio")]
    pub(crate) fn shown(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<VerifiedPeer, Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(Error::EmptyChain)?;
        self.verify(leaf, intermediates, usage, now)
    }
}

/// Validates a chain, leaf first, against the anchors of `trust` (RFC 5280 section 6).
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundle,
    usage: Usage,
    now: UnixTime,
) -> Result<ChainKeys, Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::EmptyChain)?;
    path(leaf, intermediates, trust, usage, now)
}

fn path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &TrustBundle,
    usage: Usage,
    now: UnixTime,
) -> Result<ChainKeys, Error> {
    let key_usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                crypto_provider().signature_verification_algorithms.all,
                trust.roots(),
                intermediates,
                now,
                key_usage,
                None,
                None,
            )
            .map(|path| keys(&path, trust))
        })
        .map_err(|error| Error::from_path(error, usage.as_str()))
}

fn keys(path: &VerifiedPath<'_>, trust: &TrustBundle) -> ChainKeys {
    let root = path.anchor();
    let place = trust.roots().iter().position(|one| std::ptr::eq(one, root));
    // The path leads to one of the roots that it was looked for to.
    let anchor = place.and_then(|place| trust.anchor_keys().get(place).copied());
    let anchor = anchor.unwrap_or_else(|| KeyId::of(&[]));
    let issuer = path.intermediate_certificates().next();
    let issuer = issuer.map(|issuer| KeyId::of(&issuer.subject_public_key_info()));
    ChainKeys {
        issuer: issuer.unwrap_or(anchor),
        anchor,
    }
}

/// The client's view: the server must be the workload that was called.
pub(crate) struct ServerVerifier {
    policy: Arc<PeerPolicy>,
    expected: Identity,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(crate) fn new(policy: Arc<PeerPolicy>, expected: Identity) -> Self {
        Self {
            policy,
            expected,
            provider: crypto_provider(),
        }
    }

    fn require(&self, found: &Identity) -> Result<(), Error> {
        if *found == self.expected {
            return Ok(());
        }
        if let (Some(expected), Some(domain)) = (self.expected.trust_domain(), found.trust_domain())
            && expected != domain
        {
            return Err(Error::WrongTrustDomain {
                expected: expected.to_string(),
                identity: found.to_string(),
            });
        }
        Err(Error::WrongIdentity {
            expected: self.expected.to_string(),
            found: found.to_string(),
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.policy
            .verify(end_entity, intermediates, Usage::Server, now)
            .and_then(|found| self.require(&found.identity))
            .map(|()| ServerCertVerified::assertion())
            .map_err(Error::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier")
            .field("expected", &self.expected)
            .field("trust", &self.policy.trust)
            .finish_non_exhaustive()
    }
}

/// The server's view: the client is whoever its certificate proves; policy decides what it may do.
pub(crate) struct ClientVerifier {
    policy: Arc<PeerPolicy>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    pub(crate) fn new(policy: Arc<PeerPolicy>, mandatory: bool) -> Self {
        Self {
            policy,
            mandatory,
            provider: crypto_provider(),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: a list of anchors would tell strangers about the mesh and grow the handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.policy
            .verify(end_entity, intermediates, Usage::Client, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(Error::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("mandatory", &self.mandatory)
            .field("trust", &self.policy.trust)
            .finish_non_exhaustive()
    }
}
