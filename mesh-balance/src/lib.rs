//! A cloneable load balancer for tower clients: latency, weights and health, without a worker task or a lock.
//!
//! ```
//! use mesh_balance::core::{Change, Outcome, Pool};
//! use std::time::Instant;
//!
//! let mut pool = Pool::new(Instant::now());
//! pool.apply([Change::insert("a", "10.0.0.1:80", 1), Change::insert("b", "10.0.0.2:80", 3)]);
//! let picker = pool.picker(); // Clone, Send, Sync
//!
//! let pick = picker.pick(Instant::now(), 0x5eed, &[]).expect("two endpoints");
//! println!("calling {}", pick.endpoint());
//! pick.finish(Instant::now(), Outcome::Success); // or drop it: cancelled
//! ```
//!
//! - [`core`]: [`Pool`](core::Pool) (one writer) publishes immutable snapshots, [`Picker`](core::Picker) (any number of
//!   readers) picks from them, [`Pick`](core::Pick) records one outcome. No clock, no I/O, no randomness inside.
//! - `Balance` (feature `tower`): a `Clone + Send + Sync` tower service over a discovery stream, and its
//!   `Driver`. With feature `http`, requests end with the body or trailers and are classified.

pub use mesh_breaker;
#[cfg(feature = "http")]
pub use mesh_breaker::{AutoClassifier, GrpcClassifier, HttpClassifier};
pub use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};

pub mod core;
mod sync;

#[cfg(feature = "tower")]
pub mod balance;
#[cfg(feature = "tower")]
mod error;

#[cfg(feature = "tower")]
pub use balance::{Balance, Driver};
#[cfg(feature = "tower")]
pub use error::{BoxError, Error};
