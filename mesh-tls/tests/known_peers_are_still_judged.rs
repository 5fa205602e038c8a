//! A chain that was verified before is not believed beyond its time, nor from anybody who has not its key.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use mesh_tls::{ClientAuth, Error, TlsServer, TrustDomain, crypto_provider};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use support::{Forged, HOUR, Workload, anchor, authority_of, careless, server_name, signer, t0};
use tokio::io::duplex;
use tokio_rustls::TlsConnector;

/// What `server` says of a client with this configuration.
async fn verdict(server: &TlsServer, client: Arc<ClientConfig>) -> Result<(), Error> {
    let (near, far) = duplex(64 * 1024);
    let connector = TlsConnector::from(client);
    let (accepted, _) = tokio::join!(server.accept(far), connector.connect(server_name(), near));
    accepted.map(|(_, peer)| assert_eq!(peer, Some(support::web())))
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

#[tokio::test]
async fn a_chain_that_was_good_expires() {
    let anchor = anchor();
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let server = own.tls.server(&[], ClientAuth::Required);
    let client = Forged::new(&anchor, |_| {}).client();
    for _ in 0..2 {
        verdict(&server, client.clone()).await.unwrap();
    }
    own.clock.set(t0() + 2 * HOUR);
    let late = verdict(&server, client.clone()).await;
    assert!(matches!(late, Err(Error::Expired { .. })), "{late:?}");
    own.clock.set(t0() - 2 * HOUR);
    let early = verdict(&server, client.clone()).await;
    assert!(matches!(early, Err(Error::NotYetValid { .. })), "{early:?}");
    own.clock.set(t0());
    verdict(&server, client).await.unwrap();
}

#[tokio::test]
async fn a_chain_that_was_good_expires_with_its_issuer() {
    let anchor = anchor();
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let server = own.tls.server(&[], ClientAuth::Required);
    let (key, leaf_key) = (p256(), p256());
    let mut issuer = CertificateParams::default();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (issuer.not_before, issuer.not_after) = ((t0() - HOUR).into(), (t0() + HOUR / 2).into());
    let issuer_der = issuer.signed_by(&key, &signer(&anchor)).unwrap();
    let mut client = Forged::signed_by(&Issuer::new(issuer, key), &leaf_key, |_| {});
    client.chain.push(issuer_der.der().clone());
    verdict(&server, client.client()).await.unwrap();
    // The leaf has a quarter of an hour left.
    own.clock.set(t0() + HOUR * 3 / 4);
    let late = verdict(&server, client.client()).await;
    assert!(matches!(late, Err(Error::Expired { .. })), "{late:?}");
}

#[tokio::test]
async fn who_shows_a_known_chain_without_its_key_is_refused() {
    let anchor = anchor();
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let server = own.tls.server(&[], ClientAuth::Required);
    let known = Forged::new(&anchor, |_| {});
    verdict(&server, known.client()).await.unwrap();

    let other = Forged::new(&anchor, |_| {}).key;
    let other = crypto_provider()
        .key_provider
        .load_private_key(other)
        .unwrap();
    let stolen = SingleCertAndKey::from(CertifiedKey::new(known.chain.clone(), other));
    let thief = careless().with_client_cert_resolver(Arc::new(stolen));
    verdict(&server, Arc::new(thief)).await.unwrap_err();
    verdict(&server, known.client()).await.unwrap();
}

#[tokio::test]
async fn a_chain_is_known_for_one_use_only() {
    let anchor = anchor();
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    // What is made from one `Tls` shares what it knows.
    let server_only = Forged::new(&anchor, |leaf| {
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (near, far) = duplex(64 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(server_only.server());
    let (client, expected) = (own.tls.client(&[]), support::web());
    let (connected, _) = tokio::join!(
        client.connect(near, &expected, server_name()),
        acceptor.accept(far)
    );
    connected.unwrap();
    let server = own.tls.server(&[], ClientAuth::Required);
    let verdict = verdict(&server, server_only.client()).await;
    assert!(
        matches!(verdict, Err(Error::WrongUsage { .. })),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn another_trust_domain_is_refused_though_one_without_that_limit_knows_it() {
    let anchor = anchor();
    let own = Workload::new(support::shop(), &authority_of(&anchor));
    let client = Forged::new(&anchor, |_| {});
    let any = own.tls.server(&[], ClientAuth::Required);
    verdict(&any, client.client()).await.unwrap();
    let domain = TrustDomain::parse("other.example").unwrap();
    let strict = own.tls.clone().with_trust_domain(domain);
    let strict = strict.server(&[], ClientAuth::Required);
    let verdict = verdict(&strict, client.client()).await;
    assert!(
        matches!(verdict, Err(Error::WrongTrustDomain { .. })),
        "{verdict:?}"
    );
}
