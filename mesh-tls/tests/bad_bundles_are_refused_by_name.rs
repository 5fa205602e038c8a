//! Each way in which a trust bundle or its PEM can be wrong has an error of its own, and its digest
//! names the set of anchors.

#![allow(clippy::unwrap_used)]

mod support;

use mesh_tls::{Credentials, Error, TrustBundle, trust_store};
use support::{Forged, anchor, bundle};

#[test]
fn an_empty_bundle() {
    for nothing in [&b""[..], b"\n \n"] {
        assert!(matches!(
            TrustBundle::from_pem(1, nothing),
            Err(Error::EmptyBundle)
        ));
    }
    assert!(matches!(
        TrustBundle::from_der(1, []),
        Err(Error::EmptyBundle)
    ));
}

#[test]
fn truncated_pem() {
    let pem = bundle(1, &[&anchor(), &anchor()]).to_pem();
    let marker = pem.rfind("-----BEGIN").unwrap();
    // Cut inside the second certificate: none of the first is taken either.
    for end in [marker + 40, pem.len() - 30, pem.len() - 8] {
        let result = TrustBundle::from_pem(1, &pem.as_bytes()[..end]);
        assert!(
            matches!(result, Err(Error::Pem { .. })),
            "{end}: {result:?}"
        );
    }
}

#[test]
fn text_that_is_no_pem() {
    assert!(matches!(
        TrustBundle::from_pem(1, b"these are my anchors"),
        Err(Error::Pem { .. })
    ));
    let chain = bundle(1, &[&anchor()]).to_pem();
    assert!(matches!(
        Credentials::from_pem(chain.as_bytes(), b"my key"),
        Err(Error::Pem { .. })
    ));
}

#[test]
fn damaged_base64() {
    let pem = bundle(1, &[&anchor()]).to_pem().replacen("MII", "M*I", 1);
    assert!(matches!(
        TrustBundle::from_pem(1, pem.as_bytes()),
        Err(Error::Pem { .. })
    ));
}

#[test]
fn a_certificate_that_is_none() {
    let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        TrustBundle::from_pem(1, pem.as_bytes()),
        Err(Error::MalformedCertificate { .. })
    ));
}

#[test]
fn bytes_after_a_certificate() {
    let mut der = anchor().certificate().to_vec();
    der.push(0);
    assert!(matches!(
        TrustBundle::from_der(1, [der.into()]),
        Err(Error::MalformedCertificate { .. })
    ));
}

#[test]
fn a_private_key_in_the_bundle() {
    let anchor = anchor();
    let pem = anchor.certificate_pem() + anchor.key_pem().expose();
    let error = TrustBundle::from_pem(1, pem.as_bytes()).unwrap_err();
    assert!(matches!(error, Error::UnexpectedPemSection { .. }));
    assert!(!error.to_string().contains("MI"), "{error}");
}

#[test]
fn a_leaf_in_the_bundle() {
    let anchor = anchor();
    let leaf = Forged::new(&anchor, |_| {}).chain.remove(0);
    assert!(matches!(
        TrustBundle::from_der(1, [anchor.certificate().clone(), leaf]),
        Err(Error::AnchorNotAuthority { index: 1 })
    ));
}

#[test]
fn a_duplicate_anchor() {
    let (one, two) = (anchor(), anchor());
    let pem = one.certificate_pem() + &two.certificate_pem() + &one.certificate_pem();
    assert!(matches!(
        TrustBundle::from_pem(1, pem.as_bytes()),
        Err(Error::DuplicateAnchor { index: 2 })
    ));
}

#[test]
fn an_oversized_bundle() {
    let pem = vec![b'\n'; TrustBundle::MAX_BYTES + 1];
    assert!(matches!(
        TrustBundle::from_pem(1, &pem),
        Err(Error::BundleTooLarge { .. })
    ));
    let endless = std::iter::repeat_with(|| vec![0; TrustBundle::MAX_BYTES + 1].into());
    assert!(matches!(
        TrustBundle::from_der(1, endless),
        Err(Error::BundleTooLarge { .. })
    ));
}

#[test]
fn the_digest_names_the_set_of_anchors() {
    let (one, two) = (anchor(), anchor());
    let both = bundle(1, &[&one, &two]);
    assert_eq!(both.digest(), bundle(7, &[&two, &one]).digest());
    assert_ne!(both.digest(), bundle(1, &[&one]).digest());
    assert_ne!(bundle(1, &[&one]).digest(), bundle(1, &[&two]).digest());
    let windows = format!("# anchors\r\n{}", both.to_pem().replace('\n', "\r\n"));
    let again = TrustBundle::from_pem(1, windows.as_bytes()).unwrap();
    assert_eq!(again, both);
    let text = both.digest().to_string();
    assert_eq!(text.len(), "sha256:".len() + 64);
    assert!(text.starts_with("sha256:"));
    assert_eq!(both.anchors().len(), 2);
    assert_eq!(both.generation(), 1);
}

#[test]
fn an_adopted_generation_never_goes_down() {
    let (one, two) = (anchor(), anchor());
    let (writer, reader) = trust_store(bundle(5, &[&one]));
    assert!(matches!(
        writer.set(bundle(4, &[&two])),
        Err(Error::StaleBundle {
            offered: 4,
            current: 5
        })
    ));
    assert!(matches!(
        writer.set(bundle(5, &[&two])),
        Err(Error::GenerationReused { generation: 5 })
    ));
    let before = reader.load();
    writer.set(bundle(5, &[&one])).unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&before, &reader.load()),
        "the same bundle is no change"
    );
    writer.set(bundle(6, &[&one, &two])).unwrap();
    assert_eq!(reader.load().generation(), 6);
}

#[tokio::test]
async fn readers_wait_for_a_change_and_hear_when_the_writer_is_gone() {
    let (one, two) = (anchor(), anchor());
    let (writer, mut reader) = trust_store(bundle(1, &[&one]));
    let waiting = tokio::spawn(async move {
        reader.changed().await.unwrap();
        let seen = reader.load().generation();
        (seen, reader.changed().await)
    });
    writer.set(bundle(2, &[&two])).unwrap();
    drop(writer);
    let (seen, after) = waiting.await.unwrap();
    assert_eq!(seen, 2);
    assert!(matches!(after, Err(Error::WriterGone)));
}
