use super::endpoint::Seen;
use super::load::PeakEwma;
use std::fmt;

/// How an endpoint is chosen among those that are available.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Choice {
    /// Of two that are sampled by weight, the one with the lower latency times requests in flight.
    PeakEwma(PeakEwma),
    /// Of two that are sampled by weight, the one with fewer requests in flight per weight.
    LeastRequest,
    /// One after the other; where weights differ, at random by weight.
    RoundRobin,
}

impl Default for Choice {
    fn default() -> Self {
        Self::PeakEwma(PeakEwma::default())
    }
}

impl From<PeakEwma> for Choice {
    fn from(load: PeakEwma) -> Self {
        Self::PeakEwma(load)
    }
}

/// A caller's own measure of an endpoint's load, as for example a utilization that the endpoint reports.
///
/// Of two endpoints that are sampled by weight, the one with the lower load takes the request. Breakers, rate limits and zones
/// work as they do otherwise.
///
/// ```
/// use mesh_balance::core::{Change, Load, Pool, PoolBuilder, Seen};
/// use std::time::Instant;
///
/// #[derive(Debug)]
/// struct FewestConnections;
///
/// impl Load<u32> for FewestConnections {
///     fn load(&self, open_connections: &u32, seen: Seen) -> f32 {
///         (open_connections + seen.in_flight) as f32
///     }
/// }
///
/// let now = Instant::now();
/// let mut pool = PoolBuilder::default().build_with_load(now, FewestConnections);
/// pool.apply([Change::insert("a", 9, 1), Change::insert("b", 3, 1)]);
/// assert_eq!(*pool.picker().pick(now, 7, &[])?, 3);
/// # Ok::<_, mesh_balance::core::PickError>(())
/// ```
pub trait Load<T>: fmt::Debug + Send + Sync {
    /// The load of `endpoint`, at least 0; lower is better. Called with every pick, so it must be quick and must not block.
    fn load(&self, endpoint: &T, seen: Seen) -> f32;
}
