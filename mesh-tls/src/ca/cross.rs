//! Cross-certificates: the key of one anchor, certified by another (RFC 4210 section 4.4), for those who trust the other only.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, DistinguishedName, DnType, DnValue, string};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::ca::signer::Signer;
use crate::certificate;
use crate::error::Error;

/// Certifies the key of `subject`, under its name, as an authority that issuers may be below.
pub(super) fn certify(
    by: &Signer,
    subject: &CertificateDer<'_>,
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateDer<'static>, Error> {
    let parsed = certificate::parse(subject)?;
    let key = rcgen::SubjectPublicKeyInfo::from_der(parsed.public_key().raw)
        .map_err(certificate::malformed)?;
    let name = name(parsed.subject())?;
    let end = certificate::time(parsed.validity().not_after.timestamp());
    let left = end.duration_since(now).unwrap_or_default();
    let cross = by.authority_for(
        &key,
        name,
        BasicConstraints::Constrained(1),
        (lifetime.min(left), now),
        "a cross-certificate",
    )?;
    // Paths are built by names, byte for byte.
    let made = certificate::parse(&cross)?;
    if made.subject().as_raw() != parsed.subject().as_raw() {
        return Err(unfit("its name cannot be written again byte for byte"));
    }
    drop(made);
    Ok(cross)
}

fn name(of: &X509Name<'_>) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    for part in of.iter() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(unfit("its subject has parts of other than one attribute"));
        };
        let oid = attribute.attr_type().iter();
        let oid = oid.ok_or(unfit("its subject has an attribute of no known type"))?;
        let oid: Vec<u64> = oid.collect();
        name.push(DnType::from_oid(&oid), value(attribute)?);
    }
    Ok(name)
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Result<DnValue, Error> {
    let odd = || unfit("its subject has text of another kind than UTF-8, printable or IA5");
    let text = attribute.as_str().map_err(|_| odd())?;
    match attribute.attr_value().tag() {
        Tag::Utf8String => Ok(DnValue::Utf8String(text.to_owned())),
        Tag::PrintableString => string::PrintableString::try_from(text)
            .map(DnValue::PrintableString)
            .map_err(|_| odd()),
        Tag::Ia5String => string::Ia5String::try_from(text)
            .map(DnValue::Ia5String)
            .map_err(|_| odd()),
        _ => Err(odd()),
    }
}

fn unfit(reason: &'static str) -> Error {
    Error::InvalidAuthority { reason }
}
