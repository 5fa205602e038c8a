//! What a workload proves its identity with.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::bundle::TrustBundle;
use crate::certificate::{self, Leaf, Usage};
use crate::crypto::crypto_provider;
use crate::error::{Error, unix_time};
use crate::identity::Identity;
use crate::key_id::{ChainKeys, KeyId};
use crate::pem;
use crate::verify;

/// A certificate chain with its private key, in memory only.
///
/// A value that exists is usable: the key matches the leaf, the leaf is an ECDSA leaf for both
/// sides of a connection, and it names exactly one workload. Cloning copies a pointer.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
    certified: Arc<CertifiedKey>,
}

impl Credentials {
    /// The most bytes a chain may have.
    pub const MAX_CHAIN_BYTES: usize = 64 * 1024;

    /// Reads a chain, leaf first, and its PKCS #8 or SEC 1 key from PEM text.
    ///
    /// # Errors
    /// As [`from_der`](Self::from_der), and [`Error::Pem`] or [`Error::UnexpectedPemSection`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        // PEM is a third larger than DER; the exact limit is checked on the DER.
        if chain.len() > 2 * Self::MAX_CHAIN_BYTES {
            return Err(Error::ChainTooLarge {
                bytes: chain.len(),
                max: Self::MAX_CHAIN_BYTES,
            });
        }
        Self::from_der(
            pem::certificates("certificate chain", chain)?,
            pem::private_key(key)?,
        )
    }

    /// Takes a chain, leaf first, and its key.
    ///
    /// # Errors
    /// [`Error::EmptyChain`], [`Error::ChainTooLarge`], [`Error::MalformedCertificate`],
    /// [`Error::AuthorityAsLeaf`], [`Error::RsaLeaf`], [`Error::UnsupportedLeafKey`],
    /// [`Error::WrongUsage`], [`Error::NoIdentity`], [`Error::AmbiguousIdentity`],
    /// [`Error::InvalidIdentity`], [`Error::InvalidKey`] or [`Error::KeyMismatch`].
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let bytes = chain.iter().map(|certificate| certificate.len()).sum();
        if bytes > Self::MAX_CHAIN_BYTES {
            return Err(Error::ChainTooLarge {
                bytes,
                max: Self::MAX_CHAIN_BYTES,
            });
        }
        let leaf = Leaf::parse(chain.first().ok_or(Error::EmptyChain)?)?;
        leaf.require(Usage::Server)?;
        leaf.require(Usage::Client)?;
        let key = crypto_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| Error::InvalidKey {
                reason: error.to_string(),
            })?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| Error::KeyMismatch)?;
        Ok(Self(Arc::new(Inner {
            identity: leaf.identity,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            certified: Arc::new(certified),
        })))
    }

    /// Whom they prove.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The beginning of the leaf's validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The end of the leaf's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    /// The key of the certificate that follows the leaf in the chain, which is to be its issuer's. Whether it is, and which
    /// one it is when there is none, [`verify`](Self::verify) says.
    #[must_use]
    pub fn issuer(&self) -> Option<KeyId> {
        let issuer = certificate::parse(self.chain().get(1)?).ok()?;
        Some(KeyId::of(issuer.public_key().raw))
    }

    /// Checks that a peer that trusts `trust` would accept these credentials at `now`, on either
    /// side of a connection, and says by which keys.
    ///
    /// # Errors
    /// [`Error::UntrustedIssuer`], [`Error::Expired`], [`Error::NotYetValid`],
    /// [`Error::WrongUsage`] or [`Error::InvalidChain`].
    pub fn verify(&self, trust: &TrustBundle, now: SystemTime) -> Result<ChainKeys, Error> {
        verify::chain(self.chain(), trust, Usage::Server, unix_time(now))?;
        verify::chain(self.chain(), trust, Usage::Client, unix_time(now))
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.0.certified
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", self.identity())
            .field("not_before", &self.not_before())
            .field("not_after", &self.not_after())
            .field("chain", &self.chain().len())
            .finish_non_exhaustive()
    }
}
