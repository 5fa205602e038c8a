//! What a leaf certificate says, read once.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::Error;
use crate::identity::Identity;

/// The identity that a peer's certificate chain proves, given that the chain was verified.
///
/// The leaf's only URI subject alternative name; DNS names beside it are ignored. Without a URI,
/// its only DNS name. Anything else is refused, so that no two readers of one certificate can
/// disagree about whose it is.
///
/// # Errors
/// [`Error::EmptyChain`], [`Error::NoIdentity`], [`Error::AmbiguousIdentity`],
/// [`Error::InvalidIdentity`] or [`Error::MalformedCertificate`].
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Identity, Error> {
    identity_of(&parse(chain.first().ok_or(Error::EmptyChain)?)?)
}

/// A leaf that may stand for a workload: not an authority, an ECDSA key, one identity.
pub(crate) struct Leaf {
    pub(crate) identity: Identity,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    server_auth: bool,
    client_auth: bool,
}

impl Leaf {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let certificate = parse(der)?;
        if is_authority(&certificate)? {
            return Err(Error::AuthorityAsLeaf);
        }
        match leaf_key(certificate.public_key()) {
            LeafKeyKind::P256 | LeafKeyKind::P384 => {}
            LeafKeyKind::Rsa => return Err(Error::RsaLeaf),
            LeafKeyKind::Other(algorithm) => return Err(Error::UnsupportedLeafKey { algorithm }),
        }
        let usage = certificate.extended_key_usage().map_err(malformed)?;
        // No extension means no restriction (RFC 5280 section 4.2.1.12).
        let (server_auth, client_auth) = usage.map_or((true, true), |usage| {
            (usage.value.server_auth, usage.value.client_auth)
        });
        Ok(Self {
            identity: identity_of(&certificate)?,
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            server_auth,
            client_auth,
        })
    }

    pub(crate) fn require(&self, usage: Usage) -> Result<(), Error> {
        let allowed = match usage {
            Usage::Server => self.server_auth,
            Usage::Client => self.client_auth,
        };
        if allowed {
            return Ok(());
        }
        Err(Error::WrongUsage {
            required: usage.as_str(),
        })
    }
}

/// The side of a connection that a leaf is presented for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage {
    Server,
    Client,
}

impl Usage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Server => "serverAuth",
            Self::Client => "clientAuth",
        }
    }
}

/// The kind of a public key, as far as leaves care.
pub(crate) enum LeafKeyKind {
    P256,
    P384,
    Rsa,
    Other(String),
}

pub(crate) fn leaf_key(key: &SubjectPublicKeyInfo<'_>) -> LeafKeyKind {
    let algorithm = key.algorithm.algorithm.to_id_string();
    if algorithm == OID_RSA || matches!(key.parsed(), Ok(PublicKey::RSA(_))) {
        return LeafKeyKind::Rsa;
    }
    if algorithm != OID_EC {
        return LeafKeyKind::Other(algorithm);
    }
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .map(|curve| curve.to_id_string());
    match curve.as_deref() {
        Some(OID_P256) => LeafKeyKind::P256,
        Some(OID_P384) => LeafKeyKind::P384,
        _ => LeafKeyKind::Other(curve.unwrap_or(algorithm)),
    }
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed("bytes after the certificate")),
        Err(error) => Err(malformed(error)),
    }
}

pub(crate) fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, Error> {
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

pub(crate) fn time(unix_seconds: i64) -> SystemTime {
    let seconds = Duration::from_secs(unix_seconds.unsigned_abs());
    let time = if unix_seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// By value, to stand in `map_err`.
#[allow(clippy::needless_pass_by_value)]
pub(crate) fn malformed(reason: impl ToString) -> Error {
    Error::MalformedCertificate {
        reason: reason.to_string(),
    }
}

fn identity_of(certificate: &X509Certificate<'_>) -> Result<Identity, Error> {
    let names = certificate
        .subject_alternative_name()
        .map_err(malformed)?
        .ok_or(Error::NoIdentity)?;
    the_one_name(&names.value.general_names)
}

/// The one identity among a certificate's or a request's alternative names.
pub(crate) fn the_one_name(names: &[GeneralName<'_>]) -> Result<Identity, Error> {
    let (mut uri, mut uris, mut dns, mut dnses) = (None, 0, None, 0);
    for name in names {
        match name {
            GeneralName::URI(value) => {
                uri = Some(*value);
                uris += 1;
            }
            GeneralName::DNSName(value) => {
                dns = Some(*value);
                dnses += 1;
            }
            GeneralName::Invalid(..) => return Err(malformed("unreadable alternative name")),
            _ => {}
        }
    }
    match (uri, uris, dns, dnses) {
        (Some(uri), 1, ..) => Identity::parse(uri),
        (Some(_), count, ..) => Err(Error::AmbiguousIdentity { kind: "URI", count }),
        (None, _, Some(dns), 1) => Identity::parse(dns),
        (None, _, Some(_), count) => Err(Error::AmbiguousIdentity { kind: "DNS", count }),
        (None, _, None, _) => Err(Error::NoIdentity),
    }
}

// RFC 3279 section 2.3 and RFC 5480 section 2.1.1.
const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uri_wins_over_any_dns_names() {
        let names = [
            GeneralName::DNSName("a.example"),
            GeneralName::URI("spiffe://mesh.example/web"),
            GeneralName::DNSName("b.example"),
        ];
        assert_eq!(
            the_one_name(&names).unwrap().as_str(),
            "spiffe://mesh.example/web"
        );
    }

    #[test]
    fn other_names_are_no_identity() {
        let names = [
            GeneralName::RFC822Name("web@mesh.example"),
            GeneralName::IPAddress(&[10, 0, 0, 1]),
        ];
        assert!(matches!(the_one_name(&names), Err(Error::NoIdentity)));
    }

    #[test]
    fn two_of_a_kind_are_refused() {
        let dns = [GeneralName::DNSName("a"), GeneralName::DNSName("a")];
        assert!(matches!(
            the_one_name(&dns),
            Err(Error::AmbiguousIdentity {
                kind: "DNS",
                count: 2
            })
        ));
        let uri = [GeneralName::URI("spiffe://d/a"), GeneralName::URI("x:y")];
        assert!(matches!(
            the_one_name(&uri),
            Err(Error::AmbiguousIdentity {
                kind: "URI",
                count: 2
            })
        ));
    }

    #[test]
    fn a_foreign_uri_is_not_replaced_by_a_dns_name() {
        let names = [
            GeneralName::URI("https://mesh.example/web"),
            GeneralName::DNSName("web.example"),
        ];
        assert!(matches!(
            the_one_name(&names),
            Err(Error::InvalidIdentity { .. })
        ));
    }
}
