use std::time::Duration;

/// What a request came to. Each admitted request has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint did what it was asked to, or rightly refused to (a 404 is the caller's mistake).
    Success,
    /// The endpoint failed.
    Failure(FailureKind),
    /// The endpoint is healthy but full: HTTP 429 or gRPC `RESOURCE_EXHAUSTED`.
    RateLimited {
        /// How long the endpoint asked to be left alone, if it said.
        retry_after: Option<Duration>,
    },
    /// The caller gave up; this says nothing about the endpoint's health.
    Cancelled,
}

impl Outcome {
    /// A failure of the endpoint?
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failure(_))
    }

    /// How long the endpoint asked to be left alone, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match *self {
            Self::RateLimited { retry_after }
            | Self::Failure(FailureKind::Unavailable { retry_after }) => retry_after,
            _ => None,
        }
    }
}

/// How an endpoint failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection could be made, so nothing was sent.
    Connect,
    /// A deadline passed while the endpoint had the request.
    Timeout,
    /// The connection or stream broke before the response was complete.
    Broken,
    /// The endpoint answered that it failed.
    Response,
    /// The endpoint answered that it cannot serve now: HTTP 503 or gRPC `UNAVAILABLE`.
    Unavailable {
        /// How long it asked to be left alone, if it said.
        retry_after: Option<Duration>,
    },
}
