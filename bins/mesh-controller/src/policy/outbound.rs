//! What a proxy is to do with a connection of its own application.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use linkerd2_proxy_api::{
    destination::WeightedAddr,
    grpc_route::{GrpcRouteMatch, GrpcRpcMatch},
    http_route::{HttpRouteMatch, PathMatch, path_match},
    meta::{Metadata, metadata},
    outbound::{self as api, proxy_protocol, traffic_spec},
};
use mesh_discovery::{Balancing, Endpoint, Name, ServicePort, ServiceRef};
use tonic::Status;

use super::{
    balancing::{failure_accrual, load},
    protocol::{self, PortProtocol, is_server_first, port_protocol},
};
use crate::{
    api::{Frames, frame},
    destination::{service_metadata, weighted_addr, workload_metadata},
    mesh::{
        Mesh, Snapshot,
        target::{Found, Target},
        workload,
    },
};

/// Answers who asks for outbound policies.
#[derive(Clone)]
pub(crate) struct OutboundPolicies {
    mesh: Arc<Mesh>,
    services: Arc<Mutex<Services>>,
}

/// The policies of services at one epoch, encoded once for all who watch.
#[derive(Default)]
struct Services {
    epoch: u64,
    encoded: HashMap<(Name, u16), Bytes>,
}

impl OutboundPolicies {
    /// Answers from `mesh`.
    #[must_use]
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        Self {
            mesh,
            services: Arc::default(),
        }
    }

    /// The policy of a target as it is now.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no target, `NOT_FOUND` for what the mesh does not know: the proxy then goes where
    /// the application meant to.
    pub(crate) fn current(&self, spec: &api::TrafficSpec) -> Result<Bytes, Status> {
        let target = self.target(spec)?;
        self.policy(&self.mesh.snapshot(), &target)
    }

    /// The policy of a target, now and whenever it changes. Ends with `NOT_FOUND` when the target is gone.
    ///
    /// # Errors
    /// As [`OutboundPolicies::current`].
    pub(crate) fn watch(&self, spec: &api::TrafficSpec) -> Result<Frames, Status> {
        let target = self.target(spec)?;
        let policies = self.clone();
        self.mesh
            .follow(move |snapshot| policies.policy(snapshot, &target))
    }

    fn target(&self, spec: &api::TrafficSpec) -> Result<Target, Status> {
        match &spec.target {
            None => Err(Status::invalid_argument(
                "the request has no target: give an address or an authority",
            )),
            Some(traffic_spec::Target::Addr(address)) => {
                let ip = address
                    .ip
                    .and_then(|ip| std::net::IpAddr::try_from(ip).ok())
                    .ok_or_else(|| Status::invalid_argument("the target's address has no IP"))?;
                let port = u16::try_from(address.port)
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| {
                        Status::invalid_argument(format!("{} is no port", address.port))
                    })?;
                Ok(Target::Address((ip.to_canonical(), port).into()))
            }
            Some(traffic_spec::Target::Authority(authority)) => {
                let namespace = workload::namespace(&spec.source_workload);
                Target::parse(authority, namespace.as_deref(), self.mesh.cluster_domain())
                    .ok_or_else(|| not_found(authority))
            }
        }
    }

    fn policy(&self, snapshot: &Snapshot<'_>, target: &Target) -> Result<Bytes, Status> {
        match target.find(snapshot.registry()) {
            None => Err(match target {
                Target::Service { name, port } => not_found(&format!("{name}:{port}")),
                Target::Address(address) => not_found(&address.to_string()),
            }),
            Some(Found::Service { service, port }) => {
                let key = (service.id(), port.port);
                let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
                if services.epoch != snapshot.epoch() {
                    services.encoded.clear();
                    services.epoch = snapshot.epoch();
                }
                let encoded = services.encoded.entry(key).or_insert_with(|| {
                    frame(&of_service(&service, port, self.mesh.cluster_domain()))
                });
                Ok(encoded.clone())
            }
            Some(Found::Endpoint(endpoint)) => Ok(frame(&of_endpoint(&endpoint))),
        }
    }
}

impl fmt::Debug for OutboundPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundPolicies").finish_non_exhaustive()
    }
}

fn not_found(target: &str) -> Status {
    Status::not_found(format!("the mesh has no service or workload at {target}"))
}

fn of_service(
    service: &ServiceRef<'_>,
    port: &ServicePort,
    cluster_domain: &str,
) -> api::OutboundPolicy {
    let metadata = service_metadata(service, port.port);
    let authority = format!(
        "{}.{}.svc.{cluster_domain}:{}",
        service.name(),
        service.namespace(),
        port.port
    );
    // No manifest with a wrong annotation gets here; of another source it counts as none.
    let balancing = Balancing::of(&service.spec().annotations).unwrap_or_default();
    let backend = backend(metadata.clone(), balancer(authority, load(&balancing)));
    let accrual = failure_accrual(&balancing);
    policy(metadata, port_protocol(service, port), &backend, accrual)
}

/// A workload asked for by its own address: one endpoint, nothing to choose.
fn of_endpoint(endpoint: &Endpoint<'_>) -> api::OutboundPolicy {
    let metadata = workload_metadata(
        endpoint.namespace(),
        endpoint.workload(),
        endpoint.app_port(),
    );
    let protocol = protocol::of(endpoint.protocol()).unwrap_or_else(|| {
        if is_server_first(endpoint.app_port()) {
            PortProtocol::Opaque
        } else {
            PortProtocol::Detect
        }
    });
    let address: WeightedAddr = weighted_addr(endpoint, false);
    let backend = backend(metadata.clone(), api::backend::Kind::Forward(address));
    policy(metadata, protocol, &backend, None)
}

fn policy(
    metadata: Metadata,
    protocol: PortProtocol,
    backend: &api::Backend,
    failure_accrual: Option<api::FailureAccrual>,
) -> api::OutboundPolicy {
    use proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque};
    let kind = match protocol {
        PortProtocol::Detect => Kind::Detect(Detect {
            timeout: DETECT_TIMEOUT.try_into().ok(),
            opaque: Some(Opaque {
                routes: vec![opaque_route(backend)],
            }),
            http1: Some(Http1 {
                routes: vec![http_route(backend)],
                failure_accrual,
            }),
            http2: Some(Http2 {
                routes: vec![http_route(backend)],
                failure_accrual,
            }),
        }),
        PortProtocol::Http2 => Kind::Http2(Http2 {
            routes: vec![http_route(backend)],
            failure_accrual,
        }),
        PortProtocol::Grpc => Kind::Grpc(Grpc {
            routes: vec![grpc_route(backend)],
            failure_accrual,
        }),
        PortProtocol::Opaque => Kind::Opaque(Opaque {
            routes: vec![opaque_route(backend)],
        }),
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol { kind: Some(kind) }),
        metadata: Some(metadata),
    }
}

fn http_route(backend: &api::Backend) -> api::HttpRoute {
    use api::http_route::{Distribution, RouteBackend, Rule, distribution};
    let every_path = HttpRouteMatch {
        path: Some(PathMatch {
            kind: Some(path_match::Kind::Prefix("/".to_owned())),
        }),
        ..HttpRouteMatch::default()
    };
    let first = distribution::FirstAvailable {
        backends: vec![RouteBackend {
            backend: Some(backend.clone()),
            ..RouteBackend::default()
        }],
    };
    api::HttpRoute {
        metadata: Some(default_metadata("http")),
        hosts: Vec::new(),
        rules: vec![Rule {
            matches: vec![every_path],
            backends: Some(Distribution {
                kind: Some(distribution::Kind::FirstAvailable(first)),
            }),
            ..Rule::default()
        }],
    }
}

fn grpc_route(backend: &api::Backend) -> api::GrpcRoute {
    use api::grpc_route::{Distribution, RouteBackend, Rule, distribution};
    let first = distribution::FirstAvailable {
        backends: vec![RouteBackend {
            backend: Some(backend.clone()),
            ..RouteBackend::default()
        }],
    };
    api::GrpcRoute {
        metadata: Some(default_metadata("grpc")),
        hosts: Vec::new(),
        rules: vec![Rule {
            matches: vec![GrpcRouteMatch {
                rpc: Some(GrpcRpcMatch::default()),
                headers: Vec::new(),
            }],
            backends: Some(Distribution {
                kind: Some(distribution::Kind::FirstAvailable(first)),
            }),
            ..Rule::default()
        }],
    }
}

fn opaque_route(backend: &api::Backend) -> api::OpaqueRoute {
    use api::opaque_route::{Distribution, RouteBackend, Rule, distribution};
    let first = distribution::FirstAvailable {
        backends: vec![RouteBackend {
            backend: Some(backend.clone()),
            filters: Vec::new(),
        }],
    };
    api::OpaqueRoute {
        metadata: Some(default_metadata("opaque")),
        rules: vec![Rule {
            backends: Some(Distribution {
                kind: Some(distribution::Kind::FirstAvailable(first)),
            }),
            filters: Vec::new(),
        }],
    }
}

fn balancer(authority: String, load: api::backend::balance_p2c::Load) -> api::backend::Kind {
    use api::backend::{BalanceP2c, EndpointDiscovery, endpoint_discovery};
    api::backend::Kind::Balancer(BalanceP2c {
        discovery: Some(EndpointDiscovery {
            kind: Some(endpoint_discovery::Kind::Dst(
                endpoint_discovery::DestinationGet { path: authority },
            )),
        }),
        load: Some(load),
    })
}

fn backend(metadata: Metadata, kind: api::backend::Kind) -> api::Backend {
    api::Backend {
        metadata: Some(metadata),
        queue: Some(api::Queue {
            capacity: QUEUE_CAPACITY,
            failfast_timeout: FAILFAST_TIMEOUT.try_into().ok(),
        }),
        kind: Some(kind),
    }
}

fn default_metadata(name: &str) -> Metadata {
    Metadata {
        kind: Some(metadata::Kind::Default(name.to_owned())),
    }
}

// Linkerd's defaults.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE_CAPACITY: u32 = 100;
const FAILFAST_TIMEOUT: Duration = Duration::from_secs(3);
