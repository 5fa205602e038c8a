//! Issuers whose certificates are signed where the anchor's key is, and cross-certificates between anchors.

#![allow(clippy::unwrap_used)]

mod support;

use mesh_tls::ca::{Anchor, Authority, Issuer, IssuerRequest};
use mesh_tls::{Error, LeafKey, TrustBundle};
use support::{DAY, HOUR, anchor, authority_of, t0, web};

#[test]
fn an_issuer_whose_certificate_was_signed_elsewhere_issues() {
    let (root, request) = (anchor(), IssuerRequest::generate("issuer.example").unwrap());
    let certificate = root
        .certify(request.csr_pem().as_bytes(), 30 * DAY, t0())
        .unwrap();
    let key = request.key_pem();
    let issuer = Issuer::from_pem(certificate.as_bytes(), key.expose().as_bytes()).unwrap();
    let authority = Authority::new(root.certificate().clone(), issuer).unwrap();
    let leaf = LeafKey::generate().unwrap();
    authority
        .issue(&leaf.csr(&web()).unwrap(), &web(), HOUR, t0())
        .unwrap();
    assert!(!format!("{request:?}").contains("PRIVATE"));
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let certify = |text: &str| anchor().certify(text.as_bytes(), DAY, t0()).unwrap_err();
    assert!(matches!(certify("nothing"), Error::MalformedCsr { .. }));
    let certificate = anchor().certificate_pem();
    assert!(matches!(certify(&certificate), Error::MalformedCsr { .. }));
}

#[test]
fn a_cross_certificate_carries_those_who_trust_the_other_anchor_only() {
    let (old, new) = (anchor(), Anchor::generate("next", 300 * DAY, t0()).unwrap());
    let leaf = LeafKey::generate().unwrap();
    let issued = authority_of(&new)
        .issue(&leaf.csr(&web()).unwrap(), &web(), HOUR, t0())
        .unwrap();
    let trusts =
        |anchor: &Anchor| TrustBundle::from_der(0, [anchor.certificate().clone()]).unwrap();
    let plain = leaf.credentials(issued.chain().to_vec()).unwrap();
    plain.verify(&trusts(&new), t0()).unwrap();
    plain.verify(&trusts(&old), t0()).unwrap_err();

    let cross = old
        .cross_certify(new.certificate(), 10 * DAY, t0())
        .unwrap();
    let carried = leaf
        .credentials(issued.with_cross(cross).into_chain())
        .unwrap();
    carried.verify(&trusts(&new), t0()).unwrap();
    carried.verify(&trusts(&old), t0()).unwrap();
    let stranger = Anchor::generate("other", 300 * DAY, t0()).unwrap();
    carried.verify(&trusts(&stranger), t0()).unwrap_err();
}
