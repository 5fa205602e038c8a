use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;
use linkerd2_proxy_api::destination::{
    self, Http2ClientParams, TlsIdentity, WeightedAddr, protocol_hint, tls_identity, update,
};
use linkerd2_proxy_api::net::TcpAddress;
use mesh_tls::Identity;

use super::field::{address, metadata, optional_port, required};
use super::unsupported::{Converted, Unsupported};
use crate::{EndpointSpec, Error, Meta, ProtocolHint, TlsSpec};

/// A change of a service's endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EndpointUpdate {
    /// These are new or changed.
    Add {
        /// The endpoints.
        endpoints: Vec<EndpointSpec>,
        /// What was wrong with those left out. One bad endpoint does not keep the others out.
        rejected: Vec<Error>,
    },
    /// The endpoints at these addresses are gone.
    Remove(Vec<SocketAddr>),
    /// All endpoints are gone.
    NoEndpoints {
        /// True when the service exists.
        exists: bool,
    },
}

/// What is known of a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Profile {
    /// The name of the service, to be looked up by, when it has one.
    pub name: Option<String>,
    /// True when connections are not to be looked into.
    pub opaque: bool,
    /// The one endpoint that the target is, when it is no service.
    pub endpoint: Option<EndpointSpec>,
    /// The target's resource.
    pub meta: Option<Arc<Meta>>,
}

/// The change in `proto`.
///
/// # Errors
///
/// [`Error`] naming the field that is missing or means nothing. A bad endpoint among those added is no error; see
/// [`EndpointUpdate::Add`].
pub fn endpoint_update(proto: &destination::Update) -> Result<Converted<EndpointUpdate>, Error> {
    let mut unsupported = Unsupported::default();
    let update = match required("destination.Update.update", &proto.update)? {
        update::Update::Add(set) => {
            let mut endpoints = Vec::with_capacity(set.addrs.len());
            let mut rejected = Vec::new();
            for addr in &set.addrs {
                match endpoint(addr, &set.metric_labels, &mut unsupported) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(error) => rejected.push(error),
                }
            }
            EndpointUpdate::Add {
                endpoints,
                rejected,
            }
        }
        update::Update::Remove(set) => {
            let addrs = set.addrs.iter().map(removed);
            EndpointUpdate::Remove(addrs.collect::<Result<_, _>>()?)
        }
        update::Update::NoEndpoints(none) => EndpointUpdate::NoEndpoints {
            exists: none.exists,
        },
    };
    Ok(unsupported.with(update))
}

/// The profile in `proto`.
///
/// # Errors
///
/// [`Error`] naming the field that is missing or means nothing.
pub fn profile(proto: &destination::DestinationProfile) -> Result<Converted<Profile>, Error> {
    let mut unsupported = Unsupported::default();
    let fields = [
        (
            !proto.routes.is_empty(),
            "destination.DestinationProfile.routes",
        ),
        // The controller sends a budget with every profile; only routes that retry have a use for it.
        (
            proto.retry_budget.is_some() && proto.routes.iter().any(|route| route.is_retryable),
            "destination.DestinationProfile.retry_budget",
        ),
        (
            !proto.dst_overrides.is_empty(),
            "destination.DestinationProfile.dst_overrides",
        ),
    ];
    for (set, field) in fields {
        unsupported.note(set, field);
    }
    let endpoint = match &proto.endpoint {
        Some(addr) => Some(endpoint(addr, std::iter::empty(), &mut unsupported)?),
        None => None,
    };
    let meta = match &proto.parent_ref {
        Some(_) => Some(metadata(
            "destination.DestinationProfile.parent_ref",
            &proto.parent_ref,
        )?),
        None => None,
    };
    let name = &proto.fully_qualified_name;
    let profile = Profile {
        name: (!name.is_empty()).then(|| name.clone()),
        opaque: proto.opaque_protocol,
        endpoint,
        meta,
    };
    Ok(unsupported.with(profile))
}

/// The endpoint in `proto`. `shared` are labels of the set it is in; its own win.
pub(super) fn endpoint<'p>(
    proto: &'p WeightedAddr,
    shared: impl IntoIterator<Item = (&'p String, &'p String)>,
    unsupported: &mut Unsupported,
) -> Result<EndpointSpec, Error> {
    let addr = address(&proto.addr)?;
    let tls = proto.tls_identity.as_ref().map(tls).transpose()?;
    let mut labels: HashMap<_, _> = shared.into_iter().collect();
    labels.extend(&proto.metric_labels);

    let mut hint = ProtocolHint::Unknown;
    let mut opaque_transport = None;
    if let Some(proto) = &proto.protocol_hint {
        hint = match proto.protocol {
            Some(protocol_hint::Protocol::H2(_)) => ProtocolHint::Http2,
            Some(protocol_hint::Protocol::Opaque(_)) => ProtocolHint::Opaque,
            None => ProtocolHint::Unknown,
        };
        if let Some(transport) = &proto.opaque_transport {
            let field = "destination.ProtocolHint.OpaqueTransport.inbound_port";
            opaque_transport = optional_port(field, transport.inbound_port)?;
        }
    }

    let over = proto.authority_override.as_ref();
    let over = over.map_or("", |over| &over.authority_override);
    let authority_override = over.parse::<Authority>().ok();
    // A stock proxy ignores one that is malformed as well.
    let malformed = !over.is_empty() && authority_override.is_none();
    unsupported.note(
        malformed,
        "destination.AuthorityOverride.authority_override",
    );
    unsupported.note(
        proto.resource_ref.is_some(),
        "destination.WeightedAddr.resource_ref",
    );
    if let Some(http2) = &proto.http2 {
        note_http2(http2, unsupported);
    }
    Ok(EndpointSpec {
        addr,
        // An older controller sends none.
        weight: match proto.weight {
            0 => EndpointSpec::DEFAULT_WEIGHT,
            weight => weight,
        },
        zone: labels
            .get(&"zone".to_owned())
            .filter(|zone| !zone.is_empty())
            .map(|zone| (*zone).clone()),
        labels: labels
            .into_iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tls,
        hint,
        opaque_transport,
        authority_override,
    })
}

fn removed(addr: &TcpAddress) -> Result<SocketAddr, Error> {
    address(&Some(*addr))
}

/// An identity that cannot be read is an error: without it, the endpoint would be spoken to in plaintext.
fn tls(proto: &TlsIdentity) -> Result<TlsSpec, Error> {
    use tls_identity::Strategy;
    let (field, name) = match required("destination.TlsIdentity.strategy", &proto.strategy)? {
        Strategy::DnsLikeIdentity(identity) => (
            "destination.TlsIdentity.DnsLikeIdentity.name",
            &identity.name,
        ),
        Strategy::UriLikeIdentity(identity) => {
            ("destination.TlsIdentity.UriLikeIdentity.uri", &identity.uri)
        }
    };
    let identity = Identity::parse(name)
        .map_err(|_| Error::invalid(field, name, "a SPIFFE URI or a DNS name"))?;
    let field = "destination.TlsIdentity.server_name";
    let server_name = match &proto.server_name {
        Some(server_name) => server_name.name.clone(),
        None if !identity.is_spiffe() => identity.as_str().to_owned(),
        None => return Err(Error::Missing { field }),
    };
    match Identity::parse(&server_name) {
        Ok(name) if !name.is_spiffe() => Ok(TlsSpec {
            identity,
            server_name,
        }),
        _ => Err(Error::invalid(field, &server_name, "a DNS name")),
    }
}

fn note_http2(http2: &Http2ClientParams, unsupported: &mut Unsupported) {
    let fields = [
        (
            http2.flow_control.is_some(),
            "destination.WeightedAddr.http2.flow_control",
        ),
        (
            http2.keep_alive.is_some(),
            "destination.WeightedAddr.http2.keep_alive",
        ),
        (
            http2.internals.is_some(),
            "destination.WeightedAddr.http2.internals",
        ),
    ];
    for (set, field) in fields {
        unsupported.note(set, field);
    }
}
