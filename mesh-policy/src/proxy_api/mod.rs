//! From messages of the Linkerd proxy API (`linkerd2-proxy-api`) to the values of this crate.
//!
//! A message that means nothing is an [`Error`](crate::Error) that names the field. What a message asks for and this
//! crate, or what is known to stand on it, does not do is listed in [`Converted::unsupported`], so that nothing is
//! ignored silently. Where stock proxies are lenient, so is this, except where that would let someone in or send plaintext.
//!
//! ```
//! use linkerd2_proxy_api::inbound::{Server, ProxyProtocol, proxy_protocol};
//! use mesh_policy::inbound::DenyReason;
//!
//! let opaque = proxy_protocol::Kind::Opaque(proxy_protocol::Opaque {});
//! let server = Server { protocol: Some(ProxyProtocol { kind: Some(opaque) }), ..Server::default() };
//! let policy = mesh_policy::proxy_api::server_policy(&server)?.value;
//! let verdict = policy.authorize("10.0.0.7".parse().unwrap(), None);
//! assert_eq!(verdict.reason(), Some(DenyReason::NoAuthorization));
//! # Ok::<(), mesh_policy::Error>(())
//! ```
//!
//! - [`outbound_policy`] takes `outbound.OutboundPolicy`
//! - [`server_policy`] takes `inbound.Server`
//! - [`endpoint_update`] and [`profile`] take `destination.Update` and `destination.DestinationProfile`

mod backend;
mod destination;
mod field;
mod filters;
mod inbound;
mod outbound;
mod profile;
mod rate_limit;
mod retries;
mod routes;
mod unsupported;

pub use self::destination::{EndpointUpdate, endpoint_update};
pub use self::inbound::server_policy;
pub use self::outbound::outbound_policy;
pub use self::profile::profile;
pub use self::unsupported::Converted;
