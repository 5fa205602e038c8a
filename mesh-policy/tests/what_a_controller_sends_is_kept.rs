//! Messages of the proxy API keep their meaning, and what is not honoured is listed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod samples;

use std::time::Duration;

use linkerd2_proxy_api::{destination, inbound, opaque_route, outbound};
use mesh_policy::inbound::{DenyReason, Peer};
use mesh_policy::outbound::{BackendKind, FailureAccrual, Penalty, Protocol, SuccessRate, Trip};
use mesh_policy::proxy_api::{
    EndpointUpdate, endpoint_update, outbound_policy, profile, server_policy,
};
use mesh_policy::route::RequestView;
use mesh_policy::{EndpointSpec, Error, ProtocolHint};
use mesh_tls::Identity;

fn missing(field: &'static str) -> Error {
    Error::Missing { field }
}

#[test]
fn an_outbound_policy() {
    let converted = outbound_policy(&samples::outbound_detect()).unwrap();
    assert_eq!(
        converted.unsupported,
        ["destination.WeightedAddr.resource_ref"]
    );
    let policy = converted.value;
    assert_eq!(policy.meta.to_string(), "Service/shop/web:8080");
    let Protocol::Detect {
        timeout,
        opaque,
        http1,
        http2,
    } = &policy.protocol
    else {
        panic!("{:?}", policy.protocol);
    };
    assert_eq!(*timeout, Duration::from_secs(10));

    let forward = opaque.pick(0).unwrap();
    assert!(matches!(&forward.kind, BackendKind::Forward(spec) if spec.weight == 20_000));

    let request = http::Request::builder()
        .method("PURGE")
        .uri("/v2/x?q=aa")
        .header("host", "a.example.com")
        .header("x-canary", "yes")
        .body(())
        .unwrap();
    let found = http1.find(&RequestView::from(&request)).unwrap();
    let timeouts = found.policy.timeouts;
    assert_eq!(timeouts.request, Some(Duration::from_secs(9)));
    assert_eq!(timeouts.response, Some(Duration::from_secs(8)));
    assert_eq!(timeouts.idle, None);
    let paths: Vec<_> = found
        .policy
        .backends
        .backends()
        .map(|backend| backend.backend.kind.path())
        .collect();
    assert_eq!(paths, [Some("v1"), Some("v2")]);
    let backend = &found.policy.backends.pick(0).unwrap().backend;
    let BackendKind::Balancer { load, .. } = &backend.kind else {
        panic!("{backend:?}");
    };
    assert_eq!(load.default_rtt, Duration::from_secs(1));
    assert_eq!(load.decay, Duration::from_secs(5));
    let penalty = load.penalty.unwrap();
    assert_eq!(penalty.latency, Duration::from_secs(4));
    assert_eq!(penalty.max_retry_after, Duration::from_secs(200));
    assert_eq!(penalty.decay, Duration::from_secs(7));
    let accrual = backend.failure_accrual.unwrap();
    assert!(matches!(accrual.trip, Trip::Consecutive(failures) if failures.get() == 7));
    assert_eq!(accrual.backoff.min(), Duration::from_secs(1));
    assert_eq!(accrual.backoff.max(), Duration::from_secs(60));
    assert!((accrual.backoff.jitter().get() - 0.5).abs() < f32::EPSILON);
    assert!(accrual.respect_retry_after);
    assert_eq!(accrual.min_ready_endpoints, 2);

    // The breaker is the protocol's, so the same backend differs between the two.
    let found = http2.find(&RequestView::from(&request)).unwrap();
    let backend = &found.policy.backends.pick(0).unwrap().backend;
    assert_eq!(backend.failure_accrual, None);

    let mut mentions = Vec::new();
    let mapped = policy.map_backends(|backend| {
        mentions.push(backend.kind.path().map(str::to_owned));
        mentions.len()
    });
    let given: Vec<_> = mentions.iter().map(Option::as_deref).collect();
    assert_eq!(
        given,
        [None, Some("v1"), Some("v2"), Some("v1"), Some("v2")]
    );
    let Protocol::Detect { http2, .. } = mapped.protocol else {
        panic!("mapping changes no protocol");
    };
    let found = http2.find(&RequestView::from(&request)).unwrap();
    assert_eq!(found.policy.backends.pick(0).unwrap().backend, 4);
}

#[test]
fn what_detection_cannot_do_without() {
    let without = |change: fn(&mut outbound::proxy_protocol::Detect)| {
        let mut message = samples::outbound_detect();
        let kind = message.protocol.as_mut().unwrap().kind.as_mut().unwrap();
        let outbound::proxy_protocol::Kind::Detect(detect) = kind else {
            panic!("the sample detects");
        };
        change(detect);
        outbound_policy(&message).unwrap_err()
    };
    let timeout = without(|detect| detect.timeout = None);
    assert_eq!(timeout, missing("outbound.ProxyProtocol.Detect.timeout"));
    let opaque = without(|detect| detect.opaque = None);
    assert_eq!(opaque, missing("outbound.ProxyProtocol.Detect.opaque"));
    let http1 = without(|detect| detect.http1 = None);
    assert_eq!(http1, missing("outbound.ProxyProtocol.Detect.http1"));
    let http2 = without(|detect| detect.http2 = None);
    assert_eq!(http2, missing("outbound.ProxyProtocol.Detect.http2"));

    let mut message = samples::outbound_detect();
    message.metadata = None;
    let error = outbound_policy(&message).unwrap_err();
    assert_eq!(error, missing("outbound.OutboundPolicy.metadata"));
}

fn http1(route: outbound::HttpRoute) -> outbound::OutboundPolicy {
    samples::outbound(outbound::proxy_protocol::Kind::Http1(
        outbound::proxy_protocol::Http1 {
            routes: vec![route],
            failure_accrual: None,
        },
    ))
}

#[test]
fn a_backend_needs_a_queue() {
    use outbound::http_route::distribution::Kind;
    let mut route = samples::outbound_http_route();
    let kind = route.rules[0].backends.as_mut().unwrap().kind.as_mut();
    let Some(Kind::RandomAvailable(random)) = kind else {
        panic!("the sample is random");
    };
    let backend = random.backends[0].backend.as_mut().unwrap();
    backend.backend.as_mut().unwrap().queue = None;
    let error = outbound_policy(&http1(route)).unwrap_err();
    assert_eq!(error, missing("outbound.Backend.queue"));
}

#[test]
fn a_policy_holds_so_many_regular_expressions() {
    let with = |matches| {
        let mut route = samples::outbound_http_route();
        // Each has two.
        route.rules[0].matches = vec![samples::http_match(); matches];
        outbound_policy(&http1(route)).map(|_| ())
    };
    assert_eq!(with(128), Ok(()));
    let error = Error::TooMany {
        what: "regular expressions in routes",
        given: 258,
        max: 256,
    };
    assert_eq!(with(129), Err(error));
}

#[test]
fn forbidden_connections_have_no_backends() {
    use outbound::opaque_route::{Filter, filter};
    let mut opaque = samples::outbound_opaque();
    let forbidden = filter::Kind::Forbidden(opaque_route::Forbidden {});
    opaque.routes[0].rules[0].filters = vec![Filter {
        kind: Some(forbidden),
    }];
    let message = samples::outbound(outbound::proxy_protocol::Kind::Opaque(opaque));
    let Protocol::Opaque(policy) = outbound_policy(&message).unwrap().value.protocol else {
        panic!("the message is opaque");
    };
    assert!(policy.route.unwrap().backends.is_empty());

    let converted = outbound_policy(&samples::outbound_tls()).unwrap();
    let Protocol::Tls(policy) = converted.value.protocol else {
        panic!("the message is TLS");
    };
    assert!(
        policy
            .find(Some("shut.example.com"))
            .unwrap()
            .backends
            .is_empty()
    );
    assert!(
        !policy
            .find(Some("else.example.com"))
            .unwrap()
            .backends
            .is_empty()
    );
    assert!(!policy.find(None).unwrap().backends.is_empty());
}

fn accrual_of(
    unified: outbound::failure_accrual::Unified,
) -> Result<Option<FailureAccrual>, Error> {
    let kind = outbound::failure_accrual::Kind::Unified(unified);
    let message = samples::outbound(outbound::proxy_protocol::Kind::Http1(
        outbound::proxy_protocol::Http1 {
            routes: vec![samples::outbound_http_route()],
            failure_accrual: Some(outbound::FailureAccrual {
                kind: Some(kind),
                ejection: None,
            }),
        },
    ));
    let converted = outbound_policy(&message)?;
    let Protocol::Http1(policy) = converted.value.protocol else {
        panic!("the message is HTTP/1");
    };
    let backends = &policy.routes[0].rules[0].policy.backends;
    Ok(backends.pick(0).unwrap().backend.failure_accrual)
}

#[test]
fn a_unified_breaker_is_either_half_or_both() {
    let unified = outbound::failure_accrual::Unified {
        success_rate_threshold: 0.75,
        decay: samples::seconds(20),
        min_requests: 9,
        max_consecutive_failures: 7,
        backoff: Some(samples::consecutive().backoff),
    };
    let trip = |unified| accrual_of(unified).unwrap().map(|accrual| accrual.trip);
    let rate = SuccessRate::new(0.75, Duration::from_secs(20), 9).unwrap();
    let seven = std::num::NonZeroU32::new(7).unwrap();
    assert_eq!(trip(unified), Some(Trip::Either(seven, rate)));
    let without_a_row = outbound::failure_accrual::Unified {
        max_consecutive_failures: 0,
        ..unified
    };
    assert_eq!(trip(without_a_row), Some(Trip::SuccessRate(rate)));
    let without_a_rate = outbound::failure_accrual::Unified {
        success_rate_threshold: 0.0,
        ..unified
    };
    assert_eq!(trip(without_a_rate), Some(Trip::Consecutive(seven)));
    let neither = outbound::failure_accrual::Unified {
        max_consecutive_failures: 0,
        ..without_a_rate
    };
    assert_eq!(trip(neither), None);
    let without_a_window = outbound::failure_accrual::Unified {
        decay: None,
        ..without_a_row
    };
    let ten_seconds = SuccessRate::new(0.75, Duration::from_secs(10), 9).unwrap();
    assert_eq!(trip(without_a_window), Some(Trip::SuccessRate(ten_seconds)));
}

#[test]
fn a_success_rate_that_makes_no_sense_is_refused() {
    let unified = outbound::failure_accrual::Unified {
        success_rate_threshold: 0.8,
        decay: samples::seconds(10),
        min_requests: 5,
        max_consecutive_failures: 7,
        backoff: Some(samples::consecutive().backoff),
    };
    for threshold in [-0.1, 1.1, f64::NAN] {
        let wrong = outbound::failure_accrual::Unified {
            success_rate_threshold: threshold,
            ..unified
        };
        assert!(matches!(accrual_of(wrong), Err(Error::Invalid { .. })));
    }
    let too_short = outbound::failure_accrual::Unified {
        decay: samples::seconds(0),
        ..unified
    };
    assert!(matches!(accrual_of(too_short), Err(Error::Invalid { .. })));
}

#[test]
fn a_penalty_has_defaults_and_a_plain_load_has_none() {
    use outbound::backend::balance_p2c::{Load, PeakEwma, PenaltyPeakEwma};
    let penalty_of = |load: Load| {
        let mut message = samples::outbound_detect();
        let Some(outbound::proxy_protocol::Kind::Detect(detect)) = message
            .protocol
            .as_mut()
            .and_then(|protocol| protocol.kind.as_mut())
        else {
            panic!("the message is of detection");
        };
        let mut backend = samples::backend("v1");
        if let Some(outbound::backend::Kind::Balancer(balancer)) = &mut backend.kind {
            balancer.load = Some(load);
        }
        let first = outbound::http_route::distribution::FirstAvailable {
            backends: vec![outbound::http_route::RouteBackend {
                backend: Some(backend),
                ..Default::default()
            }],
        };
        let http1 = detect.http1.as_mut().unwrap();
        for rule in http1.routes.iter_mut().flat_map(|route| &mut route.rules) {
            rule.backends = Some(outbound::http_route::Distribution {
                kind: Some(outbound::http_route::distribution::Kind::FirstAvailable(
                    first.clone(),
                )),
            });
        }
        let Protocol::Detect { http1, .. } = outbound_policy(&message).unwrap().value.protocol
        else {
            panic!("the message is of detection");
        };
        let backends = &http1.routes[0].rules[0].policy.backends;
        let BackendKind::Balancer { load, .. } = backends.pick(0).unwrap().backend.kind else {
            panic!("the backend is balanced");
        };
        load.penalty
    };
    let (default_rtt, decay) = (samples::seconds(1), samples::seconds(5));
    let plain = Load::PeakEwma(PeakEwma { default_rtt, decay });
    assert_eq!(penalty_of(plain), None);
    let bare = Load::PenaltyPeakEwma(PenaltyPeakEwma {
        default_rtt,
        decay,
        ..Default::default()
    });
    let published = Penalty {
        latency: Duration::from_secs(5),
        max_retry_after: Duration::from_secs(300),
        decay: Duration::from_secs(10),
    };
    assert_eq!(penalty_of(bare), Some(published));
}

#[test]
fn a_server_policy() {
    let converted = server_policy(&samples::server()).unwrap();
    assert!(converted.unsupported.is_empty());
    let policy = converted.value;
    let limits = policy.rate_limit.as_ref().unwrap().limits();
    assert_eq!(limits.total, std::num::NonZeroU32::new(9));
    let web = Identity::parse("web.shop.example.com").unwrap();
    let other = Identity::parse("other.ns.example.com").unwrap();
    let stranger = Identity::parse("other.shop.example.com").unwrap();
    let inside = "10.2.0.1".parse().unwrap();
    let excepted = "10.1.0.1".parse().unwrap();
    assert!(policy.authorize(inside, Some(&web)).is_allowed());
    assert!(policy.authorize(inside, Some(&other)).is_allowed());
    let reason = policy.authorize(inside, Some(&stranger)).reason();
    assert_eq!(reason, Some(DenyReason::Identity));
    let reason = policy.authorize(excepted, Some(&web)).reason();
    assert_eq!(reason, Some(DenyReason::Network));

    let probe = http::Request::builder()
        .method("PURGE")
        .uri("/v1/x?q=a")
        .header("x-canary", "yes")
        .body(())
        .unwrap();
    let verdict = policy.authorize_request(&RequestView::from(&probe), inside, Peer::Plaintext);
    assert!(verdict.is_allowed());
    let other = http::Request::get("/").body(()).unwrap();
    let verdict = policy.authorize_request(&RequestView::from(&other), inside, &web);
    assert_eq!(verdict.reason(), Some(DenyReason::NoRoute));
}

#[test]
fn what_is_unknown_admits_nobody() {
    let admits = |authentication: Option<inbound::Authn>| {
        let mut server = samples::server();
        server.authorizations = vec![samples::authz(authentication)];
        let converted = server_policy(&server).unwrap();
        let web = Identity::parse("web.shop.example.com").unwrap();
        let client = "10.2.0.1".parse().unwrap();
        let allowed = converted.value.authorize(client, Some(&web)).is_allowed();
        (allowed, converted.unsupported)
    };
    let denied = |field| (false, vec![field]);
    let unset = inbound::Authn { permit: None };
    let no_clients = inbound::Authn {
        permit: Some(inbound::authn::Permit::MeshTls(
            inbound::authn::PermitMeshTls { clients: None },
        )),
    };
    let permit = "inbound.Authn.permit";
    let (allowed, mut fields) = admits(None);
    fields.sort_unstable();
    assert_eq!((allowed, fields.contains(&permit)), (false, true));
    assert!(!admits(Some(unset)).0 && !admits(Some(no_clients)).0);

    let no_one = admits(samples::mesh_tls(&["not an identity"], &[]));
    assert_eq!(no_one, denied("inbound.Identity.name"));
    let odd_suffix = admits(samples::mesh_tls(&[], &[&[""]]));
    assert_eq!(odd_suffix, denied("inbound.IdentitySuffix.parts"));
    let (allowed, _) = admits(samples::mesh_tls(&[], &[&[]]));
    assert!(allowed, "a suffix without parts is every identity");

    let mut server = samples::server();
    server.authorizations[0].networks.clear();
    let policy = server_policy(&server).unwrap().value;
    let web = Identity::parse("web.shop.example.com").unwrap();
    let verdict = policy.authorize("10.2.0.1".parse().unwrap(), &web);
    assert_eq!(verdict.reason(), Some(DenyReason::Network));
}

#[test]
fn endpoints() {
    let mut message = samples::endpoints();
    let Some(destination::update::Update::Add(set)) = message.update.as_mut() else {
        panic!("the sample adds");
    };
    set.addrs[1].weight = 0;
    set.addrs[1].tls_identity = None;
    // One whose identity cannot be read would be spoken to in plaintext if it were taken over.
    let mut bad = samples::weighted_addr();
    bad.tls_identity.as_mut().unwrap().strategy = None;
    set.addrs.push(bad);

    let converted = endpoint_update(&message).unwrap();
    let EndpointUpdate::Add {
        endpoints,
        rejected,
    } = converted.value
    else {
        panic!("the sample adds");
    };
    assert_eq!(rejected, [missing("destination.TlsIdentity.strategy")]);
    let [first, second] = &endpoints[..] else {
        panic!("{endpoints:?}");
    };
    assert_eq!(first.addr, "10.1.2.3:4143".parse().unwrap());
    assert_eq!(first.weight, 20_000);
    assert_eq!(first.zone.as_deref(), Some("eu-1a"));
    assert_eq!(first.labels["service"], "web");
    let tls = first.tls.as_ref().unwrap();
    assert_eq!(tls.identity.as_str(), "spiffe://mesh.example/web");
    assert_eq!(tls.server_name, "web.shop.mesh.example");
    assert_eq!(first.hint, ProtocolHint::Http2);
    assert_eq!(first.opaque_transport.map(u16::from), Some(4143));
    let over = first.authority_override.as_ref().unwrap();
    assert_eq!(over, "web.other.example:80");
    assert_eq!(second.weight, EndpointSpec::DEFAULT_WEIGHT);
    assert_eq!(second.tls, None);
    assert_eq!(
        converted.unsupported,
        ["destination.WeightedAddr.resource_ref"]
    );
}

#[test]
fn a_profile() {
    let message = destination::DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".into(),
        opaque_protocol: true,
        retry_budget: Some(destination::RetryBudget::default()),
        dst_overrides: vec![destination::WeightedDst::default()],
        ..Default::default()
    };
    let converted = profile(&message).unwrap();
    let name = converted.value.name.as_deref();
    assert_eq!(name, Some("web.shop.svc.cluster.local"));
    assert!(converted.value.opaque);
    assert_eq!(converted.value.endpoint, None);
    assert_eq!(converted.unsupported, Vec::<&str>::new());
}
