//! Whom a proxy is to let in, port by port.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use linkerd2_proxy_api::inbound::{
    PortSpec, ProxyProtocol, Server,
    proxy_protocol::{Detect, Grpc, Http2, Kind, Opaque},
};
use mesh_discovery::{
    Name, Protocol, ServicePort, ServiceRef, TargetPort, WorkloadPort, WorkloadRef,
    manifests::DefaultPolicy,
};
use tonic::Status;

use super::{
    annotations::DEFAULT_INBOUND_POLICY,
    default_policy::{authorizations, labels},
    protocol::{self, PortProtocol, is_server_first, port_protocol},
};
use crate::{
    api::{Frames, frame},
    mesh::{Mesh, Snapshot, workload},
};

/// Answers who asks for inbound policies.
#[derive(Debug, Clone)]
pub(crate) struct InboundPolicies {
    mesh: Arc<Mesh>,
}

impl InboundPolicies {
    /// Answers from `mesh`.
    #[must_use]
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        Self { mesh }
    }

    /// The policy of a workload's port as it is now.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no workload or port, `NOT_FOUND` for a workload that the mesh does not know.
    pub(crate) fn current(&self, spec: &PortSpec) -> Result<Bytes, Status> {
        let (name, port) = read(spec)?;
        policy(&self.mesh.snapshot(), &name, port)
    }

    /// The policy of a workload's port, now and whenever it changes. Ends with `NOT_FOUND` when the workload is gone.
    ///
    /// # Errors
    /// As [`InboundPolicies::current`].
    pub(crate) fn watch(&self, spec: &PortSpec) -> Result<Frames, Status> {
        let (name, port) = read(spec)?;
        self.mesh
            .follow(move |snapshot| policy(snapshot, &name, port))
    }
}

fn read(spec: &PortSpec) -> Result<(Name, u16), Status> {
    let name = workload::name(&spec.workload).ok_or_else(|| {
        Status::invalid_argument(r#"the workload must be named as {"ns":"…","pod":"…"}"#)
    })?;
    let port = u16::try_from(spec.port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Status::invalid_argument(format!("{} is no port", spec.port)))?;
    Ok((name, port))
}

fn policy(snapshot: &Snapshot<'_>, name: &Name, port: u16) -> Result<Bytes, Status> {
    let registry = snapshot.registry();
    let workload = registry
        .workload(name)
        .ok_or_else(|| Status::not_found(format!("the mesh has no workload {name}")))?;
    let own = workload.ports().into_iter().find(|own| own.port == port);
    let services: Vec<_> = registry
        .services()
        .filter(|service| service.namespace() == name.namespace)
        .filter_map(|service| {
            let leading = leads_to(&service, &workload, own.as_ref(), port)?;
            Some((service, leading))
        })
        .collect();
    let default = services
        .iter()
        .find_map(|(service, _)| {
            let text = service.spec().annotations.get(DEFAULT_INBOUND_POLICY)?;
            DefaultPolicy::parse(text)
        })
        .unwrap_or(snapshot.settings().default_policy);
    let protocol = of_port(own.as_ref(), &services, port);
    Ok(frame(&server(protocol, default)))
}

/// The port of `service` that leads to the workload's `port`, if the service selects the workload.
fn leads_to<'a>(
    service: &ServiceRef<'a>,
    workload: &WorkloadRef<'_>,
    own: Option<&WorkloadPort>,
    port: u16,
) -> Option<&'a ServicePort> {
    let spec = service.spec();
    let labels: std::collections::BTreeMap<_, _> = workload.labels().collect();
    let selected = !spec.selector.is_empty()
        && spec
            .selector
            .iter()
            .all(|(key, value)| labels.get(key.as_str()) == Some(&value.as_str()));
    if !selected {
        return None;
    }
    spec.ports
        .iter()
        .find(|candidate| match &candidate.target_port {
            TargetPort::Number(number) => *number == port,
            TargetPort::Name(name) => own.is_some_and(|own| own.name.as_ref() == Some(name)),
        })
}

/// The workload's word, else the first that its services have, else the list of server-first ports.
fn of_port(
    own: Option<&WorkloadPort>,
    services: &[(ServiceRef<'_>, &ServicePort)],
    port: u16,
) -> PortProtocol {
    let words = services
        .iter()
        .map(|(service, port)| port_protocol(service, port));
    // What callers are told to treat as opaque arrives so.
    if words.clone().any(|word| word == PortProtocol::Opaque) {
        return PortProtocol::Opaque;
    }
    own.map(|own| own.protocol)
        .filter(|protocol| *protocol != Protocol::Detect)
        .and_then(protocol::of)
        .or_else(|| words.clone().find(|word| *word != PortProtocol::Detect))
        .unwrap_or_else(|| {
            if services.is_empty() && is_server_first(port) {
                PortProtocol::Opaque
            } else {
                PortProtocol::Detect
            }
        })
}

fn server(protocol: PortProtocol, default: DefaultPolicy) -> Server {
    let kind = match protocol {
        PortProtocol::Detect => Kind::Detect(Detect {
            timeout: DETECT_TIMEOUT.try_into().ok(),
            ..Detect::default()
        }),
        PortProtocol::Http2 => Kind::Http2(Http2::default()),
        PortProtocol::Grpc => Kind::Grpc(Grpc::default()),
        PortProtocol::Opaque => Kind::Opaque(Opaque {}),
    };
    Server {
        protocol: Some(ProxyProtocol { kind: Some(kind) }),
        server_ips: Vec::new(),
        authorizations: authorizations(default),
        labels: labels(default),
    }
}

/// Linkerd's default.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
