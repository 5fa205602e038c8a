//! Everything that can be wrong with identities, certificates and handshakes.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, ExtendedKeyPurpose, OtherError};

/// What was wrong, with the value that was wrong and what would be right.
///
/// Errors found by the certificate verifiers inside a handshake come out of
/// `accept` and `connect` as the same variants. The enum is `Clone` because a verdict
/// travels through rustls behind an `Arc`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Identities.
    /// The text is neither a SPIFFE ID nor a DNS name.
    #[error("{value:?} is not an identity: {reason}")]
    InvalidIdentity {
        /// The text, cut to 256 characters.
        value: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The text is not a trust domain.
    #[error("{value:?} is not a trust domain: {reason}")]
    InvalidTrustDomain {
        /// The text, cut to 256 characters.
        value: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The certificate names nobody: no URI and no DNS subject alternative name.
    #[error("certificate has no URI or DNS subject alternative name; exactly one is needed")]
    NoIdentity,
    /// The certificate names more than one workload.
    #[error("certificate has {count} {kind} subject alternative names; exactly one is needed")]
    AmbiguousIdentity {
        /// `URI` or `DNS`.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The peer proved another identity than the one expected.
    #[error("peer is {found}, not {expected}")]
    WrongIdentity {
        /// Who was called.
        expected: String,
        /// Who answered.
        found: String,
    },
    /// The identity belongs to another trust domain.
    #[error("{identity} is not in trust domain {expected}")]
    WrongTrustDomain {
        /// The trust domain that was asked for.
        expected: String,
        /// The identity outside it.
        identity: String,
    },

    // Certificates and keys.
    /// The PEM text is truncated or damaged.
    #[error("{what} is not valid PEM: {reason}")]
    Pem {
        /// What was being read.
        what: &'static str,
        /// What the parser found.
        reason: String,
    },
    /// A PEM section of a kind that does not belong there.
    #[error("{what} holds a PEM section of kind {found}")]
    UnexpectedPemSection {
        /// What was being read.
        what: &'static str,
        /// The kind of section found.
        found: String,
    },
    /// The bytes are not an X.509 certificate, or one with damaged extensions.
    #[error("malformed certificate: {reason}")]
    MalformedCertificate {
        /// What the parser found.
        reason: String,
    },
    /// A certificate chain without certificates.
    #[error("certificate chain is empty; the leaf comes first, then its intermediates")]
    EmptyChain,
    /// A certificate chain over the size that is accepted.
    #[error("certificate chain is {bytes} bytes; at most {max} are accepted")]
    ChainTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The certificate is past its end.
    #[error("certificate expired {}, now {}", seconds(*.not_after), seconds(*.now))]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// The time it was checked at.
        now: SystemTime,
    },
    /// The certificate is before its beginning.
    #[error("certificate not valid before {}, now {}", seconds(*.not_before), seconds(*.now))]
    NotYetValid {
        /// The beginning of its validity.
        not_before: SystemTime,
        /// The time it was checked at.
        now: SystemTime,
    },
    /// The certificate is not for this side of a connection.
    #[error("certificate lacks extended key usage {required}")]
    WrongUsage {
        /// `serverAuth` or `clientAuth`.
        required: &'static str,
    },
    /// An authority's certificate where a workload's leaf is needed.
    #[error("certificate is an authority (CA:TRUE), not a leaf")]
    AuthorityAsLeaf,
    /// The leaf holds an RSA key.
    #[error("leaf has an RSA key; ECDSA P-256 or P-384 is needed")]
    RsaLeaf,
    /// The leaf holds a key of another unsupported kind.
    #[error("leaf has a key of algorithm {algorithm}; ECDSA P-256 or P-384 is needed")]
    UnsupportedLeafKey {
        /// The algorithm's or curve's object identifier.
        algorithm: String,
    },
    /// The chain ends at no anchor of the bundle.
    #[error("certificate chain leads to no anchor of the trust bundle")]
    UntrustedIssuer,
    /// The chain cannot be validated for another reason.
    #[error("certificate chain is not valid: {reason}")]
    InvalidChain {
        /// What path validation found.
        reason: String,
    },
    /// The private key cannot be read.
    #[error("private key cannot be used: {reason}")]
    InvalidKey {
        /// What the parser found; never the key.
        reason: String,
    },
    /// The private key is not the one the certificate was issued for.
    #[error("private key does not match the certificate's public key")]
    KeyMismatch,

    // Bundles and stores.
    /// A trust bundle without anchors.
    #[error("trust bundle has no anchors; at least one is needed")]
    EmptyBundle,
    /// A trust bundle over the size that is accepted.
    #[error("trust bundle is {bytes} bytes; at most {max} are accepted")]
    BundleTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The same anchor twice in one bundle.
    #[error("anchor {index} of the trust bundle repeats an earlier one")]
    DuplicateAnchor {
        /// Its position, from 0.
        index: usize,
    },
    /// A certificate in the bundle is no authority.
    #[error("anchor {index} of the trust bundle is not an authority (CA:TRUE)")]
    AnchorNotAuthority {
        /// Its position, from 0.
        index: usize,
    },
    /// A bundle older than the one in use.
    #[error("trust bundle generation {offered} is older than {current}, which is in use")]
    StaleBundle {
        /// The generation offered.
        offered: u64,
        /// The generation in use.
        current: u64,
    },
    /// Other anchors under a generation that is in use already.
    #[error("trust bundle generation {generation} is in use with other anchors")]
    GenerationReused {
        /// The generation.
        generation: u64,
    },
    /// No credentials have been set yet.
    #[error("no credentials yet: the workload has not been certified")]
    NoCredentials,
    /// The writer half of a store is gone; nothing will change any more.
    #[error("the writer of the store is gone")]
    WriterGone,

    // Signing requests and issuance.
    /// A signing request over the size that is accepted.
    #[error("signing request is {bytes} bytes; at most {max} are accepted")]
    CsrTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes are not a PKCS #10 request.
    #[error("malformed signing request: {reason}")]
    MalformedCsr {
        /// What the parser found.
        reason: String,
    },
    /// The request is not signed by the key it carries.
    #[error("signing request is not signed by its own key")]
    CsrSignature,
    /// The request's key is of a kind that is not certified.
    #[error("signing request has a key of algorithm {algorithm}; ECDSA P-256 or P-384 is needed")]
    CsrKey {
        /// The algorithm's or curve's object identifier.
        algorithm: String,
    },
    /// The request asks to become an authority.
    #[error("signing request asks for CA:TRUE")]
    CsrAsksForAuthority,
    /// The request asks for something other than a subject alternative name.
    #[error("signing request asks for {oid}; only a subject alternative name may be asked for")]
    CsrExtension {
        /// Object identifier of the extension or attribute.
        oid: String,
    },
    /// The request names another workload than the one proven.
    #[error("signing request is for {requested}, but {proven} was proven")]
    CsrIdentity {
        /// What the request names.
        requested: String,
        /// What the caller proved.
        proven: String,
    },
    /// The authority's certificate cannot be used to issue.
    #[error("authority cannot issue: {reason}")]
    InvalidAuthority {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The lifetime asked for is not one that can be issued.
    #[error("lifetime of {seconds} s is outside 1 s to {max_seconds} s")]
    InvalidLifetime {
        /// What was asked for.
        seconds: u64,
        /// The limit.
        max_seconds: u64,
    },
    /// Making a key, certificate or request failed.
    #[error("cannot make {what}: {reason}")]
    Generate {
        /// What was being made.
        what: &'static str,
        /// What the library said.
        reason: String,
    },

    // Handshakes.
    /// The peer ended the handshake with an alert.
    #[error("peer refused the handshake: {alert:?}")]
    PeerRefused {
        /// Its alert (RFC 8446 section 6).
        alert: AlertDescription,
    },
    /// The name to call is not one that TLS can carry.
    #[error("{value:?} is not a server name")]
    InvalidServerName {
        /// The text, cut to 256 characters.
        value: String,
    },
    /// The handshake failed for another reason.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The connection failed during the handshake.
    #[error("I/O during the handshake: {0}")]
    Io(Arc<io::Error>),
}

impl Error {
    /// A short, fixed word for this kind of error, for a metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidIdentity { .. } => "invalid_identity",
            Self::InvalidTrustDomain { .. } => "invalid_trust_domain",
            Self::NoIdentity => "no_identity",
            Self::AmbiguousIdentity { .. } => "ambiguous_identity",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::WrongTrustDomain { .. } => "wrong_trust_domain",
            Self::Pem { .. } | Self::UnexpectedPemSection { .. } => "invalid_pem",
            Self::MalformedCertificate { .. } => "malformed_certificate",
            Self::EmptyChain => "no_certificate",
            Self::ChainTooLarge { .. } => "chain_too_large",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::WrongUsage { .. } => "wrong_usage",
            Self::AuthorityAsLeaf => "authority_as_leaf",
            Self::RsaLeaf => "rsa_leaf",
            Self::UnsupportedLeafKey { .. } => "unsupported_leaf_key",
            Self::UntrustedIssuer => "untrusted_issuer",
            Self::InvalidChain { .. } => "invalid_chain",
            Self::InvalidKey { .. } => "invalid_key",
            Self::KeyMismatch => "key_mismatch",
            Self::EmptyBundle
            | Self::BundleTooLarge { .. }
            | Self::DuplicateAnchor { .. }
            | Self::AnchorNotAuthority { .. }
            | Self::StaleBundle { .. }
            | Self::GenerationReused { .. } => "invalid_bundle",
            Self::NoCredentials => "no_credentials",
            Self::WriterGone => "writer_gone",
            Self::CsrTooLarge { .. }
            | Self::MalformedCsr { .. }
            | Self::CsrSignature
            | Self::CsrKey { .. }
            | Self::CsrAsksForAuthority
            | Self::CsrExtension { .. }
            | Self::CsrIdentity { .. } => "invalid_csr",
            Self::InvalidAuthority { .. } => "invalid_authority",
            Self::InvalidLifetime { .. } => "invalid_lifetime",
            Self::Generate { .. } => "generate",
            Self::PeerRefused { .. } => "peer_refused",
            Self::InvalidServerName { .. } => "invalid_server_name",
            Self::Tls(_) => "tls",
            Self::Io(_) => "io",
        }
    }

    /// The verdict of path validation.
    pub(crate) fn from_path(error: webpki::Error, required: &'static str) -> Self {
        match error {
            webpki::Error::CertExpired { time, not_after } => Self::Expired {
                not_after: system_time(not_after),
                now: system_time(time),
            },
            webpki::Error::CertNotValidYet { time, not_before } => Self::NotYetValid {
                not_before: system_time(not_before),
                now: system_time(time),
            },
            webpki::Error::CaUsedAsEndEntity => Self::AuthorityAsLeaf,
            webpki::Error::UnknownIssuer => Self::UntrustedIssuer,
            webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
                Self::WrongUsage { required }
            }
            other => Self::InvalidChain {
                reason: other.to_string(),
            },
        }
    }

    /// The form in which a verdict travels through rustls.
    ///
    /// Verdicts that have an alert of their own (RFC 8446 section 6.2) use rustls's words, so that
    /// the peer learns as much; the others travel whole.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        let certificate = match self {
            Self::Expired { not_after, now } => CertificateError::ExpiredContext {
                time: unix_time(now),
                not_after: unix_time(not_after),
            },
            Self::NotYetValid { not_before, now } => CertificateError::NotValidYetContext {
                time: unix_time(now),
                not_before: unix_time(not_before),
            },
            Self::UntrustedIssuer => CertificateError::UnknownIssuer,
            Self::MalformedCertificate { .. } => CertificateError::BadEncoding,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        rustls::Error::InvalidCertificate(certificate)
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        let certificate = match error {
            rustls::Error::InvalidCertificate(certificate) => certificate,
            rustls::Error::AlertReceived(alert) => return Self::PeerRefused { alert },
            rustls::Error::NoCertificatesPresented => return Self::EmptyChain,
            other => return Self::Tls(other),
        };
        match certificate {
            CertificateError::ExpiredContext { time, not_after } => Self::Expired {
                not_after: system_time(not_after),
                now: system_time(time),
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                not_before: system_time(not_before),
                now: system_time(time),
            },
            CertificateError::UnknownIssuer => Self::UntrustedIssuer,
            CertificateError::BadEncoding => Self::MalformedCertificate {
                reason: "not X.509".into(),
            },
            CertificateError::InvalidPurposeContext { required, .. } => Self::WrongUsage {
                required: match required {
                    ExtendedKeyPurpose::ClientAuth => "clientAuth",
                    _ => "serverAuth",
                },
            },
            CertificateError::Other(OtherError(ref other)) => match other.downcast_ref::<Self>() {
                Some(ours) => ours.clone(),
                None => Self::Tls(rustls::Error::InvalidCertificate(certificate)),
            },
            other => Self::Tls(rustls::Error::InvalidCertificate(other)),
        }
    }
}

impl From<io::Error> for Error {
    /// An error of a handshake: what rustls wrapped in it is taken out again.
    fn from(error: io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(tls) => tls.clone().into(),
            None => Self::Io(Arc::new(error)),
        }
    }
}

/// Text that came from outside, cut so that an error stays a line.
pub(crate) fn excerpt(value: &str) -> String {
    value.chars().take(256).collect()
}

pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

pub(crate) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_secs(time.as_secs()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Unix seconds, for messages.
fn seconds(time: SystemTime) -> u64 {
    unix_time(time).as_secs()
}
