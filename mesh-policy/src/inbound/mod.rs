//! Who may talk to a port and to which of its routes, and how much.

mod authorization;
mod default_policy;
pub mod rate_limit;
mod server;

pub use self::authorization::{Authentication, Authorization, IdentitySuffix, Network, Peer};
pub use self::default_policy::DefaultPolicy;
pub use self::server::{
    DenyReason, InboundGrpcRoute, InboundHttpRoute, RouteAuthorizations, Routes, RuleFilters,
    ServerPolicy, ServerProtocol, Verdict,
};
