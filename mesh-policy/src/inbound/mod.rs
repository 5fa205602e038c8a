//! Who may talk to a port, and to which of its routes.

mod authorization;
mod default_policy;
mod server;

pub use self::authorization::{Authentication, Authorization, IdentitySuffix, Network, Peer};
pub use self::default_policy::DefaultPolicy;
pub use self::server::{
    DenyReason, InboundGrpcRoute, InboundHttpRoute, RouteAuthorizations, Routes, ServerPolicy,
    ServerProtocol, Verdict,
};
