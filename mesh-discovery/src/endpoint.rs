//! What a caller is told about one endpoint of a service.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{
    interner::Symbol,
    resource::Protocol,
    table::{EndpointRow, Table, WorkloadRow},
};

/// One address of a service, borrowed from the registry.
#[derive(Clone, Copy)]
pub struct Endpoint<'a> {
    pub(crate) table: &'a Table,
    pub(crate) workload: &'a WorkloadRow,
    pub(crate) row: EndpointRow,
    /// The service's word for what is spoken, when it has one.
    pub(crate) app_protocol: Option<Protocol>,
}

/// How an endpoint is reached through the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mesh {
    /// Not at all: the application itself is at the endpoint's address.
    Plain,
    /// The endpoint's address is a listener of the workload's proxy, dedicated to the application port.
    Listener,
    /// The endpoint's address is the application's; its proxy takes traffic on its inbound port.
    Inbound,
}

impl<'a> Endpoint<'a> {
    /// Where callers connect to: the address with the mesh port where there is one, else with the
    /// application's port.
    pub fn address(&self) -> SocketAddr {
        self.row.address()
    }

    /// The workload's address without a port.
    pub fn ip(&self) -> IpAddr {
        self.row.address
    }

    /// Where the application itself listens.
    pub fn app_port(&self) -> u16 {
        self.row.port
    }

    /// How it is reached through the mesh.
    pub fn mesh(&self) -> Mesh {
        self.row.mesh(self.workload.meshed)
    }

    /// True when a proxy stands before the application.
    pub fn is_meshed(&self) -> bool {
        self.mesh() != Mesh::Plain
    }

    /// The identity its proxy proves. `None` when it is not meshed.
    pub fn identity(&self) -> Option<&'a str> {
        let identity = self.workload.identity.filter(|_| self.is_meshed());
        self.text(identity)
    }

    /// What is spoken: the service's word, else the workload's.
    pub fn protocol(&self) -> Protocol {
        self.app_protocol.unwrap_or(self.row.protocol)
    }

    /// The zone it is in.
    pub fn zone(&self) -> Option<&'a str> {
        self.text(self.workload.zone)
    }

    /// Its share of traffic relative to the others.
    pub fn weight(&self) -> u32 {
        self.workload.weight
    }

    /// The workload's name.
    pub fn workload(&self) -> &'a str {
        self.table.strings.text(self.workload.name)
    }

    /// The workload's namespace.
    pub fn namespace(&self) -> &'a str {
        self.table.strings.text(self.workload.namespace)
    }

    /// The name of the workload's port.
    pub fn port_name(&self) -> Option<&'a str> {
        self.text(self.row.name)
    }

    fn text(&self, symbol: Option<Symbol>) -> Option<&'a str> {
        symbol.map(|symbol| self.table.strings.text(symbol))
    }
}

impl fmt::Debug for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address())
            .field("app_port", &self.app_port())
            .field("workload", &self.workload())
            .field("namespace", &self.namespace())
            .field("mesh", &self.mesh())
            .field("identity", &self.identity())
            .field("protocol", &self.protocol())
            .field("zone", &self.zone())
            .field("weight", &self.weight())
            .finish()
    }
}
