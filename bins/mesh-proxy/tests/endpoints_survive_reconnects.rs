//! A balancer keeps its endpoints while the controller is away, and takes over a new snapshot without touching those
//! that are in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use std::sync::Arc;
use std::time::Duration;

use controller::messages::{add, balanced, endpoint, no_endpoints, remove};
use controller::{Controller, addresses, authority, backend, endpoints, soon, until};
use linkerd2_proxy_api::destination::protocol_hint::{H2, OpaqueTransport, Protocol};
use linkerd2_proxy_api::destination::tls_identity::{DnsLikeIdentity, Strategy};
use linkerd2_proxy_api::destination::{
    ProtocolHint, TlsIdentity, Update, WeightedAddr, WeightedAddrSet, update,
};
use mesh_proxy::model::{BackendKind, Population, ProtocolHint as Hint};
use tokio::time::Instant;

const PATH: &str = "web.default.svc.cluster.local:80";

#[tokio::test]
async fn a_broken_stream_flaps_nothing() {
    let mut controller = Controller::start();
    let (control, metrics) = controller.follow("");
    let (watched, policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    assert_eq!(backend.population(), Population::Unknown);

    let call = controller.endpoints.next().await;
    assert_eq!(call.request.path, PATH);
    assert_eq!(call.request.context_token, "the-context");
    let feed = call.accept();
    feed.send(add(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    let ready = soon(
        "endpoints",
        backend.ready(Instant::now() + controller::DEADLINE),
    )
    .await;
    assert_eq!(ready, Population::Known);
    let before = endpoints(&backend);
    assert_eq!(addresses(&backend), ["10.0.0.1:80", "10.0.0.2:80"]);

    // The stream breaks; the next one is accepted, but says nothing yet.
    drop(feed);
    let feed = controller.endpoints.next().await.accept();
    assert_eq!(endpoints(&backend), before);

    // Its first message is the whole truth: the second endpoint has gone meanwhile.
    feed.send(add(&["10.0.0.1:80", "10.0.0.3:80"])).await;
    until("the new snapshot", || {
        addresses(&backend) == ["10.0.0.1:80", "10.0.0.3:80"]
    })
    .await;
    assert_eq!(
        endpoints(&backend)["10.0.0.1:80"],
        before["10.0.0.1:80"],
        "the survivor keeps its place"
    );

    // Later messages are deltas.
    feed.send(add(&["10.0.0.4:80"])).await;
    feed.send(remove(&["10.0.0.3:80", "10.9.9.9:80"])).await;
    until("the deltas", || {
        addresses(&backend) == ["10.0.0.1:80", "10.0.0.4:80"]
    })
    .await;

    let metrics = metrics.render();
    let reconnects = r#"control_reconnects_total{api="destination"} 1"#;
    assert!(metrics.contains(reconnects), "{metrics}");
    drop(policy);
}

#[tokio::test]
async fn a_controller_that_crashes_and_comes_back_is_found_again() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    let feed = controller.endpoints.next().await.accept();
    feed.send(add(&["10.0.0.1:80"])).await;
    until("endpoints", || backend.population() == Population::Known).await;
    let (before, version) = (endpoints(&backend), watched.version());

    let address = controller.address;
    drop((controller, feed, policy));
    assert!(std::net::TcpStream::connect(address).is_err(), "it is gone");
    let mut controller = Controller::start_on(address);
    let policy = controller.policies.next().await.accept();
    let feed = controller.endpoints.next().await.accept();
    assert_eq!(endpoints(&backend), before);

    policy.send(balanced("web", PATH)).await;
    soon("a policy", watched.changed(version)).await;
    let same = controller::backend(&watched.load());
    assert!(
        Arc::ptr_eq(&backend, &same),
        "an equal policy keeps the balancer and what it has learned"
    );
    feed.send(add(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    until("the new snapshot", || addresses(&backend).len() == 2).await;
    assert_eq!(endpoints(&backend)["10.0.0.1:80"], before["10.0.0.1:80"]);
}

#[tokio::test]
async fn no_endpoints_is_known_at_once_and_ends_when_some_come() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    let feed = controller.endpoints.next().await.accept();

    let waiting = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move {
            backend
                .ready(Instant::now() + Duration::from_secs(3600))
                .await
        }
    });
    feed.send(no_endpoints()).await;
    assert_eq!(soon("an answer", waiting).await.unwrap(), Population::Empty);

    feed.send(add(&["10.0.0.1:80"])).await;
    until("an endpoint", || backend.population() == Population::Known).await;
    feed.send(remove(&["10.0.0.1:80"])).await;
    until("none left", || backend.population() == Population::Empty).await;
    assert!(addresses(&backend).is_empty());
}

#[tokio::test]
async fn a_service_unknown_to_a_new_controller_keeps_its_endpoints() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    let feed = controller.endpoints.next().await.accept();
    feed.send(add(&["10.0.0.1:80"])).await;
    until("endpoints", || backend.population() == Population::Known).await;
    drop(feed);
    controller
        .endpoints
        .next()
        .await
        .refuse(tonic::Code::NotFound);
    // The next call proves that the refusal was taken in.
    let _feed = controller.endpoints.next().await.accept();
    assert_eq!(addresses(&backend), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn a_fresh_balancer_is_waited_for_no_longer_than_the_deadline() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    let deadline = Instant::now() + Duration::from_millis(20);
    assert_eq!(
        soon("the deadline", backend.ready(deadline)).await,
        Population::Unknown
    );
    assert!(Instant::now() >= deadline);
}

#[tokio::test]
async fn policies_that_name_one_backend_share_it_and_its_stream() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let mut feeds = Vec::new();
    let mut backends = Vec::new();
    for name in ["web:80", "web.default:80"] {
        let (watched, feed) = tokio::join!(control.outbound(authority(name)), async {
            let feed = controller.policies.next().await.accept();
            feed.send(balanced("web", PATH)).await;
            feed
        });
        backends.push(backend(&watched.unwrap().load()));
        feeds.push(feed);
    }
    assert!(Arc::ptr_eq(&backends[0], &backends[1]));
    let _stream = controller.endpoints.next().await.accept();
    assert!(controller.endpoints.is_empty());
}

#[tokio::test]
async fn what_a_workload_sends_to_itself_meets_no_second_proxy() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("inbound.ips = [\"10.0.0.1\"]");
    let (watched, _policy) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", PATH)).await;
        feed
    });
    let backend = backend(&watched.unwrap().load());
    let meshed = |at: &str| WeightedAddr {
        tls_identity: Some(TlsIdentity {
            strategy: Some(Strategy::DnsLikeIdentity(DnsLikeIdentity {
                name: "web.example".into(),
            })),
            server_name: None,
        }),
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: Some(OpaqueTransport { inbound_port: 4143 }),
        }),
        ..endpoint(at)
    };
    let both = ["10.0.0.1:80", "10.0.0.2:80"].map(meshed).to_vec();
    let update = update::Update::Add(WeightedAddrSet {
        addrs: both,
        metric_labels: [].into(),
    });
    let feed = controller.endpoints.next().await.accept();
    feed.send(Update {
        update: Some(update),
    })
    .await;
    until("both", || addresses(&backend).len() == 2).await;
    let BackendKind::Balancer(picker) = backend.kind() else {
        panic!("not a balancer: {backend:?}")
    };
    let snapshot = picker.snapshot();
    for (endpoint, _) in snapshot.stats(std::time::Instant::now()) {
        let far = endpoint.addr.ip().to_string() == "10.0.0.2";
        assert_eq!(endpoint.identity.is_some(), far, "{endpoint:?}");
        assert_eq!(endpoint.opaque_transport.is_some(), far, "{endpoint:?}");
        assert_eq!(endpoint.hint == Hint::H2, far, "{endpoint:?}");
    }
}
