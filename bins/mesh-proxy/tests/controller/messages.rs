//! What a controller says.

use linkerd2_proxy_api::destination::{
    AddrSet, DestinationProfile, NoEndpoints, Update, WeightedAddr, WeightedAddrSet, update,
};
use linkerd2_proxy_api::meta::{Metadata, metadata};
use linkerd2_proxy_api::outbound::backend::{
    BalanceP2c, EndpointDiscovery, balance_p2c, endpoint_discovery,
};
use linkerd2_proxy_api::outbound::{
    self as api, Backend, OutboundPolicy, Queue, backend, http_route, opaque_route, proxy_protocol,
};
use prost_types::Duration;

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub fn named(name: &str) -> Option<Metadata> {
    Some(Metadata {
        kind: Some(metadata::Kind::Default(name.to_owned())),
    })
}

/// A detected protocol over one balancer.
pub fn balanced(name: &str, path: &str) -> OutboundPolicy {
    let endpoints = EndpointDiscovery {
        kind: Some(endpoint_discovery::Kind::Dst(
            endpoint_discovery::DestinationGet {
                path: path.to_owned(),
            },
        )),
    };
    let load = balance_p2c::PeakEwma {
        default_rtt: seconds(1),
        // An endpoint whose first answer was slow is soon asked again.
        decay: Some(prost_types::Duration {
            seconds: 0,
            nanos: 200_000_000,
        }),
    };
    detect(
        name,
        backend::Kind::Balancer(BalanceP2c {
            discovery: Some(endpoints),
            load: Some(balance_p2c::Load::PeakEwma(load)),
        }),
    )
}

fn detect(name: &str, kind: backend::Kind) -> OutboundPolicy {
    let backend = Backend {
        metadata: named(name),
        queue: Some(Queue {
            capacity: 100,
            failfast_timeout: seconds(3),
        }),
        kind: Some(kind),
    };
    let http_backend = http_route::RouteBackend {
        backend: Some(backend.clone()),
        ..Default::default()
    };
    let http_backends = http_route::distribution::FirstAvailable {
        backends: vec![http_backend],
    };
    let http_rule = http_route::Rule {
        backends: Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::FirstAvailable(
                http_backends,
            )),
        }),
        ..Default::default()
    };
    let http = vec![api::HttpRoute {
        metadata: named(name),
        rules: vec![http_rule],
        ..Default::default()
    }];
    let opaque_backend = opaque_route::RouteBackend {
        backend: Some(backend),
        ..Default::default()
    };
    let opaque_backends = opaque_route::distribution::FirstAvailable {
        backends: vec![opaque_backend],
    };
    let opaque_rule = opaque_route::Rule {
        backends: Some(opaque_route::Distribution {
            kind: Some(opaque_route::distribution::Kind::FirstAvailable(
                opaque_backends,
            )),
        }),
        ..Default::default()
    };
    let opaque = vec![api::OpaqueRoute {
        metadata: named(name),
        rules: vec![opaque_rule],
    }];
    let detect = proxy_protocol::Detect {
        timeout: seconds(10),
        opaque: Some(proxy_protocol::Opaque { routes: opaque }),
        http1: Some(proxy_protocol::Http1 {
            routes: http.clone(),
            failure_accrual: None,
        }),
        http2: Some(proxy_protocol::Http2 {
            routes: http,
            failure_accrual: None,
        }),
    };
    OutboundPolicy {
        protocol: Some(api::ProxyProtocol {
            kind: Some(proxy_protocol::Kind::Detect(detect)),
        }),
        metadata: named(name),
    }
}

fn address(endpoint: &str) -> Option<linkerd2_proxy_api::net::TcpAddress> {
    let address: std::net::SocketAddr = endpoint.parse().unwrap();
    Some(address.into())
}

/// A plaintext endpoint.
pub fn endpoint(at: &str) -> WeightedAddr {
    WeightedAddr {
        addr: address(at),
        weight: 10_000,
        ..Default::default()
    }
}

/// Adds plaintext endpoints.
pub fn add(endpoints: &[&str]) -> Update {
    let addrs = endpoints.iter().map(|at| endpoint(at)).collect();
    let set = WeightedAddrSet {
        addrs,
        ..Default::default()
    };
    Update {
        update: Some(update::Update::Add(set)),
    }
}

/// Removes endpoints.
pub fn remove(endpoints: &[&str]) -> Update {
    let addrs = endpoints.iter().filter_map(|at| address(at)).collect();
    Update {
        update: Some(update::Update::Remove(AddrSet { addrs })),
    }
}

/// Says that there are none.
pub fn no_endpoints() -> Update {
    Update {
        update: Some(update::Update::NoEndpoints(NoEndpoints { exists: true })),
    }
}

/// The profile of a service.
pub fn service(name: &str) -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: name.to_owned(),
        ..Default::default()
    }
}
