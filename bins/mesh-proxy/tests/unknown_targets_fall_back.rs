//! Where the controller knows no policy, its profile counts; where it knows none, the original destination.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use std::time::Duration;

use controller::messages::{add, balanced, endpoint, no_endpoints, service};
use controller::{Controller, addr, authority, backend, forwarded, soon, until};
use linkerd2_proxy_api::destination::DestinationProfile;
use linkerd2_proxy_api::outbound::traffic_spec;
use mesh_policy::outbound::Protocol;
use mesh_proxy::control::Error;
use mesh_proxy::model::Population;
use tonic::Code;

/// Refuses the policy, and takes the call for the profile.
macro_rules! refused {
    ($controller:ident) => {{
        $controller.policies.next().await.refuse(Code::NotFound);
        $controller.profiles.next().await
    }};
}

#[tokio::test]
async fn without_a_policy_the_profile_names_the_service() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _feed) = tokio::join!(control.outbound(addr("10.1.2.3:8080")), async {
        let call = refused!(controller);
        assert_eq!(call.request.path, "10.1.2.3:8080");
        assert_eq!(call.request.context_token, "the-context");
        let feed = call.accept();
        feed.send(service("web.default.svc.cluster.local")).await;
        feed
    });
    let watched = watched.unwrap();
    let backend = backend(&watched.load());
    let call = controller.endpoints.next().await;
    assert_eq!(call.request.path, "web.default.svc.cluster.local:8080");
    call.accept().send(add(&["10.0.0.1:80"])).await;
    until("endpoints", || backend.population() == Population::Known).await;
}

#[tokio::test]
async fn a_profile_may_be_one_endpoint_or_opaque() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, feed) = tokio::join!(control.outbound(addr("10.1.2.3:8080")), async {
        let feed = refused!(controller).accept();
        let endpoint = Some(endpoint("10.1.2.3:8080"));
        feed.send(DestinationProfile {
            endpoint,
            ..DestinationProfile::default()
        })
        .await;
        feed
    });
    let watched = watched.unwrap();
    assert_eq!(
        forwarded(&backend(&watched.load())).to_string(),
        "10.1.2.3:8080"
    );

    let version = watched.version();
    feed.send(DestinationProfile {
        opaque_protocol: true,
        ..service("db")
    })
    .await;
    soon("the change", watched.changed(version)).await;
    assert!(matches!(watched.load().protocol, Protocol::Opaque(_)));
}

#[tokio::test]
async fn without_either_an_address_is_its_own_destination() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, ()) = tokio::join!(control.outbound(addr("10.1.2.3:8080")), async {
        refused!(controller).refuse(Code::InvalidArgument);
    });
    let watched = watched.unwrap();
    assert_eq!(watched.version(), 1, "known, not merely waited for");
    let backend = backend(&watched.load());
    assert_eq!(forwarded(&backend).to_string(), "10.1.2.3:8080");
    assert_eq!(backend.population(), Population::Known);

    // Told the same again, nothing changes: connections to the destination stay.
    controller.profiles.next().await.refuse(Code::NotFound);
    let _proof = controller.profiles.next().await;
    assert_eq!(watched.version(), 1);

    // The service appears later: the policy is asked for again, and then counts.
    let feed = loop {
        let call = controller.policies.next().await;
        if matches!(call.request.target, Some(traffic_spec::Target::Addr(_))) {
            break call.accept();
        }
    };
    feed.send(balanced("web", "web:80")).await;
    until("the policy", || watched.load().meta.name() == "web").await;
}

#[tokio::test]
async fn an_empty_profile_is_no_answer() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _feed) = tokio::join!(control.outbound(addr("10.1.2.3:8080")), async {
        let feed = refused!(controller).accept();
        feed.send(DestinationProfile::default()).await;
        feed
    });
    assert_eq!(
        forwarded(&backend(&watched.unwrap().load())).to_string(),
        "10.1.2.3:8080"
    );
}

#[tokio::test]
async fn a_port_whose_servers_speak_first_is_opaque_by_itself() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("outbound.opaque_ports = [5432]");
    let (watched, ()) = tokio::join!(control.outbound(addr("10.1.2.3:5432")), async {
        refused!(controller).refuse(Code::NotFound);
    });
    assert!(matches!(
        watched.unwrap().load().protocol,
        Protocol::Opaque(_)
    ));
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_an_error() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (answer, ()) = tokio::join!(control.outbound(authority("nowhere:80")), async {
        refused!(controller).refuse(Code::NotFound);
    });
    assert_eq!(
        answer.unwrap_err(),
        Error::Unresolved {
            authority: "nowhere:80".into()
        }
    );

    // It is still watched, so that it is found once it exists.
    let feed = controller.policies.next().await.accept();
    feed.send(balanced("nowhere", "nowhere:80")).await;
    soon("an answer", async {
        while control.outbound(authority("nowhere:80")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_controller_is_waited_for_once() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("control.policy_timeout = \"30ms\"");
    let began = tokio::time::Instant::now();
    let unanswered = soon("an error", control.outbound(addr("10.1.2.3:8080"))).await;
    assert!(began.elapsed() >= Duration::from_millis(30));
    // In the clear is not where traffic may go that might be the mesh's.
    let address = "10.1.2.3:8080".parse().unwrap();
    assert_eq!(unanswered.unwrap_err(), Error::Unanswered { address });
    let nameless = soon("an error", control.outbound(authority("web:80"))).await;
    assert_eq!(
        nameless.unwrap_err(),
        Error::Unresolved {
            authority: "web:80".into()
        }
    );

    // An answer that comes late still counts.
    let feed = controller.policies.next().await.accept();
    feed.send(balanced("web", "web:80")).await;
    let watched = loop {
        match control.outbound(addr("10.1.2.3:8080")).await {
            Ok(watched) => break watched,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    assert_eq!(watched.load().meta.name(), "web");
}

#[tokio::test]
async fn no_endpoints_of_a_profiles_service_is_known_at_once() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("");
    let (watched, _feed) = tokio::join!(control.outbound(authority("web.default:80")), async {
        let feed = refused!(controller).accept();
        feed.send(service("web.default.svc.cluster.local")).await;
        feed
    });
    let backend = backend(&watched.unwrap().load());
    let feed = controller.endpoints.next().await.accept();
    feed.send(no_endpoints()).await;
    until("the news", || backend.population() == Population::Empty).await;
}

#[tokio::test]
async fn profiles_are_asked_for_where_they_may_be() {
    let mut controller = Controller::start();
    let limits = "control.profile_networks = [\"10.1.0.0/16\"]\ncontrol.profile_suffixes = [\"svc.cluster.local.\"]";
    let (control, _) = controller.follow(limits);
    let (outside, ()) = tokio::join!(control.outbound(addr("10.2.0.1:80")), async {
        controller.policies.next().await.refuse(Code::NotFound);
    });
    assert_eq!(
        forwarded(&backend(&outside.unwrap().load())).to_string(),
        "10.2.0.1:80"
    );
    let (elsewhere, ()) = tokio::join!(control.outbound(authority("web.example:80")), async {
        controller.policies.next().await.refuse(Code::NotFound);
    });
    assert!(matches!(elsewhere, Err(Error::Unresolved { .. })));
    assert!(controller.profiles.is_empty());

    let inside = "web.default.svc.cluster.local:80";
    // Held, as a stream that ends is asked for again.
    let mut feeds = Vec::new();
    for target in [addr("10.1.0.1:80"), authority(inside)] {
        let path = target.to_string();
        let (found, feed) = tokio::join!(control.outbound(target), async {
            // Policies are asked for again in the meantime, also those of the targets before.
            let call = loop {
                tokio::select! {
                    call = controller.policies.next() => call.refuse(Code::NotFound),
                    call = controller.profiles.next() => break call,
                }
            };
            assert_eq!(call.request.path, path);
            let feed = call.accept();
            feed.send(service("web.default.svc.cluster.local")).await;
            feed
        });
        found.unwrap();
        feeds.push(feed);
    }
}
