//! What is spoken on a port.

use std::fmt;

use mesh_discovery::{Protocol, Service, ServicePort, ServiceRef};

use super::annotations::{self, OPAQUE_PORTS};

/// What a proxy is told about the protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortProtocol {
    /// The proxy finds out: HTTP/1, HTTP/2, or something it does not look into.
    Detect,
    /// HTTP/2 without a look.
    Http2,
    /// gRPC, so HTTP/2.
    Grpc,
    /// Bytes. Also the application's own TLS, which the mesh does not look into.
    Opaque,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detect => "detect",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Opaque => "opaque",
        })
    }
}

/// The protocol of a service's port. The first that has a word counts: the service's annotation of opaque ports, the port's
/// `appProtocol`, the prefix of its name, the workloads it leads to if they agree, Linkerd's list of server-first ports.
pub(crate) fn port_protocol(service: &ServiceRef<'_>, port: &ServicePort) -> PortProtocol {
    let spec = service.spec();
    if annotated_opaque(spec, port) == Some(true) {
        return PortProtocol::Opaque;
    }
    port.app_protocol
        .and_then(of)
        .or_else(|| port.name.as_deref().and_then(by_name))
        .or_else(|| of(service.protocol(port)))
        .unwrap_or_else(|| {
            // The annotation replaces the list, as Linkerd documents it.
            let listed = annotated_opaque(spec, port).is_none() && is_server_first(port.port);
            if listed {
                PortProtocol::Opaque
            } else {
                PortProtocol::Detect
            }
        })
}

/// What a word of discovery means here; `None` for no word.
pub(crate) fn of(protocol: Protocol) -> Option<PortProtocol> {
    match protocol {
        Protocol::Grpc => Some(PortProtocol::Grpc),
        Protocol::Opaque | Protocol::Tls => Some(PortProtocol::Opaque),
        // HTTP is either version, which the proxy tells apart.
        Protocol::Http => Some(PortProtocol::Detect),
        _ => None,
    }
}

/// Whether the servers that commonly listen there speak first, so that detection would only wait.
///
/// Linkerd's default of `config.linkerd.io/opaque-ports`: SMTP, MySQL, Galera, PostgreSQL, Redis, Elasticsearch, memcached.
pub(crate) fn is_server_first(port: u16) -> bool {
    matches!(
        port,
        25 | 587 | 3306 | 4444 | 4567 | 4568 | 5432 | 6379 | 9300 | 11211
    )
}

fn annotated_opaque(service: &Service, port: &ServicePort) -> Option<bool> {
    let ports = annotations::opaque_ports(service.annotations.get(OPAQUE_PORTS)?).ok()?;
    Some(ports.iter().any(|range| range.contains(port)))
}

/// As in `http-web` or `grpc`.
fn by_name(name: &str) -> Option<PortProtocol> {
    let prefix = name.split('-').next().unwrap_or(name);
    match prefix {
        "http" => Some(PortProtocol::Detect),
        "http2" | "h2c" => Some(PortProtocol::Http2),
        "grpc" => Some(PortProtocol::Grpc),
        "tcp" | "opaque" => Some(PortProtocol::Opaque),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_discovery::{Change, Name, Registry, Workload, WorkloadPort};

    fn protocol(set: impl Fn(&mut Service, &mut Workload)) -> PortProtocol {
        let mut service = Service::new("d", "s");
        service.selector = [("a".to_owned(), "b".to_owned())].into();
        service.ports = vec![ServicePort::new(80)];
        let mut workload = Workload::new("d", "w");
        workload.labels = service.selector.clone();
        workload.addresses = vec!["127.0.0.9".parse().unwrap()];
        workload.ports = vec![WorkloadPort::new(80)];
        set(&mut service, &mut workload);
        let port = service.ports[0].port;
        let mut registry = Registry::new(());
        registry.apply([Change::SetWorkload(workload), Change::SetService(service)]);
        let service = registry.service(&Name::new("d", "s")).unwrap();
        port_protocol(&service, service.port(port).unwrap())
    }

    #[test]
    fn the_more_explicit_word_wins() {
        assert_eq!(protocol(|_, _| {}), PortProtocol::Detect);
        assert_eq!(
            protocol(|_, w| w.ports[0].protocol = Protocol::Grpc),
            PortProtocol::Grpc
        );
        assert_eq!(
            protocol(|s, w| {
                w.ports[0].protocol = Protocol::Grpc;
                s.ports[0].name = Some("tcp-x".into());
            }),
            PortProtocol::Opaque
        );
        assert_eq!(
            protocol(|s, _| {
                s.ports[0].name = Some("tcp-x".into());
                s.ports[0].app_protocol = Some(Protocol::Http);
            }),
            PortProtocol::Detect
        );
        assert_eq!(
            protocol(|s, _| {
                s.ports[0].app_protocol = Some(Protocol::Http);
                s.annotations.insert(OPAQUE_PORTS.into(), "79-81".into());
            }),
            PortProtocol::Opaque
        );
    }

    #[test]
    fn well_known_server_first_ports_are_opaque_unless_said_otherwise() {
        let at = |s: &mut Service, port| s.ports = vec![ServicePort::new(port)];
        assert_eq!(protocol(|s, _| at(s, 5432)), PortProtocol::Opaque);
        assert_eq!(
            protocol(|s, _| {
                at(s, 5432);
                s.ports[0].app_protocol = Some(Protocol::Http);
            }),
            PortProtocol::Detect
        );
        assert_eq!(
            protocol(|s, _| {
                at(s, 5432);
                s.annotations.insert(OPAQUE_PORTS.into(), String::new());
            }),
            PortProtocol::Detect
        );
    }
}
