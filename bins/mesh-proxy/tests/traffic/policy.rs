//! Policies and endpoints as a controller sends them.

use std::net::SocketAddr;
use std::time::Duration;

use linkerd2_proxy_api::destination::protocol_hint::{H2, Opaque, OpaqueTransport, Protocol};
use linkerd2_proxy_api::destination::tls_identity::{DnsLikeIdentity, Strategy};
use linkerd2_proxy_api::destination::{ProtocolHint, TlsIdentity, WeightedAddr};
use linkerd2_proxy_api::http_route::{
    HostMatch, HttpRouteMatch, PathMatch, Timeouts, host_match, path_match,
};
use linkerd2_proxy_api::inbound::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
use linkerd2_proxy_api::inbound::authn::{Permit, PermitMeshTls, PermitUnauthenticated};
use linkerd2_proxy_api::inbound::{self, Authn, Authz, Identity, Network, Server};
use linkerd2_proxy_api::net::{IPv6, IpAddress, IpNetwork, ip_address};
use linkerd2_proxy_api::outbound::http_route::{
    Distribution, RouteBackend, Rule, WeightedRouteBackend, distribution,
};
use linkerd2_proxy_api::outbound::proxy_protocol::{self, Kind};
use linkerd2_proxy_api::outbound::{
    GrpcRoute, OutboundPolicy, ProxyProtocol, TlsRoute, grpc_route, tls_route,
};
use linkerd2_proxy_api::tls_route::{SniMatch, sni_match};

use crate::controller::messages;
use crate::mesh::SERVER;

pub fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// The server's mesh port, for HTTP.
pub fn meshed(at: SocketAddr) -> WeightedAddr {
    meshed_as(at, SERVER)
}

/// The mesh port of whoever has this name, for HTTP.
pub fn meshed_as(at: SocketAddr, name: &str) -> WeightedAddr {
    let name = DnsLikeIdentity {
        name: name.to_owned(),
    };
    WeightedAddr {
        tls_identity: Some(TlsIdentity {
            server_name: Some(name.clone()),
            strategy: Some(Strategy::DnsLikeIdentity(name)),
        }),
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: None,
        }),
        ..messages::endpoint(&at.to_string())
    }
}

/// The server's mesh port, for opaque connections to the port `app`, announced by a transport header.
pub fn meshed_opaque(at: SocketAddr, app: u16) -> WeightedAddr {
    let transport = OpaqueTransport {
        inbound_port: at.port().into(),
    };
    WeightedAddr {
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::Opaque(Opaque {})),
            opaque_transport: Some(transport),
        }),
        ..meshed(SocketAddr::new(at.ip(), app))
    }
}

/// An endpoint that is not in the mesh.
pub fn plain(at: SocketAddr) -> WeightedAddr {
    messages::endpoint(&at.to_string())
}

/// A service whose connections are all opaque.
pub fn opaque(name: &str) -> OutboundPolicy {
    let mut policy = messages::balanced(name, &format!("{name}.test:80"));
    let opaque = detect(&mut policy).opaque.take().unwrap();
    policy.protocol = Some(ProxyProtocol {
        kind: Some(Kind::Opaque(opaque)),
    });
    policy
}

/// A service whose connections are TLS, each to the backend that its name leads to: a path for a name.
pub fn tls(names: &[(&str, &str)]) -> OutboundPolicy {
    let route = |(name, path): &(&str, &str)| {
        let mut policy = messages::balanced(path, path);
        let [rule, _] = rules(&mut policy);
        let Some(distribution::Kind::FirstAvailable(first)) =
            rule.backends.take().and_then(|backends| backends.kind)
        else {
            panic!("not the first available")
        };
        let backend = tls_route::RouteBackend {
            backend: first
                .backends
                .into_iter()
                .find_map(|backend| backend.backend),
            ..Default::default()
        };
        let first = tls_route::distribution::FirstAvailable {
            backends: vec![backend],
        };
        let rule = tls_route::Rule {
            backends: Some(tls_route::Distribution {
                kind: Some(tls_route::distribution::Kind::FirstAvailable(first)),
            }),
            ..Default::default()
        };
        TlsRoute {
            metadata: messages::named(name),
            snis: vec![SniMatch {
                r#match: Some(sni_match::Match::Exact((*name).to_owned())),
            }],
            rules: vec![rule],
        }
    };
    let routes = names.iter().map(route).collect();
    let mut policy = messages::balanced("tls", "tls.test:80");
    policy.protocol = Some(ProxyProtocol {
        kind: Some(Kind::Tls(proxy_protocol::Tls { routes })),
    });
    policy
}

/// The detected protocol of a policy, to be changed.
pub fn detect(policy: &mut OutboundPolicy) -> &mut proxy_protocol::Detect {
    match policy
        .protocol
        .as_mut()
        .and_then(|protocol| protocol.kind.as_mut())
    {
        Some(Kind::Detect(detect)) => detect,
        other => panic!("not detected: {other:?}"),
    }
}

/// The service `web` with its route changed so.
pub fn changed(change: impl Fn(&mut Rule)) -> OutboundPolicy {
    let mut policy = messages::balanced("web", "web.test:80");
    rules(&mut policy).into_iter().for_each(change);
    policy
}

/// The backend of a route.
pub fn backend(rule: &mut Rule) -> &mut RouteBackend {
    match rule
        .backends
        .as_mut()
        .and_then(|backends| backends.kind.as_mut())
    {
        Some(distribution::Kind::FirstAvailable(first)) => &mut first.backends[0],
        other => panic!("not the first available: {other:?}"),
    }
}

/// The service `web`, known to speak gRPC, with its route changed so.
pub fn grpc(change: impl Fn(&mut grpc_route::Rule)) -> OutboundPolicy {
    let mut policy = messages::balanced("web", "web.test:80");
    let mut route = detect(&mut policy).http2.take().unwrap().routes.remove(0);
    let backend = backend(&mut route.rules[0]).backend.clone();
    let backends = grpc_route::distribution::FirstAvailable {
        backends: vec![grpc_route::RouteBackend {
            backend,
            ..Default::default()
        }],
    };
    let mut rule = grpc_route::Rule {
        backends: Some(grpc_route::Distribution {
            kind: Some(grpc_route::distribution::Kind::FirstAvailable(backends)),
        }),
        ..Default::default()
    };
    change(&mut rule);
    let route = GrpcRoute {
        metadata: route.metadata,
        rules: vec![rule],
        ..Default::default()
    };
    let grpc = proxy_protocol::Grpc {
        routes: vec![route],
        failure_accrual: None,
    };
    policy.protocol = Some(ProxyProtocol {
        kind: Some(Kind::Grpc(grpc)),
    });
    policy
}

fn rules(policy: &mut OutboundPolicy) -> [&mut Rule; 2] {
    let detect = detect(policy);
    let http1 = &mut detect.http1.as_mut().unwrap().routes[0].rules[0];
    let http2 = &mut detect.http2.as_mut().unwrap().routes[0].rules[0];
    [http1, http2]
}

/// The service `web` with these timeouts on its route.
pub fn with_timeouts(timeouts: Timeouts) -> OutboundPolicy {
    let mut policy = messages::balanced("web", "web.test:80");
    for rule in rules(&mut policy) {
        rule.timeouts = Some(timeouts);
    }
    policy
}

/// The service `web` with one route, for one host.
pub fn for_host(host: &str) -> OutboundPolicy {
    let mut policy = messages::balanced("web", "web.test:80");
    let exact = HostMatch {
        r#match: Some(host_match::Match::Exact(host.to_owned())),
    };
    let detect = detect(&mut policy);
    detect.http1.as_mut().unwrap().routes[0].hosts = vec![exact.clone()];
    detect.http2.as_mut().unwrap().routes[0].hosts = vec![exact];
    policy
}

/// The service `web` split over backends: each a path and its weight.
pub fn weighted(backends: &[(&str, u32)]) -> OutboundPolicy {
    let mut policy = messages::balanced("web", "web.test:80");
    let backend = |(path, weight): &(&str, u32)| {
        let mut other = messages::balanced(path, path);
        let [rule, _] = rules(&mut other);
        let Some(distribution::Kind::FirstAvailable(mut first)) =
            rule.backends.take().and_then(|backends| backends.kind)
        else {
            panic!("not the first available")
        };
        WeightedRouteBackend {
            backend: Some(first.backends.remove(0)),
            weight: *weight,
        }
    };
    let backends: Vec<_> = backends.iter().map(backend).collect();
    for rule in rules(&mut policy) {
        let random = distribution::RandomAvailable {
            backends: backends.clone(),
        };
        rule.backends = Some(Distribution {
            kind: Some(distribution::Kind::RandomAvailable(random)),
        });
    }
    policy
}

fn everywhere() -> Vec<Network> {
    let all = |ip| Network {
        net: Some(IpNetwork {
            ip: Some(IpAddress { ip: Some(ip) }),
            prefix_len: 0,
        }),
        except: Vec::new(),
    };
    let ipv6 = IPv6 { first: 0, last: 0 };
    vec![
        all(ip_address::Ip::Ipv4(0)),
        all(ip_address::Ip::Ipv6(ipv6)),
    ]
}

/// A server with detection and one authorization.
fn server(permit: Option<Permit>) -> Server {
    let detect = inbound::proxy_protocol::Detect {
        timeout: duration(Duration::from_secs(10)),
        ..Default::default()
    };
    Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(inbound::proxy_protocol::Kind::Detect(detect)),
        }),
        authorizations: vec![Authz {
            networks: everywhere(),
            authentication: Some(Authn { permit }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Lets everybody in.
pub fn open() -> Server {
    server(Some(Permit::Unauthenticated(PermitUnauthenticated {})))
}

/// Lets this identity in.
pub fn only(identity: &str) -> Server {
    let identities = vec![Identity {
        name: identity.to_owned(),
    }];
    let clients = PermitClientIdentities {
        identities,
        suffixes: Vec::new(),
    };
    server(Some(Permit::MeshTls(PermitMeshTls {
        clients: Some(Clients::Identities(clients)),
    })))
}

/// An authorization of a kind that nobody knows.
pub fn unknown_authorization() -> Server {
    server(None)
}

/// The same, but opaque.
pub fn as_opaque(server: Server) -> Server {
    let opaque = inbound::proxy_protocol::Kind::Opaque(inbound::proxy_protocol::Opaque {});
    Server {
        protocol: Some(inbound::ProxyProtocol { kind: Some(opaque) }),
        ..server
    }
}

/// What the server's policy says of the protocol, to be replaced.
pub fn with_protocol(server: Server, kind: inbound::proxy_protocol::Kind) -> Server {
    Server {
        protocol: Some(inbound::ProxyProtocol { kind: Some(kind) }),
        ..server
    }
}

/// Each path and who may ask for it, by identity. Whoever is let in by `server` is so anywhere.
pub fn routed(server: Server, paths: &[(&str, &str)]) -> Server {
    let route = |(path, identity): &(&str, &str)| {
        let path = PathMatch {
            kind: Some(path_match::Kind::Prefix((*path).to_owned())),
        };
        let rule = inbound::http_route::Rule {
            matches: vec![HttpRouteMatch {
                path: Some(path),
                ..Default::default()
            }],
            ..Default::default()
        };
        inbound::HttpRoute {
            metadata: messages::named(identity),
            authorizations: only(identity).authorizations,
            rules: vec![rule],
            ..Default::default()
        }
    };
    let detect = inbound::proxy_protocol::Detect {
        timeout: duration(Duration::from_secs(10)),
        http_routes: paths.iter().map(route).collect(),
        ..Default::default()
    };
    with_protocol(server, inbound::proxy_protocol::Kind::Detect(detect))
}

/// A server that lets nobody in but by a route.
pub fn nobody() -> Server {
    Server {
        authorizations: Vec::new(),
        ..open()
    }
}

/// The same, with this long for detection.
pub fn detected_within(server: Server, timeout: Duration) -> Server {
    let detect = inbound::proxy_protocol::Detect {
        timeout: duration(timeout),
        ..Default::default()
    };
    Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(inbound::proxy_protocol::Kind::Detect(detect)),
        }),
        ..server
    }
}
