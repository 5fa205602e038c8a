//! Filters, retries, rate limits and HTTP/2 parameters keep their meaning from message to value.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod samples;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode};
use linkerd2_proxy_api::{destination, http_route, http_types, inbound, opaque_route, outbound};
use mesh_policy::filter::{Failure, Filter, FilterHead, Filters, Intercept};
use mesh_policy::inbound::rate_limit::Scope;
use mesh_policy::inbound::{Peer, Verdict};
use mesh_policy::outbound::Protocol;
use mesh_policy::outbound::retry::RetryPolicy;
use mesh_policy::proxy_api::{EndpointUpdate, endpoint_update, outbound_policy, server_policy};
use mesh_policy::route::RequestView;
use mesh_policy::{Error, FlowControl, GrpcCodes, Http2Params, KeepAlive};
use mesh_tls::Identity;

/// Applies filters to a request for `/old/x` that matched `/old`.
fn on_request(filters: &Filters, random: u64) -> (Result<(), Intercept>, HeaderMap) {
    let uri = "http://web.example.com/old/x?q".parse().unwrap();
    let authority = Authority::from_static("web.example.com");
    let mut headers = HeaderMap::new();
    headers.insert("x-added", "0".parse().unwrap());
    headers.insert("x-set", "0".parse().unwrap());
    headers.insert("x-removed", "0".parse().unwrap());
    let mut head = FilterHead {
        uri: &uri,
        authority: Some(&authority),
        headers: &mut headers,
    };
    let given = filters.on_request(&mut head, Some("/old"), random);
    (given, headers)
}

fn assert_modified(headers: &HeaderMap) {
    let added: Vec<_> = headers.get_all("x-added").iter().collect();
    assert_eq!(added, ["0", "1"]);
    assert_eq!(headers["x-set"], "2");
    assert!(!headers.contains_key("x-removed"));
}

fn assert_http_filters(filters: &Filters, has_response: bool) {
    let redirected = Err(Intercept::Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        location: "https://elsewhere.example.com:8443/new/x?q"
            .parse()
            .unwrap(),
    });
    let failed = Err(Intercept::Failure(Failure::http(429, "too much").unwrap()));
    // Half of the words fail; the redirect comes after.
    let mut outcomes = [0, 0];
    for word in 0..64 {
        let (given, headers) = on_request(filters, word << 58);
        assert_modified(&headers);
        if given == failed {
            outcomes[0] += 1;
        } else {
            assert_eq!(given, redirected);
            outcomes[1] += 1;
        }
    }
    assert!(outcomes.iter().all(|n| *n > 16), "{outcomes:?}");
    let mut headers = HeaderMap::new();
    for name in ["x-added", "x-set", "x-removed"] {
        headers.insert(name, "0".parse().unwrap());
    }
    let untouched = headers.clone();
    filters.on_response(&mut headers);
    if has_response {
        assert_modified(&headers);
    } else {
        assert_eq!(headers, untouched);
    }
}

fn assert_grpc_filters(filters: &Filters) {
    let failed = Err(Intercept::Failure(Failure::grpc(14, "too much").unwrap()));
    let given: Vec<_> = (0..64)
        .map(|word| on_request(filters, word << 58))
        .collect();
    given
        .iter()
        .for_each(|(_, headers)| assert_modified(headers));
    let failures = given.iter().filter(|(given, _)| *given == failed).count();
    let passed = given.iter().filter(|(given, _)| given.is_ok()).count();
    assert!(failures > 16 && passed > 16 && failures + passed == 64);
}

#[test]
fn of_an_outbound_http_rule_and_its_backend() {
    let policy = outbound_policy(&samples::outbound_http_filtered()).unwrap();
    let Protocol::Http1(policy) = policy.value.protocol else {
        panic!("the sample is HTTP/1");
    };
    let rule = &policy.routes[0].rules[0].policy;
    assert_http_filters(&rule.filters, true);
    assert_http_filters(&rule.backends.pick(0).unwrap().filters, true);
    assert!(rule.allow_l5d_request_headers);
    let retry = rule.retry.unwrap();
    assert_eq!(retry.max_retries, 3);
    assert_eq!(retry.max_request_bytes, 1024);
    assert_eq!(retry.timeout, Some(Duration::from_secs(2)));
    let backoff = retry.backoff.unwrap();
    assert_eq!(backoff.min(), Duration::from_secs(1));
    assert_eq!(backoff.max(), Duration::from_secs(60));
    assert_eq!(backoff.jitter().get(), 0.5);
    assert!(retry.respect_retry_after);
    let status = |status| {
        let status = StatusCode::from_u16(status).unwrap();
        retry.conditions.status(status)
    };
    assert_eq!(
        [501, 502, 503, 504, 505].map(status),
        [false, true, true, true, false]
    );
    assert!(!retry.conditions.grpc(14));
}

#[test]
fn of_an_outbound_grpc_rule_and_its_backend() {
    let policy = outbound_policy(&samples::outbound_grpc_filtered()).unwrap();
    let Protocol::Grpc(policy) = policy.value.protocol else {
        panic!("the sample is gRPC");
    };
    let rule = &policy.routes[0].rules[0].policy;
    assert_grpc_filters(&rule.filters);
    assert_grpc_filters(&rule.backends.pick(0).unwrap().filters);
    assert!(rule.allow_l5d_request_headers);
    let retry = rule.retry.unwrap();
    assert_eq!((retry.max_retries, retry.max_request_bytes), (2, 2048));
    let codes = [1, 4, 8, 13, 14].map(|code| retry.conditions.grpc(code));
    assert_eq!(codes, [true, false, true, false, true]);
    assert!(!retry.conditions.status(StatusCode::SERVICE_UNAVAILABLE));
}

#[test]
fn of_inbound_rules() {
    let policy = server_policy(&samples::server_filtered()).unwrap().value;
    let request = Request::builder()
        .method("PURGE")
        .uri("/v1/x?q=a")
        .header("x-canary", "yes")
        .body(())
        .unwrap();
    let client = "10.2.0.1".parse().unwrap();
    let view = RequestView::from(&request);
    let Verdict::Allowed { filters, .. } = policy.authorize_request(&view, client, Peer::Plaintext)
    else {
        panic!("the sample lets everyone in");
    };
    let filters = filters.unwrap();
    let uri = "/".parse().unwrap();
    let mut headers = HeaderMap::new();
    let mut head = FilterHead {
        uri: &uri,
        authority: None,
        headers: &mut headers,
    };
    // The match is by regular expression, so there is no prefix to replace.
    let given = filters.on_request(&mut head, 0).unwrap_err();
    let failed = Intercept::Failure(Failure::http(429, "too much").unwrap());
    assert!(given == failed || given == Intercept::Invalid);
    assert_eq!(headers["x-set"], "2");
    let mesh_policy::inbound::Routes::Http(routes) = policy.routes().unwrap() else {
        panic!("the sample is HTTP/2");
    };
    assert_http_filters(&routes[0].rules[0].policy.filters, false);

    let policy = server_policy(&samples::server_grpc()).unwrap().value;
    let mesh_policy::inbound::Routes::Grpc(routes) = policy.routes().unwrap() else {
        panic!("the sample is gRPC");
    };
    assert_grpc_filters(&routes[0].rules[0].policy.filters);
}

#[test]
fn who_is_not_let_in_learns_nothing_of_filters() {
    let mut message = samples::server_filtered();
    message.authorizations.clear();
    let Some(inbound::proxy_protocol::Kind::Http2(http2)) =
        message.protocol.as_mut().unwrap().kind.as_mut()
    else {
        panic!("the sample is HTTP/2");
    };
    http2.routes[0].authorizations.clear();
    http2.routes[0].rules[0].matches.clear();
    let policy = server_policy(&message).unwrap().value;
    let request = Request::get("/").body(()).unwrap();
    let client = "10.2.0.1".parse().unwrap();
    let verdict = policy.authorize_request(&RequestView::from(&request), client, Peer::Plaintext);
    assert!(matches!(verdict, Verdict::Denied { .. }));
}

/// A kind that this version does not know decodes as none.
#[test]
fn a_filter_of_an_unknown_kind_fails_every_request() {
    let mut message = samples::outbound_http_filtered();
    let rule = http_rule(&mut message);
    rule.filters = vec![outbound::http_route::Filter { kind: None }];
    let converted = outbound_policy(&message).unwrap();
    let unknown = "outbound.HttpRoute.Filter.kind";
    assert!(converted.unsupported.contains(&unknown));
    let Protocol::Http1(policy) = converted.value.protocol else {
        panic!("the sample is HTTP/1");
    };
    let rule = &policy.routes[0].rules[0].policy;
    assert_eq!(on_request(&rule.filters, 0).0, Err(Intercept::Invalid));

    let mut message = samples::server_filtered();
    inbound_rule(&mut message).filters = vec![inbound::http_route::Filter { kind: None }];
    let converted = server_policy(&message).unwrap();
    let unknown = "inbound.HttpRoute.Filter.kind";
    assert!(converted.unsupported.contains(&unknown));
}

fn http_rule(message: &mut outbound::OutboundPolicy) -> &mut outbound::http_route::Rule {
    let kind = message.protocol.as_mut().unwrap().kind.as_mut();
    let Some(outbound::proxy_protocol::Kind::Http1(http1)) = kind else {
        panic!("the sample is HTTP/1");
    };
    &mut http1.routes[0].rules[0]
}

fn inbound_rule(message: &mut inbound::Server) -> &mut inbound::http_route::Rule {
    let kind = message.protocol.as_mut().unwrap().kind.as_mut();
    let Some(inbound::proxy_protocol::Kind::Http2(http2)) = kind else {
        panic!("the sample is HTTP/2");
    };
    &mut http2.routes[0].rules[0]
}

/// What is wrong with a rule that has this filter.
fn refusal(kind: outbound::http_route::filter::Kind) -> Error {
    let mut message = samples::outbound_http_filtered();
    http_rule(&mut message).filters = vec![outbound::http_route::Filter { kind: Some(kind) }];
    outbound_policy(&message).unwrap_err()
}

fn invalid_field(error: &Error) -> &'static str {
    match error {
        Error::Invalid { field, .. } | Error::Missing { field } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn malformed_filters_are_refused_by_name() {
    use outbound::http_route::filter::Kind;
    let headers = |name: &str, value: &[u8]| {
        let header = http_types::headers::Header {
            name: name.into(),
            value: value.into(),
        };
        Some(http_types::Headers {
            headers: vec![header],
        })
    };
    let request = |change: &dyn Fn(&mut http_route::RequestHeaderModifier)| {
        let mut modifier = samples::request_headers();
        change(&mut modifier);
        invalid_field(&refusal(Kind::RequestHeaderModifier(modifier)))
    };
    let field = |name| format!("http_route.RequestHeaderModifier.{name}");
    assert_eq!(request(&|m| m.add = headers("a b", b"1")), field("add"));
    assert_eq!(request(&|m| m.add = headers("a", b"1\n2")), field("add"));
    assert_eq!(request(&|m| m.set = headers("", b"1")), field("set"));
    assert_eq!(request(&|m| m.set = headers("a", b"\0")), field("set"));
    assert_eq!(
        request(&|m| m.remove = vec![":path".into()]),
        field("remove")
    );
    let mut modifier = samples::response_headers();
    modifier.remove = vec!["a b".into()];
    assert_eq!(
        invalid_field(&refusal(Kind::ResponseHeaderModifier(modifier))),
        "http_route.ResponseHeaderModifier.remove"
    );

    let redirect = |change: &dyn Fn(&mut http_route::RequestRedirect)| {
        let mut redirect = samples::redirect();
        change(&mut redirect);
        invalid_field(&refusal(Kind::Redirect(redirect)))
    };
    let field = |name| format!("http_route.RequestRedirect.{name}");
    assert_eq!(redirect(&|r| r.status = 200), field("status"));
    assert_eq!(redirect(&|r| r.port = 65_536), field("port"));
    assert_eq!(redirect(&|r| r.host = "a/b".into()), field("host"));
    assert_eq!(
        redirect(&|r| r.scheme.as_mut().unwrap().r#type = None),
        field("scheme")
    );
    use http_route::path_modifier::Replace;
    let path = |replace| {
        Some(http_route::PathModifier {
            replace: Some(replace),
        })
    };
    assert_eq!(
        redirect(&|r| r.path = path(Replace::Full("x".into()))),
        "http_route.PathModifier.full"
    );
    assert_eq!(
        redirect(&|r| r.path = path(Replace::Prefix("x".into()))),
        "http_route.PathModifier.prefix"
    );

    let failure = |change: &dyn Fn(&mut http_route::HttpFailureInjector)| {
        let mut failure = samples::http_failure();
        change(&mut failure);
        invalid_field(&refusal(Kind::FailureInjector(failure)))
    };
    assert_eq!(
        failure(&|f| f.ratio = samples::ratio(1, 0)),
        "http_route.Ratio"
    );
    assert_eq!(
        failure(&|f| f.ratio = samples::ratio(2, 1)),
        "http_route.Ratio"
    );
    assert_eq!(
        failure(&|f| f.status = 99),
        "http_route.HttpFailureInjector.status"
    );
    assert_eq!(
        failure(&|f| f.message = "x".repeat(5000)),
        "http_route.HttpFailureInjector.message"
    );
}

#[test]
fn a_redirect_says_what_is_not_said_otherwise() {
    use outbound::http_route::{Filter as Proto, filter::Kind};
    let with = |proto: http_route::RequestRedirect| {
        let mut message = samples::outbound_http_filtered();
        http_rule(&mut message).filters = vec![Proto {
            kind: Some(Kind::Redirect(proto)),
        }];
        let Protocol::Http1(policy) = outbound_policy(&message).unwrap().value.protocol else {
            panic!("the sample is HTTP/1");
        };
        policy.routes[0].rules[0].policy.filters.clone()
    };
    let full = http_route::path_modifier::Replace::Full("/all".into());
    let filters = with(http_route::RequestRedirect {
        path: Some(http_route::PathModifier {
            replace: Some(full),
        }),
        ..http_route::RequestRedirect::default()
    });
    let expected = Intercept::Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        location: "http://web.example.com/all".parse().unwrap(),
    };
    assert_eq!(on_request(&filters, 0).0, Err(expected));
    // A way to change the path that is not known fails; to redirect without it would be to the wrong place.
    let filters = with(http_route::RequestRedirect {
        path: Some(http_route::PathModifier { replace: None }),
        ..samples::redirect()
    });
    assert_eq!(filters.as_slice(), [Filter::Unknown]);
}

#[test]
fn the_framing_of_messages_is_left_alone_and_noted() {
    let mut message = samples::outbound_http_filtered();
    let mut modifier = samples::request_headers();
    modifier.remove = vec!["Transfer-Encoding".into()];
    http_rule(&mut message).filters = vec![outbound::http_route::Filter {
        kind: Some(outbound::http_route::filter::Kind::RequestHeaderModifier(
            modifier,
        )),
    }];
    let converted = outbound_policy(&message).unwrap();
    let noted = converted.unsupported.iter();
    let framing = "http_route.RequestHeaderModifier (of the connection's own headers)";
    assert_eq!(noted.filter(|field| **field == framing).count(), 1);
}

#[test]
fn filters_are_bounded_in_number() {
    let mut message = samples::outbound_http_filtered();
    let rule = http_rule(&mut message);
    rule.filters = vec![rule.filters[0].clone(); 65];
    let error = outbound_policy(&message).unwrap_err();
    assert!(matches!(
        error,
        Error::TooMany {
            given: 65,
            max: 64,
            ..
        }
    ));
    let mut message = samples::outbound_http_filtered();
    let modifier = http_route::RequestHeaderModifier {
        remove: vec!["x".into(); 65],
        ..http_route::RequestHeaderModifier::default()
    };
    http_rule(&mut message).filters = vec![outbound::http_route::Filter {
        kind: Some(outbound::http_route::filter::Kind::RequestHeaderModifier(
            modifier,
        )),
    }];
    let error = outbound_policy(&message).unwrap_err();
    assert!(matches!(
        error,
        Error::TooMany {
            given: 65,
            max: 64,
            ..
        }
    ));
}

#[test]
fn retries_that_mean_nothing_are_refused_by_name() {
    let field = |change: &dyn Fn(&mut outbound::http_route::Retry)| {
        let mut message = samples::outbound_http_filtered();
        change(http_rule(&mut message).retry.as_mut().unwrap());
        let error = outbound_policy(&message).unwrap_err();
        invalid_field(&error).to_owned()
    };
    assert_eq!(
        field(&|retry| retry.conditions = None),
        "outbound.HttpRoute.Retry.conditions"
    );
    assert_eq!(
        field(&|retry| retry.max_retries = 65_536),
        "outbound.HttpRoute.Retry.max_retries"
    );
    let range = |start, end| {
        field(&|retry| {
            let ranges = &mut retry.conditions.as_mut().unwrap().status_ranges;
            ranges[0].start = start;
            ranges[0].end = end;
        })
    };
    let ranges = "outbound.HttpRoute.Retry.Conditions.status_ranges";
    for (start, end) in [(0, 500), (500, 0), (500, 600), (504, 500), (1, 50)] {
        assert_eq!(range(start, end), ranges, "{start} {end}");
    }
    assert_eq!(
        field(&|retry| retry.backoff.as_mut().unwrap().max_backoff = samples::seconds(0)),
        "backoff.max_backoff"
    );
}

#[test]
fn a_body_is_kept_within_bounds() {
    let mut message = samples::outbound_http_filtered();
    http_rule(&mut message)
        .retry
        .as_mut()
        .unwrap()
        .max_request_bytes = u32::MAX;
    let converted = outbound_policy(&message).unwrap();
    let noted = "outbound.HttpRoute.Retry.max_request_bytes";
    assert!(converted.unsupported.contains(&noted));
    let Protocol::Http1(policy) = converted.value.protocol else {
        panic!("the sample is HTTP/1");
    };
    let retry = policy.routes[0].rules[0].policy.retry.unwrap();
    assert_eq!(retry.max_request_bytes, RetryPolicy::MAX_REQUEST_BYTES);
    assert_eq!(GrpcCodes::default(), retry.conditions.codes);
}

#[test]
fn a_share_of_connections_is_refused() {
    use outbound::opaque_route::{Filter, distribution, filter};
    let mut opaque = samples::outbound_opaque();
    let backends = opaque.routes[0].rules[0].backends.as_mut().unwrap();
    let Some(distribution::Kind::FirstAvailable(first)) = &mut backends.kind else {
        panic!("the sample takes the first");
    };
    let kinds = [
        Some(filter::Kind::Forbidden(opaque_route::Forbidden {})),
        Some(filter::Kind::Invalid(opaque_route::Invalid::default())),
        None,
    ];
    let allowed = first.backends.remove(0);
    let backends = kinds.map(|kind| {
        let mut refused = allowed.clone();
        refused.filters = vec![Filter { kind }];
        outbound::opaque_route::WeightedRouteBackend {
            backend: Some(refused),
            weight: 1,
        }
    });
    let rest = outbound::opaque_route::WeightedRouteBackend {
        backend: Some(allowed),
        weight: 3,
    };
    let random = outbound::opaque_route::distribution::RandomAvailable {
        backends: backends.into_iter().chain([rest]).collect(),
    };
    opaque.routes[0].rules[0].backends = Some(outbound::opaque_route::Distribution {
        kind: Some(distribution::Kind::RandomAvailable(random)),
    });
    let message = samples::outbound(outbound::proxy_protocol::Kind::Opaque(opaque));
    let Protocol::Opaque(policy) = outbound_policy(&message).unwrap().value.protocol else {
        panic!("the sample is opaque");
    };
    let picks = (0..64_u64).filter(|word| policy.pick(word << 58).is_some());
    assert_eq!(picks.count(), 32);
}

#[test]
fn of_a_server() {
    let converted = server_policy(&samples::server_filtered()).unwrap();
    let noted = "inbound.HttpLocalRateLimit.metadata";
    assert!(converted.unsupported.contains(&noted));
    let policy = converted.value;
    let serves = |ip: &str| policy.serves(ip.parse::<IpAddr>().unwrap());
    assert!(serves("10.0.0.7") && serves("::ffff:10.0.0.7") && !serves("10.0.0.8"));
    let open = server_policy(&samples::server_grpc()).unwrap().value;
    assert!(open.serves("10.0.0.8".parse().unwrap()));
    assert!(open.rate_limit.is_none());

    let limit = policy.rate_limit.unwrap();
    let now = Instant::now();
    assert_eq!(limit.limits().meta.as_ref().unwrap().name(), "web");
    let burst = |name: Option<&str>| {
        let identity = name.map(|name| Identity::parse(name).unwrap());
        let client = limit.client(identity.as_ref(), now);
        let passed = (0..200).take_while(|_| client.check(now).is_ok()).count();
        (passed, client.check(now).unwrap_err().scope)
    };
    assert_eq!(burst(Some("a.shop.example.com")), (10, Scope::Identity));
    assert_eq!(burst(Some("big.shop.example.com")), (50, Scope::Override));
    assert_eq!(burst(None), (10, Scope::Identity));
    let others = ["b", "c", "d"].map(|name| burst(Some(&format!("{name}.example.com"))));
    assert_eq!(others.map(|(passed, _)| passed), [10, 10, 10]);
    assert_eq!(burst(Some("e.example.com")), (0, Scope::Total));
}

/// As in stock proxies.
#[test]
fn a_limit_of_zero_is_none() {
    use inbound::http_local_rate_limit::Limit;
    let zero = || {
        Some(Limit {
            requests_per_second: 0,
        })
    };
    let with = |limit: inbound::HttpLocalRateLimit| {
        let mut message = samples::server_filtered();
        let kind = message.protocol.as_mut().unwrap().kind.as_mut();
        let Some(inbound::proxy_protocol::Kind::Http2(http2)) = kind else {
            panic!("the sample is HTTP/2");
        };
        http2.local_rate_limit = Some(limit);
        server_policy(&message).unwrap().value.rate_limit
    };
    let mut limit = samples::rate_limit();
    limit.total = zero();
    limit.identity = zero();
    let kept = with(limit.clone()).unwrap();
    assert!(kept.limits().total.is_none() && kept.limits().identity.is_none());
    limit.overrides[0].limit = zero();
    assert!(with(limit).is_none());

    // An identity whose override is zero is as any other.
    let mut limit = samples::rate_limit();
    limit.overrides[0].limit = zero();
    let now = Instant::now();
    let big = Identity::parse("big.shop.example.com").unwrap();
    let client = with(limit).unwrap().client(Some(&big), now);
    assert_eq!(
        (0..99).take_while(|_| client.check(now).is_ok()).count(),
        10
    );
}

#[test]
fn use_survives_the_update_of_a_server() {
    let now = Instant::now();
    let policy = || server_policy(&samples::server_filtered()).unwrap().value;
    let first = policy();
    let client = first.rate_limit.as_ref().unwrap().client(None, now);
    assert!((0..10).all(|_| client.check(now).is_ok()));
    let second = policy().continuing(&first);
    let client = second.rate_limit.unwrap().client(None, now);
    assert!(client.check(now).is_err());
    // Without it, an update would begin anew.
    let client = policy().rate_limit.unwrap().client(None, now);
    assert!(client.check(now).is_ok());
}

fn endpoint(http2: destination::Http2ClientParams) -> Result<Option<Http2Params>, Error> {
    let mut addr = samples::weighted_addr();
    addr.http2 = Some(http2);
    let message = destination::Update {
        update: Some(destination::update::Update::Add(
            destination::WeightedAddrSet {
                addrs: vec![addr],
                metric_labels: Default::default(),
            },
        )),
    };
    let EndpointUpdate::Add {
        mut endpoints,
        mut rejected,
    } = endpoint_update(&message).unwrap().value
    else {
        panic!("the message adds");
    };
    match rejected.pop() {
        Some(error) => Err(error),
        None => Ok(endpoints.remove(0).http2),
    }
}

#[test]
fn of_an_endpoint() {
    let params = endpoint(samples::http2()).unwrap().unwrap();
    let expected = Http2Params {
        flow_control: Some(FlowControl::Fixed {
            connection_window: 1 << 20,
            stream_window: 1 << 16,
        }),
        keep_alive: Some(KeepAlive {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(5),
            while_idle: true,
        }),
        max_concurrent_reset_streams: Some(9),
        max_frame_size: Some(32_768),
        max_send_buf_size: Some(4096),
    };
    assert_eq!(params, expected);

    let mut adaptive = samples::http2();
    adaptive
        .flow_control
        .as_mut()
        .unwrap()
        .adaptive_flow_control = true;
    let params = endpoint(adaptive).unwrap().unwrap();
    assert_eq!(params.flow_control, Some(FlowControl::Adaptive));

    // Zero is what was not given, and of a pair one alone is none.
    let mut halves = samples::http2();
    let flow = halves.flow_control.as_mut().unwrap();
    flow.initial_stream_window_size = 0;
    halves.keep_alive.as_mut().unwrap().timeout = None;
    halves.internals = Some(Default::default());
    let params = endpoint(halves).unwrap().unwrap();
    assert_eq!(params, Http2Params::default());
    let params = endpoint(Default::default()).unwrap().unwrap();
    assert_eq!(params, Http2Params::default());
}

#[test]
fn http2_parameters_that_the_protocol_does_not_allow_are_refused() {
    let field = |change: &dyn Fn(&mut destination::Http2ClientParams)| {
        let mut http2 = samples::http2();
        change(&mut http2);
        invalid_field(&endpoint(http2).unwrap_err()).to_owned()
    };
    let frame = "destination.Http2ClientParams.Internals.max_frame_size";
    for size in [1, 16_383, 16_777_216, u32::MAX] {
        let given = field(&|http2| http2.internals.as_mut().unwrap().max_frame_size = size);
        assert_eq!(given, frame, "{size}");
    }
    let window = "destination.Http2ClientParams.FlowControl";
    let given = field(&|http2| {
        let flow = http2.flow_control.as_mut().unwrap();
        flow.initial_connection_window_size = 1 << 31;
    });
    assert_eq!(given, window);
    let given = field(&|http2| {
        let flow = http2.flow_control.as_mut().unwrap();
        flow.initial_stream_window_size = u32::MAX;
    });
    assert_eq!(given, window);
    let given = field(&|http2| {
        let negative = samples::seconds(-1);
        http2.keep_alive.as_mut().unwrap().interval = negative;
    });
    assert_eq!(given, "destination.Http2ClientParams.KeepAlive.interval");
}
