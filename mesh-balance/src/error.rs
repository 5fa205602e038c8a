use crate::core::PickError;
use std::time::Duration;

/// Any error of an endpoint's service or of a discovery stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call through a [`Balance`](crate::Balance) failed, or why its [`Driver`](crate::Driver) ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The set stayed empty.
    #[error("no endpoint was discovered within {waited:?}")]
    NoEndpoints {
        /// How long the call waited: until the configured time had passed or discovery had ended.
        waited: Duration,
    },
    /// There are endpoints, but none may be used now.
    #[error("every endpoint is out of use")]
    Exhausted,
    /// Each endpoint in use has asked to be left alone or is at its rate limit.
    #[error("every endpoint is at its rate limit; there is room in {retry_after:?}")]
    Limited {
        /// When there will be room: what a caller's own answer should say in Retry-After.
        retry_after: Duration,
    },
    /// The endpoint's own error.
    #[error("endpoint: {0}")]
    Endpoint(#[source] BoxError),
    /// The discovery stream failed; the endpoints that were known stay in use.
    #[error("discovery: {0}")]
    Discovery(#[source] BoxError),
}

impl From<PickError> for Error {
    fn from(error: PickError) -> Self {
        match error {
            PickError::Empty => Self::NoEndpoints {
                waited: Duration::ZERO,
            },
            PickError::Limited { retry_after } => Self::Limited { retry_after },
            PickError::Exhausted => Self::Exhausted,
        }
    }
}
