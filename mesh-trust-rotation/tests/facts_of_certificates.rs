//! What `lint` judges is what a certificate says.

#![allow(clippy::unwrap_used)] // tests

use std::collections::BTreeSet;

use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::x509::{Anchors, bundle_digest};
use mesh_trust_rotation::{AnchorId, ClusterId, Error, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use time::OffsetDateTime;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(1_800_000_000);
    params.not_after = at(1_900_000_000);
    params.use_authority_key_identifier_extension = true;
    params
}

fn anchor(params: CertificateParams) -> CertifiedIssuer<'static, KeyPair> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    CertifiedIssuer::self_signed(params, key).unwrap()
}

fn facts(params: CertificateParams) -> Facts {
    Facts::from_der(anchor(params).der()).unwrap()
}

#[test]
fn a_certificate_is_read_as_it_is() {
    let anchor = anchor(params("root"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let issuer = params("issuer").signed_by(&key, &anchor).unwrap();
    let (above, below) = (
        Facts::from_der(anchor.der()).unwrap(),
        Facts::from_der(issuer.der()).unwrap(),
    );
    assert_eq!(above.subject, above.issuer);
    assert_eq!(below.issuer, above.subject);
    assert_ne!(below.subject, above.subject);
    assert_ne!(below.key, above.key);
    assert_eq!(below.authority_key_id, above.subject_key_id);
    assert!(below.authority_key_id.is_some() && below.subject_key_id.is_some());
    assert_ne!(below.subject_key_id, above.subject_key_id);
    assert_eq!(
        (above.algorithm, below.algorithm),
        (Algorithm::P256, Algorithm::P384)
    );
    assert!(below.authority && below.signs_certificates && !below.constrains_names);
    assert_eq!(below.path_length, None);
    assert_eq!(below.not_before, UnixTime(1_800_000_000));
    assert_eq!(below.not_after, UnixTime(1_900_000_000));
    assert_eq!(below.size_bytes, issuer.der().len());
}

#[test]
fn what_is_unfit_is_seen() {
    let mut leaf = params("leaf");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = facts(leaf);
    assert!(!leaf.authority && !leaf.signs_certificates);

    let mut bare = params("bare");
    bare.key_usages = Vec::new();
    assert!(facts(bare).signs_certificates);

    let mut short = params("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert_eq!(facts(short).path_length, Some(0));

    let mut narrow = params("narrow");
    narrow.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("mesh.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    assert!(facts(narrow).constrains_names);

    let mut old = params("old");
    old.not_before = at(-5);
    assert_eq!(facts(old).not_before, UnixTime(0));

    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let odd = params("odd").self_signed(&key).unwrap();
    assert_eq!(
        Facts::from_der(odd.der()).unwrap().algorithm,
        Algorithm::Other
    );
}

#[test]
fn what_is_no_certificate_is_refused() {
    let der = anchor(params("root")).der().to_vec();
    for wrong in [&der[..der.len() - 1], &[], &[0x30, 0]] {
        let refused = Facts::from_der(wrong);
        assert!(
            matches!(refused, Err(Error::Certificate { .. })),
            "{refused:?}"
        );
    }
    let mut garbled = params("garbled");
    let names = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], vec![1, 2, 3]);
    garbled.custom_extensions.push(names);
    let refused = Facts::from_der(anchor(garbled).der());
    assert!(
        matches!(refused, Err(Error::Certificate { .. })),
        "{refused:?}"
    );
    let longer = [&der[..], &[0]].concat();
    let refused = Facts::from_der(&longer);
    assert!(
        matches!(refused, Err(Error::Certificate { .. })),
        "{refused:?}"
    );
}

#[test]
fn anchors_are_kept_by_their_keys() {
    let (one, other) = (anchor(params("one")), anchor(params("other")));
    let mut anchors = Anchors::default();
    let facts = anchors.insert(one.der()).unwrap();
    anchors.insert(other.der()).unwrap();
    let both: BTreeSet<AnchorId> = [one.der(), other.der()]
        .map(|der| Facts::from_der(der).unwrap().anchor_id())
        .into();
    assert_eq!(anchors.of(&both).count(), 2);
    let alone = BTreeSet::from([facts.anchor_id(), AnchorId::new([9; 32])]);
    assert_eq!(anchors.of(&alone).collect::<Vec<_>>(), [&one.der()[..]]);
    let (a, b): (&[u8], &[u8]) = (one.der(), other.der());
    assert_eq!(anchors.digest(&both), bundle_digest([a, b]));

    let east = ClusterId::new("east").unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let issuer = params("issuer").signed_by(&key, &one).unwrap();
    let issuer = Facts::from_der(issuer.der()).unwrap();
    let mesh = anchors.mesh(&facts, [(east.clone(), issuer.clone())]);
    assert_eq!(mesh.anchor, facts.anchor());
    assert_eq!(mesh.anchor.id, facts.anchor_id());
    assert_eq!(mesh.issuers[&east], issuer.issuer_below(facts.anchor_id()));
    assert_eq!(mesh.digest, bundle_digest([a]));
    assert_eq!(mesh.generation.0, 1);
}
