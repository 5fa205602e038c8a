//! The anchors a workload trusts.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{self, Leaf, Usage};
use crate::error::{Error, unix_time};
use crate::key_id::KeyId;
use crate::pem;
use crate::verify::{self, VerifiedPeer};

/// A set of trust anchors, never empty, with the generation it was published under.
///
/// Cloning copies a pointer. The digest depends on the set of anchors only: not on their order,
/// nor on how their PEM was laid out, nor on the generation.
#[derive(Clone)]
pub struct TrustBundle(Arc<Inner>);

struct Inner {
    generation: u64,
    digest: BundleDigest,
    anchors: Vec<CertificateDer<'static>>,
    roots: Vec<TrustAnchor<'static>>,
    /// By the place of their roots.
    keys: Vec<KeyId>,
}

impl TrustBundle {
    /// The most bytes a bundle may have, as PEM or as DER.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads anchors from PEM text, which may hold certificates only.
    ///
    /// # Errors
    /// As [`from_der`](Self::from_der), and [`Error::Pem`] or [`Error::UnexpectedPemSection`].
    pub fn from_pem(generation: u64, pem: &[u8]) -> Result<Self, Error> {
        Self::check_size(pem.len())?;
        Self::from_der(generation, pem::certificates("trust bundle", pem)?)
    }

    /// Takes anchors as DER.
    ///
    /// An anchor need not be self-signed, and its validity is not checked, as validators differ on
    /// both (RFC 5280 section 6.1.1 leaves them out of path validation).
    ///
    /// # Errors
    /// [`Error::EmptyBundle`], [`Error::BundleTooLarge`], [`Error::DuplicateAnchor`],
    /// [`Error::AnchorNotAuthority`] or [`Error::MalformedCertificate`].
    pub fn from_der(
        generation: u64,
        anchors: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, Error> {
        let mut kept: Vec<CertificateDer<'static>> = Vec::new();
        let (mut roots, mut keys) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for (index, anchor) in anchors.into_iter().enumerate() {
            bytes += anchor.len();
            Self::check_size(bytes)?;
            if kept.contains(&anchor) {
                return Err(Error::DuplicateAnchor { index });
            }
            let parsed = certificate::parse(&anchor)?;
            if !certificate::is_authority(&parsed)? {
                return Err(Error::AnchorNotAuthority { index });
            }
            keys.push(KeyId::of(parsed.public_key().raw));
            let root = webpki::anchor_from_trusted_cert(&anchor).map_err(certificate::malformed)?;
            roots.push(root.to_owned());
            kept.push(anchor);
        }
        if kept.is_empty() {
            return Err(Error::EmptyBundle);
        }
        Ok(Self(Arc::new(Inner {
            generation,
            digest: BundleDigest::of(&kept),
            anchors: kept,
            roots,
            keys,
        })))
    }

    /// The generation it was published under; higher is newer.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The digest of the set of anchors.
    #[must_use]
    pub fn digest(&self) -> BundleDigest {
        self.0.digest
    }

    /// The anchors, in the order they were given.
    #[must_use]
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.0.anchors
    }

    /// The anchors' keys, in the same order.
    #[must_use]
    pub fn anchor_keys(&self) -> &[KeyId] {
        &self.0.keys
    }

    /// The anchors as PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(self.0.anchors.iter().map(AsRef::as_ref))
    }

    /// Verifies a chain, leaf first, as that of a peer on either side of a connection.
    ///
    /// # Errors
    /// What is wrong with it, as a handshake would say.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<VerifiedPeer, Error> {
        let leaf = Leaf::parse(chain.first().ok_or(Error::EmptyChain)?)?;
        let now = unix_time(now);
        verify::chain(chain, self, Usage::Server, now)?;
        let keys = verify::chain(chain, self, Usage::Client, now)?;
        Ok(VerifiedPeer {
            identity: leaf.identity,
            keys,
        })
    }

    pub(crate) fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.0.roots
    }

    fn check_size(bytes: usize) -> Result<(), Error> {
        if bytes > Self::MAX_BYTES {
            return Err(Error::BundleTooLarge {
                bytes,
                max: Self::MAX_BYTES,
            });
        }
        Ok(())
    }
}

impl PartialEq for TrustBundle {
    /// Same generation and same set of anchors.
    fn eq(&self, other: &Self) -> bool {
        self.generation() == other.generation() && self.digest() == other.digest()
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("generation", &self.generation())
            .field("digest", &self.digest())
            .field("anchors", &self.anchors().len())
            .finish()
    }
}

/// SHA-256 over the anchors' DER, sorted bytewise and concatenated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleDigest([u8; 32]);

impl BundleDigest {
    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of(anchors: &[CertificateDer<'_>]) -> Self {
        let mut sorted: Vec<&[u8]> = anchors.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        let mut context = digest::Context::new(&digest::SHA256);
        for der in sorted {
            // DER carries its own length, so the concatenation has one reading.
            context.update(der);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl From<[u8; 32]> for BundleDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BundleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BundleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
