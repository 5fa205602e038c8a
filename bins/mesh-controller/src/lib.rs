//! The mesh-rs control plane: destinations, policies and identities over the Linkerd proxy API.
//!
//! The program is `mesh-controller`; as a library, the same controller runs inside another process:
//!
//! ```no_run
//! use mesh_controller::{Controller, Invocation};
//!
//! # async fn run() -> Result<(), mesh_controller::Error> {
//! let flags = ["mesh-controller", "--data", "/var/lib/mesh", "--manifests", "/etc/mesh"];
//! let config = Invocation::read(flags.map(Into::into))?.config;
//! let controller = Controller::start(config).await?;
//! println!("serving proxies on {}", controller.announcement().grpc);
//! controller.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//! - [`Config`]: settings from flags, environment and file
//! - [`Controller`]: everything below, put together and running
//! - `store`: what must not be forgotten, behind [`store::StateStore`]
//! - `trust`, `tokens`, `identity`: the certificate authority, join tokens, and `Identity.Certify`
//! - `mesh`: services and workloads as the manifests have them, and following them
//! - `destination`, `policy`: what proxies are told of them
//! - `listener`, `api`: TCP, TLS and HTTP/2; which call goes where and who may make it
//! - `admin`, `readiness`, `data_folder`: what operators see

mod admin;
mod api;
mod check;
mod config;
mod controller;
mod data_folder;
mod destination;
mod error;
mod identity;
mod listener;
mod mesh;
mod policy;
mod readiness;
pub mod store;
mod tokens;
mod trust;

pub use crate::{
    check::check,
    config::{Config, ConfigError, Etcd, FileError, HostPort, Invocation, TlsMode, is_loopback},
    controller::Controller,
    data_folder::Announcement,
    error::Error,
    tokens::TokenError,
    trust::TrustError,
};
