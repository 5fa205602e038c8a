//! Messages with every field set, as a controller might send them.

use std::net::SocketAddr;

use linkerd2_proxy_api::{
    destination, grpc_route, http_route, http_types, inbound, meta, net, opaque_route, outbound,
    tls_route,
};
use prost_types::Duration;

pub(crate) fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub(crate) fn named(name: &str) -> Option<meta::Metadata> {
    let kind = Some(meta::metadata::Kind::Default(name.to_owned()));
    Some(meta::Metadata { kind })
}

pub(crate) fn resource(kind: &str, name: &str) -> Option<meta::Metadata> {
    let resource = meta::Resource {
        group: "core".into(),
        kind: kind.into(),
        name: name.into(),
        namespace: "shop".into(),
        section: String::new(),
        port: 8080,
    };
    let kind = Some(meta::metadata::Kind::Resource(resource));
    Some(meta::Metadata { kind })
}

pub(crate) fn weighted_addr() -> destination::WeightedAddr {
    use destination::{protocol_hint, tls_identity};
    let dns_like = |name: &str| tls_identity::DnsLikeIdentity { name: name.into() };
    let addr: SocketAddr = "10.1.2.3:4143".parse().unwrap();
    destination::WeightedAddr {
        addr: Some(addr.into()),
        weight: 20_000,
        metric_labels: [("zone".to_owned(), "eu-1a".to_owned())].into(),
        tls_identity: Some(destination::TlsIdentity {
            strategy: Some(tls_identity::Strategy::UriLikeIdentity(
                tls_identity::UriLikeIdentity {
                    uri: "spiffe://mesh.example/web".into(),
                },
            )),
            server_name: Some(dns_like("web.shop.mesh.example")),
        }),
        protocol_hint: Some(destination::ProtocolHint {
            opaque_transport: Some(protocol_hint::OpaqueTransport { inbound_port: 4143 }),
            protocol: Some(protocol_hint::Protocol::H2(protocol_hint::H2 {})),
        }),
        authority_override: Some(destination::AuthorityOverride {
            authority_override: "web.other.example:80".into(),
        }),
        http2: Some(destination::Http2ClientParams {
            keep_alive: http2().keep_alive,
            ..Default::default()
        }),
        resource_ref: resource("Pod", "web-1"),
    }
}

pub(crate) fn endpoints() -> destination::Update {
    destination::Update {
        update: Some(destination::update::Update::Add(
            destination::WeightedAddrSet {
                addrs: vec![weighted_addr(), weighted_addr()],
                metric_labels: [("service".to_owned(), "web".to_owned())].into(),
            },
        )),
    }
}

pub(crate) fn backend(path: &str) -> outbound::Backend {
    use outbound::backend::{BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery};
    outbound::Backend {
        metadata: resource("Service", path),
        queue: Some(outbound::Queue {
            capacity: 100,
            failfast_timeout: seconds(3),
        }),
        kind: Some(outbound::backend::Kind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery {
                kind: Some(endpoint_discovery::Kind::Dst(
                    outbound::backend::endpoint_discovery::DestinationGet { path: path.into() },
                )),
            }),
            load: Some(balance_p2c::Load::PenaltyPeakEwma(
                outbound::backend::balance_p2c::PenaltyPeakEwma {
                    default_rtt: seconds(1),
                    decay: seconds(5),
                    penalty: seconds(4),
                    max_retry_after: seconds(200),
                    penalty_decay: seconds(7),
                },
            )),
        })),
    }
}

pub(crate) struct Consecutive {
    pub(crate) max: u32,
    pub(crate) backoff: outbound::ExponentialBackoff,
}

pub(crate) fn consecutive() -> Consecutive {
    Consecutive {
        max: 7,
        backoff: outbound::ExponentialBackoff {
            min_backoff: seconds(1),
            max_backoff: seconds(60),
            jitter_ratio: 0.5,
            respect_retry_after_hint: true,
        },
    }
}

pub(crate) fn failure_accrual() -> outbound::FailureAccrual {
    use outbound::failure_accrual::{ConsecutiveFailures, Kind};
    outbound::FailureAccrual {
        kind: Some(Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures: consecutive().max,
            backoff: Some(consecutive().backoff),
        })),
        ejection: Some(outbound::EjectionConfig {
            min_ready_endpoints: 2,
        }),
    }
}

pub(crate) fn http_match() -> http_route::HttpRouteMatch {
    http_route::HttpRouteMatch {
        path: Some(http_route::PathMatch {
            kind: Some(http_route::path_match::Kind::Regex(r"/v\d+/.*".into())),
        }),
        headers: vec![http_route::HeaderMatch {
            name: "X-Canary".into(),
            value: Some(http_route::header_match::Value::Exact(b"yes".to_vec())),
        }],
        query_params: vec![http_route::QueryParamMatch {
            name: "q".into(),
            value: Some(http_route::query_param_match::Value::Regex("a+".into())),
        }],
        method: Some(http_types::HttpMethod {
            r#type: Some(http_types::http_method::Type::Unregistered("PURGE".into())),
        }),
    }
}

pub(crate) fn hosts() -> Vec<http_route::HostMatch> {
    let suffix = http_route::host_match::Suffix {
        reverse_labels: vec!["com".into(), "example".into()],
    };
    vec![
        http_route::HostMatch {
            r#match: Some(http_route::host_match::Match::Suffix(suffix)),
        },
        http_route::HostMatch {
            r#match: Some(http_route::host_match::Match::Exact("web".into())),
        },
    ]
}

pub(crate) fn outbound_http_route() -> outbound::HttpRoute {
    use outbound::http_route::{
        Distribution, RouteBackend, Rule, WeightedRouteBackend, distribution,
    };
    let weighted = |path: &str, weight| WeightedRouteBackend {
        backend: Some(RouteBackend {
            backend: Some(backend(path)),
            ..Default::default()
        }),
        weight,
    };
    outbound::HttpRoute {
        metadata: resource("HTTPRoute", "web"),
        hosts: hosts(),
        rules: vec![Rule {
            matches: vec![http_match()],
            backends: Some(Distribution {
                kind: Some(distribution::Kind::RandomAvailable(
                    distribution::RandomAvailable {
                        backends: vec![weighted("v1", 90), weighted("v2", 10)],
                    },
                )),
            }),
            timeouts: Some(http_route::Timeouts {
                request: seconds(9),
                response: seconds(8),
                idle: seconds(0),
            }),
            retry: Some(http_retry()),
            allow_l5d_request_headers: true,
            ..Default::default()
        }],
    }
}

pub(crate) fn http_retry() -> outbound::http_route::Retry {
    use outbound::http_route::retry::{Conditions, conditions::StatusRange};
    outbound::http_route::Retry {
        max_retries: 3,
        max_request_bytes: 1024,
        conditions: Some(Conditions {
            status_ranges: vec![StatusRange {
                start: 502,
                end: 504,
            }],
        }),
        timeout: seconds(2),
        backoff: Some(outbound::ExponentialBackoff {
            respect_retry_after_hint: false,
            ..consecutive().backoff
        }),
    }
}

pub(crate) fn outbound_opaque() -> outbound::proxy_protocol::Opaque {
    use outbound::opaque_route::{Distribution, RouteBackend, Rule, distribution};
    let mut forward = backend("unused");
    forward.kind = Some(outbound::backend::Kind::Forward(weighted_addr()));
    outbound::proxy_protocol::Opaque {
        routes: vec![outbound::OpaqueRoute {
            metadata: named("opaque"),
            rules: vec![Rule {
                backends: Some(Distribution {
                    kind: Some(distribution::Kind::FirstAvailable(
                        distribution::FirstAvailable {
                            backends: vec![RouteBackend {
                                backend: Some(forward),
                                ..Default::default()
                            }],
                        },
                    )),
                }),
                filters: Vec::new(),
            }],
        }],
    }
}

pub(crate) fn outbound(kind: outbound::proxy_protocol::Kind) -> outbound::OutboundPolicy {
    outbound::OutboundPolicy {
        protocol: Some(outbound::ProxyProtocol { kind: Some(kind) }),
        metadata: resource("Service", "web"),
    }
}

pub(crate) fn outbound_detect() -> outbound::OutboundPolicy {
    use outbound::proxy_protocol::{Detect, Http1, Http2, Kind};
    outbound(Kind::Detect(Detect {
        timeout: seconds(10),
        opaque: Some(outbound_opaque()),
        http1: Some(Http1 {
            routes: vec![outbound_http_route()],
            failure_accrual: Some(failure_accrual()),
        }),
        http2: Some(Http2 {
            routes: vec![outbound_http_route()],
            failure_accrual: None,
        }),
    }))
}

pub(crate) fn outbound_grpc() -> outbound::OutboundPolicy {
    use outbound::grpc_route::{Distribution, RouteBackend, Rule, distribution};
    use outbound::proxy_protocol::{Grpc, Kind};
    outbound(Kind::Grpc(Grpc {
        routes: vec![outbound::GrpcRoute {
            metadata: named("grpc"),
            hosts: hosts(),
            rules: vec![Rule {
                matches: vec![grpc_route::GrpcRouteMatch {
                    rpc: Some(grpc_route::GrpcRpcMatch {
                        service: "shop.Cart".into(),
                        method: "Add".into(),
                    }),
                    headers: http_match().headers,
                }],
                backends: Some(Distribution {
                    kind: Some(distribution::Kind::FirstAvailable(
                        distribution::FirstAvailable {
                            backends: vec![RouteBackend {
                                backend: Some(backend("cart")),
                                ..Default::default()
                            }],
                        },
                    )),
                }),
                ..Default::default()
            }],
        }],
        failure_accrual: Some(failure_accrual()),
    }))
}

pub(crate) fn outbound_tls() -> outbound::OutboundPolicy {
    use outbound::proxy_protocol::{Kind, Tls};
    use outbound::tls_route::{Distribution, Filter, RouteBackend, Rule, distribution, filter};
    let rule = |filters| Rule {
        backends: Some(Distribution {
            kind: Some(distribution::Kind::FirstAvailable(
                distribution::FirstAvailable {
                    backends: vec![RouteBackend {
                        backend: Some(backend("db")),
                        ..Default::default()
                    }],
                },
            )),
        }),
        filters,
    };
    let sni = |name: &str| tls_route::SniMatch {
        r#match: Some(tls_route::sni_match::Match::Exact(name.into())),
    };
    let forbidden = Filter {
        kind: Some(filter::Kind::Forbidden(opaque_route::Forbidden {})),
    };
    outbound(Kind::Tls(Tls {
        routes: vec![
            outbound::TlsRoute {
                metadata: named("open"),
                snis: Vec::new(),
                rules: vec![rule(Vec::new())],
            },
            outbound::TlsRoute {
                metadata: named("shut"),
                snis: vec![sni("shut.example.com")],
                rules: vec![rule(vec![forbidden])],
            },
        ],
    }))
}

pub(crate) fn mesh_tls(names: &[&str], suffixes: &[&[&str]]) -> Option<inbound::Authn> {
    use inbound::authn::{Permit, PermitMeshTls, permit_mesh_tls};
    let identities = names.iter().map(|name| inbound::Identity {
        name: (*name).to_owned(),
    });
    let suffixes = suffixes.iter().map(|parts| inbound::IdentitySuffix {
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
    });
    let clients = permit_mesh_tls::Clients::Identities(permit_mesh_tls::PermitClientIdentities {
        identities: identities.collect(),
        suffixes: suffixes.collect(),
    });
    Some(inbound::Authn {
        permit: Some(Permit::MeshTls(PermitMeshTls {
            clients: Some(clients),
        })),
    })
}

pub(crate) fn authz(authentication: Option<inbound::Authn>) -> inbound::Authz {
    let network = |ip: [u8; 4], length: u8| net::IpNetwork {
        ip: Some(net::IpAddress {
            ip: Some(ip.into()),
        }),
        prefix_len: length.into(),
    };
    inbound::Authz {
        networks: vec![inbound::Network {
            net: Some(network([10, 0, 0, 0], 8)),
            except: vec![network([10, 1, 0, 0], 16)],
        }],
        authentication,
        labels: Default::default(),
        metadata: named("test"),
    }
}

pub(crate) fn server() -> inbound::Server {
    use inbound::http_route::Rule;
    use inbound::proxy_protocol::{Detect, Kind};
    let route = inbound::HttpRoute {
        metadata: resource("HTTPRoute", "probes"),
        hosts: Vec::new(),
        authorizations: vec![authz(Some(inbound::Authn {
            permit: Some(inbound::authn::Permit::Unauthenticated(
                inbound::authn::PermitUnauthenticated {},
            )),
        }))],
        rules: vec![Rule {
            matches: vec![http_match()],
            filters: Vec::new(),
        }],
    };
    inbound::Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(Kind::Detect(Detect {
                timeout: seconds(10),
                http_routes: vec![route],
                http_local_rate_limit: Some(inbound::HttpLocalRateLimit {
                    total: Some(inbound::http_local_rate_limit::Limit {
                        requests_per_second: 9,
                    }),
                    ..Default::default()
                }),
            })),
        }),
        server_ips: Vec::new(),
        authorizations: vec![authz(mesh_tls(
            &["web.shop.example.com"],
            &[&["ns", "example", "com"]],
        ))],
        labels: [("name".to_owned(), "web".to_owned())].into(),
    }
}

pub(crate) fn ratio(numerator: u32, denominator: u32) -> Option<http_route::Ratio> {
    Some(http_route::Ratio {
        numerator,
        denominator,
    })
}

fn header_lists() -> [Option<http_types::Headers>; 2] {
    let headers = |name: &str, value: &str| {
        let header = http_types::headers::Header {
            name: name.into(),
            value: value.into(),
        };
        Some(http_types::Headers {
            headers: vec![header],
        })
    };
    [headers("X-Added", "1"), headers("X-Set", "2")]
}

pub(crate) fn request_headers() -> http_route::RequestHeaderModifier {
    let [add, set] = header_lists();
    http_route::RequestHeaderModifier {
        add,
        set,
        remove: vec!["X-Removed".into()],
    }
}

pub(crate) fn response_headers() -> http_route::ResponseHeaderModifier {
    let [add, set] = header_lists();
    http_route::ResponseHeaderModifier {
        add,
        set,
        remove: vec!["X-Removed".into()],
    }
}

pub(crate) fn redirect() -> http_route::RequestRedirect {
    http_route::RequestRedirect {
        scheme: Some(http_types::Scheme {
            r#type: Some(http_types::scheme::Type::Registered(1)),
        }),
        host: "elsewhere.example.com".into(),
        path: Some(http_route::PathModifier {
            replace: Some(http_route::path_modifier::Replace::Prefix("/new".into())),
        }),
        port: 8443,
        status: 308,
    }
}

pub(crate) fn http_failure() -> http_route::HttpFailureInjector {
    http_route::HttpFailureInjector {
        status: 429,
        message: "too much".into(),
        ratio: ratio(1, 2),
    }
}

pub(crate) fn grpc_failure() -> grpc_route::GrpcFailureInjector {
    grpc_route::GrpcFailureInjector {
        code: 14,
        message: "too much".into(),
        ratio: ratio(1, 2),
    }
}

/// Each kind of filter once.
pub(crate) fn outbound_http_filters() -> Vec<outbound::http_route::Filter> {
    use outbound::http_route::{Filter, filter::Kind};
    let kinds = [
        Kind::RequestHeaderModifier(request_headers()),
        Kind::ResponseHeaderModifier(response_headers()),
        Kind::FailureInjector(http_failure()),
        Kind::Redirect(redirect()),
    ];
    kinds.map(|kind| Filter { kind: Some(kind) }).into()
}

/// Each kind of filter once.
pub(crate) fn outbound_grpc_filters() -> Vec<outbound::grpc_route::Filter> {
    use outbound::grpc_route::{Filter, filter::Kind};
    let kinds = [
        Kind::RequestHeaderModifier(request_headers()),
        Kind::FailureInjector(grpc_failure()),
    ];
    kinds.map(|kind| Filter { kind: Some(kind) }).into()
}

/// Each kind of filter once.
pub(crate) fn inbound_http_filters() -> Vec<inbound::http_route::Filter> {
    use inbound::http_route::{Filter, filter::Kind};
    let kinds = [
        Kind::RequestHeaderModifier(request_headers()),
        Kind::FailureInjector(http_failure()),
        Kind::Redirect(redirect()),
    ];
    kinds.map(|kind| Filter { kind: Some(kind) }).into()
}

/// Each kind of filter once.
pub(crate) fn inbound_grpc_filters() -> Vec<inbound::grpc_route::Filter> {
    use inbound::grpc_route::{Filter, filter::Kind};
    let kinds = [
        Kind::RequestHeaderModifier(request_headers()),
        Kind::FailureInjector(grpc_failure()),
    ];
    kinds.map(|kind| Filter { kind: Some(kind) }).into()
}

pub(crate) fn grpc_retry() -> outbound::grpc_route::Retry {
    outbound::grpc_route::Retry {
        max_retries: 2,
        max_request_bytes: 2048,
        conditions: Some(outbound::grpc_route::retry::Conditions {
            cancelled: true,
            deadine_exceeded: false,
            resource_exhausted: true,
            internal: false,
            unavailable: true,
        }),
        timeout: seconds(1),
        backoff: Some(consecutive().backoff),
    }
}

/// HTTP/1 with one rule that has everything, on itself and on its one backend.
pub(crate) fn outbound_http_filtered() -> outbound::OutboundPolicy {
    use outbound::http_route::{Distribution, RouteBackend, distribution};
    use outbound::proxy_protocol::{Http1, Kind};
    let mut route = outbound_http_route();
    let rule = &mut route.rules[0];
    rule.filters = outbound_http_filters();
    let retry = rule.retry.as_mut().unwrap();
    retry.backoff = Some(consecutive().backoff);
    rule.backends = Some(Distribution {
        kind: Some(distribution::Kind::FirstAvailable(
            distribution::FirstAvailable {
                backends: vec![RouteBackend {
                    backend: Some(backend("web")),
                    filters: outbound_http_filters(),
                    ..RouteBackend::default()
                }],
            },
        )),
    });
    outbound(Kind::Http1(Http1 {
        routes: vec![route],
        failure_accrual: None,
    }))
}

/// gRPC with one rule that has everything, on itself and on its one backend.
pub(crate) fn outbound_grpc_filtered() -> outbound::OutboundPolicy {
    use outbound::grpc_route::distribution::Kind;
    let mut message = outbound_grpc();
    let protocol = message.protocol.as_mut().unwrap();
    let Some(outbound::proxy_protocol::Kind::Grpc(grpc)) = &mut protocol.kind else {
        panic!("the sample is gRPC");
    };
    let rule = &mut grpc.routes[0].rules[0];
    rule.filters = outbound_grpc_filters();
    rule.retry = Some(grpc_retry());
    rule.allow_l5d_request_headers = true;
    let Some(Kind::FirstAvailable(first)) = rule.backends.as_mut().unwrap().kind.as_mut() else {
        panic!("the sample takes the first");
    };
    first.backends[0].filters = outbound_grpc_filters();
    message
}

pub(crate) fn rate_limit() -> inbound::HttpLocalRateLimit {
    use inbound::http_local_rate_limit::{Limit, Override, r#override::ClientIdentities};
    let limit = |requests_per_second| {
        Some(Limit {
            requests_per_second,
        })
    };
    inbound::HttpLocalRateLimit {
        metadata: resource("HTTPLocalRateLimitPolicy", "web"),
        total: limit(100),
        identity: limit(10),
        overrides: vec![Override {
            limit: limit(50),
            clients: Some(ClientIdentities {
                identities: vec![inbound::Identity {
                    name: "big.shop.example.com".into(),
                }],
            }),
        }],
    }
}

/// HTTP/2 with everything on one rule.
pub(crate) fn server_filtered() -> inbound::Server {
    use inbound::proxy_protocol::{Http2, Kind};
    let mut message = server();
    let protocol = message.protocol.take().and_then(|protocol| protocol.kind);
    let Some(Kind::Detect(mut detect)) = protocol else {
        panic!("the sample detects");
    };
    detect.http_routes[0].rules[0].filters = inbound_http_filters();
    message.protocol = Some(inbound::ProxyProtocol {
        kind: Some(Kind::Http2(Http2 {
            routes: detect.http_routes,
            local_rate_limit: Some(rate_limit()),
        })),
    });
    message.server_ips = vec![net::IpAddress {
        ip: Some([10, 0, 0, 7].into()),
    }];
    message
}

/// gRPC with everything on one rule.
pub(crate) fn server_grpc() -> inbound::Server {
    use inbound::grpc_route::Rule;
    use inbound::proxy_protocol::{Grpc, Kind};
    let rule = Rule {
        matches: vec![grpc_route::GrpcRouteMatch {
            rpc: Some(grpc_route::GrpcRpcMatch {
                service: "shop.Cart".into(),
                method: String::new(),
            }),
            headers: Vec::new(),
        }],
        filters: inbound_grpc_filters(),
    };
    inbound::Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(Kind::Grpc(Grpc {
                routes: vec![inbound::GrpcRoute {
                    metadata: resource("GRPCRoute", "cart"),
                    hosts: Vec::new(),
                    authorizations: Vec::new(),
                    rules: vec![rule],
                }],
            })),
        }),
        ..server()
    }
}

pub(crate) fn http2() -> destination::Http2ClientParams {
    use destination::http2_client_params::{FlowControl, Internals, KeepAlive};
    destination::Http2ClientParams {
        flow_control: Some(FlowControl {
            initial_connection_window_size: 1 << 20,
            initial_stream_window_size: 1 << 16,
            adaptive_flow_control: false,
        }),
        keep_alive: Some(KeepAlive {
            interval: seconds(20),
            timeout: seconds(5),
            while_idle: true,
        }),
        internals: Some(Internals {
            max_concurrent_reset_streams: 9,
            max_frame_size: 32_768,
            max_send_buf_size: 4096,
        }),
    }
}

/// A service with routes, retries and a split.
pub(crate) fn profile() -> destination::DestinationProfile {
    use destination::{request_match, response_match};
    let path = destination::RequestMatch {
        r#match: Some(request_match::Match::Path(destination::PathMatch {
            regex: "/a/.*".into(),
        })),
    };
    let all = request_match::Seq {
        matches: vec![path],
    };
    let status = destination::ResponseMatch {
        r#match: Some(response_match::Match::Status(
            destination::HttpStatusRange { min: 500, max: 0 },
        )),
    };
    destination::DestinationProfile {
        fully_qualified_name: "web.shop.svc.cluster.local".into(),
        opaque_protocol: false,
        routes: vec![destination::Route {
            condition: Some(destination::RequestMatch {
                r#match: Some(request_match::Match::All(all)),
            }),
            response_classes: vec![destination::ResponseClass {
                condition: Some(status),
                is_failure: true,
            }],
            metrics_labels: [("route".to_owned(), "a".to_owned())].into(),
            is_retryable: true,
            timeout: seconds(3),
        }],
        retry_budget: Some(destination::RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: seconds(10),
        }),
        dst_overrides: vec![destination::WeightedDst {
            authority: "v1.shop.svc.cluster.local:80".into(),
            weight: 3,
            backend_ref: resource("Service", "v1"),
        }],
        endpoint: Some(weighted_addr()),
        parent_ref: resource("Service", "web"),
        profile_ref: resource("ServiceProfile", "web"),
    }
}
