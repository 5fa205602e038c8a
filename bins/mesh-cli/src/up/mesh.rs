//! What manifests say, as far as `mesh up` needs it.

use mesh_discovery::manifests::Run;
use mesh_discovery::{Protocol, Service, TargetPort, Workload};

/// Services, and workloads with how to run them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// In order of namespace and name.
    pub(crate) services: Vec<Service>,
    /// In order of namespace and name.
    pub(crate) workloads: Vec<Runnable>,
    /// What identities end in.
    pub(crate) trust_domain: String,
}

impl Mesh {
    /// What is spoken on a service's port: its own word, else that of a workload it selects.
    pub(crate) fn protocol(&self, service: &Service, index: usize) -> Protocol {
        let Some(port) = service.ports.get(index) else {
            return Protocol::Detect;
        };
        let of_workloads = || {
            let workload = &self
                .workloads
                .iter()
                .find(|one| selects(service, &one.workload))?
                .workload;
            let target = workload
                .ports
                .iter()
                .find(|candidate| match &port.target_port {
                    TargetPort::Number(number) => candidate.port == *number,
                    TargetPort::Name(name) => candidate.name.as_ref() == Some(name),
                });
            Some(target?.protocol)
        };
        port.app_protocol.or_else(of_workloads).unwrap_or_default()
    }
}

/// Whether `service` stands for `workload`.
pub(crate) fn selects(service: &Service, workload: &Workload) -> bool {
    service.namespace == workload.namespace
        && !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(key, value)| workload.labels.get(key) == Some(value))
}

/// A workload, and how to run it unless something else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runnable {
    /// What it is.
    pub(crate) workload: Workload,
    /// `spec.run`; nothing when something else runs it.
    pub(crate) run: Option<Run>,
}
