//! From endpoints to the messages of the proxy API.

use std::{collections::HashMap, net::SocketAddr};

use bytes::Bytes;
use linkerd2_proxy_api::{
    destination::{
        AddrSet, NoEndpoints, ProtocolHint, TlsIdentity, Update, WeightedAddr, WeightedAddrSet,
        protocol_hint, tls_identity, update,
    },
    meta::{Metadata, Resource, metadata},
    net::TcpAddress,
};
use mesh_discovery::{Encode, Endpoint, Mesh, Protocol, ServiceRef, View};
use mesh_tls::Identity;

use crate::{api::frame, policy::is_server_first};

/// Encodes what subscribers of a view get, framed for gRPC.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UpdateEncoder;

impl Encode for UpdateEncoder {
    fn add(&self, view: &View, endpoints: &[Endpoint<'_>]) -> Bytes {
        let addrs = endpoints
            .iter()
            .map(|endpoint| weighted_addr(endpoint, is_server_first(view.port)))
            .collect();
        let metric_labels = HashMap::from([
            ("namespace".to_owned(), view.service.namespace.clone()),
            ("service".to_owned(), view.service.name.clone()),
        ]);
        update(update::Update::Add(WeightedAddrSet {
            addrs,
            metric_labels,
        }))
    }

    fn remove(&self, _: &View, addresses: &[SocketAddr]) -> Bytes {
        let addrs = addresses.iter().copied().map(tcp_address).collect();
        update(update::Update::Remove(AddrSet { addrs }))
    }

    fn no_endpoints(&self, _: &View, exists: bool) -> Bytes {
        update(update::Update::NoEndpoints(NoEndpoints { exists }))
    }
}

/// One endpoint as a proxy is to reach it; `opaque` if the service's port is, whatever the endpoint says.
pub(crate) fn weighted_addr(endpoint: &Endpoint<'_>, opaque: bool) -> WeightedAddr {
    let mut metric_labels = HashMap::from([
        ("pod".to_owned(), endpoint.workload().to_owned()),
        (
            "workload_namespace".to_owned(),
            endpoint.namespace().to_owned(),
        ),
    ]);
    if let Some(zone) = endpoint.zone() {
        metric_labels.insert("zone".to_owned(), zone.to_owned());
    }
    let tls_identity = endpoint.identity().map(|identity| {
        tls_identity(
            identity,
            &format!("{}.{}", endpoint.workload(), endpoint.namespace()),
        )
    });
    let opaque = opaque
        || match endpoint.protocol() {
            Protocol::Opaque | Protocol::Tls => true,
            Protocol::Detect => is_server_first(endpoint.app_port()),
            _ => false,
        };
    WeightedAddr {
        addr: Some(tcp_address(endpoint.address())),
        weight: endpoint.weight().saturating_mul(WEIGHT),
        metric_labels,
        // A hint speaks of a proxy on the other side, and only one that proves an identity is told apart from the app.
        protocol_hint: tls_identity
            .as_ref()
            .and_then(|_| hint(endpoint.mesh(), opaque)),
        tls_identity,
        authority_override: None,
        http2: None,
        // The labels name the workload already, and a large service has many endpoints.
        resource_ref: None,
    }
}

pub(crate) fn service_metadata(service: &ServiceRef<'_>, port: u16) -> Metadata {
    resource("core", "Service", service.namespace(), service.name(), port)
}

pub(crate) fn workload_metadata(namespace: &str, name: &str, port: u16) -> Metadata {
    resource("mesh-rs.io", "Workload", namespace, name, port)
}

fn resource(group: &str, kind: &str, namespace: &str, name: &str, port: u16) -> Metadata {
    Metadata {
        kind: Some(metadata::Kind::Resource(Resource {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            section: String::new(),
            port: port.into(),
        })),
    }
}

/// With `opaque_transport`, a proxy connects to the endpoint's address at `inbound_port`, and names the published port in a
/// transport header. A listener of an application port's own needs neither: it is the published address, and knows its port.
fn hint(mesh: Mesh, opaque: bool) -> Option<ProtocolHint> {
    let redirected = match mesh {
        Mesh::Listener => false,
        Mesh::Inbound => true,
        _ => return None,
    };
    let protocol = if opaque {
        protocol_hint::Protocol::Opaque(protocol_hint::Opaque {})
    } else {
        protocol_hint::Protocol::H2(protocol_hint::H2 {})
    };
    Some(ProtocolHint {
        opaque_transport: (redirected && opaque).then_some(protocol_hint::OpaqueTransport {
            inbound_port: INBOUND_PORT,
        }),
        protocol: Some(protocol),
    })
}

/// A SPIFFE identity is no DNS name, which the ClientHello needs; `fallback` stands in for it there.
fn tls_identity(identity: &str, fallback: &str) -> TlsIdentity {
    let dns = |name: &str| tls_identity::DnsLikeIdentity {
        name: name.to_owned(),
    };
    let spiffe = Identity::parse(identity).is_ok_and(|identity| identity.is_spiffe());
    if spiffe {
        TlsIdentity {
            server_name: Some(dns(fallback)),
            strategy: Some(tls_identity::Strategy::UriLikeIdentity(
                tls_identity::UriLikeIdentity {
                    uri: identity.to_owned(),
                },
            )),
        }
    } else {
        TlsIdentity {
            server_name: Some(dns(identity)),
            strategy: Some(tls_identity::Strategy::DnsLikeIdentity(dns(identity))),
        }
    }
}

fn update(update: update::Update) -> Bytes {
    frame(&Update {
        update: Some(update),
    })
}

fn tcp_address(address: SocketAddr) -> TcpAddress {
    TcpAddress {
        ip: Some(address.ip().into()),
        port: address.port().into(),
    }
}

/// Linkerd's weight of an endpoint about which nothing is said.
const WEIGHT: u32 = 10_000;
/// Where a proxy takes redirected traffic (architecture: ports).
const INBOUND_PORT: u32 = 4143;
