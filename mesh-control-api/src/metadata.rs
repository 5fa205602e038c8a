//! Names of gRPC metadata, where something has to ride on a call that others have defined.
//!
//! On `Certify` of the proxy API: which process asks, and the bundle that all of it uses, as in a
//! [`Report`](crate::trust::Report). A controller that does not know them passes over them.

/// The generation of the bundle in use, in decimal digits.
pub const GENERATION: &str = "mesh-trust-generation";
/// The digest of the bundle in use, 64 lower-case hex digits.
pub const DIGEST: &str = "mesh-trust-digest";
/// The incarnation of the process, in decimal digits.
pub const INCARNATION: &str = "mesh-trust-incarnation";
/// The random bytes of the process, 32 lower-case hex digits.
pub const PROCESS: &str = "mesh-trust-process";
/// Which workload of its identity asks, if it was told and it is printable ASCII.
pub const WORKLOAD: &str = "mesh-trust-workload";
/// On `Trust.Watch` over a connection without TLS: the join token, in binary metadata.
pub const TOKEN: &str = "mesh-trust-token-bin";
