//! PEM in and out, strict about what a file may hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;

/// All sections of `pem`, which must be certificates.
pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.map_err(|error| damaged(what, &error))?;
        if kind != SectionKind::Certificate {
            return Err(Error::UnexpectedPemSection {
                what,
                found: format!("{kind:?}"),
            });
        }
        certificates.push(der.into());
    }
    if certificates.is_empty() && !pem.trim_ascii().is_empty() {
        return Err(Error::Pem {
            what,
            reason: "no complete PEM section".into(),
        });
    }
    Ok(certificates)
}

/// The one private key in `pem`.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| damaged("private key", &error))
}

/// Certificates as PEM text (RFC 7468), 64 columns, one after another.
pub(crate) fn encode<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in der.chunks(48) {
            STANDARD.encode_string(line, &mut text);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn damaged(what: &'static str, error: &rustls::pki_types::pem::Error) -> Error {
    Error::Pem {
        what,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes(ders in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..4)) {
            let text = encode(ders.iter().map(Vec::as_slice));
            let back = certificates("test", text.as_bytes()).unwrap();
            prop_assert_eq!(back.iter().map(|c| c.to_vec()).collect::<Vec<_>>(), ders);
        }
    }
}
