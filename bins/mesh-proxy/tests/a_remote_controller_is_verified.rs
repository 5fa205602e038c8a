//! With a name to expect, the controller is spoken to over TLS: Certify with the token alone, all else with the
//! certificate it gave, and nothing at all to a controller that cannot prove its name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use controller::messages::balanced;
use controller::{Controller, authority as named, config, soon};
use linkerd2_proxy_api::identity::CertifyResponse;
use mesh_metrics::Metrics;
use mesh_proxy::control::Control;
use mesh_proxy::control::channel::{self, ALPN, Security};
use mesh_proxy::identity::Certifier;
use mesh_proxy::trust::Connections;
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{
    ClientAuth, CredentialWriter, Identity, LeafKey, Tls, TrustBundle, credential_store,
    trust_store,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

const CONTROLLER: &str = "controller.mesh.test";
const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> Authority {
    let now = SystemTime::now();
    let anchor = Anchor::generate("test", 24 * HOUR, now).unwrap();
    let issuer = anchor.issuer("issuer", 24 * HOUR, now).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

fn certify(authority: &Authority, name: &str, writer: &CredentialWriter) {
    let name: Identity = name.parse().unwrap();
    let key = LeafKey::generate().unwrap();
    let csr = key.csr(&name).unwrap();
    let leaf = authority
        .issue(&csr, &name, HOUR, SystemTime::now())
        .unwrap();
    writer.set(key.credentials(leaf.into_chain()).unwrap());
}

/// Ends TLS in front of the controller. Tells who each client is.
async fn terminate(
    tls: Tls,
    plain: SocketAddr,
) -> (SocketAddr, mpsc::UnboundedReceiver<Option<Identity>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (clients, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let server = tls.server(ALPN, ClientAuth::Optional);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (server, clients) = (server.clone(), clients.clone());
            tokio::spawn(async move {
                if let Ok((mut near, client)) = server.accept(stream).await {
                    let _ = clients.send(client);
                    let mut far = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_remote_controller_is_verified_and_watched_with_the_certificate_it_gave() {
    let authority = authority();
    let mut controller = Controller::start();
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let (_server_trust, trust) = trust_store(bundle.clone());
    let (server_credentials, credentials) = credential_store();
    certify(&authority, CONTROLLER, &server_credentials);
    let (address, mut clients) = terminate(Tls::new(trust, credentials), controller.address).await;

    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "token").unwrap();
    let config = config(
        address,
        &format!("control.name = \"{CONTROLLER}\"\ncontrol.policy_timeout = \"20s\""),
    );
    let name = config.name.clone();
    let (_trust, trust) = trust_store(bundle);
    let (writer, credentials) = credential_store();
    let tls = Tls::new(trust.clone(), credentials.clone());
    let security = |client, credentials| Security::Tls {
        client,
        controller: config.controllers.policy.name.clone().unwrap(),
        credentials,
    };
    let open = |security| channel::open(&config.control, address, security).unwrap();
    let certifying = open(security(tls.anonymous_client(ALPN), None));
    let watching = open(security(tls.client(ALPN), Some(credentials)));
    let metrics = Metrics::proxy("test");
    let identity = metrics.families.control.identity();
    let (certifier, mut status) = Certifier::new(
        name.clone(),
        token_file,
        certifying,
        trust,
        writer,
        identity,
        Box::new(SystemTime::now),
    );
    let control = Control::new(
        Handle::current(),
        watching,
        Arc::new(config),
        &metrics.families,
    );

    // Traffic comes before the certificate: its watch waits for it.
    let target = tokio::spawn(async move { control.outbound(named("web:80")).await });
    tokio::spawn(certifier.run());
    let call = controller.certify.next().await;
    assert_eq!(
        soon("a client", clients.recv()).await,
        Some(None),
        "Certify comes without a certificate"
    );
    assert!(controller.policies.is_empty());

    let csr = &call.request.certificate_signing_request;
    let leaf = authority
        .issue(csr, &name, HOUR, SystemTime::now())
        .unwrap();
    call.reply(CertifyResponse {
        leaf_certificate: leaf.leaf().to_vec(),
        intermediate_certificates: leaf
            .intermediates()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        valid_until: None,
    });
    soon(
        "a certificate",
        status.wait_for(|status| status.not_after.is_some()),
    )
    .await
    .unwrap();
    controller
        .policies
        .next()
        .await
        .accept()
        .send(balanced("web", "web:80"))
        .await;
    assert_eq!(soon("a client", clients.recv()).await, Some(Some(name)));
    assert!(soon("a policy", target).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_controller_of_another_name_hears_nothing() {
    let authority = authority();
    let mut controller = Controller::start();
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let (_trust, trust) = trust_store(bundle);
    let (writer, credentials) = credential_store();
    certify(&authority, "impostor.mesh.test", &writer);
    let tls = Tls::new(trust, credentials.clone());
    let (address, _clients) = terminate(tls.clone(), controller.address).await;

    let settings = format!("control.name = \"{CONTROLLER}\"\ncontrol.policy_timeout = \"200ms\"");
    let config = Arc::new(config(address, &settings));
    let security = Security::Tls {
        client: tls.client(ALPN),
        controller: config.controllers.policy.name.clone().unwrap(),
        credentials: Some(credentials),
    };
    let channel = channel::open(&config.control, address, security).unwrap();
    let metrics = Metrics::proxy("test");
    let control = Control::new(Handle::current(), channel, config, &metrics.families);
    assert!(
        soon("an error", control.outbound(named("web:80")))
            .await
            .is_err()
    );
    assert!(controller.policies.is_empty());
}

#[tokio::test]
async fn a_certificate_renews_itself_when_the_token_is_gone() {
    let authority = authority();
    let mut controller = Controller::start();
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let (_server_trust, trust) = trust_store(bundle.clone());
    let (server_credentials, credentials) = credential_store();
    certify(&authority, CONTROLLER, &server_credentials);
    let (address, mut clients) = terminate(Tls::new(trust, credentials), controller.address).await;

    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "token").unwrap();
    let config = config(address, &format!("control.name = \"{CONTROLLER}\""));
    let name = config.name.clone();
    let (_trust, trust) = trust_store(bundle);
    let (writer, credentials) = credential_store();
    let tls = Tls::new(trust.clone(), credentials.clone());
    let security = move |client, credentials| Security::Tls {
        client,
        controller: Identity::parse(CONTROLLER).unwrap(),
        credentials,
    };
    let anonymous = security(tls.anonymous_client(ALPN), None);
    let settings = config.control.clone();
    let (certifier, _status) = Certifier::new(
        name.clone(),
        token_file.clone(),
        channel::open(&settings, address, anonymous).unwrap(),
        trust,
        writer,
        Metrics::proxy("test").families.control.identity(),
        Box::new(SystemTime::now),
    );
    let reconnect = move || {
        let own = security(tls.client(ALPN), Some(credentials.clone()));
        channel::open(&settings, address, own).ok()
    };
    tokio::spawn(certifier.renew_over(Box::new(reconnect)).run());

    let first = controller.certify.next().await;
    assert_eq!(first.request.token, b"token");
    assert_eq!(soon("a client", clients.recv()).await, Some(None));
    std::fs::remove_file(&token_file).unwrap();
    let csr = &first.request.certificate_signing_request;
    // Short, so that its renewal is due soon.
    let lifetime = Duration::from_secs(4);
    let leaf = authority
        .issue(csr, &name, lifetime, SystemTime::now())
        .unwrap();
    first.reply(CertifyResponse {
        leaf_certificate: leaf.leaf().to_vec(),
        intermediate_certificates: leaf
            .intermediates()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        valid_until: None,
    });
    let second = controller.certify.next().await;
    assert!(second.request.token.is_empty());
    assert_eq!(soon("a client", clients.recv()).await, Some(Some(name)));
}

#[tokio::test]
async fn the_connection_to_it_is_opened_again_when_its_anchor_retires() {
    let authority = authority();
    let mut controller = Controller::start();
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let anchor = bundle.anchor_keys()[0];
    let (_server_trust, trust) = trust_store(bundle.clone());
    let (server_credentials, credentials) = credential_store();
    certify(&authority, CONTROLLER, &server_credentials);
    let (address, mut clients) = terminate(Tls::new(trust, credentials), controller.address).await;

    let config = config(address, &format!("control.name = \"{CONTROLLER}\""));
    let (_trust, trust) = trust_store(bundle);
    let (writer, credentials) = credential_store();
    certify(&authority, config.name.as_str(), &writer);
    let security = Security::Tls {
        client: Tls::new(trust, credentials).client(ALPN),
        controller: config.controllers.policy.name.clone().unwrap(),
        credentials: None,
    };
    let connections = Connections::default();
    let channel =
        channel::open_recorded(&config.control, address, security, connections.clone()).unwrap();
    let metrics = Metrics::proxy("test");
    let control = Control::new(
        Handle::current(),
        channel,
        Arc::new(config),
        &metrics.families,
    );
    let watching = tokio::spawn(async move { control.outbound(named("web:80")).await });
    let feed = controller.policies.next().await.accept();
    feed.send(balanced("web", "web:80")).await;
    watching.await.unwrap().unwrap();
    soon("a client", clients.recv()).await.unwrap();
    let [before] = connections.summary()[..] else {
        panic!("one anchor: {:?}", connections.summary())
    };
    assert_eq!((before.anchor, before.count), (anchor, 1));

    connections.drain(anchor, None);
    soon("the end of the stream", feed.abandoned()).await;
    let _again = controller.policies.next().await.accept();
    soon("a client", clients.recv()).await.unwrap();
    let [after] = connections.summary()[..] else {
        panic!("one anchor: {:?}", connections.summary())
    };
    assert_eq!((after.count, after.draining), (1, 0));
    assert_eq!(connections.cuts(), 0);
}
