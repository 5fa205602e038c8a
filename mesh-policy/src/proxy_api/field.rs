//! Single fields that several messages share.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use linkerd2_proxy_api::{meta, net};

use crate::{Error, Meta, Resource};

/// `value`, or the error that `field` is missing.
pub(super) fn required<'a, T>(field: &'static str, value: &'a Option<T>) -> Result<&'a T, Error> {
    value.as_ref().ok_or(Error::Missing { field })
}

pub(super) fn duration(
    field: &'static str,
    value: &prost_types::Duration,
) -> Result<Duration, Error> {
    let duration = Duration::try_from(*value).ok();
    let valid = duration.filter(|duration| *duration <= MAX_DURATION);
    valid.ok_or_else(|| {
        let given = format!("{}s {}ns", value.seconds, value.nanos);
        Error::invalid(field, &given, "a duration from zero to 10,000 years")
    })
}

/// The longest that there is (`google.protobuf.Duration`). Any instant may be put off by it.
const MAX_DURATION: Duration = Duration::from_secs(315_576_000_000);

/// A duration that must be there.
pub(super) fn required_duration(
    field: &'static str,
    value: &Option<prost_types::Duration>,
) -> Result<Duration, Error> {
    duration(field, required(field, value)?)
}

/// A limit: absent and zero both mean that there is none (Gateway API, `HTTPRouteTimeouts`).
pub(super) fn limit(
    field: &'static str,
    value: &Option<prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    let Some(value) = value else {
        return Ok(None);
    };
    Ok(Some(duration(field, value)?).filter(|limit| !limit.is_zero()))
}

pub(super) fn metadata(
    field: &'static str,
    value: &Option<meta::Metadata>,
) -> Result<Arc<Meta>, Error> {
    let kind = required(field, &required(field, value)?.kind)?;
    let meta = match kind {
        meta::metadata::Kind::Default(name) => Meta::default_named(name),
        meta::metadata::Kind::Resource(resource) => {
            if resource.kind.is_empty() || resource.name.is_empty() {
                let given = format!("{}/{}", resource.kind, resource.name);
                return Err(Error::invalid(field, &given, "a kind and a name"));
            }
            Meta::Resource(Resource {
                group: resource.group.clone(),
                kind: resource.kind.clone(),
                name: resource.name.clone(),
                namespace: resource.namespace.clone(),
                section: resource.section.clone(),
                port: optional_port("meta.Resource.port", resource.port)?,
            })
        }
    };
    Ok(Arc::new(meta))
}

/// A port of which zero says that there is none.
pub(super) fn optional_port(field: &'static str, port: u32) -> Result<Option<NonZeroU16>, Error> {
    match u16::try_from(port) {
        Ok(port) => Ok(NonZeroU16::new(port)),
        Err(_) => Err(Error::invalid(field, &port.to_string(), "at most 65535")),
    }
}

pub(super) fn ip(field: &'static str, value: &Option<net::IpAddress>) -> Result<IpAddr, Error> {
    let ip = required(field, &required(field, value)?.ip)?;
    Ok(match ip {
        net::ip_address::Ip::Ipv4(bits) => IpAddr::V4((*bits).into()),
        net::ip_address::Ip::Ipv6(ip) => {
            let bits = u128::from(ip.first) << 64 | u128::from(ip.last);
            IpAddr::V6(bits.into())
        }
    })
}

pub(super) fn address(value: &Option<net::TcpAddress>) -> Result<SocketAddr, Error> {
    let address = required("net.TcpAddress", value)?;
    let ip = ip("net.TcpAddress.ip", &address.ip)?;
    let field = "net.TcpAddress.port";
    let port = optional_port(field, address.port)?;
    let port = port.ok_or_else(|| Error::invalid(field, "0", "a port above zero"))?;
    Ok(SocketAddr::new(ip, port.get()))
}

pub(super) fn network(field: &'static str, value: &net::IpNetwork) -> Result<IpNet, Error> {
    let ip = ip(field, &value.ip)?;
    let length = u8::try_from(value.prefix_len).ok();
    let network = length.and_then(|length| IpNet::new(ip, length).ok());
    network.ok_or_else(|| {
        let given = format!("{ip}/{}", value.prefix_len);
        Error::invalid(field, &given, "a prefix no longer than the address")
    })
}
