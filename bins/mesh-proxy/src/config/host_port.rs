//! Where a controller is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value as Json;

use super::value::Value;

/// `host:port`, where the host is a DNS name or an IP address.
///
/// A name is looked up at each connection. `localhost` is not looked up at all: it is this machine, whatever a resolver
/// would say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Ip(IpAddr),
    /// In lower case; a trailing dot is kept, as it tells the resolver not to search.
    Name(Box<str>),
}

/// What a [`HostPort`] leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// These addresses, without asking anyone.
    Known(Vec<SocketAddr>),
    /// Whatever the resolver says about this name now, with this port.
    Ask(&'a str, u16),
}

impl HostPort {
    /// Whether it is this machine's loopback interface: what is spoken to without TLS.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => is_localhost(name),
        }
    }

    /// How to find its addresses.
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_> {
        match &self.host {
            Host::Ip(ip) => Lookup::Known(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) if is_localhost(name) => Lookup::Known(vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, self.port)),
            ]),
            Host::Name(name) => Lookup::Ask(name, self.port),
        }
    }
}

impl Value for HostPort {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a host with a port, as in controller.example:8086 or 127.0.0.1:8086, found {text:?}"
            )
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if !is_dns_name(name) {
            return Err(wrong());
        }
        Ok(Self {
            host: Host::Name(name.to_ascii_lowercase().into()),
            port,
        })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn is_localhost(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name) == "localhost"
}

/// Labels of letters, digits, `-` and `_` (RFC 1123 section 2.1, and what Kubernetes uses), the last not all digits.
pub(super) fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        for (text, loopback) in [
            ("127.0.0.1:8086", true),
            ("127.77.0.2:8086", true),
            ("[::1]:8086", true),
            ("[::ffff:127.0.0.1]:8086", true),
            ("localhost:8086", true),
            ("localhost.:8086", true),
            ("LocalHost.:8086", true),
            ("mlocalhost.:8086", false),
            ("localhost.example:8086", false),
            ("10.0.0.1:8086", false),
            (
                "linkerd-dst-headless.linkerd.svc.cluster.local.:8086",
                false,
            ),
        ] {
            assert_eq!(
                HostPort::parse(text).unwrap().is_loopback(),
                loopback,
                "{text}"
            );
        }
        for wrong in [
            "",
            ":1",
            "host",
            "host:",
            "host:x",
            "host:65536",
            "127.0.0.1",
            "::1:8086",
            "10.0.0.300:1",
            "a b:1",
            "a..b:1",
            "http://host:1",
            "u@host:1",
            ".:1",
        ] {
            let error = HostPort::parse(wrong).unwrap_err();
            assert!(error.contains("controller.example:8086"), "{wrong}");
        }
    }

    #[test]
    fn only_names_of_other_machines_are_asked_for() {
        let local = HostPort::parse("localhost.:1").unwrap();
        let addresses = ["127.0.0.1:1", "[::1]:1"].map(|address| address.parse().unwrap());
        assert_eq!(local.lookup(), Lookup::Known(addresses.to_vec()));
        let far = HostPort::parse("Dst.Linkerd.svc.:2").unwrap();
        assert_eq!(far.lookup(), Lookup::Ask("dst.linkerd.svc.", 2));
        assert_eq!(far.to_string(), "dst.linkerd.svc.:2");
    }
}
