use std::collections::HashMap;
use std::net::SocketAddr;

use http::uri::Authority;
use linkerd2_proxy_api::destination::{
    self, Http2ClientParams, TlsIdentity, WeightedAddr, http2_client_params, protocol_hint,
    tls_identity, update,
};
use linkerd2_proxy_api::net::TcpAddress;
use mesh_tls::Identity;

use super::field::{address, limit, optional_port, required};
use super::unsupported::{Converted, Unsupported};
use crate::{EndpointSpec, Error, FlowControl, Http2Params, KeepAlive, ProtocolHint, TlsSpec};

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
    let http2 = match &proto.http2 {
        Some(proto) => Some(http2_params(proto)?),
        None => None,
    };
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
        http2,
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

/// A setting of zero is one that was not given.
fn http2_params(proto: &Http2ClientParams) -> Result<Http2Params, Error> {
    let set = |value: u32| (value > 0).then_some(value);
    let flow_control = match &proto.flow_control {
        Some(flow) if flow.adaptive_flow_control => Some(FlowControl::Adaptive),
        // As in stock proxies, one without the other is none.
        Some(flow) => set(flow.initial_connection_window_size)
            .zip(set(flow.initial_stream_window_size))
            .map(|(connection, stream)| {
                Ok(FlowControl::Fixed {
                    connection_window: window(connection)?,
                    stream_window: window(stream)?,
                })
            })
            .transpose()?,
        None => None,
    };
    let keep_alive = match &proto.keep_alive {
        Some(proto) => keep_alive(proto)?,
        None => None,
    };
    let internals = proto.internals.unwrap_or_default();
    let max_frame_size = set(internals.max_frame_size);
    if let Some(size) = max_frame_size.filter(|size| !FRAME_SIZES.contains(size)) {
        return Err(Error::invalid(
            "destination.Http2ClientParams.Internals.max_frame_size",
            &size.to_string(),
            "from 16384 to 16777215",
        ));
    }
    Ok(Http2Params {
        flow_control,
        keep_alive,
        max_concurrent_reset_streams: set(internals.max_concurrent_reset_streams),
        max_frame_size,
        max_send_buf_size: set(internals.max_send_buf_size),
    })
}

fn window(size: u32) -> Result<u32, Error> {
    if size <= MAX_WINDOW {
        return Ok(size);
    }
    Err(Error::invalid(
        "destination.Http2ClientParams.FlowControl",
        &size.to_string(),
        "windows of at most 2147483647",
    ))
}

/// Nothing without both interval and timeout, as in stock proxies.
fn keep_alive(proto: &http2_client_params::KeepAlive) -> Result<Option<KeepAlive>, Error> {
    let interval = "destination.Http2ClientParams.KeepAlive.interval";
    let timeout = "destination.Http2ClientParams.KeepAlive.timeout";
    let both = limit(interval, &proto.interval)?.zip(limit(timeout, &proto.timeout)?);
    Ok(both.map(|(interval, timeout)| KeepAlive {
        interval,
        timeout,
        while_idle: proto.while_idle,
    }))
}

/// RFC 9113, section 6.5.2.
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;

/// RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
