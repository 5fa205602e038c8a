//! A handshake that succeeds has told both sides who the other is, over TLS 1.3 and nothing weaker, and
//! leaves nothing behind to resume.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use mesh_tls::{ClientAuth, Error, Identity, TrustDomain, crypto_provider, peer_identity};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme,
};
use support::{
    Forged, Workload, anchor, authority_of, bundle, careless, connected, handshake, identity,
    ping_pong, server_name, shop, web,
};
use tokio::io::{AsyncReadExt, duplex};

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let authority = authority_of(&anchor());
    let (web, shop) = (
        Workload::new(web(), &authority),
        Workload::new(shop(), &authority),
    );
    let server = web.tls.server(&[b"h2", b"http/1.1"], ClientAuth::Required);
    let client = shop.tls.client(&[b"h2"]);
    let (mut server, peer, mut client) = connected(&server, &client, &web.identity).await;
    assert_eq!(peer, Some(shop.identity));
    let chain = client.get_ref().1.peer_certificates().unwrap();
    assert_eq!(peer_identity(chain).unwrap(), web.identity);
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    ping_pong(&mut server, &mut client).await;
}

#[tokio::test]
async fn dns_identities_need_no_other_server_name() {
    let authority = authority_of(&anchor());
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let web = Identity::linkerd("web", "shop", "linkerd", &domain).unwrap();
    let web = Workload::new(web, &authority);
    let shop = Workload::new(shop(), &authority);
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    let (near, far) = duplex(64 * 1024);
    let (accepted, connected) = tokio::join!(
        server.accept(far),
        client.connect(near, &web.identity, None)
    );
    connected.unwrap();
    let (stream, peer) = accepted.unwrap();
    assert_eq!(peer, Some(shop.identity));
    assert_eq!(
        stream.get_ref().1.server_name(),
        Some(web.identity.as_str())
    );
}

#[tokio::test]
async fn a_spiffe_identity_without_a_server_name_cannot_be_called() {
    let authority = authority_of(&anchor());
    let shop = Workload::new(shop(), &authority);
    let (near, _far) = duplex(1024);
    let result = shop.tls.client(&[]).connect(near, &web(), None).await;
    assert!(matches!(result, Err(Error::InvalidServerName { .. })));
}

#[tokio::test]
async fn the_strongest_common_parameters_are_used() {
    let authority = authority_of(&anchor());
    let (web, shop) = (
        Workload::new(web(), &authority),
        Workload::new(shop(), &authority),
    );
    let server = web.tls.server(&[], ClientAuth::Required);
    let (_server, _, client) = connected(&server, &shop.tls.client(&[]), &web.identity).await;
    let connection = client.get_ref().1;
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(
        connection.negotiated_cipher_suite().unwrap().suite(),
        CipherSuite::TLS13_AES_256_GCM_SHA384
    );
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_required_certificate_is_required() {
    let authority = authority_of(&anchor());
    let web = Workload::new(web(), &authority);
    let newcomer = Workload::uncertified(shop(), bundle(1, &[&anchor()]));
    let server = web.tls.server(&[], ClientAuth::Required);
    let trusting = Workload::new(shop(), &authority);
    let client = trusting.tls.anonymous_client(&[]);
    let (accepted, connected) = handshake(&server, &client, &web.identity).await;
    assert!(matches!(accepted, Err(Error::EmptyChain)), "{accepted:?}");
    // The client was done before; the refusal is what it reads.
    let error = connected.unwrap().read_u8().await.unwrap_err();
    assert!(matches!(Error::from(error), Error::PeerRefused { .. }));
    // Without credentials there is nothing to serve or present.
    let (near, _far) = duplex(1024);
    let client = newcomer.tls.client(&[]);
    let result = client.connect(near, &web.identity, server_name()).await;
    assert!(matches!(result, Err(Error::NoCredentials)));
    let server = newcomer.tls.server(&[], ClientAuth::Required);
    assert!(matches!(server.config(), Err(Error::NoCredentials)));
}

#[tokio::test]
async fn an_anonymous_client_still_verifies_the_server() {
    let (own, stranger) = (anchor(), anchor());
    let web = Workload::new(web(), &authority_of(&own));
    let newcomer = Workload::uncertified(shop(), bundle(1, &[&own]));
    for auth in [ClientAuth::Optional, ClientAuth::None] {
        let server = web.tls.server(&[], auth);
        let client = newcomer.tls.anonymous_client(&[]);
        let (mut server, peer, mut client) = connected(&server, &client, &web.identity).await;
        assert_eq!(peer, None);
        ping_pong(&mut server, &mut client).await;
    }
    let server = web.tls.server(&[], ClientAuth::Optional);
    let misled = Workload::uncertified(shop(), bundle(1, &[&stranger]));
    let client = misled.tls.anonymous_client(&[]);
    let (accepted, connected) = handshake(&server, &client, &web.identity).await;
    assert!(matches!(connected, Err(Error::UntrustedIssuer)));
    assert!(
        matches!(accepted, Err(Error::PeerRefused { .. })),
        "{accepted:?}"
    );
}

#[tokio::test]
async fn an_optional_certificate_is_verified_when_presented() {
    let (own, stranger) = (anchor(), anchor());
    let web = Workload::new(web(), &authority_of(&own));
    let server = web.tls.server(&[], ClientAuth::Optional);
    let error = support::server_verdict(&server, &Forged::new(&stranger, |_| {})).await;
    assert!(matches!(error, Error::UntrustedIssuer));
}

#[tokio::test]
async fn one_client_calls_many_peers_each_by_its_own_identity() {
    let authority = authority_of(&anchor());
    let (web, till) = (
        Workload::new(web(), &authority),
        Workload::new(identity("spiffe://mesh.example/till"), &authority),
    );
    let shop = Workload::new(shop(), &authority);
    let client = shop.tls.client(&[]);
    let to_web = web.tls.server(&[], ClientAuth::Required);
    let to_till = till.tls.server(&[], ClientAuth::Required);
    for _ in 0..2 {
        connected(&to_web, &client, &web.identity).await;
        connected(&to_till, &client, &till.identity).await;
        let (_, result) = handshake(&to_till, &client, &web.identity).await;
        assert!(matches!(result, Err(Error::WrongIdentity { .. })));
        let (_, result) = handshake(&to_web, &client, &till.identity).await;
        assert!(matches!(result, Err(Error::WrongIdentity { .. })));
    }
}

#[tokio::test]
async fn protocols_without_overlap_are_refused() {
    let authority = authority_of(&anchor());
    let (web, shop) = (
        Workload::new(web(), &authority),
        Workload::new(shop(), &authority),
    );
    let server = web.tls.server(&[b"h2"], ClientAuth::Required);
    let client = shop.tls.client(&[b"http/1.1"]);
    let (accepted, connected) = handshake(&server, &client, &web.identity).await;
    assert!(matches!(accepted, Err(Error::Tls(_))));
    assert!(matches!(connected, Err(Error::PeerRefused { .. })));
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_refused() {
    let web = Workload::new(web(), &authority_of(&anchor()));
    let server = web.tls.server(&[], ClientAuth::Required);
    let (mut near, far) = duplex(1024);
    let (accepted, _) = tokio::join!(
        server.accept(far),
        tokio::io::AsyncWriteExt::write_all(&mut near, b"GET / HTTP/1.1\r\n\r\n")
    );
    assert!(matches!(accepted, Err(Error::Tls(_))));
    let (near, far) = duplex(1024);
    drop(near);
    assert!(matches!(server.accept(far).await, Err(Error::Io(_))));
}

#[tokio::test]
async fn nothing_is_left_to_resume() {
    let authority = authority_of(&anchor());
    let web = Workload::new(web(), &authority);
    let server = web.tls.server(&[], ClientAuth::None);
    // A stock client, which would resume if it could.
    let eager = Arc::new(careless().with_no_client_auth());
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(eager.clone());
        let (accepted, connected) =
            tokio::join!(server.accept(far), connector.connect(server_name(), near));
        let (mut server, mut client) = (accepted.unwrap().0, connected.unwrap());
        ping_pong(&mut server, &mut client).await;
        let connection = client.get_ref().1;
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
    }
    // A server that hands out tickets, to our client.
    let anchor = anchor();
    let generous = Forged::new(&anchor, |_| {}).server();
    let shop = Workload::new(shop(), &authority_of(&anchor));
    let client = shop.tls.client(&[]);
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let acceptor = tokio_rustls::TlsAcceptor::from(generous.clone());
        let (accepted, connected) = tokio::join!(
            acceptor.accept(far),
            client.connect(near, &web.identity, server_name())
        );
        let (mut server, mut client) = (accepted.unwrap(), connected.unwrap());
        ping_pong(&mut server, &mut client).await;
        let kind = client.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn strangers_learn_no_names_of_authorities() {
    let authority = authority_of(&anchor());
    let web = Workload::new(web(), &authority);
    let server = web.tls.server(&[], ClientAuth::Optional);
    let hints = Arc::new(Hints::default());
    let config: ClientConfig = careless().with_client_cert_resolver(hints.clone());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (near, far) = duplex(64 * 1024);
    let name: ServerName<'static> = server_name();
    let (accepted, connected) = tokio::join!(server.accept(far), connector.connect(name, near));
    accepted.unwrap();
    connected.unwrap();
    assert_eq!(*hints.0.lock().unwrap(), Some(0));
}

/// Counts the authorities that a server names when it asks for a certificate.
#[derive(Debug, Default)]
struct Hints(Mutex<Option<usize>>);

impl ResolvesClientCert for Hints {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap() = Some(root_hint_subjects.len());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_tls_1_2_client_finds_no_provider_here() {
    let suites = &crypto_provider().cipher_suites;
    assert!(suites.iter().all(|suite| suite.tls13().is_some()));
}
