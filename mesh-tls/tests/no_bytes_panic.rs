//! Whatever bytes arrive, every parser answers with a value or an error.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::LazyLock;

use mesh_tls::ca::{Anchor, Authority, Issuer};
use mesh_tls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use mesh_tls::{Credentials, Identity, LeafKey, TrustBundle, TrustDomain, peer_identity};
use proptest::prelude::*;
use support::{DAY, Forged, anchor, authority_of, t0, web};

/// One good specimen of everything that is parsed.
struct Specimens {
    anchor: Anchor,
    authority: Authority,
    leaf: Forged,
    key: LeafKey,
    csr: Vec<u8>,
}

static SPECIMENS: LazyLock<Specimens> = LazyLock::new(|| {
    let anchor = anchor();
    let key = LeafKey::generate().unwrap();
    Specimens {
        authority: authority_of(&anchor),
        leaf: Forged::new(&anchor, |_| {}),
        csr: key.csr(&web()).unwrap(),
        key,
        anchor,
    }
});

/// A specimen with a few bytes changed, and perhaps cut short or lengthened.
fn damaged(
    specimen: &[u8],
    hits: &[(prop::sample::Index, u8)],
    end: prop::sample::Index,
) -> Vec<u8> {
    let mut bytes = specimen.to_vec();
    for (at, value) in hits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    let end = end.index(specimen.len() * 4);
    if end < specimen.len() {
        bytes.truncate(end);
    }
    bytes
}

fn hits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4)
}

fn parse_everything(bytes: &[u8]) {
    let certificate = CertificateDer::from(bytes.to_vec());
    let _ = peer_identity(std::slice::from_ref(&certificate));
    let _ = TrustBundle::from_der(1, [certificate.clone()]);
    let _ = TrustBundle::from_pem(1, bytes);
    let key = PrivatePkcs8KeyDer::from(bytes.to_vec());
    let _ = Credentials::from_der(vec![certificate], key.into());
    let _ = Credentials::from_pem(bytes, bytes);
    let _ = LeafKey::from_pkcs8_der(bytes);
    let _ = Anchor::from_pem(bytes, bytes);
    let _ = Issuer::from_pem(bytes, bytes);
    let _ = SPECIMENS.authority.issue(bytes, &web(), DAY, t0());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Identity::parse(text);
        let _ = TrustDomain::parse(text);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        parse_everything(&bytes);
    }

    #[test]
    fn damaged_certificates(hits in hits(), end: prop::sample::Index) {
        for specimen in [&SPECIMENS.leaf.chain[0], SPECIMENS.anchor.certificate()] {
            parse_everything(&damaged(specimen, &hits, end));
        }
    }

    #[test]
    fn a_damaged_leaf_with_its_key(hits in hits(), end: prop::sample::Index) {
        let chain = vec![damaged(&SPECIMENS.leaf.chain[0], &hits, end).into()];
        if let Ok(credentials) = Credentials::from_der(chain, SPECIMENS.leaf.key.clone_key()) {
            let trust = support::bundle(1, &[&SPECIMENS.anchor]);
            if credentials.verify(&trust, t0()).is_ok() {
                prop_assert_eq!(credentials.identity(), &web());
                prop_assert_eq!(credentials.not_after(), t0() + support::HOUR);
            }
        }
    }

    #[test]
    fn a_damaged_anchor_with_its_key(hits in hits(), end: prop::sample::Index) {
        let pem = damaged(SPECIMENS.anchor.certificate_pem().as_bytes(), &hits, end);
        let key = SPECIMENS.anchor.key_pem();
        let _ = Anchor::from_pem(&pem, key.expose().as_bytes());
        let _ = TrustBundle::from_pem(1, &pem);
        let key = damaged(key.expose().as_bytes(), &hits, end);
        let _ = Anchor::from_pem(SPECIMENS.anchor.certificate_pem().as_bytes(), &key);
    }

    #[test]
    fn a_damaged_request_never_certifies_another_key(hits in hits(), end: prop::sample::Index) {
        let csr = damaged(&SPECIMENS.csr, &hits, end);
        if let Ok(leaf) = SPECIMENS.authority.issue(&csr, &web(), DAY, t0()) {
            // What is outside the signed part may have several encodings; the key may not.
            let key = SPECIMENS.key.public_key_der();
            prop_assert!(leaf.leaf().windows(key.len()).any(|window| window == key));
        }
    }
}
