//! Signing requests, of which only the key is taken.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;

use crate::certificate::{LeafKeyKind, leaf_key, the_one_name};
use crate::error::{Error, excerpt};
use crate::identity::Identity;

/// The most bytes a signing request may have.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// The public key of a request that may be certified for one identity.
pub(super) struct RequestedKey {
    bytes: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl RequestedKey {
    /// Reads a PKCS #10 request (RFC 2986). It must be signed by its key and ask for nothing that
    /// `proven` does not grant: no extension but the alternative name, no attribute but the
    /// extension request, no other name.
    pub(super) fn parse(csr: &[u8], proven: &Identity) -> Result<Self, Error> {
        if csr.len() > MAX_CSR_BYTES {
            return Err(Error::CsrTooLarge {
                bytes: csr.len(),
                max: MAX_CSR_BYTES,
            });
        }
        let request = match X509CertificationRequest::from_der(csr) {
            Ok(([], request)) => request,
            Ok(_) => return Err(malformed("bytes after the request")),
            Err(error) => return Err(malformed(error)),
        };
        let info = &request.certification_request_info;
        let algorithm = match leaf_key(&info.subject_pki) {
            LeafKeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            LeafKeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            LeafKeyKind::Rsa => {
                return Err(Error::CsrKey {
                    algorithm: "RSA".into(),
                });
            }
            LeafKeyKind::Other(algorithm) => return Err(Error::CsrKey { algorithm }),
        };
        request
            .verify_signature()
            .map_err(|_| Error::CsrSignature)?;
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                return Err(Error::CsrExtension {
                    oid: attribute.oid.to_id_string(),
                });
            };
            for extension in &asked.extensions {
                check_extension(extension, proven)?;
            }
        }
        for name in info.subject.iter_common_name() {
            let name = name.as_str().map_err(malformed)?;
            if !name.eq_ignore_ascii_case(proven.as_str()) {
                return Err(other_name(name, proven));
            }
        }
        Ok(Self {
            bytes: info.subject_pki.subject_public_key.data.to_vec(),
            algorithm,
        })
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

fn check_extension(extension: &X509Extension<'_>, proven: &Identity) -> Result<(), Error> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(asked) => {
            // Exactly the identity: names that a certificate's reader would ignore do not pass here.
            let requested = match asked.general_names.as_slice() {
                [_] => the_one_name(&asked.general_names).map_err(malformed)?,
                names => {
                    return Err(other_name(
                        &format!("{} alternative names", names.len()),
                        proven,
                    ));
                }
            };
            if requested == *proven {
                Ok(())
            } else {
                Err(other_name(requested.as_str(), proven))
            }
        }
        ParsedExtension::BasicConstraints(asked) if asked.ca => Err(Error::CsrAsksForAuthority),
        _ => Err(Error::CsrExtension {
            oid: extension.oid.to_id_string(),
        }),
    }
}

fn other_name(requested: &str, proven: &Identity) -> Error {
    Error::CsrIdentity {
        requested: excerpt(requested),
        proven: proven.to_string(),
    }
}

/// By value, to stand in `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn malformed(reason: impl ToString) -> Error {
    Error::MalformedCsr {
        reason: reason.to_string(),
    }
}
