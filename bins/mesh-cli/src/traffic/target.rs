//! What is called, and how.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use mesh_discovery::manifests::Ready;
use mesh_discovery::{Protocol as Spoken, Service};

use crate::Error;
use crate::up::{Listeners, Mesh, selects};

/// Says how a service is called. Without it, HTTP services are, on the path that shows readiness.
const ANNOTATION: &str = "mesh-rs.io/traffic";

/// Something to call through a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The service, as it is called in messages.
    pub(crate) service: String,
    /// The proxy's listener for it.
    pub(crate) address: SocketAddr,
    /// The service, as it is called in requests.
    pub(crate) authority: String,
    /// What to send.
    pub(crate) call: Call,
}

impl Target {
    /// What is spoken to it.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.call {
            Call::Http { .. } => Protocol::Http,
            Call::Grpc { .. } => Protocol::Grpc,
            Call::Echo => Protocol::Tcp,
        }
    }
}

/// What to send, and so what to expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// A GET, answered with success.
    Http {
        /// Of the resource.
        path: String,
    },
    /// A unary call with an empty message, answered with status 0.
    Grpc {
        /// `/package.Service/Method`.
        method: String,
    },
    /// Bytes that come back.
    Echo,
}

/// What is spoken, in the words of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.
    Http,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
}

impl Protocol {
    /// In the order in which reports have them.
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Tcp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        })
    }
}

/// How to call the services of `mesh` through the proxy on `address`.
///
/// # Errors
/// When a service's annotation cannot be understood.
pub(crate) fn targets(
    mesh: &Mesh,
    listeners: &Listeners,
    address: IpAddr,
) -> Result<Vec<Target>, Error> {
    let mut targets = Vec::new();
    for service in &mesh.services {
        let Some(port) = service.ports.first() else {
            continue;
        };
        let (Some(listener), Some(call)) = (listeners.of(service, port.port), call(mesh, service)?)
        else {
            continue;
        };
        targets.push(Target {
            service: crate::up::label(&service.id()),
            address: SocketAddr::new(address, listener),
            authority: format!(
                "{}.{}.svc.cluster.local:{}",
                service.name, service.namespace, port.port
            ),
            call,
        });
    }
    Ok(targets)
}

fn call(mesh: &Mesh, service: &Service) -> Result<Option<Call>, Error> {
    let Some(annotation) = service.annotations.get(ANNOTATION) else {
        return Ok(by_readiness(mesh, service));
    };
    match annotation.split_whitespace().collect::<Vec<_>>()[..] {
        ["GET", path] if path.starts_with('/') => Ok(Some(Call::Http {
            path: path.to_owned(),
        })),
        ["grpc", method] if method.starts_with('/') => Ok(Some(Call::Grpc {
            method: method.to_owned(),
        })),
        ["echo"] => Ok(Some(Call::Echo)),
        ["none"] => Ok(None),
        _ => Err(Error::Plan {
            subject: format!("service {}", service.id()),
            reason: format!(
                "annotation {ANNOTATION} is {annotation:?}; write \"GET /path\", \"grpc /package.Service/Method\", \"echo\" or \"none\""
            ),
        }),
    }
}

fn by_readiness(mesh: &Mesh, service: &Service) -> Option<Call> {
    let runnable = mesh
        .workloads
        .iter()
        .find(|runnable| selects(service, &runnable.workload))?;
    if mesh.protocol(service, 0) != Spoken::Http {
        return None;
    }
    let path = runnable
        .run
        .as_ref()
        .and_then(|run| match run.ready.as_ref()? {
            Ready::HttpGet { path, .. } => Some(path.clone()),
            _ => None,
        });
    Some(Call::Http {
        path: path.unwrap_or_else(|| "/".to_owned()),
    })
}
