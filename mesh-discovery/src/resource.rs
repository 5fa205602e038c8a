//! What goes into the registry: plain values, whatever source they come from.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use crate::Error;

/// A machine, process or pod that serves ports on addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Unique in its namespace.
    pub name: String,
    /// The namespace it lives in; only services of the same namespace select it.
    pub namespace: String,
    /// What services select it by.
    pub labels: BTreeMap<String, String>,
    /// The identity its proxy proves, without one it cannot be reached over mutual TLS.
    pub identity: Option<String>,
    /// The zone it runs in.
    pub zone: Option<String>,
    /// Every address it answers on.
    pub addresses: Vec<IpAddr>,
    /// Every port it serves, on each of its addresses.
    pub ports: Vec<WorkloadPort>,
    /// True when a proxy takes what arrives at any of its ports, so that ports without a mesh port
    /// of their own are reached through that proxy's inbound port.
    pub meshed: bool,
    /// False takes it out of every service without forgetting it.
    pub ready: bool,
    /// Its share of traffic relative to the others of a service.
    pub weight: u32,
}

impl Workload {
    /// A ready workload of weight 1 with nothing else set.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            identity: None,
            zone: None,
            addresses: Vec::new(),
            ports: Vec::new(),
            meshed: false,
            ready: true,
            weight: 1,
        }
    }

    /// Its name and namespace.
    pub fn id(&self) -> Name {
        Name::new(&*self.namespace, &*self.name)
    }
}

/// A port a workload serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPort {
    /// What a service's target port may call it.
    pub name: Option<String>,
    /// Where the application listens.
    pub port: u16,
    /// Where the workload's proxy listens for the mesh on behalf of `port`.
    pub mesh_port: Option<u16>,
    /// What is spoken on it.
    pub protocol: Protocol,
}

impl WorkloadPort {
    /// A nameless port without a mesh port, its protocol to be detected.
    pub fn new(port: u16) -> Self {
        Self {
            name: None,
            port,
            mesh_port: None,
            protocol: Protocol::Detect,
        }
    }
}

/// A name and ports under which the ready workloads with certain labels are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique in its namespace.
    pub name: String,
    /// The namespace whose workloads it selects.
    pub namespace: String,
    /// Virtual addresses that stand for it.
    pub cluster_ips: Vec<IpAddr>,
    /// Labels a workload must all have. An empty selector selects nothing, as in Kubernetes.
    pub selector: BTreeMap<String, String>,
    /// The ports callers use.
    pub ports: Vec<ServicePort>,
    /// Free-form settings that belong to policies.
    pub annotations: BTreeMap<String, String>,
}

impl Service {
    /// A service with nothing but its name set.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            cluster_ips: Vec::new(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Its name and namespace.
    pub fn id(&self) -> Name {
        Name::new(&*self.namespace, &*self.name)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, needed when a service has several.
    pub name: Option<String>,
    /// What callers connect to.
    pub port: u16,
    /// Which port of the workloads that is.
    pub target_port: TargetPort,
    /// What is spoken, in the word of the service's owner; it wins over the workloads' word.
    pub app_protocol: Option<Protocol>,
}

impl ServicePort {
    /// A port that leads to the workloads' port of the same number.
    pub fn new(port: u16) -> Self {
        Self {
            name: None,
            port,
            target_port: TargetPort::Number(port),
            app_protocol: None,
        }
    }
}

/// Which port of a workload a service's port leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// The application's port number.
    Number(u16),
    /// The port's name; workloads may serve it on different numbers.
    Name(String),
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// Not stated: the proxy finds out from the first bytes.
    #[default]
    Detect,
    /// HTTP/1 or HTTP/2.
    Http,
    /// gRPC, and so HTTP/2.
    Grpc,
    /// Bytes that nobody looks into: any TCP protocol, server-first ones too.
    Opaque,
    /// TLS of the application's own.
    Tls,
}

impl Protocol {
    /// The words that name a protocol in a manifest.
    pub const WORDS: &'static str = "http, grpc, tcp, opaque, tls";

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Opaque => "opaque",
            Self::Tls => "tls",
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "http" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            "tcp" | "opaque" => Ok(Self::Opaque),
            "tls" => Ok(Self::Tls),
            _ => Err(Error::UnknownProtocol(word.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a service or workload is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Where the name is unique.
    pub namespace: String,
    /// The name itself.
    pub name: String,
}

impl Name {
    /// Namespace first, as in a path.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One change to the registry. Changes are idempotent: applying one twice changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Adds a workload, or replaces the one of that name.
    SetWorkload(Workload),
    /// Forgets a workload; unknown names are ignored.
    RemoveWorkload(Name),
    /// Adds a service, or replaces the one of that name.
    SetService(Service),
    /// Forgets a service; unknown names are ignored.
    RemoveService(Name),
}
