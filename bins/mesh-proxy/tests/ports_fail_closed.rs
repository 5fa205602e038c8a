//! An inbound port permits what the default policy says until the controller answers, and nothing when its answer is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use std::collections::HashMap;
use std::net::IpAddr;

use controller::{Controller, config, soon};
use linkerd2_proxy_api::inbound::http_local_rate_limit::Limit;
use linkerd2_proxy_api::inbound::proxy_protocol::{Detect, Kind};
use linkerd2_proxy_api::inbound::{
    Authn, Authz, HttpLocalRateLimit, Network, ProxyProtocol, Server, authn,
};
use linkerd2_proxy_api::net::{IpAddress, IpNetwork, ip_address};
use mesh_policy::inbound::{Peer, ServerPolicy, ServerProtocol};
use mesh_tls::Identity;
use tonic::Code;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

fn admits(policy: &ServerPolicy) -> bool {
    policy.authorize(CLIENT, None).is_allowed()
}

/// Lets everybody in.
fn open() -> Server {
    let zero = IpAddress {
        ip: Some(ip_address::Ip::Ipv4(0)),
    };
    let everywhere = Network {
        net: Some(IpNetwork {
            ip: Some(zero),
            prefix_len: 0,
        }),
        except: Vec::new(),
    };
    let permit = authn::Permit::Unauthenticated(authn::PermitUnauthenticated {});
    let detect = Detect {
        timeout: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
        http_local_rate_limit: Some(HttpLocalRateLimit {
            total: Some(Limit {
                requests_per_second: 100,
            }),
            ..HttpLocalRateLimit::default()
        }),
        ..Detect::default()
    };
    Server {
        protocol: Some(ProxyProtocol {
            kind: Some(Kind::Detect(detect)),
        }),
        authorizations: vec![Authz {
            networks: vec![everywhere],
            authentication: Some(Authn {
                permit: Some(permit),
            }),
            ..Authz::default()
        }],
        server_ips: Vec::new(),
        labels: HashMap::new(),
    }
}

#[tokio::test]
async fn a_wrong_policy_closes_the_port_and_a_right_one_opens_it_again() {
    let mut controller = Controller::start();
    let (control, metrics) = controller.follow("inbound.default_policy = \"deny\"");
    let (watched, feed) = tokio::join!(control.inbound(8080), async {
        let call = controller.ports.next().await;
        assert_eq!(
            (call.request.workload.as_str(), call.request.port),
            ("the-workload", 8080)
        );
        let feed = call.accept();
        feed.send(open()).await;
        feed
    });
    assert!(admits(&watched.load()));

    let version = watched.version();
    feed.send(Server {
        protocol: None,
        ..open()
    })
    .await;
    let version = soon("the wrong policy", watched.changed(version)).await;
    assert!(!admits(&watched.load()));

    feed.send(open()).await;
    let version = soon("the right policy", watched.changed(version)).await;
    assert!(admits(&watched.load()));

    // The stream ends: the last policy stays. The new one is in force once it has come.
    drop(feed);
    let feed = controller.ports.next().await.accept();
    assert!(admits(&watched.load()));
    feed.send(Server {
        authorizations: Vec::new(),
        ..open()
    })
    .await;
    soon("nobody", watched.changed(version)).await;
    assert!(!admits(&watched.load()));

    assert!(control.unsupported().fields().is_empty());
    let metrics = metrics.render();
    assert!(
        metrics.contains(r#"control_invalid_messages_total{api="inbound_policy"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn until_the_controller_answers_the_default_holds() {
    for (policy, expected) in [
        ("deny", false),
        ("all-unauthenticated", true),
        ("cluster-unauthenticated", true),
    ] {
        let mut controller = Controller::start();
        let settings = format!(
            "inbound.default_policy = \"{policy}\"\ninbound.networks = [\"10.0.0.0/8\"]\ncontrol.policy_timeout = \"10ms\""
        );
        let (control, _) = controller.follow(&settings);
        let watched = soon("the default", control.inbound(8080)).await;
        assert_eq!(watched.version(), 0);
        assert_eq!(admits(&watched.load()), expected, "{policy}");

        // "I do not know that port" is an answer, too: the default holds on.
        controller.ports.next().await.refuse(Code::NotFound);
        soon("the answer", watched.changed(0)).await;
        assert_eq!(admits(&watched.load()), expected, "{policy}");
    }
    assert_eq!(
        config(([127, 0, 0, 1], 1).into(), "")
            .inbound
            .default_policy
            .as_str(),
        "all-authenticated"
    );
}

#[tokio::test]
async fn ports_are_bounded() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow(
        "inbound.default_policy = \"all-unauthenticated\"\ncontrol.max_ports = 1\ncontrol.policy_timeout = \"10ms\"",
    );
    let held = control.inbound(8080).await;
    let call = controller.ports.next().await;
    assert!(admits(&held.load()));
    let beyond = control.inbound(8081).await;
    assert!(!admits(&beyond.load()));
    assert_eq!(control.watches(), (0, 1));
    drop((held, call));
}

#[tokio::test]
async fn of_several_ports_none_waits_for_another() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("control.policy_timeout = \"1h\"");
    let (policies, ()) = tokio::join!(control.inbound_all(8080..=8082), async {
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(controller.ports.next().await);
        }
        let mut asked: Vec<_> = calls.iter().map(|call| call.request.port).collect();
        asked.sort_unstable();
        assert_eq!(asked, [8080, 8081, 8082]);
        for call in calls {
            call.refuse(Code::NotFound);
        }
    });
    assert_eq!((policies.len(), control.watches()), (3, (0, 3)));
}

#[tokio::test]
async fn a_port_that_is_forgotten_keeps_its_policy() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("inbound.default_policy = \"all-unauthenticated\"");
    let (watched, feed) = tokio::join!(control.inbound(8080), async {
        let feed = controller.ports.next().await.accept();
        let nobody = Server {
            authorizations: Vec::new(),
            ..open()
        };
        feed.send(nobody).await;
        feed
    });
    assert!(!admits(&watched.load()));
    drop(feed);
    controller.ports.next().await.refuse(Code::NotFound);
    // The next question shows that the answer has been taken in.
    let _asked_again = controller.ports.next().await;
    assert!(!admits(&watched.load()));
}

#[tokio::test]
async fn ports_may_ask_for_more_than_the_default_policy() {
    let mut controller = Controller::start();
    let settings = r#"
        inbound.default_policy = "all-unauthenticated"
        inbound.opaque_ports = ["3306-3307"]
        inbound.identity_ports = [8443, 8444]
        inbound.tls_ports = [8444, 9443]
    "#;
    let (control, _) = controller.follow(settings);
    let someone: Identity = "web.example".parse().unwrap();
    for (port, opaque, plain, anonymous) in [
        (80, false, true, true),
        (3307, true, true, true),
        (8443, false, false, false),
        (8444, false, false, false),
        (9443, false, false, true),
    ] {
        let (policy, ()) = tokio::join!(control.inbound(port), async {
            controller.ports.next().await.refuse(Code::NotFound);
        });
        let policy = policy.load();
        let is_opaque = matches!(policy.protocol, ServerProtocol::Opaque);
        assert_eq!(is_opaque, opaque, "{port}");
        let admits = |peer: Peer<'_>| policy.authorize(CLIENT, peer).is_allowed();
        assert_eq!(admits(Peer::Plaintext), plain, "{port}");
        assert_eq!(admits(Peer::Tls(None)), anonymous, "{port}");
        assert!(admits(Peer::Tls(Some(&someone))), "{port}");
    }
}
