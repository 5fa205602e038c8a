//! Circuit breakers as values: when an endpoint is out, and when to try it again.
//!
//! ```
//! use mesh_breaker::{ConsecutiveFailures, FailureKind, Outcome, Permit, SharedBreaker, State};
//! use std::time::{Duration, Instant};
//!
//! let start = Instant::now();
//! let breaker = SharedBreaker::new(ConsecutiveFailures::default(), start); // 7 failures, 1 s to 60 s
//! for _ in 0..7 {
//!     let (permit, _) = Permit::acquire(&breaker, start).expect("closed");
//!     permit.finish(Outcome::Failure(FailureKind::Response), start, 0);
//! }
//! assert!(Permit::acquire(&breaker, start).is_err());
//! let later = start + Duration::from_secs(2);
//! let (probe, _) = Permit::acquire(&breaker, later).expect("the backoff is over"); // exactly one
//! probe.finish(Outcome::Success, later, 0);
//! assert_eq!(breaker.state(), State::Closed);
//! ```
//!
//! - [`Outcome`]: what a request came to. The caller decides; the `classify` module (feature `http`) has ready-made
//!   rules for HTTP and gRPC, trailers included, and `hints` reads Retry-After and its kin.
//! - [`Policy`]: when to open and for how long.
//! - [`Breaker`]: the machine with one owner. [`SharedBreaker`]: the same in one atomic word, for many threads.
//!   [`BreakerCell`]: that word alone, for whoever has very many.
//! - [`Permit`]: an admitted request that is recorded exactly once, also when it is dropped.
//! - `TrackedBody` (feature `http`): a response body that says once what its request came to, when it has ended.
//! - The `layer` module (feature `tower`): a breaker around any tower service.
//! - [`Transition`]: every change of state, returned as a value.
//!
//! There is no clock and no randomness inside: `now` and random words are arguments.

mod breaker;
mod cell;
#[cfg(feature = "http")]
pub mod classify;
mod error;
#[cfg(feature = "http")]
pub mod hints;
#[cfg(feature = "tower")]
pub mod layer;
mod machine;
mod outcome;
mod policy;
mod shared;
mod sync;
#[cfg(feature = "http")]
mod tracked;
mod window;

pub use breaker::Breaker;
pub use cell::{BreakerCell, BreakerSettings};
#[cfg(feature = "http")]
pub use classify::{
    AtHeaders, AutoClassifier, Classify, GrpcClassifier, HttpClassifier, grpc_status,
};
pub use error::Error;
pub use machine::{Admitted, Refused, State, Ticket, Transition};
pub use outcome::{FailureKind, Outcome};
pub use policy::{ConsecutiveFailures, ExponentialBackoff, Policy, SuccessRate, Unified};
pub use shared::{Permit, SharedBreaker};
#[cfg(feature = "http")]
pub use tracked::{Settle, TrackedBody};
pub use window::Window;

/// Its examples are tests.
#[cfg(all(doctest, feature = "http", feature = "tower"))]
#[doc = include_str!("../README.md")]
struct Readme;
