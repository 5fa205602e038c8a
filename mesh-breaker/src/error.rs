use std::time::Duration;

/// What makes a breaker's settings unusable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shortest backoff is zero or longer than the longest.
    #[error(
        "backoff from {min:?} to {max:?} is not a range: the minimum must be above zero and at most the maximum"
    )]
    BackoffRange {
        /// The shortest wait that was asked for.
        min: Duration,
        /// The longest wait that was asked for.
        max: Duration,
    },
    /// The jitter is not a ratio.
    #[error("backoff jitter {0} is not a ratio: it must be between 0 and 100")]
    Jitter(f64),
    /// A breaker that opens after no failure at all would never close.
    #[error("max_failures is 0: it must be at least 1")]
    NoFailures,
    /// The success rate that is asked for is none, or no breaker would ever open for it.
    #[error("success rate threshold {0}: it must be above 0 and at most 1")]
    Threshold(f64),
    /// The time over which a success rate is taken is too short to be divided.
    #[error("success rate window {0:?}: it must be at least 10 ms")]
    Window(Duration),
}
