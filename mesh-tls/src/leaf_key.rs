//! A workload's private key before it is certified.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::credentials::Credentials;
use crate::error::Error;
use crate::identity::Identity;

/// An ECDSA P-256 key, made in memory and written nowhere.
///
/// One key asks for certificates ([`csr`](Self::csr)) and joins with what comes back
/// ([`credentials`](Self::credentials)), as often as the leaf is renewed.
pub struct LeafKey(KeyPair);

impl LeafKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Generate`] if the system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| generate("a key", &error))
    }

    /// Takes a PKCS #8 key made elsewhere, which must be ECDSA P-256.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, Error> {
        let der = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|_| Error::InvalidKey {
                reason: "not a PKCS #8 key of ECDSA P-256".into(),
            })
    }

    /// A signing request (PKCS #10, DER) for `identity`: an empty subject and one subject
    /// alternative name.
    ///
    /// # Errors
    /// [`Error::Generate`] if signing fails.
    pub fn csr(&self, identity: &Identity) -> Result<Vec<u8>, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![alternative_name(identity)?];
        let csr = params
            .serialize_request(&self.0)
            .map_err(|error| generate("a signing request", &error))?;
        Ok(csr.der().to_vec())
    }

    /// Joins the key with the chain issued for it, leaf first.
    ///
    /// # Errors
    /// As [`Credentials::from_der`].
    pub fn credentials(&self, chain: Vec<CertificateDer<'static>>) -> Result<Credentials, Error> {
        Credentials::from_der(chain, self.to_pkcs8_der().into())
    }

    /// The public key (SubjectPublicKeyInfo, DER).
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The private key (PKCS #8), for the one case where a key must be handed over: a stock
    /// linkerd2-proxy reads its key from a file.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der())
    }

    #[cfg(feature = "ca")]
    pub(crate) fn key_pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafKey").finish_non_exhaustive()
    }
}

/// The subject alternative name that carries `identity`.
pub(crate) fn alternative_name(identity: &Identity) -> Result<SanType, Error> {
    let name = Ia5String::try_from(identity.as_str())
        .map_err(|error| generate("an alternative name", &error))?;
    Ok(if identity.is_spiffe() {
        SanType::URI(name)
    } else {
        SanType::DnsName(name)
    })
}

pub(crate) fn generate(what: &'static str, error: &rcgen::Error) -> Error {
    Error::Generate {
        what,
        reason: error.to_string(),
    }
}
