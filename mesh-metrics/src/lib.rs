//! The metric families of a service mesh, with counters that cost an atomic add.
//!
//! Every family is named here and nowhere else. A label set is looked up once, for a connection or a route, and gives a
//! handle; recording through the handle is a few relaxed atomic adds, without a lock or an allocation. Each family holds
//! a bounded number of label sets; what comes beyond is counted under the label value `other`.
//!
//! ```
//! use std::time::Duration;
//! use mesh_metrics::{Completion, Metrics, ResourceLabels, RouteLabels};
//!
//! let metrics = Metrics::proxy("0.1.0");
//! let parent = ResourceLabels::new("core", "Service", "shop", "web").with_port(8080);
//! let route = ResourceLabels::default_named("http");
//! let handle = metrics.families.outbound_http.route(&RouteLabels { parent, route });
//!
//! let request = handle.start();
//! request.finish(Completion::Status(200), Duration::from_millis(3));
//! assert!(metrics.render().contains(r#"http_status="200"} 1"#));
//! ```
//!
//! - [`Metrics`]: all families of a program, and their text
//! - [`HttpMetrics`], [`RetryMetrics`], [`TcpMetrics`], [`BalancerMetrics`], [`ControlMetrics`], [`TapMetrics`], [`TrustMetrics`]: what a proxy
//!   sees
//! - [`ControllerMetrics`]: what a controller sees
//! - [`Histogram`]: durations in fixed buckets, without a lock

mod authority;
mod balancer;
mod control;
mod controller;
mod histogram;
mod http;
mod labels;
mod metrics;
mod process;
mod retries;
mod series;
mod tap;
mod tcp;
mod trust;

pub use authority::{Expiry, TrustState};
pub use balancer::{
    BalancerHandle, BalancerMetrics, BreakerState, EndpointCounts, Endpoints, ZoneCounts,
};
pub use control::{ControlMetrics, IdentityHandle, StreamHandle};
pub use controller::{ControllerMetrics, Refusal, RegistrySizes, SubscriberHandle, TokenEvent};
pub use histogram::{Histogram, HistogramSnapshot};
pub use http::{ActiveRequest, Completion, Failure, HttpHandle, HttpMetrics};
pub use labels::{Api, BackendLabels, Peer, ResourceLabels, RouteLabels, TcpLabels, TlsStatus};
pub use metrics::{Metrics, ProxyFamilies};
pub use retries::{RetryHandle, RetryMetrics};
pub use tap::{TapHandle, TapMetrics};
pub use tcp::{CloseReason, TcpHandle, TcpMetrics};
pub use trust::{AnchorConnections, BundleRefusal, TrustHandle, TrustMetrics};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
