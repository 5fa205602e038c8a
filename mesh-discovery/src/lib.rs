//! Services, workloads and endpoints: one compact registry, many cheap watchers.
//!
//! A [`Registry`] is a value with a single writer. Sources turn what they know into [`Change`]s;
//! subscribers open a [`View`] and get a snapshot first, then what changed since, as bytes that are
//! encoded once and shared by all subscribers of the view. A subscriber holds a position, not a
//! queue: however slow it is, it costs the registry nothing and never misses the latest state.
//!
//! ```
//! use mesh_discovery::{Change, Name, Registry, Service, ServicePort, View, Workload, WorkloadPort};
//!
//! let labels = [("app".to_owned(), "web".to_owned())].into();
//! let mut workload = Workload::new("shop", "web-1");
//! workload.labels = labels;
//! workload.addresses = vec!["10.0.0.1".parse()?];
//! workload.ports = vec![WorkloadPort::new(8080)];
//! let mut service = Service::new("shop", "web");
//! service.selector = workload.labels.clone();
//! service.ports = vec![ServicePort { target_port: mesh_discovery::TargetPort::Number(8080), ..ServicePort::new(80) }];
//!
//! let mut registry = Registry::new(());
//! registry.apply([Change::SetWorkload(workload), Change::SetService(service)]);
//! let endpoints = registry.endpoints(&View::new(Name::new("shop", "web"), 80));
//! assert_eq!(endpoints[0].address(), "10.0.0.1:8080".parse()?);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! # Modules
//!
//! The core, without I/O or clock, is at the root: [`Registry`] and what goes in ([`Change`],
//! [`Workload`], [`Service`]), what subscribers see ([`View`], [`Update`], [`Endpoint`], [`Encode`]),
//! what lookups give ([`ServiceRef`], [`WorkloadRef`], [`Authority`]), and what a service's
//! annotations ask of balancers ([`Balancing`]). Around it:
//!
//! - `shared` (feature `tokio`): one writer, many readers, subscriptions that wait.
//! - `manifests` (feature `manifests`): a folder of YAML, read and watched.

mod balancing;
mod encode;
mod endpoint;
mod error;
mod interner;
mod lookup;
mod registry;
mod resource;
mod table;
mod view;

#[cfg(feature = "manifests")]
pub mod manifests;
#[cfg(feature = "tokio")]
pub mod shared;

pub use balancing::{AnnotationError, Balancing, Breaker, Penalty, SuccessRate};
pub use encode::{Encode, MESSAGE_ENDPOINTS};
pub use endpoint::{Endpoint, Mesh};
pub use error::Error;
pub use lookup::{Authority, ServiceRef, WorkloadRef};
pub use registry::{Applied, Registry};
pub use resource::{
    Change, Name, Protocol, Service, ServicePort, TargetPort, Workload, WorkloadPort,
};
pub use view::{Family, Filter, Messages, Position, Update, View, ViewId};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
