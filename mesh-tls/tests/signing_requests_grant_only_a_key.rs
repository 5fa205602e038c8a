//! Of a signing request only the key is taken; whatever else it asks for is refused by name.

#![allow(clippy::unwrap_used)]

mod support;

use mesh_tls::ca::{Authority, IssuedLeaf, MAX_CSR_BYTES};
use mesh_tls::{Error, LeafKey, TrustDomain, peer_identity};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use support::{DAY, anchor, authority_of, dns, identity, shop, t0, uri, web};

fn authority() -> Authority {
    authority_of(&anchor())
}

fn issue(csr: &[u8]) -> Result<IssuedLeaf, Error> {
    authority().issue(csr, &web(), DAY, t0())
}

/// A request for `web`, but for what `spoil` does to it.
fn request(spoil: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    request_of(&key, spoil)
}

fn request_of(key: &KeyPair, spoil: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(web().as_str())];
    spoil(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_plain_request_is_granted() {
    let leaf = issue(&request(|_| {})).unwrap();
    assert_eq!(peer_identity(leaf.chain()).unwrap(), web());
    // Asking for no name at all grants the proven one.
    let leaf = issue(&request(|csr| csr.subject_alt_names.clear())).unwrap();
    assert_eq!(peer_identity(leaf.chain()).unwrap(), web());
}

#[test]
fn a_stock_proxys_request_is_granted() {
    // Its common name repeats its only DNS name.
    let name = "web.shop.serviceaccount.identity.linkerd.cluster.local";
    let csr = request(|csr| {
        csr.distinguished_name.push(DnType::CommonName, name);
        csr.subject_alt_names = vec![dns(name)];
    });
    let leaf = authority().issue(&csr, &identity(name), DAY, t0()).unwrap();
    assert_eq!(peer_identity(leaf.chain()).unwrap(), identity(name));
}

#[test]
fn a_p384_key_is_certified() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = issue(&request_of(&key, |_| {})).unwrap();
    let credentials =
        mesh_tls::Credentials::from_der(leaf.into_chain(), key.serialize_der().try_into().unwrap());
    assert_eq!(credentials.unwrap().identity(), &web());
}

#[test]
fn an_authority_is_not_granted() {
    // CA:TRUE as a raw extension (RFC 5280 section 4.2.1.9): SEQUENCE { BOOLEAN TRUE }.
    let csr = request(|csr| {
        let mut extension =
            CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
        extension.set_criticality(true);
        csr.custom_extensions.push(extension);
    });
    assert!(matches!(issue(&csr), Err(Error::CsrAsksForAuthority)));
    let csr = request(|csr| csr.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(issue(&csr), Err(Error::CsrAsksForAuthority)));
}

#[test]
fn no_other_extension_is_granted() {
    let asked = [
        (
            "2.5.29.15",
            request(|csr| csr.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
        ),
        (
            "2.5.29.37",
            request(|csr| csr.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("2.5.29.19", request(|csr| csr.is_ca = IsCa::ExplicitNoCa)),
        (
            "1.2.3.4",
            request(|csr| {
                let unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                csr.custom_extensions.push(unknown);
            }),
        ),
    ];
    for (expected, csr) in asked {
        let error = issue(&csr).unwrap_err();
        assert!(
            matches!(&error, Error::CsrExtension { oid } if oid == expected),
            "{error:?}"
        );
    }
}

#[test]
fn no_other_attribute_is_granted() {
    // challengePassword (RFC 2985 section 5.4.1).
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let attribute = rcgen::Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 7],
        values: vec![0x31, 4, 0x0c, 2, b'h', b'i'],
    };
    let csr = CertificateParams::default()
        .serialize_request_with_attributes(&key, vec![attribute])
        .unwrap();
    assert!(matches!(issue(csr.der()), Err(Error::CsrExtension { .. })));
}

#[test]
fn no_other_name_is_granted() {
    let spoils: [fn(&mut CertificateParams); 5] = [
        |csr| csr.subject_alt_names = vec![uri(shop().as_str())],
        |csr| csr.subject_alt_names = vec![dns("web.mesh.example")],
        |csr| csr.subject_alt_names.push(dns("web.mesh.example")),
        |csr| csr.subject_alt_names.push(uri(shop().as_str())),
        |csr| {
            csr.distinguished_name
                .push(DnType::CommonName, shop().as_str());
        },
    ];
    for spoil in spoils {
        let error = issue(&request(spoil)).unwrap_err();
        assert!(matches!(error, Error::CsrIdentity { .. }), "{error:?}");
    }
}

#[test]
fn a_request_signed_by_another_key() {
    let mut csr = request(|_| {});
    // The last byte belongs to the signature.
    *csr.last_mut().unwrap() ^= 1;
    assert!(matches!(issue(&csr), Err(Error::CsrSignature)));
}

#[test]
fn a_request_whose_key_was_swapped() {
    let (own, other) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let mut csr = own.csr(&web()).unwrap();
    let (own, other) = (own.public_key_der(), other.public_key_der());
    let at = csr.windows(own.len()).position(|w| w == own).unwrap();
    csr[at..at + own.len()].copy_from_slice(&other);
    assert!(matches!(issue(&csr), Err(Error::CsrSignature)));
}

#[test]
fn keys_of_other_kinds() {
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let error = issue(&request_of(&key, |_| {})).unwrap_err();
        assert!(matches!(error, Error::CsrKey { .. }), "{error:?}");
    }
}

#[test]
fn an_oversized_request() {
    assert!(matches!(
        issue(&vec![0x30; MAX_CSR_BYTES + 1]),
        Err(Error::CsrTooLarge { bytes, max }) if bytes == max + 1
    ));
}

#[test]
fn bytes_that_are_no_request() {
    let mut longer = request(|_| {});
    longer.push(0);
    let shorter = request(|_| {})[..60].to_vec();
    for csr in [
        vec![],
        vec![0x30, 0],
        b"-----BEGIN".to_vec(),
        longer,
        shorter,
    ] {
        assert!(matches!(issue(&csr), Err(Error::MalformedCsr { .. })));
    }
}

#[test]
fn no_identity_outside_the_trust_domain_is_granted() {
    let authority = authority().with_trust_domain(TrustDomain::parse("mesh.example").unwrap());
    authority
        .issue(&request(|_| {}), &web(), DAY, t0())
        .unwrap();
    let stranger = identity("spiffe://other.example/web");
    let csr = LeafKey::generate().unwrap().csr(&stranger).unwrap();
    assert!(matches!(
        authority.issue(&csr, &stranger, DAY, t0()),
        Err(Error::WrongTrustDomain { .. })
    ));
}

#[test]
fn a_stock_key_in_pkcs8_is_taken_and_others_are_not() {
    let key = LeafKey::from_pkcs8_der(
        LeafKey::generate()
            .unwrap()
            .to_pkcs8_der()
            .secret_pkcs8_der(),
    )
    .unwrap();
    issue(&key.csr(&web()).unwrap()).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for bad in [ed25519.serialize_der(), vec![], b"key".to_vec()] {
        assert!(matches!(
            LeafKey::from_pkcs8_der(&bad),
            Err(Error::InvalidKey { .. })
        ));
    }
}
