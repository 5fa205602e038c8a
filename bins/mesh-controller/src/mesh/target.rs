//! What a proxy asks about: a service by name, or an address.

use std::net::SocketAddr;

use mesh_discovery::{Authority, Endpoint, Name, Registry, ServicePort, ServiceRef};

/// What a proxy asks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A port of a service, neither of which need exist.
    Service { name: Name, port: u16 },
    /// An address, of a service or of a workload.
    Address(SocketAddr),
}

/// What there is at a target.
pub(crate) enum Found<'a> {
    Service {
        service: ServiceRef<'a>,
        port: &'a ServicePort,
    },
    Endpoint(Endpoint<'a>),
}

impl Target {
    /// Reads `ip:port`, a full service name, or one relative to `namespace` (that of the asking workload).
    ///
    /// A name without a port means port 80, as everywhere in HTTP.
    pub(crate) fn parse(text: &str, namespace: Option<&str>, cluster_domain: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let full;
        let text = if host.contains('.') {
            text
        } else {
            let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
            full = match port {
                Some(port) => format!("{host}.{namespace}:{port}"),
                None => format!("{host}.{namespace}"),
            };
            &full
        };
        let authority = Authority::parse(text, cluster_domain)?;
        Some(Self::Service {
            name: authority.service,
            port: authority.port.unwrap_or(HTTP_PORT),
        })
    }

    /// What is there now. A service's address stands for the service, a workload's for the workload.
    pub(crate) fn find<'a>(&self, registry: &'a Registry) -> Option<Found<'a>> {
        match self {
            Self::Service { name, port } => {
                let service = registry.service(name)?;
                let port = service.port(*port)?;
                Some(Found::Service { service, port })
            }
            Self::Address(address) => {
                if let Some((service, port)) = registry.service_port_at(*address) {
                    return Some(Found::Service { service, port });
                }
                registry.endpoint_at(*address).map(Found::Endpoint)
            }
        }
    }
}

const DEFAULT_NAMESPACE: &str = "default";
const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_relative_to_the_one_who_asks() {
        let parse = |text| match Target::parse(text, Some("shop"), "cluster.local")? {
            Target::Service { name, port } => Some(format!("{name}:{port}")),
            Target::Address(address) => Some(address.to_string()),
        };
        for (text, expected) in [
            ("web", Some("shop/web:80")),
            ("web:8080", Some("shop/web:8080")),
            ("web.other", Some("other/web:80")),
            ("web.other:81", Some("other/web:81")),
            ("web.other.svc.cluster.local:82", Some("other/web:82")),
            ("web.other.svc.elsewhere:82", None),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("127.0.0.1", None),
            ("example.com.", Some("com/example:80")),
            ("a.b.c", None),
            ("web:0", None),
            ("web:x", None),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(parse(text).as_deref(), expected, "{text}");
        }
    }
}
