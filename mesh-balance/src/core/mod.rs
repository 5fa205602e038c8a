//! Picking an endpoint, as values: time and random words are arguments.
//!
//! - [`Pool`]: the single writer. It owns the set and publishes a new immutable snapshot with each change.
//! - [`Picker`]: reads the newest snapshot without a lock and picks in constant time. [`Reader`] does so from a cached one.
//! - [`Pick`]: the guard of one request. It records exactly one outcome, also when it is dropped.
//! - [`PeakEwma`]: how latency becomes load; [`Choice`] and [`Load`]: other ways to choose.
//! - [`RateLimits`]: what a 429 means. [`Zones`]: which endpoints are near. [`Aperture`]: how many of very many
//!   are used. [`EjectionLimits`]: how many may be out at once.
//!
//! # How a pick is made
//! Two different endpoints are sampled by weight, and the one with the lower load takes the request; if that one is much
//! slower than usual or near its limit, two more are looked at. What is held, full, excluded or out of use is passed over; if
//! drawing finds nothing, all are looked at, and then those of other zones. A load is the
//! latency estimate times the requests in flight and one; a request that has waited longer than the estimate counts by
//! its age. Since sampling follows the weights, dividing the load by the weight as well would count it twice. The
//! requests in flight are therefore compared per unit of weight, rounded at random, and a move to the lighter of two
//! nearly equal endpoints is made just as often as the opposite one: shares follow the weights when latencies are equal.
//!
//! An endpoint without an estimate takes a request as soon as it is sampled, and no second one before the first has been
//! answered, unless all are like it.

mod aperture;
mod choice;
mod endpoint;
mod health;
#[cfg(all(test, mesh_loom))]
mod interleavings;
mod limit;
mod load;
mod pick;
mod picker;
mod pool;
mod rate_limits;
mod search;
mod tier;
mod words;
mod zones;

pub use aperture::Aperture;
pub use choice::{Choice, Load};
pub use endpoint::{EndpointStats, Seen, SlotId};
pub use health::{EjectionLimits, Event};
pub use load::PeakEwma;
pub use mesh_breaker::{FailureKind, Outcome, Policy, State, Transition};
pub use pick::Pick;
pub use picker::{PickError, Picker, Reader, Snapshot};
pub use pool::{Change, Pool, PoolBuilder};
pub use rate_limits::{RateLimits, WhenFull};
pub use zones::{BandError, ZoneStats, Zones};
