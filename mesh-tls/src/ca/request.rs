//! Issuers whose certificates are signed elsewhere: the key stays, the request goes, the certificate comes.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::ca::secret::SecretPem;
use crate::ca::signer::{Signer, authority_name, new_key};
use crate::certificate::{LeafKeyKind, leaf_key};
use crate::error::{Error, excerpt};
use crate::leaf_key::generate;
use crate::pem;

/// The key of an issuer that is to be, and the request for its certificate.
///
/// The key is where the issuer will sign; the anchor's key need not be. Who has that key certifies the request
/// ([`Anchor::certify`](crate::ca::Anchor::certify), or any other program), and
/// [`Issuer::from_pem`](crate::ca::Issuer::from_pem) joins the two.
pub struct IssuerRequest {
    key: KeyPair,
    csr: String,
}

impl IssuerRequest {
    /// Makes a key and a request for it (PKCS #10) that asks for an authority with path length 0. Its common name is `name`,
    /// cut to 55 characters, and a tag of its key.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn generate(name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = authority_name(name, &params, &key);
        let csr = params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(|error| generate("a signing request", &error))?;
        Ok(Self { key, csr })
    }

    /// The request as PEM text.
    #[must_use]
    pub fn csr_pem(&self) -> &str {
        &self.csr
    }

    /// The private key, to be kept.
    #[must_use]
    pub fn key_pem(&self) -> SecretPem {
        SecretPem::new(self.key.serialize_pem())
    }
}

impl fmt::Debug for IssuerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerRequest").finish_non_exhaustive()
    }
}

/// Signs the key of a request, under its common name, as an issuer of leaves.
pub(super) fn certify(
    by: &Signer,
    csr_pem: &[u8],
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateDer<'static>, Error> {
    let csr = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(csr_pem);
    let csr = csr.map_err(|error| malformed(error.to_string()))?;
    let (rest, request) =
        X509CertificationRequest::from_der(&csr).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes after the request"));
    }
    request
        .verify_signature()
        .map_err(|_| Error::CsrSignature)?;
    let info = &request.certification_request_info;
    match leaf_key(&info.subject_pki) {
        LeafKeyKind::P256 | LeafKeyKind::P384 => {}
        LeafKeyKind::Rsa => {
            let algorithm = "RSA".into();
            return Err(Error::CsrKey { algorithm });
        }
        LeafKeyKind::Other(algorithm) => return Err(Error::CsrKey { algorithm }),
    }
    let mut names = info.subject.iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    let (Some(name), None) = (name, names.next()) else {
        return Err(malformed("its subject has no common name, or several"));
    };
    let key = rcgen::SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .map_err(|error| malformed(error.to_string()))?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, excerpt(name));
    by.authority_for(
        &key,
        subject,
        BasicConstraints::Constrained(0),
        (lifetime, now),
        "an issuer",
    )
}

/// The certificate as PEM text.
pub(super) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode([certificate.as_ref()])
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::MalformedCsr {
        reason: reason.into(),
    }
}
