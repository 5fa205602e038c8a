//! What the mesh-rs programs say to each other where the Linkerd proxy API has no word for it.
//!
//! Messages, clients and servers are generated from `proto/` by `cargo run --example generate` and committed;
//! `scripts/check-protos` fails when the two differ. The only other thing here is the text form of a join token, which
//! the controller prints and a joining program reads.
//!
//! ```
//! use mesh_control_api::{JoinToken, TokenSecret};
//!
//! let token = JoinToken {
//!     controller_address: "192.0.2.7:8443".into(),
//!     controller_name: "mesh-controller.linkerd.serviceaccount.identity.linkerd.cluster.local".into(),
//!     bundle_digest: "sha256:5f".into(),
//!     identity: "web.default.serviceaccount.identity.linkerd.cluster.local".into(),
//!     id: "k3v9".into(),
//!     secret: TokenSecret::from_random([42; 32]),
//! };
//! assert_eq!(JoinToken::parse(&token.to_text())?, token);
//! # Ok::<_, mesh_control_api::Error>(())
//! ```
//!
//! - [`admin`]: `mesh.admin.v1`, what the `mesh` command asks of a controller over its Unix socket
//! - [`trust`]: `mesh.trust.v1`, bundles for proxies and what they use; [`metadata`]: what rides on calls of the proxy API
//! - [`spiffe`]: the part of the SPIFFE Workload API that issues X.509 certificates
//! - [`JoinToken`]: what a new machine or process is given

mod error;
pub mod metadata;
mod token;

pub use crate::{
    error::Error,
    token::{JoinToken, TokenSecret},
};

/// `mesh.admin.v1`: join tokens, and what a controller knows. Documented in `proto/mesh/admin/v1/admin.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all
)]
pub mod admin {
    include!("generated/mesh.admin.v1.rs");
}

/// `mesh.trust.v1`: bundle documents and orders to proxies, and their reports. Documented in
/// `proto/mesh/trust/v1/trust.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all
)]
pub mod trust {
    include!("generated/mesh.trust.v1.rs");
}

/// The SPIFFE Workload API, as far as X.509 certificates go. Documented in `proto/spiffe/workload.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all
)]
pub mod spiffe {
    include!("generated/spiffe.rs");
}

impl std::fmt::Debug for admin::ExportRootResponse {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportRootResponse").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for admin::ImportTrustRequest {
    /// Without private keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportTrustRequest").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for spiffe::X509svid {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509svid")
            .field("spiffe_id", &self.spiffe_id)
            .finish_non_exhaustive()
    }
}
