//! Services and workloads as a reader sees them, and the names callers use for them.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::{
    endpoint::Endpoint,
    interner::Symbol,
    registry::{Registry, ServiceRow},
    resource::{Name, Protocol, Service, ServicePort, WorkloadPort},
    table::{Table, WorkloadRow},
    view::View,
};

/// A service in the registry.
#[derive(Clone, Copy)]
pub struct ServiceRef<'a> {
    table: &'a Table,
    row: &'a ServiceRow,
}

/// A workload in the registry.
#[derive(Clone, Copy)]
pub struct WorkloadRef<'a> {
    table: &'a Table,
    id: u32,
    row: &'a WorkloadRow,
}

/// A service's name as callers write it, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The service named, which need not exist.
    pub service: Name,
    /// The port, where the caller gave one.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `name.namespace`, `name.namespace.svc` or `name.namespace.svc.<cluster domain>`, with or
    /// without a final dot and `:port`, whatever their case. `None` for anything else.
    pub fn parse(authority: &str, cluster_domain: &str) -> Option<Self> {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (authority, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let domain = cluster_domain.trim_matches('.').to_ascii_lowercase();
        let mut parts = host.splitn(4, '.');
        let (name, namespace) = (parts.next()?, parts.next()?);
        let known = match (parts.next(), parts.next()) {
            (None, _) | (Some("svc"), None) => true,
            (Some("svc"), Some(rest)) => rest == domain,
            _ => false,
        };
        (known && is_label(name) && is_label(namespace)).then(|| Self {
            service: Name::new(namespace, name),
            port,
        })
    }
}

impl Registry {
    /// The service an authority names, in the forms of [`Authority::parse`], and the port where one is
    /// given. The port need not be one of the service's.
    pub fn service_by_authority(
        &self,
        authority: &str,
        cluster_domain: &str,
    ) -> Option<(ServiceRef<'_>, Option<u16>)> {
        let authority = Authority::parse(authority, cluster_domain)?;
        Some((self.service(&authority.service)?, authority.port))
    }
}

impl<'a> ServiceRef<'a> {
    pub(crate) fn new(table: &'a Table, row: &'a ServiceRow) -> Self {
        Self { table, row }
    }

    /// The service as it was set.
    pub fn spec(&self) -> &'a Service {
        &self.row.service
    }

    /// Its name and namespace.
    pub fn id(&self) -> Name {
        self.spec().id()
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.spec().name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a str {
        &self.spec().namespace
    }

    /// The port of that number.
    pub fn port(&self, port: u16) -> Option<&'a ServicePort> {
        self.spec().ports.iter().find(|own| own.port == port)
    }

    /// What is spoken on a port: the service's word, else the word of the workloads it leads to when
    /// they all say the same, else [`Protocol::Detect`].
    pub fn protocol(&self, port: &ServicePort) -> Protocol {
        if let Some(protocol) = port.app_protocol {
            return protocol;
        }
        let said: BTreeSet<Protocol> = (self.row.members.iter())
            .flat_map(|&id| self.table.rows_of(id))
            .filter(|(_, row)| row.answers(&port.target_port, &self.table.strings))
            .map(|(_, row)| row.protocol)
            .collect();
        match said.first() {
            Some(&protocol) if said.len() == 1 => protocol,
            _ => Protocol::Detect,
        }
    }

    /// The workloads it selects, ready or not, by name.
    pub fn workloads(&self) -> Vec<WorkloadRef<'a>> {
        let mut workloads: Vec<_> = (self.row.members.iter())
            .filter_map(|&id| WorkloadRef::new(self.table, id))
            .collect();
        workloads.sort_unstable_by_key(WorkloadRef::name);
        workloads
    }

    /// The unfiltered view of one of its ports.
    pub fn view(&self, port: u16) -> View {
        View::new(self.id(), port)
    }
}

impl<'a> WorkloadRef<'a> {
    pub(crate) fn new(table: &'a Table, id: u32) -> Option<Self> {
        let row = table.workload(id)?;
        Some(Self { table, id, row })
    }

    /// Its name and namespace.
    pub fn id(&self) -> Name {
        Name::new(self.namespace(), self.name())
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.table.strings.text(self.row.name)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a str {
        self.table.strings.text(self.row.namespace)
    }

    /// Its labels, by key.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let strings = &self.table.strings;
        let labels = self.table.labels.resolve(self.row.labels);
        (labels.unwrap_or_default().iter())
            .map(|&(key, value)| (strings.text(key), strings.text(value)))
    }

    /// The identity its proxy proves.
    pub fn identity(&self) -> Option<&'a str> {
        self.text(self.row.identity)
    }

    /// The zone it runs in.
    pub fn zone(&self) -> Option<&'a str> {
        self.text(self.row.zone)
    }

    /// Its share of traffic relative to others.
    pub fn weight(&self) -> u32 {
        self.row.weight
    }

    /// False when it is kept out of every service.
    pub fn is_ready(&self) -> bool {
        self.row.ready
    }

    /// True when a proxy stands before any of its ports.
    pub fn is_meshed(&self) -> bool {
        self.row.meshed || self.endpoints().any(|endpoint| endpoint.is_meshed())
    }

    /// Its addresses, in their order. Empty when it has no ports.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut seen = BTreeSet::new();
        self.endpoints()
            .map(|endpoint| endpoint.ip())
            .filter(|address| seen.insert(*address))
            .collect()
    }

    /// Its ports, in their order. Empty when it has no addresses.
    pub fn ports(&self) -> Vec<WorkloadPort> {
        let first = self.endpoints().next().map(|endpoint| endpoint.ip());
        self.endpoints()
            .filter(|endpoint| Some(endpoint.ip()) == first)
            .map(|endpoint| WorkloadPort {
                name: endpoint.port_name().map(str::to_owned),
                port: endpoint.row.port,
                mesh_port: (endpoint.row.mesh_port != 0).then_some(endpoint.row.mesh_port),
                protocol: endpoint.row.protocol,
            })
            .collect()
    }

    /// What it serves: each of its ports on each of its addresses, whether it is ready or not.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint<'a>> + use<'a> {
        let Self { table, id, row } = *self;
        table.rows_of(id).map(move |(_, endpoint)| Endpoint {
            table,
            workload: row,
            row: endpoint,
            app_protocol: None,
        })
    }

    fn text(&self, symbol: Option<Symbol>) -> Option<&'a str> {
        symbol.map(|symbol| self.table.strings.text(symbol))
    }
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(inner)
}

/// Digits only: `parse` alone would take a sign.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port > 0)
}

impl fmt::Debug for ServiceRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.spec(), f)
    }
}

impl fmt::Debug for WorkloadRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("namespace", &self.namespace())
            .field("name", &self.name())
            .field("ready", &self.is_ready())
            .field("endpoints", &self.endpoints().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_name_services() {
        let web = |port| Some((Name::new("shop", "web"), port));
        for (text, expected) in [
            ("web.shop", web(None)),
            ("web.shop:80", web(Some(80))),
            ("web.shop.svc", web(None)),
            ("web.shop.svc.cluster.local", web(None)),
            ("web.shop.svc.cluster.local.", web(None)),
            ("WEB.Shop.svc.Cluster.Local:8080", web(Some(8080))),
            ("web", None),
            ("web.shop.svc.cluster", None),
            ("web.shop.svc.cluster.local.evil", None),
            ("web.shop.pod.cluster.local", None),
            ("web.shop.com", None),
            (".shop", None),
            ("web.", None),
            ("web.shop:0", None),
            ("web.shop:+80", None),
            ("web.shop:65536", None),
            ("web.shop:", None),
            ("10.0.0.1:80", None),
            ("[::1]:80", None),
            ("", None),
        ] {
            let found = Authority::parse(text, "cluster.local").map(|a| (a.service, a.port));
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
