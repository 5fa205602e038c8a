//! Reads what [`lint`](crate::lint) judges from certificates.

use std::collections::{BTreeMap, BTreeSet};

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::audit::Hash;
use crate::crypto::Sha256;
use crate::error::Error;
use crate::id::{AnchorId, ClusterId, Digest, Generation};
use crate::lint::{Algorithm, Facts};
use crate::rotation::Mesh;
use crate::time::UnixTime;

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

impl Facts {
    /// Reads a certificate. A key's digest is SHA-256 over its subject public key info, a name's over its DER.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Certificate {
            reason: error.to_string(),
        };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
        if !rest.is_empty() {
            return Err(wrong(&"bytes after the certificate"));
        }
        let mut facts = Self {
            key: Sha256.digest(certificate.public_key().raw),
            subject: Sha256.digest(certificate.subject().as_raw()),
            issuer: Sha256.digest(certificate.issuer().as_raw()),
            subject_key_id: None,
            authority_key_id: None,
            algorithm: algorithm(&certificate),
            authority: false,
            path_length: None,
            signs_certificates: true,
            constrains_names: false,
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            size_bytes: der.len(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    facts.authority = constraints.ca;
                    facts.path_length = constraints.path_len_constraint;
                }
                ParsedExtension::KeyUsage(usage) => {
                    facts.signs_certificates = usage.key_cert_sign();
                }
                ParsedExtension::NameConstraints(_) => facts.constrains_names = true,
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    facts.subject_key_id = Some(id.0.to_vec());
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::ParseError { error } => return Err(wrong(error)),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// The certificate as an anchor that is in use.
    #[must_use]
    pub fn anchor(&self) -> crate::Anchor {
        crate::Anchor {
            id: self.anchor_id(),
            subject: self.subject,
            not_before: self.not_before,
            not_after: self.not_after,
            tainted: None,
        }
    }

    /// The certificate as an issuer, below an anchor, that is in use.
    #[must_use]
    pub fn issuer_below(&self, anchor: AnchorId) -> crate::Issuer {
        crate::Issuer {
            id: self.issuer_id(),
            anchor,
            not_before: self.not_before,
            not_after: self.not_after,
            verified: true,
        }
    }
}

/// The certificates of anchors, by their keys.
#[derive(Clone, Debug, Default)]
pub struct Anchors(BTreeMap<AnchorId, Vec<u8>>);

impl Anchors {
    /// Takes an anchor's certificate as DER, and reads it.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn insert(&mut self, der: &[u8]) -> Result<Facts, Error> {
        let facts = Facts::from_der(der)?;
        self.0.insert(facts.anchor_id(), der.to_vec());
        Ok(facts)
    }

    /// The certificates of these anchors as DER: what their bundle's document is made of. Unknown ones are left out.
    pub fn of<'a>(&'a self, set: &'a BTreeSet<AnchorId>) -> impl Iterator<Item = &'a [u8]> {
        set.iter()
            .filter_map(|anchor| self.0.get(anchor).map(Vec::as_slice))
    }

    /// The mesh in which everybody uses just this anchor, under the first generation.
    #[must_use]
    pub fn mesh(
        &self,
        anchor: &Facts,
        issuers: impl IntoIterator<Item = (ClusterId, Facts)>,
    ) -> Mesh {
        let id = anchor.anchor_id();
        let below = |(cluster, facts): (ClusterId, Facts)| (cluster, facts.issuer_below(id));
        Mesh {
            anchor: anchor.anchor(),
            issuers: issuers.into_iter().map(below).collect(),
            generation: Generation(1),
            digest: self.digest(&BTreeSet::from([id])),
        }
    }

    /// The [`bundle_digest`] of these anchors.
    #[must_use]
    pub fn digest(&self, set: &BTreeSet<AnchorId>) -> Digest {
        bundle_digest(self.of(set))
    }
}

/// The digest of a set of anchors: SHA-256 over their DER, sorted bytewise, each once, and concatenated; so neither order,
/// repetition nor the layout of PEM matters.
#[must_use]
pub fn bundle_digest<'a>(anchors: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut sorted: Vec<&[u8]> = anchors.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    Sha256.digest(&sorted.concat())
}

fn algorithm(certificate: &X509Certificate<'_>) -> Algorithm {
    let key = certificate.public_key();
    if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
        return Algorithm::Rsa(u32::try_from(rsa.key_size()).unwrap_or(u32::MAX));
    }
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    match curve.map(|curve| curve.to_id_string()).as_deref() {
        Some(P256) => Algorithm::P256,
        Some(P384) => Algorithm::P384,
        _ => Algorithm::Other,
    }
}

fn time(unix_seconds: i64) -> UnixTime {
    UnixTime(u64::try_from(unix_seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_order_nor_repetition_matters_to_a_digest() {
        let digest = |anchors: &[&[u8]]| bundle_digest(anchors.iter().copied());
        let (one, two): (&[u8], &[u8]) = (&[0x30, 1, 5], &[0x30, 1, 9]);
        assert_eq!(digest(&[one, two]), digest(&[two, one]));
        assert_eq!(digest(&[one, two]), digest(&[two, one, two]));
        assert_ne!(digest(&[one, two]), digest(&[one]));
    }
}
