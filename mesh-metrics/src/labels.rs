use std::fmt;

use crate::series::Labels;

/// A resource as labels: what a route, a parent or a backend was made from. Empty fields are written as empty labels.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ResourceLabels {
    /// API group; `core` or empty for the core group.
    pub group: String,
    /// Kind, e.g. `Service`; `default` for what no resource describes.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Section of the resource, e.g. the name of a listener.
    pub section: String,
    /// Port of the resource, when one is meant.
    pub port: Option<u16>,
}

/// Which route of which parent.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct RouteLabels {
    /// What the route is attached to: the server of a port, or the service that is called.
    pub parent: ResourceLabels,
    /// The route.
    pub route: ResourceLabels,
}

/// Which backend of which route.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct BackendLabels {
    /// What the route is attached to.
    pub parent: ResourceLabels,
    /// The route.
    pub route: ResourceLabels,
    /// The backend.
    pub backend: ResourceLabels,
}

/// Connections of one kind.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TcpLabels {
    /// Which side of the proxy the other end is on.
    pub peer: Peer,
    /// How the connection is protected.
    pub tls: TlsStatus,
    /// The server of the port, or the service that is called.
    pub parent: ResourceLabels,
}

/// Which side of the proxy a connection is on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// The proxy accepted it.
    Source,
    /// The proxy opened it.
    Destination,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TlsStatus {
    /// Mesh TLS with an identity on both sides.
    Mutual,
    /// Mesh TLS without a client identity.
    Anonymous,
    /// TLS of the application's own, passed through.
    Passed,
    /// No TLS.
    Plaintext,
}

/// A conversation between a proxy and its controller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Api {
    /// Endpoints.
    Destination,
    /// Profiles.
    Profile,
    /// Outbound policy.
    OutboundPolicy,
    /// Inbound policy.
    InboundPolicy,
    /// Certificates.
    Identity,
    /// Trust bundles.
    Trust,
}

type Keys = [&'static str; 6];

const PARENT: Keys = [
    "parent_group",
    "parent_kind",
    "parent_namespace",
    "parent_name",
    "parent_section_name",
    "parent_port",
];
const ROUTE: Keys = [
    "route_group",
    "route_kind",
    "route_namespace",
    "route_name",
    "route_section_name",
    "route_port",
];
const BACKEND: Keys = [
    "backend_group",
    "backend_kind",
    "backend_namespace",
    "backend_name",
    "backend_section_name",
    "backend_port",
];

/// The value of each label of the series that counts what did not fit.
const OTHER: &str = "other";

type Write<'a> = &'a mut dyn FnMut(&str, &str) -> fmt::Result;

impl ResourceLabels {
    /// A resource without section or port.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// What no resource describes.
    pub fn default_named(name: &str) -> Self {
        Self::new("", "default", "", name)
    }

    /// The same with a port.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    fn other() -> Self {
        Self {
            section: OTHER.to_owned(),
            ..Self::new(OTHER, OTHER, OTHER, OTHER)
        }
    }

    fn write(&self, keys: &Keys, write: Write<'_>) -> fmt::Result {
        write(keys[0], &self.group)?;
        write(keys[1], &self.kind)?;
        write(keys[2], &self.namespace)?;
        write(keys[3], &self.name)?;
        write(keys[4], &self.section)?;
        match self.port {
            Some(port) => write(keys[5], &port.to_string()),
            None => write(keys[5], ""),
        }
    }
}

impl Api {
    /// The value of the label `api`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Profile => "profile",
            Self::OutboundPolicy => "outbound_policy",
            Self::InboundPolicy => "inbound_policy",
            Self::Identity => "identity",
            Self::Trust => "trust",
        }
    }
}

impl TlsStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mutual => "true",
            Self::Anonymous => "anonymous",
            Self::Passed => "opaque",
            Self::Plaintext => "false",
        }
    }
}

impl Labels for RouteLabels {
    fn other(&self) -> Self {
        Self {
            parent: ResourceLabels::other(),
            route: ResourceLabels::other(),
        }
    }

    fn each(&self, write: Write<'_>) -> fmt::Result {
        self.parent.write(&PARENT, write)?;
        self.route.write(&ROUTE, write)
    }
}

impl Labels for BackendLabels {
    fn other(&self) -> Self {
        Self {
            parent: ResourceLabels::other(),
            route: ResourceLabels::other(),
            backend: ResourceLabels::other(),
        }
    }

    fn each(&self, write: Write<'_>) -> fmt::Result {
        self.parent.write(&PARENT, write)?;
        self.route.write(&ROUTE, write)?;
        self.backend.write(&BACKEND, write)
    }
}

/// The labels of a balancer: its backend's.
impl Labels for ResourceLabels {
    fn other(&self) -> Self {
        Self::other()
    }

    fn each(&self, write: Write<'_>) -> fmt::Result {
        self.write(&BACKEND, write)
    }
}

impl Labels for TcpLabels {
    fn other(&self) -> Self {
        Self {
            peer: self.peer,
            tls: self.tls,
            parent: ResourceLabels::other(),
        }
    }

    fn each(&self, write: Write<'_>) -> fmt::Result {
        let peer = match self.peer {
            Peer::Source => "src",
            Peer::Destination => "dst",
        };
        write("peer", peer)?;
        write("tls", self.tls.as_str())?;
        self.parent.write(&PARENT, write)
    }
}

/// No labels at all.
impl Labels for () {
    fn other(&self) -> Self {}

    fn each(&self, _write: Write<'_>) -> fmt::Result {
        Ok(())
    }
}

/// A stream of the control plane, by its short name.
impl Labels for Api {
    fn other(&self) -> Self {
        *self
    }

    fn each(&self, write: Write<'_>) -> fmt::Result {
        write("api", self.as_str())
    }
}
