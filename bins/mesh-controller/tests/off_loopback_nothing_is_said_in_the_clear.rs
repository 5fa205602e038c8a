//! Over TLS, a stranger may ask for a certificate and for nothing else.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd2_proxy_api::{
    destination::{GetDestination, destination_client::DestinationClient},
    identity::CertifyResponse,
};
use mesh_control_api::admin::{
    ChangeTrustRequest, ExportRootRequest, GetTrustRequest, TaintTrust, change_trust_request::Word,
};
use mesh_tls::{
    Credentials, Identity, LeafKey, Tls, TlsClient, TrustBundle,
    ca::{Anchor, Authority},
    credential_store,
    pki_types::CertificateDer,
    trust_store,
};
use support::{Controller, DAY, certify, identity, within};
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

const CONTROLLER: &str = "mesh-controller.linkerd.serviceaccount.identity.linkerd.cluster.local";

fn client(controller: &Controller, credentials: Option<Credentials>) -> TlsClient {
    let anchors = support::read(&controller.data().join("anchors.pem"));
    let (_, trust) = trust_store(TrustBundle::from_pem(1, &anchors).unwrap());
    let (writer, reader) = credential_store();
    let tls = Tls::new(trust, reader);
    match credentials {
        Some(credentials) => {
            writer.set(credentials);
            tls.client(&[b"h2"])
        }
        None => tls.anonymous_client(&[b"h2"]),
    }
}

/// A channel over TLS to a server that must prove to be `expected`.
async fn channel(
    controller: &Controller,
    credentials: Option<Credentials>,
    expected: &str,
) -> Result<Channel, tonic::transport::Error> {
    let tls = client(controller, credentials);
    let address = controller.announcement().grpc;
    let expected = Identity::parse(expected).unwrap();
    let connector = tower::service_fn(move |_| {
        let (tls, expected) = (tls.clone(), expected.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = tls.connect(tcp, &expected, None).await;
            stream.map(TokioIo::new).map_err(std::io::Error::other)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    within(endpoint.connect_with_connector(connector)).await
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// A connection of HTTP/2, and its end.
async fn hold(
    controller: &Controller,
    credentials: Option<Credentials>,
) -> (Sender, JoinHandle<()>) {
    let expected = Identity::parse(CONTROLLER).unwrap();
    let tcp = TcpStream::connect(controller.announcement().grpc)
        .await
        .unwrap();
    let stream = within(client(controller, credentials).connect(tcp, &expected, None))
        .await
        .unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let ended = tokio::spawn(async move { drop(connection.await) });
    (sender, ended)
}

/// Certify without proof, and without any sense.
fn certify_nothing() -> http::Request<Full<Bytes>> {
    nothing("io.linkerd.proxy.identity.Identity/Certify")
}

/// A call with an empty message.
fn nothing(call: &str) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("https://controller/{call}"))
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap()
}

fn credentials((key, response): (LeafKey, CertifyResponse)) -> Credentials {
    let chain = std::iter::once(response.leaf_certificate)
        .chain(response.intermediate_certificates)
        .map(CertificateDer::from)
        .collect();
    key.credentials(chain).unwrap()
}

async fn ask(channel: Channel) -> Result<(), Status> {
    let request = GetDestination {
        path: "web.default:80".into(),
        ..GetDestination::default()
    };
    let mut stream = within(DestinationClient::new(channel).get(request))
        .await?
        .into_inner();
    within(stream.message()).await.map(drop)
}

#[tokio::test]
async fn a_token_gets_in_and_its_certificate_gets_everything_else() {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;

    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let refused = ask(stranger).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    // That connection is told to end: what is asked on it now may be answered or not.
    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let no_token = certify(stranger.clone(), &web, "").await.unwrap_err();
    assert_eq!(no_token.code(), Code::Unauthenticated);
    let leaf = credentials(certify(stranger, &web, &token).await.unwrap());

    let member = channel(&controller, Some(leaf), CONTROLLER).await.unwrap();
    ask(member.clone()).await.unwrap();

    // The certificate is proof enough of its own identity, and of no other.
    let renewed = credentials(certify(member.clone(), &web, "").await.unwrap());
    let other = certify(member, &identity("admin"), "").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let again = channel(&controller, Some(renewed), CONTROLLER)
        .await
        .unwrap();
    ask(again).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_ends_renewal_until_there_is_another() {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    let (web, api) = (identity("web"), identity("api"));
    let mut members = Vec::new();
    let mut ids = Vec::new();
    for identity in [&web, &api] {
        let (token, id) = controller.token(identity, DAY).await;
        let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
        let leaf = credentials(certify(stranger, identity, &token).await.unwrap());
        let member = channel(&controller, Some(leaf), CONTROLLER).await.unwrap();
        certify(member.clone(), identity, "").await.unwrap();
        members.push(member);
        ids.push((id, token));
    }
    let (id, token) = ids.swap_remove(0);
    let request = mesh_control_api::admin::RevokeTokenRequest { id };
    let mut admin = controller.admin().await;
    admin.revoke_token(request).await.unwrap();

    let refused = certify(members[0].clone(), &web, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("revoked"), "{refused}");
    let refused = certify(members[0].clone(), &web, &token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    // Whoever has another identity is not concerned.
    certify(members[1].clone(), &api, "").await.unwrap();

    controller.token(&web, DAY).await;
    certify(members[0].clone(), &web, "").await.unwrap();
}

/// A connection that outlived it would be that of a stranger, to whom every further call is refused.
#[tokio::test]
async fn a_member_is_sent_to_connect_anew_before_its_certificate_ends() {
    let mesh = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {leafLifetime: 10s}\n";
    let controller = Controller::start(&[("mesh.yaml", mesh)], &["--tls", "always"]).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let leaf = credentials(certify(stranger, &web, &token).await.unwrap());
    let ends = leaf.not_after();
    let (mut sender, connection) = hold(&controller, Some(leaf)).await;
    let watch = nothing("io.linkerd.proxy.destination.Destination/Get");
    let answer = within(sender.send_request(watch)).await.unwrap();
    assert_eq!(answer.status(), http::StatusCode::OK);

    tokio::time::timeout(Duration::from_secs(20), connection)
        .await
        .expect("it ends")
        .unwrap();
    let left = ends.duration_since(SystemTime::now());
    let left = left.expect("before the certificate does");
    assert!(
        left < Duration::from_secs(5),
        "nor long before it: {left:?}"
    );
}

#[tokio::test]
async fn a_stranger_is_sent_away_after_its_answer_and_a_member_is_not() {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let leaf = credentials(certify(stranger, &web, &token).await.unwrap());
    let member = channel(&controller, Some(leaf), CONTROLLER).await.unwrap();
    let request = GetDestination {
        path: "web.default:80".into(),
        ..GetDestination::default()
    };
    let mut watch = within(DestinationClient::new(member).get(request))
        .await
        .unwrap()
        .into_inner();
    within(watch.message()).await.unwrap();

    // Its request fails; it answers pings and waits.
    let (mut sender, connection) = hold(&controller, None).await;
    let refused = within(sender.send_request(certify_nothing()))
        .await
        .unwrap();
    assert!(refused.headers().contains_key("grpc-status"));
    within(connection).await.unwrap();
    assert!(sender.is_closed());
    let next = tokio::time::timeout(Duration::from_millis(100), watch.message()).await;
    assert!(next.is_err(), "the watch has ended");
}

/// A linkerd2-proxy connects before it has a certificate, and goes on to use what it has.
#[tokio::test]
async fn a_stranger_that_asks_for_what_needs_a_certificate_is_sent_away_at_once_to_come_back_with_one()
 {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    let (mut sender, connection) = hold(&controller, None).await;
    let start = std::time::Instant::now();
    let watch = nothing("io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort");
    let refused = within(sender.send_request(watch)).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "16");
    within(connection).await.unwrap();
    // A stranger that was answered may stay for three seconds.
    assert!(start.elapsed() < Duration::from_secs(3));

    // One that only waits until it has a certificate is to connect anew, too.
    let (sender, connection) = hold(&controller, None).await;
    within(connection).await.unwrap();
    assert!(sender.is_closed());
}

#[tokio::test]
async fn strangers_never_take_the_places_of_members() {
    let controller = Controller::start(
        &[],
        &[
            "--tls",
            "always",
            "--max-connections",
            "2",
            "--max-uncertified",
            "4",
        ],
    )
    .await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let leaf = credentials(certify(stranger, &web, &token).await.unwrap());
    let (mut strangers, mut silent) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        strangers.push(hold(&controller, None).await);
    }
    let member = channel(&controller, Some(leaf.clone()), CONTROLLER)
        .await
        .unwrap();
    ask(member).await.unwrap();

    // Those that only begin a handshake do not keep anybody out for long either.
    for _ in 0..8 {
        let connect = TcpStream::connect(controller.announcement().grpc);
        silent.push(connect.await.unwrap());
    }
    let member = channel(&controller, Some(leaf), CONTROLLER).await.unwrap();
    ask(member).await.unwrap();
}

/// Whoever has stolen an anchor's key signs a certificate of anybody, for a key of their own.
#[tokio::test]
async fn below_a_tainted_anchor_only_what_was_issued_here_proves_something() {
    let mut controller = Controller::start(&[], &["--tls", "always"]).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    let stranger = channel(&controller, None, CONTROLLER).await.unwrap();
    let genuine = credentials(certify(stranger, &web, &token).await.unwrap());
    let stolen = controller
        .admin()
        .await
        .export_root(ExportRootRequest {})
        .await;
    let stolen = stolen.unwrap().into_inner();
    let stolen = Anchor::from_pem(stolen.certificate_pem.as_bytes(), stolen.key_pem.as_bytes());
    let (stolen, now) = (stolen.unwrap(), SystemTime::now());
    let issuer = stolen.issuer("forged", DAY, now).unwrap();
    let authority = Authority::new(stolen.certificate().clone(), issuer).unwrap();
    let (key, id) = (LeafKey::generate().unwrap(), Identity::parse(&web).unwrap());
    let leaf = authority
        .issue(&key.csr(&id).unwrap(), &id, DAY, now)
        .unwrap();
    let forged = key.credentials(leaf.into_chain()).unwrap();

    let impostor = channel(&controller, Some(forged.clone()), CONTROLLER)
        .await
        .unwrap();
    ask(impostor.clone()).await.unwrap();
    let trust = controller.admin().await.get_trust(GetTrustRequest {}).await;
    let anchor = trust.unwrap().into_inner().anchors[0].id.clone();
    let word = Some(Word::Taint(TaintTrust { anchor }));
    let tainted = ChangeTrustRequest { word };
    controller
        .admin()
        .await
        .change_trust(tainted)
        .await
        .unwrap();

    // On the connection that is open, and on a new one.
    let refused = ask(impostor).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let impostor = channel(&controller, Some(forged), CONTROLLER)
        .await
        .unwrap();
    let refused = certify(impostor, &web, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let member = channel(&controller, Some(genuine.clone()), CONTROLLER)
        .await
        .unwrap();
    ask(member).await.unwrap();
    // Started again, it has the certificate of before: nobody would find out of the emergency otherwise. What was issued is known.
    controller.kill();
    controller.restart().await;
    let member = channel(&controller, Some(genuine), CONTROLLER)
        .await
        .unwrap();
    ask(member.clone()).await.unwrap();
    // It is proven; that nothing is signed with a tainted anchor is another matter.
    let waits = certify(member, &web, "").await.unwrap_err();
    assert_eq!(waits.code(), Code::Unavailable, "{waits}");
}

#[tokio::test]
async fn plaintext_and_impostors_are_refused() {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    ask(support::plaintext(controller.announcement().grpc))
        .await
        .unwrap_err();
    // The client, too, insists on whom it talks to.
    assert!(
        channel(&controller, None, &identity("impostor"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused() {
    let controller = Controller::start(&[], &["--tls", "always"]).await;
    let other = Controller::start(&[], &["--tls", "always"]).await;
    let web = identity("web");
    let (token, _) = other.token(&web, DAY).await;
    let stranger = channel(&other, None, CONTROLLER).await.unwrap();
    let foreign = credentials(certify(stranger, &web, &token).await.unwrap());
    // The client has done its part before the server judges: the refusal shows at the first use.
    if let Ok(channel) = channel(&controller, Some(foreign), CONTROLLER).await {
        ask(channel).await.unwrap_err();
    }
}

#[tokio::test]
async fn an_address_that_others_reach_speaks_tls_without_being_told() {
    let controller = Controller::start(&[], &["--listen", "0.0.0.0:0"]).await;
    let status = controller
        .admin()
        .await
        .get_status(mesh_control_api::admin::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let tls: Vec<_> = status
        .listeners
        .iter()
        .map(|l| (l.address.starts_with("127."), l.tls))
        .collect();
    assert_eq!(tls, [(true, false), (false, true)]);
    ask(controller.proxy_api()).await.unwrap();
    let open = controller.announcement().listeners[1].port();
    let plain = support::plaintext(([127, 0, 0, 1], open).into());
    let refused = tokio::time::timeout(Duration::from_secs(15), ask(plain))
        .await
        .unwrap();
    refused.unwrap_err();
}
