use std::time::Duration;

use linkerd2_proxy_api::outbound::{self, proxy_protocol};
use linkerd2_proxy_api::{http_route, tls_route};

use super::backend::{Backends, failure_accrual, spread};
use super::field::{duration, limit, metadata, required};
use super::filters::filters;
use super::retries::{grpc_retry, http_retry};
use super::routes::{
    check_grpc_patterns, check_http_patterns, grpc_matches, hosts, http_matches, suffix_of,
};
use super::unsupported::{Converted, Unsupported};
use crate::filter::Filters;
use crate::outbound::{
    BackendSpec, ConnectionBackend, GrpcPolicy, GrpcRoute, HttpPolicy, HttpRoute, OpaquePolicy,
    OpaqueRoute, OutboundPolicy, Protocol, RouteBackend, RoutePolicy, Timeouts, TlsPolicy,
    TlsRoute,
};
use crate::route::{HostMatch, Rule};
use crate::{Distribution, Error};

/// The policy in `proto`.
///
/// # Errors
///
/// [`Error`] naming the field that is missing or means nothing.
pub fn outbound_policy(
    proto: &outbound::OutboundPolicy,
) -> Result<Converted<OutboundPolicy<BackendSpec>>, Error> {
    let mut unsupported = Unsupported::default();
    let field = "outbound.OutboundPolicy.protocol";
    let kind = required(field, &required(field, &proto.protocol)?.kind)?;
    let policy = OutboundPolicy {
        meta: metadata("outbound.OutboundPolicy.metadata", &proto.metadata)?,
        protocol: protocol(&mut unsupported, kind)?,
    };
    Ok(unsupported.with(policy))
}

fn protocol(
    unsupported: &mut Unsupported,
    proto: &proxy_protocol::Kind,
) -> Result<Protocol<BackendSpec>, Error> {
    use proxy_protocol::Kind;
    Ok(match proto {
        Kind::Detect(proto) => {
            let timeout = "outbound.ProxyProtocol.Detect.timeout";
            let opaque_field = "outbound.ProxyProtocol.Detect.opaque";
            let http1 = required("outbound.ProxyProtocol.Detect.http1", &proto.http1)?;
            let http2 = required("outbound.ProxyProtocol.Detect.http2", &proto.http2)?;
            Protocol::Detect {
                timeout: duration(timeout, required(timeout, &proto.timeout)?)?,
                opaque: opaque(unsupported, required(opaque_field, &proto.opaque)?)?,
                http1: http(unsupported, &http1.routes, &http1.failure_accrual)?,
                http2: http(unsupported, &http2.routes, &http2.failure_accrual)?,
            }
        }
        Kind::Opaque(proto) => Protocol::Opaque(opaque(unsupported, proto)?),
        Kind::Http1(proto) => {
            Protocol::Http1(http(unsupported, &proto.routes, &proto.failure_accrual)?)
        }
        Kind::Http2(proto) => {
            Protocol::Http2(http(unsupported, &proto.routes, &proto.failure_accrual)?)
        }
        Kind::Grpc(proto) => Protocol::Grpc(grpc(unsupported, proto)?),
        Kind::Tls(proto) => Protocol::Tls(tls(unsupported, proto)?),
    })
}

fn http(
    unsupported: &mut Unsupported,
    routes: &[outbound::HttpRoute],
    accrual: &Option<outbound::FailureAccrual>,
) -> Result<HttpPolicy<BackendSpec>, Error> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    check_http_patterns(rules.flat_map(|rule| &rule.matches))?;
    let failure_accrual = failure_accrual(accrual)?;
    let mut backends = Backends {
        unsupported,
        failure_accrual,
    };
    let routes = routes.iter().map(|route| http_route(&mut backends, route));
    Ok(HttpPolicy {
        routes: routes.collect::<Result<_, _>>()?,
    })
}

fn http_route(
    backends: &mut Backends<'_>,
    proto: &outbound::HttpRoute,
) -> Result<HttpRoute<BackendSpec>, Error> {
    let mut rules = Vec::with_capacity(proto.rules.len());
    for rule in &proto.rules {
        let noted = &mut *backends.unsupported;
        let retry = rule.retry.as_ref();
        let retry = retry.map(|retry| http_retry(noted, retry)).transpose()?;
        let on_rule = filters(noted, &rule.filters)?;
        let spread = spread!(
            http_route,
            "HttpRoute",
            &rule.backends,
            |of_backend: &[_]| filters(noted, of_backend)
        );
        #[expect(deprecated, reason = "the field that older controllers set")]
        let timeouts = timeouts(&rule.timeouts, &rule.request_timeout)?;
        rules.push(Rule {
            matches: http_matches(&rule.matches)?,
            policy: RoutePolicy {
                backends: backends.distribution(spread, route_backend)?,
                filters: on_rule,
                timeouts,
                retry,
                allow_l5d_request_headers: rule.allow_l5d_request_headers,
                failures: None,
            },
        });
    }
    Ok(HttpRoute {
        meta: metadata("outbound.HttpRoute.metadata", &proto.metadata)?,
        hosts: hosts(&proto.hosts)?,
        rules,
    })
}

fn grpc(
    unsupported: &mut Unsupported,
    proto: &proxy_protocol::Grpc,
) -> Result<GrpcPolicy<BackendSpec>, Error> {
    let rules = proto.routes.iter().flat_map(|route| &route.rules);
    check_grpc_patterns(rules.flat_map(|rule| &rule.matches))?;
    let failure_accrual = failure_accrual(&proto.failure_accrual)?;
    let mut backends = Backends {
        unsupported,
        failure_accrual,
    };
    let routes = proto.routes.iter();
    Ok(GrpcPolicy {
        routes: routes
            .map(|route| grpc_route(&mut backends, route))
            .collect::<Result<_, _>>()?,
    })
}

fn grpc_route(
    backends: &mut Backends<'_>,
    proto: &outbound::GrpcRoute,
) -> Result<GrpcRoute<BackendSpec>, Error> {
    let mut rules = Vec::with_capacity(proto.rules.len());
    for rule in &proto.rules {
        let noted = &mut *backends.unsupported;
        let retry = rule.retry.as_ref();
        let retry = retry.map(|retry| grpc_retry(noted, retry)).transpose()?;
        let on_rule = filters(noted, &rule.filters)?;
        let spread = spread!(
            grpc_route,
            "GrpcRoute",
            &rule.backends,
            |of_backend: &[_]| filters(noted, of_backend)
        );
        #[expect(deprecated, reason = "the field that older controllers set")]
        let timeouts = timeouts(&rule.timeouts, &rule.request_timeout)?;
        rules.push(Rule {
            matches: grpc_matches(&rule.matches)?,
            policy: RoutePolicy {
                backends: backends.distribution(spread, route_backend)?,
                filters: on_rule,
                timeouts,
                retry,
                allow_l5d_request_headers: rule.allow_l5d_request_headers,
                failures: None,
            },
        });
    }
    Ok(GrpcRoute {
        meta: metadata("outbound.GrpcRoute.metadata", &proto.metadata)?,
        hosts: hosts(&proto.hosts)?,
        rules,
    })
}

fn opaque(
    unsupported: &mut Unsupported,
    proto: &proxy_protocol::Opaque,
) -> Result<OpaquePolicy<BackendSpec>, Error> {
    // Nothing tells opaque connections apart, so only the first rule of the first route can apply.
    unsupported.note(
        proto.routes.len() > 1,
        "outbound.ProxyProtocol.Opaque.routes",
    );
    let Some(route) = proto.routes.first() else {
        return Ok(OpaquePolicy { route: None });
    };
    unsupported.note(route.rules.len() > 1, "outbound.OpaqueRoute.rules");
    let backends = match route.rules.first() {
        None => Distribution::Empty,
        Some(rule) => {
            // Each kind of filter there is refuses the connection, and so does one yet unknown.
            let refused = !rule.filters.is_empty();
            let spread = spread!(opaque_route, "OpaqueRoute", &rule.backends, refuses);
            let mut backends = plain(unsupported);
            unless(refused, backends.distribution(spread, connection_backend)?)
        }
    };
    Ok(OpaquePolicy {
        route: Some(OpaqueRoute {
            meta: metadata("outbound.OpaqueRoute.metadata", &route.metadata)?,
            backends,
        }),
    })
}

fn tls(
    unsupported: &mut Unsupported,
    proto: &proxy_protocol::Tls,
) -> Result<TlsPolicy<BackendSpec>, Error> {
    let mut routes = Vec::with_capacity(proto.routes.len());
    for route in &proto.routes {
        unsupported.note(route.rules.len() > 1, "outbound.TlsRoute.rules");
        let backends = match route.rules.first() {
            None => Distribution::Empty,
            Some(rule) => {
                let refused = !rule.filters.is_empty();
                let spread = spread!(tls_route, "TlsRoute", &rule.backends, refuses);
                let mut backends = plain(unsupported);
                unless(refused, backends.distribution(spread, connection_backend)?)
            }
        };
        routes.push(TlsRoute {
            meta: metadata("outbound.TlsRoute.metadata", &route.metadata)?,
            snis: route.snis.iter().map(sni).collect::<Result<_, _>>()?,
            backends,
        });
    }
    Ok(TlsPolicy { routes })
}

fn sni(proto: &tls_route::SniMatch) -> Result<HostMatch, Error> {
    use tls_route::sni_match::Match;
    Ok(
        match required("tls_route.SniMatch.match", &proto.r#match)? {
            Match::Exact(name) => HostMatch::exact(name),
            Match::Suffix(suffix) => suffix_of(&suffix.reverse_labels),
        },
    )
}

/// Backends of a protocol without responses to judge.
fn plain(unsupported: &mut Unsupported) -> Backends<'_> {
    Backends {
        unsupported,
        failure_accrual: None,
    }
}

fn route_backend(backend: BackendSpec, filters: Filters) -> RouteBackend<BackendSpec> {
    RouteBackend { backend, filters }
}

fn connection_backend(backend: BackendSpec, refused: bool) -> ConnectionBackend<BackendSpec> {
    ConnectionBackend { backend, refused }
}

/// Whether a backend's filters refuse connections: as those of a rule, all do.
fn refuses<F>(filters: &[F]) -> Result<bool, Error> {
    Ok(!filters.is_empty())
}

/// No backends for what must fail.
fn unless<B>(fails: bool, backends: Distribution<B>) -> Distribution<B> {
    if fails { Distribution::Empty } else { backends }
}

/// `older` is what controllers set before there was `proto`, and stands for its `response`.
fn timeouts(
    proto: &Option<http_route::Timeouts>,
    older: &Option<prost_types::Duration>,
) -> Result<Timeouts, Error> {
    let Some(proto) = proto else {
        let response: Option<Duration> = limit("outbound.Rule.requestTimeout", older)?;
        return Ok(Timeouts {
            response,
            ..Timeouts::default()
        });
    };
    Ok(Timeouts {
        request: limit("http_route.Timeouts.request", &proto.request)?,
        response: limit("http_route.Timeouts.response", &proto.response)?,
        idle: limit("http_route.Timeouts.idle", &proto.idle)?,
    })
}
