//! The intermediate that signs leaves, with its key.

use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::ca::secret::SecretPem;
use crate::ca::signer::{Signer, Validity};
use crate::error::Error;
use crate::pem;

/// An issuer with its private key and the certificates between it and the anchor, if any.
pub struct Issuer {
    signer: Signer,
    intermediates: Vec<CertificateDer<'static>>,
    validity: Validity,
}

impl Issuer {
    /// Reads an issuer's certificate, followed by those between it and the anchor, and its PKCS #8
    /// or SEC 1 key.
    ///
    /// # Errors
    /// As [`Anchor::from_pem`](crate::ca::Anchor::from_pem).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let (signer, intermediates) = Signer::from_pem(chain, key)?;
        let mut validity = signer.validity();
        for intermediate in &intermediates {
            validity = validity.intersection(Validity::of(intermediate)?);
        }
        Ok(Self {
            signer,
            intermediates,
            validity,
        })
    }

    pub(super) fn of(signer: Signer) -> Self {
        Self {
            validity: signer.validity(),
            signer,
            intermediates: Vec::new(),
        }
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.signer.certificate()
    }

    /// The certificates from this issuer up to, but without, the anchor.
    pub fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(self.signer.certificate()).chain(&self.intermediates)
    }

    /// The certificates from this issuer up to, but without, the anchor, as PEM text.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::encode(self.chain().map(AsRef::as_ref))
    }

    /// The private key, to be kept.
    #[must_use]
    pub fn key_pem(&self) -> SecretPem {
        self.signer.key_pem()
    }

    /// The end of its validity, or of that of a certificate above it, whichever comes first.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    pub(super) fn validity(&self) -> Validity {
        self.validity
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("not_after", &self.not_after())
            .field("intermediates", &self.intermediates.len())
            .finish_non_exhaustive()
    }
}
