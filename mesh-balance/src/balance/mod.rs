//! The tower service.
//!
//! - [`Balance`]: picks an endpoint for each call. Clone it freely; the clones share what is learned.
//! - [`Builder`] and [`Driver`]: the settings, and the task that applies discovery.
//! - [`Account`]: when a request has ended and what it came to. [`UntilResponse`] for any protocol, `UntilBodyEnd`
//!   (feature `http`) for HTTP and gRPC.

mod account;
#[cfg(feature = "http")]
mod body;
mod builder;
mod driver;
mod future;
mod service;

pub use account::{Account, UntilResponse};
#[cfg(feature = "http")]
pub use body::{InFlight, UntilBodyEnd};
pub use builder::Builder;
pub use driver::Driver;
pub use future::ResponseFuture;
pub use service::Balance;

use std::time::Instant;

/// Tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
