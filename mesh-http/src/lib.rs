//! Carrying HTTP/1, HTTP/2, gRPC and opaque TCP through a proxy.
//!
//! The pieces a proxy is composed of, for one thread: nothing here is `Send` that need not be, nothing locks, and
//! nothing hops to a worker task. Detection, headers and the transport header are functions of bytes.
//!
//! ```
//! use mesh_http::detect::{detect, Protocol};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (mut client, server) = tokio::io::duplex(64);
//! client.write_all(b"GET / HTTP/1.1\r\n").await?;
//! let (protocol, mut io) = detect(server, std::time::Duration::from_secs(10)).await?;
//! assert_eq!(protocol, Protocol::Http1);
//! assert_eq!(io.read_u8().await?, b'G');       // what was read to find out is read again
//! # std::io::Result::Ok(()) }).unwrap();
//! ```
//!
//! - [`detect`]: what the first bytes of a connection say it carries; [`Prefixed`] puts them back.
//! - [`server`]: serving a client's HTTP connection within [`ServerLimits`]; [`connections`] counts, drains and ends them.
//! - [`client`]: connections to an endpoint, pooled and shared.
//! - [`headers`]: what belongs to one hop, and the headers between proxies.
//! - [`Incoming`]: the body of what comes in, over HTTP/1 or HTTP/2. [`body`]: bodies that say once how they ended.
//! - [`tcp`]: bytes both ways, with half-close.
//! - [`transport_header`]: what precedes a connection whose target is not where it connects to.

pub mod body;
mod broken;
pub mod client;
pub mod connections;
pub mod detect;
mod error;
pub mod headers;
mod http1;
mod http2;
mod incoming;
mod limits;
mod prefixed;
pub mod server;
pub mod tcp;
pub mod transport_header;

pub use broken::Broken;
pub use error::Error;
pub use http1::Http1Error;
pub use http2::{Offer, Received, Tunnel};
pub use incoming::Incoming;
pub use limits::ServerLimits;
pub use prefixed::Prefixed;
