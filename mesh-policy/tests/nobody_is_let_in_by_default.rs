//! A client gets in only where an authorization says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_policy::Meta;
use mesh_policy::filter::Filters;
use mesh_policy::inbound::{
    Authentication, Authorization, DefaultPolicy, DenyReason, InboundHttpRoute, Network, Peer,
    RouteAuthorizations, ServerPolicy, ServerProtocol,
};
use mesh_policy::route::{HttpMatch, PathMatch, RequestView, Rule};
use mesh_tls::Identity;
use proptest::prelude::*;

fn web() -> Identity {
    Identity::parse("web.shop.serviceaccount.identity.linkerd.cluster.local").unwrap()
}

fn ip(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

fn authorization(networks: &[&str], authentication: Authentication) -> Authorization {
    let networks = networks
        .iter()
        .map(|net| Network::from(net.parse::<ipnet::IpNet>().unwrap()));
    Authorization {
        meta: Arc::new(Meta::default_named("test")),
        networks: networks.collect(),
        authentication,
    }
}

fn only(identity: &Identity) -> Authentication {
    Authentication::TlsAuthenticated {
        identities: BTreeSet::from([identity.clone()]),
        suffixes: Vec::new(),
    }
}

fn server(protocol: ServerProtocol, authorizations: Vec<Authorization>) -> ServerPolicy {
    ServerPolicy {
        protocol,
        authorizations,
        rate_limit: None,
        server_ips: BTreeSet::new(),
        labels: BTreeMap::new(),
    }
}

#[test]
fn each_default_policy_lets_in_whom_it_names() {
    let cluster = ["10.0.0.0/8".parse().unwrap()];
    let web = web();
    let inside = ip("10.1.2.3");
    let outside = ip("192.0.2.1");
    let clients = [
        (inside, Peer::Plaintext),
        (inside, Peer::Tls(None)),
        (inside, Peer::Tls(Some(&web))),
        (outside, Peer::Plaintext),
        (outside, Peer::Tls(Some(&web))),
    ];
    let cases = [
        ("all-unauthenticated", [true, true, true, true, true]),
        ("all-authenticated", [false, false, true, false, true]),
        ("cluster-unauthenticated", [true, true, true, false, false]),
        ("cluster-authenticated", [false, false, true, false, false]),
        ("audit", [true, true, true, true, true]),
        ("deny", [false, false, false, false, false]),
    ];
    assert_eq!(cases.len(), DefaultPolicy::ALL.len());
    for (name, expected) in cases {
        let default: DefaultPolicy = name.parse().unwrap();
        assert_eq!(default.to_string(), name);
        let policy = ServerPolicy::from_default(default, &cluster, Duration::from_secs(10));
        let given = clients.map(|(ip, peer)| policy.authorize(ip, peer).is_allowed());
        assert_eq!(given, expected, "{name}");
    }
    assert!("allow".parse::<DefaultPolicy>().is_err());
}

#[test]
fn localhost_is_let_in_only_where_asked_for() {
    let deny = ServerPolicy::from_default(DefaultPolicy::Deny, &[], Duration::from_secs(10));
    assert!(!deny.authorize(ip("127.0.0.1"), None).is_allowed());
    let deny = deny.with_localhost();
    assert!(deny.authorize(ip("127.0.0.1"), None).is_allowed());
    assert!(deny.authorize(ip("::1"), None).is_allowed());
    assert!(deny.authorize(ip("::ffff:127.0.0.1"), None).is_allowed());
    // Other workloads of the same machine have loopback addresses of their own.
    assert!(!deny.authorize(ip("127.77.0.2"), None).is_allowed());
}

#[test]
fn the_reason_is_the_nearest_miss() {
    let web = web();
    let api = Identity::parse("api.example.com").unwrap();
    let policy = server(
        ServerProtocol::Opaque,
        vec![
            authorization(&["192.0.2.0/24"], Authentication::Unauthenticated),
            authorization(&["10.0.0.0/8"], only(&web)),
        ],
    );
    let reason = |client: &str, peer: Peer<'_>| policy.authorize(ip(client), peer).reason();
    assert_eq!(reason("10.0.0.1", Peer::Tls(Some(&web))), None);
    assert_eq!(
        reason("10.0.0.1", Peer::Tls(Some(&api))),
        Some(DenyReason::Identity)
    );
    assert_eq!(
        reason("10.0.0.1", Peer::Tls(None)),
        Some(DenyReason::Anonymous)
    );
    assert_eq!(
        reason("10.0.0.1", Peer::Plaintext),
        Some(DenyReason::Plaintext)
    );
    assert_eq!(
        reason("172.16.0.1", Peer::Plaintext),
        Some(DenyReason::Network)
    );
    let nobody = server(ServerProtocol::Opaque, Vec::new());
    let verdict = nobody.authorize(ip("10.0.0.1"), Some(&web));
    assert_eq!(verdict.reason(), Some(DenyReason::NoAuthorization));
}

#[test]
fn a_route_adds_to_whom_the_server_lets_in() {
    let web = web();
    let route = |path: &str, extra: Vec<Authorization>| InboundHttpRoute {
        meta: Arc::new(Meta::default_named("test")),
        hosts: Vec::new(),
        rules: vec![Rule {
            matches: vec![HttpMatch {
                path: Some(PathMatch::Exact(path.into())),
                ..HttpMatch::default()
            }],
            policy: RouteAuthorizations {
                extra: extra.into(),
                filters: Filters::default(),
            },
        }],
    };
    let anyone = || {
        vec![authorization(
            &["0.0.0.0/0"],
            Authentication::Unauthenticated,
        )]
    };
    let authenticated = || vec![authorization(&["0.0.0.0/0"], only(&web))];
    let with_routes = server(
        ServerProtocol::Http1(vec![
            route("/healthz", anyone()),
            route("/orders", Vec::new()),
        ]),
        authenticated(),
    );
    let ask = |policy: &ServerPolicy, path: &str, identity: Option<&Identity>| {
        let request = http::Request::get(path).body(()).unwrap();
        let view = RequestView::from(&request);
        policy
            .authorize_request(&view, ip("10.0.0.1"), identity)
            .reason()
    };
    assert_eq!(ask(&with_routes, "/healthz", None), None);
    assert_eq!(
        ask(&with_routes, "/orders", None),
        Some(DenyReason::Plaintext)
    );
    assert_eq!(ask(&with_routes, "/orders", Some(&web)), None);
    assert_eq!(
        ask(&with_routes, "/else", Some(&web)),
        Some(DenyReason::NoRoute)
    );

    let without = server(ServerProtocol::Http1(Vec::new()), authenticated());
    assert_eq!(ask(&without, "/any", Some(&web)), None);
    assert_eq!(ask(&without, "/any", None), Some(DenyReason::Plaintext));
}

proptest! {
    /// Whatever the address and the peer, one more authorization never shuts anyone out, and none lets no one in.
    #[test]
    fn authorizations_only_ever_add(
        client: IpAddr,
        known: bool,
        kinds in prop::collection::vec(0..4_u8, 0..5),
        length in 0..=32_u8,
    ) {
        let web = web();
        let identity = known.then_some(&web);
        let net = format!("10.0.0.0/{length}");
        let all = kinds.iter().map(|kind| {
            let authentication = match kind {
                0 => Authentication::Unauthenticated,
                1 => Authentication::TlsUnauthenticated,
                2 => Authentication::any_identity(),
                _ => only(&web),
            };
            authorization(&[&net], authentication)
        });
        let mut allowed = false;
        let mut policy = server(ServerProtocol::Opaque, Vec::new());
        prop_assert!(!policy.authorize(client, identity).is_allowed());
        for authorization in all {
            policy.authorizations.push(authorization);
            let now = policy.authorize(client, identity).is_allowed();
            prop_assert!(now || !allowed);
            allowed = now;
        }
    }
}
