//! What an authority issues: inside its own validity, with the extensions that path building needs, and
//! the same after it was kept as PEM.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use mesh_tls::ca::{Anchor, Authority, BACKDATE, IssuedLeaf, Issuer, MAX_LIFETIME};
use mesh_tls::pki_types::CertificateDer;
use mesh_tls::{Error, LeafKey};
use proptest::prelude::*;
use support::{DAY, HOUR, anchor, authority_of, bundle, t0, web};
use x509_parser::prelude::*;

fn issue(authority: &Authority, lifetime: Duration, now: SystemTime) -> Result<IssuedLeaf, Error> {
    let key = LeafKey::generate().unwrap();
    authority.issue(&key.csr(&web()).unwrap(), &web(), lifetime, now)
}

fn parsed<T>(der: &CertificateDer<'_>, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    look(&X509Certificate::from_der(der).unwrap().1)
}

fn validity(der: &CertificateDer<'_>) -> (SystemTime, SystemTime) {
    parsed(der, |certificate| {
        let at = |time: &ASN1Time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap())
        };
        let validity = certificate.validity();
        (at(&validity.not_before), at(&validity.not_after))
    })
}

/// Subject and authority key identifiers.
fn key_ids(der: &CertificateDer<'_>) -> (Vec<u8>, Vec<u8>) {
    parsed(der, |certificate| {
        let (mut subject, mut authority) = (None, None);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        (subject.expect("SKI"), authority.expect("AKI"))
    })
}

#[test]
fn leaves_are_backdated_and_live_as_long_as_asked() {
    let authority = authority_of(&anchor());
    let now = t0() + DAY;
    let leaf = issue(&authority, HOUR, now).unwrap();
    assert_eq!(validity(leaf.leaf()), (now - BACKDATE, now + HOUR));
    assert_eq!((leaf.not_before(), leaf.not_after()), validity(leaf.leaf()));
}

#[test]
fn key_identifiers_link_the_chain() {
    let anchor = anchor();
    let leaf = issue(&authority_of(&anchor), HOUR, t0()).unwrap();
    let [leaf, issuer] = leaf.chain() else {
        panic!("{} certificates", leaf.chain().len())
    };
    let anchor = anchor.certificate();
    assert_eq!(key_ids(leaf).1, key_ids(issuer).0);
    assert_eq!(key_ids(issuer).1, key_ids(anchor).0);
    assert_eq!(key_ids(anchor).1, key_ids(anchor).0);
    assert_ne!(key_ids(issuer).0, key_ids(anchor).0);
}

#[test]
fn each_certificate_may_do_its_own_job_only() {
    let anchor = anchor();
    let leaf = issue(&authority_of(&anchor), HOUR, t0()).unwrap();
    parsed(leaf.leaf(), |leaf| {
        assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && !usage.any);
        // The subject is empty, so the name must not be overlooked (RFC 5280 section 4.1.2.6).
        assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
    });
    for (authority, path_length) in [
        (&leaf.intermediates()[0], Some(0)),
        (anchor.certificate(), None),
    ] {
        parsed(authority, |authority| {
            let constraints = authority.basic_constraints().unwrap().unwrap();
            assert!(constraints.critical && constraints.value.ca);
            assert_eq!(constraints.value.path_len_constraint, path_length);
            let usage = authority.key_usage().unwrap().unwrap().value;
            assert!(usage.key_cert_sign() && !usage.digital_signature());
        });
    }
}

#[test]
fn serial_numbers_are_random() {
    let authority = authority_of(&anchor());
    let key = LeafKey::generate().unwrap();
    let csr = key.csr(&web()).unwrap();
    let serials: HashSet<Vec<u8>> = (0..100)
        .map(|_| {
            let leaf = authority.issue(&csr, &web(), HOUR, t0()).unwrap();
            let serial = parsed(leaf.leaf(), |leaf| leaf.raw_serial().to_vec());
            assert_eq!(serial, leaf.serial());
            assert_eq!(serial.len(), 16);
            assert!(serial[0] < 0x80, "a serial is positive");
            serial
        })
        .collect();
    assert_eq!(serials.len(), 100, "one key, a new serial each time");
}

#[test]
fn authorities_of_one_name_have_names_of_their_own() {
    let subject = |anchor: &Anchor| parsed(anchor.certificate(), |c| c.subject().to_string());
    assert_ne!(subject(&anchor()), subject(&anchor()));
}

#[test]
fn an_authority_kept_as_pem_goes_on() {
    let anchor = anchor();
    let authority = authority_of(&anchor);
    let kept = Authority::from_pem(
        authority.anchor_pem().as_bytes(),
        authority.issuer().chain_pem().as_bytes(),
        authority.issuer().key_pem().expose().as_bytes(),
    )
    .unwrap();
    let key = LeafKey::generate().unwrap();
    let leaf = kept
        .issue(&key.csr(&web()).unwrap(), &web(), HOUR, t0())
        .unwrap();
    let credentials = key.credentials(leaf.into_chain()).unwrap();
    credentials.verify(&bundle(1, &[&anchor]), t0()).unwrap();

    let kept = Anchor::from_pem(
        anchor.certificate_pem().as_bytes(),
        anchor.key_pem().expose().as_bytes(),
    )
    .unwrap();
    let issuer = kept.issuer("renewed", DAY, t0()).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap();
}

#[test]
fn issuer_and_anchor_must_belong_together() {
    let issuer = anchor().issuer("mesh.example", DAY, t0()).unwrap();
    assert!(matches!(
        Authority::new(anchor().certificate().clone(), issuer),
        Err(Error::UntrustedIssuer)
    ));
}

#[test]
fn an_authoritys_key_must_be_its_own() {
    let (one, other) = (anchor(), anchor());
    assert!(matches!(
        Anchor::from_pem(
            one.certificate_pem().as_bytes(),
            other.key_pem().expose().as_bytes()
        ),
        Err(Error::KeyMismatch)
    ));
}

#[test]
fn a_leaf_is_no_issuer() {
    let key = LeafKey::generate().unwrap();
    let csr = key.csr(&web()).unwrap();
    let leaf = authority_of(&anchor())
        .issue(&csr, &web(), HOUR, t0())
        .unwrap();
    let pem = rcgen::KeyPair::try_from(&key.to_pkcs8_der())
        .unwrap()
        .serialize_pem();
    let chain = pem_of(leaf.leaf());
    assert!(matches!(
        Issuer::from_pem(chain.as_bytes(), pem.as_bytes()),
        Err(Error::InvalidAuthority { .. })
    ));
}

fn pem_of(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn lifetimes_have_bounds() {
    let authority = authority_of(&anchor());
    for lifetime in [Duration::ZERO, MAX_LIFETIME + Duration::from_secs(1)] {
        assert!(matches!(
            issue(&authority, lifetime, t0()),
            Err(Error::InvalidLifetime { .. })
        ));
    }
    assert!(matches!(
        Anchor::generate("x", Duration::MAX, t0()),
        Err(Error::InvalidLifetime { .. })
    ));
}

#[test]
fn an_authority_issues_only_while_it_lives() {
    let authority = authority_of(&anchor());
    assert!(matches!(
        issue(&authority, HOUR, t0() - BACKDATE - HOUR),
        Err(Error::NotYetValid { .. })
    ));
    assert!(matches!(
        issue(&authority, HOUR, authority.not_after()),
        Err(Error::Expired { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn validity_nests(
        anchor_life in 1u64..100_000,
        issuer_life in 1u64..100_000,
        leaf_life in 1u64..100_000,
        issuer_age in 0u64..50_000,
        leaf_age in 0u64..50_000,
    ) {
        let seconds = Duration::from_secs;
        let anchor = Anchor::generate("mesh.example", seconds(anchor_life), t0()).unwrap();
        let issuing = t0() + seconds(issuer_age);
        let Ok(issuer) = anchor.issuer("mesh.example", seconds(issuer_life), issuing) else {
            prop_assert!(issuer_age >= anchor_life);
            return Ok(());
        };
        let authority = Authority::new(anchor.certificate().clone(), issuer).unwrap();
        let now = issuing + seconds(leaf_age);
        let Ok(leaf) = issue(&authority, seconds(leaf_life), now) else {
            prop_assert!(now >= authority.not_after());
            return Ok(());
        };
        let of_anchor = validity(anchor.certificate());
        let of_issuer = validity(&leaf.intermediates()[0]);
        let of_leaf = validity(leaf.leaf());
        for (inner, outer) in [(of_leaf, of_issuer), (of_issuer, of_anchor)] {
            prop_assert!(inner.0 >= outer.0 && inner.1 <= outer.1);
        }
        prop_assert!(of_leaf.0 <= now && now < of_leaf.1);
        prop_assert!(of_leaf.1 <= now + seconds(leaf_life));
    }
}
