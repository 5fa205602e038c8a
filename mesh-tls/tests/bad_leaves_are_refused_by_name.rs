//! Each way in which a leaf can be wrong has an error of its own: in a handshake on either side, and
//! where credentials are made.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mesh_tls::ca::Anchor;
use mesh_tls::{ClientAuth, Credentials, Error, Tls, TrustDomain};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use support::{
    DAY, Forged, HOUR, Workload, anchor, authority_of, client_verdict, dns, identity,
    server_verdict, t0, uri, web,
};

/// Both sides' verdicts on `forged` from workloads that trust `anchor`.
async fn verdicts(anchor: &Anchor, forged: &Forged) -> [Error; 2] {
    let own = Workload::new(support::shop(), &authority_of(anchor));
    verdicts_of(&own.tls, forged).await
}

async fn verdicts_of(tls: &Tls, forged: &Forged) -> [Error; 2] {
    [
        client_verdict(&tls.client(&[]), forged, &web()).await,
        server_verdict(&tls.server(&[], ClientAuth::Optional), forged).await,
    ]
}

fn made(forged: Forged) -> Error {
    Credentials::from_der(forged.chain, forged.key).expect_err("credentials were made")
}

macro_rules! assert_each {
    ($verdicts:expr, $pattern:pat $(if $guard:expr)?) => {
        for verdict in $verdicts {
            assert!(matches!(verdict, $pattern $(if $guard)?), "{verdict:?}");
        }
    };
}

#[tokio::test]
async fn a_forged_leaf_with_nothing_wrong_is_accepted() {
    // The control: the other tests fail for the reason they name and no other.
    let anchor = anchor();
    let forged = Forged::new(&anchor, |_| {});
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (client, _) = (own.tls.client(&[]), ());
    let acceptor = tokio_rustls::TlsAcceptor::from(forged.server());
    let expected = web();
    let (connected, accepted) = tokio::join!(
        client.connect(near, &expected, support::server_name()),
        acceptor.accept(far)
    );
    connected.unwrap();
    accepted.unwrap();
    Credentials::from_der(forged.chain, forged.key).unwrap();
}

#[tokio::test]
async fn expired() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.not_after = (t0() - Duration::from_secs(1)).into();
    });
    assert_each!(
        verdicts(&anchor, &forged).await,
        Error::Expired { not_after, now } if now == t0() && not_after < now
    );
}

#[tokio::test]
async fn not_yet_valid() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.not_before = (t0() + Duration::from_secs(1)).into();
    });
    assert_each!(
        verdicts(&anchor, &forged).await,
        Error::NotYetValid { not_before, now } if now == t0() && not_before > now
    );
}

#[tokio::test]
async fn expiry_is_judged_by_the_workloads_clock() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |_| {});
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    own.clock.set(t0() + 2 * HOUR);
    assert_each!(verdicts_of(&own.tls, &forged).await, Error::Expired { .. });
    own.clock.set(t0() - 2 * HOUR);
    assert_each!(
        verdicts_of(&own.tls, &forged).await,
        Error::NotYetValid { .. }
    );
}

#[tokio::test]
async fn expired_credentials_are_found_before_they_are_used() {
    let anchor = anchor();
    let credentials = {
        let forged = Forged::new(&anchor, |_| {});
        Credentials::from_der(forged.chain, forged.key).unwrap()
    };
    let trust = support::bundle(1, &[&anchor]);
    credentials.verify(&trust, t0()).unwrap();
    assert!(matches!(
        credentials.verify(&trust, t0() + DAY),
        Err(Error::Expired { .. })
    ));
    assert!(matches!(
        credentials.verify(&trust, t0() - DAY),
        Err(Error::NotYetValid { .. })
    ));
    assert!(matches!(
        credentials.verify(&support::bundle(1, &[&support::anchor()]), t0()),
        Err(Error::UntrustedIssuer)
    ));
}

#[tokio::test]
async fn another_identity() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://mesh.example/till")];
    });
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let verdict = client_verdict(&own.tls.client(&[]), &forged, &web()).await;
    assert!(
        matches!(
            &verdict,
            Error::WrongIdentity { expected, found }
                if expected == "spiffe://mesh.example/web" && found == "spiffe://mesh.example/till"
        ),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn another_form_of_identity() {
    // A DNS name that happens to be sent as SNI is not the SPIFFE ID that was called.
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.subject_alt_names = vec![dns("peer.mesh.example")];
    });
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let verdict = client_verdict(&own.tls.client(&[]), &forged, &web()).await;
    assert!(
        matches!(verdict, Error::WrongIdentity { .. }),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn another_trust_domain() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://other.example/web")];
    });
    // A client that calls into its own trust domain notices by itself.
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let verdict = client_verdict(&own.tls.client(&[]), &forged, &web()).await;
    assert!(
        matches!(verdict, Error::WrongTrustDomain { .. }),
        "{verdict:?}"
    );
    // A server must have been told its trust domain; then both sides refuse.
    let domain = TrustDomain::parse("mesh.example").unwrap();
    let strict = own.tls.clone().with_trust_domain(domain);
    assert_each!(
        verdicts_of(&strict, &forged).await,
        Error::WrongTrustDomain { ref expected, .. } if expected == "mesh.example"
    );
}

#[tokio::test]
async fn another_trust_domain_in_linkerds_form() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.subject_alt_names = vec![dns("web.ns.serviceaccount.identity.linkerd.other.local")];
    });
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let expected = identity("web.ns.serviceaccount.identity.linkerd.cluster.local");
    let verdict = client_verdict(&own.tls.client(&[]), &forged, &expected).await;
    assert!(
        matches!(verdict, Error::WrongTrustDomain { .. }),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn two_names() {
    let anchor = anchor();
    for names in [
        vec![
            uri("spiffe://mesh.example/web"),
            uri("spiffe://mesh.example/shop"),
        ],
        vec![dns("web.mesh.example"), dns("shop.mesh.example")],
        vec![dns("web.mesh.example"), dns("web.mesh.example")],
    ] {
        let forged = Forged::new(&anchor, |leaf| leaf.subject_alt_names = names);
        assert_each!(
            verdicts(&anchor, &forged).await,
            Error::AmbiguousIdentity { count: 2, .. }
        );
        assert_each!([made(forged)], Error::AmbiguousIdentity { count: 2, .. });
    }
}

#[tokio::test]
async fn no_name() {
    let anchor = anchor();
    let names = [
        vec![],
        vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())],
    ];
    for names in names {
        let forged = Forged::new(&anchor, |leaf| leaf.subject_alt_names = names);
        assert_each!(verdicts(&anchor, &forged).await, Error::NoIdentity);
        assert_each!([made(forged)], Error::NoIdentity);
    }
}

#[tokio::test]
async fn a_name_that_is_no_identity() {
    let anchor = anchor();
    for name in [uri("https://mesh.example/web"), dns("*.mesh.example")] {
        let forged = Forged::new(&anchor, |leaf| leaf.subject_alt_names = vec![name]);
        assert_each!(
            verdicts(&anchor, &forged).await,
            Error::InvalidIdentity { .. }
        );
    }
}

#[tokio::test]
async fn wrong_usage() {
    let anchor = anchor();
    let client_only = Forged::new(&anchor, |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let server_only = Forged::new(&anchor, |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let verdict = client_verdict(&own.tls.client(&[]), &client_only, &web()).await;
    assert_each!(
        [verdict, made(client_only)],
        Error::WrongUsage {
            required: "serverAuth"
        }
    );
    let server = own.tls.server(&[], ClientAuth::Required);
    let verdict = server_verdict(&server, &server_only).await;
    assert_each!(
        [verdict, made(server_only)],
        Error::WrongUsage {
            required: "clientAuth"
        }
    );
    let other = Forged::new(&anchor, |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    assert_each!(verdicts(&anchor, &other).await, Error::WrongUsage { .. });
}

#[tokio::test]
async fn an_authority_as_leaf() {
    let anchor = anchor();
    let forged = Forged::new(&anchor, |leaf| {
        leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert_each!(verdicts(&anchor, &forged).await, Error::AuthorityAsLeaf);
    assert_each!([made(forged)], Error::AuthorityAsLeaf);
}

#[tokio::test]
async fn an_rsa_key() {
    let anchor = anchor();
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let forged = Forged::with_key(&anchor, &key, |_| {});
    assert_each!(verdicts(&anchor, &forged).await, Error::RsaLeaf);
    assert_each!([made(forged)], Error::RsaLeaf);
}

#[tokio::test]
async fn a_key_of_another_kind() {
    let anchor = anchor();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let forged = Forged::with_key(&anchor, &key, |_| {});
    assert_each!(
        verdicts(&anchor, &forged).await,
        Error::UnsupportedLeafKey { ref algorithm } if algorithm == "1.3.101.112"
    );
    assert_each!([made(forged)], Error::UnsupportedLeafKey { .. });
}

#[tokio::test]
async fn another_anchor() {
    let (anchor, stranger) = (anchor(), support::anchor());
    let forged = Forged::new(&stranger, |_| {});
    assert_each!(verdicts(&anchor, &forged).await, Error::UntrustedIssuer);
}

#[tokio::test]
async fn a_missing_intermediate() {
    let anchor = anchor();
    let authority = authority_of(&anchor);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf_key = mesh_tls::LeafKey::from_pkcs8_der(&key.serialize_der()).unwrap();
    let csr = leaf_key.csr(&web()).unwrap();
    let leaf = authority.issue(&csr, &web(), DAY, t0()).unwrap();
    let forged = Forged {
        chain: vec![leaf.leaf().clone()],
        key: key.serialize_der().try_into().unwrap(),
    };
    assert_each!(verdicts(&anchor, &forged).await, Error::UntrustedIssuer);
}

#[tokio::test]
async fn a_leaf_that_signs_a_leaf() {
    // The path length of an issuer stops its leaves, even with CA:TRUE, from issuing.
    let anchor = anchor();
    let issuer = anchor.issuer("mesh.example", DAY, t0()).unwrap();
    let issuer_key = KeyPair::from_pem(issuer.key_pem().expose()).unwrap();
    let issuer_signer = rcgen::Issuer::from_ca_cert_der(issuer.certificate(), issuer_key).unwrap();
    let sub_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut sub = rcgen::CertificateParams::default();
    sub.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let sub_certificate = sub.signed_by(&sub_key, &issuer_signer).unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names = vec![uri("spiffe://mesh.example/web")];
    let leaf = leaf
        .signed_by(&key, &rcgen::Issuer::from_params(&sub, &sub_key))
        .unwrap();
    let forged = Forged {
        chain: vec![
            leaf.der().clone(),
            sub_certificate.der().clone(),
            issuer.certificate().clone(),
        ],
        key: key.serialize_der().try_into().unwrap(),
    };
    assert_each!(verdicts(&anchor, &forged).await, Error::InvalidChain { .. });
}

#[test]
fn a_key_that_does_not_match() {
    let anchor = anchor();
    let (one, other) = (Forged::new(&anchor, |_| {}), Forged::new(&anchor, |_| {}));
    assert!(matches!(
        Credentials::from_der(one.chain, other.key),
        Err(Error::KeyMismatch)
    ));
}

#[test]
fn a_key_that_is_none() {
    let one = Forged::new(&anchor(), |_| {});
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(vec![0x30, 0]);
    assert!(matches!(
        Credentials::from_der(one.chain, key.into()),
        Err(Error::InvalidKey { .. })
    ));
}

#[test]
fn an_empty_or_endless_chain() {
    let one = Forged::new(&anchor(), |_| {});
    assert!(matches!(
        Credentials::from_der(Vec::new(), one.key.clone_key()),
        Err(Error::EmptyChain)
    ));
    let long = vec![one.chain[0].clone(); 1000];
    assert!(matches!(
        Credentials::from_der(long, one.key),
        Err(Error::ChainTooLarge { .. })
    ));
}

#[test]
fn secrets_do_not_show() {
    let one = Forged::new(&anchor(), |_| {});
    let key = mesh_tls::LeafKey::generate().unwrap();
    let credentials = Credentials::from_der(one.chain, one.key).unwrap();
    assert_eq!(format!("{key:?}"), "LeafKey { .. }");
    assert!(!format!("{credentials:?}").to_lowercase().contains("key"));
    let anchor = anchor();
    assert_eq!(format!("{:?}", anchor.key_pem()), "SecretPem(..)");
    assert!(!format!("{anchor:?}").contains("PRIVATE"));
}
