//! The root of trust, with its key.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use crate::ca::cross;
use crate::ca::issuer::Issuer;
use crate::ca::request;
use crate::ca::secret::SecretPem;
use crate::ca::signer::Signer;
use crate::error::Error;
use crate::pem;

/// A trust anchor with its private key. It signs issuers and nothing else.
pub struct Anchor(Signer);

impl Anchor {
    /// Makes a self-signed anchor. Its common name is `name`, cut to 55 characters, and a tag of
    /// its key, so that no two anchors share a name.
    ///
    /// # Errors
    /// [`Error::InvalidLifetime`] or [`Error::Generate`].
    pub fn generate(name: &str, lifetime: Duration, now: SystemTime) -> Result<Self, Error> {
        Signer::self_signed(name, lifetime, now).map(Self)
    }

    /// Reads an anchor, one certificate, and its PKCS #8 or SEC 1 key.
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::UnexpectedPemSection`], [`Error::EmptyChain`],
    /// [`Error::MalformedCertificate`], [`Error::InvalidKey`], [`Error::KeyMismatch`] or
    /// [`Error::InvalidAuthority`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let (signer, others) = Signer::from_pem(certificate, key)?;
        if !others.is_empty() {
            return Err(Error::InvalidAuthority {
                reason: "an anchor is one certificate",
            });
        }
        Ok(Self(signer))
    }

    /// Makes an issuer with a new key, which signs leaves only (path length 0) and outlives the
    /// anchor in neither direction.
    ///
    /// # Errors
    /// [`Error::Expired`] or [`Error::NotYetValid`] of the anchor, [`Error::InvalidLifetime`] or
    /// [`Error::Generate`].
    pub fn issuer(&self, name: &str, lifetime: Duration, now: SystemTime) -> Result<Issuer, Error> {
        self.0.subordinate(name, lifetime, now).map(Issuer::of)
    }

    /// Certifies the key of a request (PKCS #10, PEM) as an issuer, as [`issuer`](Self::issuer) does with one it makes.
    /// Of the request its key and common name are taken. Returns the certificate as PEM text.
    ///
    /// # Errors
    /// [`Error::MalformedCsr`], [`Error::CsrSignature`], [`Error::CsrKey`], or as [`issuer`](Self::issuer).
    pub fn certify(
        &self,
        csr_pem: &[u8],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, Error> {
        request::certify(&self.0, csr_pem, lifetime, now).map(|made| request::to_pem(&made))
    }

    /// Certifies the key of another anchor under its own name, so that chains to it are good for those who trust this one
    /// only. It ends with the first of the two, and with `lifetime`.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`], [`Error::InvalidAuthority`] if the other's name cannot be repeated, or as
    /// [`issuer`](Self::issuer).
    pub fn cross_certify(
        &self,
        other: &CertificateDer<'_>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, Error> {
        cross::certify(&self.0, other, lifetime, now)
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.0.certificate()
    }

    /// The certificate as PEM text.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem::encode([self.certificate().as_ref()])
    }

    /// The private key, to be kept.
    #[must_use]
    pub fn key_pem(&self) -> SecretPem {
        self.0.key_pem()
    }

    /// The end of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.validity().not_after
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchor")
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}
