//! The mesh-rs data plane: a sidecar proxy that carries a workload's traffic over mTLS.
//!
//! This crate composes the others; the program `mesh-proxy` is [`run`] with a [`Config`](config::Config) from file,
//! environment and flags.
//!
//! ```
//! let config = mesh_proxy::config::Config::from_toml(r#"
//!     [identity]
//!     name = "web.default.serviceaccount.identity.linkerd.cluster.local"
//!     trust_anchors_file = "anchors.pem"
//!     token_file = "token"
//!     [control]
//!     address = "127.0.0.1:8086"
//!     [inbound]
//!     ports = [{ listen = "127.77.0.2:14143", app = "127.77.0.2:8080" }]
//! "#).unwrap();
//! assert_eq!(config.admin.listen.port(), 4191);
//! ```
//!
//! - [`config`]: the settings.
//! - [`control`]: watches the controller and publishes snapshots; [`model`]: what it publishes.
//! - [`identity`]: the proxy's own certificate. [`trust`]: the anchors it trusts, followed while it runs.
//! - `worker`: the data path, one thread each, that reads the snapshots.
//! - [`labels`]: the metric labels of policies.
//! - [`drain`], [`readiness`], `admin`, `balancers` and `tap`: ending, starting, and looking in.

mod admin;
mod balancers;
pub mod config;
pub mod control;
pub mod drain;
pub mod identity;
mod inbound;
pub mod labels;
pub mod model;
mod os;
mod outbound;
pub mod readiness;
mod run;
mod tap;
pub mod trust;
mod worker;

pub use run::{Error, Shared, run};
