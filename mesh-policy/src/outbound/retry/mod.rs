//! When a request is sent again, and what all requests together may add by it.

mod budget;

pub use self::budget::{BudgetLimits, RetryBudget};

use std::time::Duration;

use http::StatusCode;

use super::Backoff;
use crate::{GrpcCodes, StatusSet};

/// How a request that fails is sent again.
///
/// Beyond [`conditions`](Self::conditions), a request is sent again when an endpoint did not answer in
/// [`timeout`](Self::timeout) or refused it unread; never once its body has grown beyond
/// [`max_request_bytes`](Self::max_request_bytes). A [`RetryBudget`] is to be asked before each retry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// How often it is sent again at most; not at all when zero.
    pub max_retries: u16,
    /// How much of its body is kept for sending it again, in bytes; at most [`MAX_REQUEST_BYTES`](Self::MAX_REQUEST_BYTES).
    pub max_request_bytes: usize,
    /// How long one try may take, from when the request was sent in full until the head of its answer, while there are
    /// retries left; no limit when absent.
    pub timeout: Option<Duration>,
    /// How long to wait before each; not at all when absent.
    pub backoff: Option<Backoff>,
    /// True when an answer's `Retry-After`, within the bounds of [`backoff`](Self::backoff), stands for its wait.
    pub respect_retry_after: bool,
    /// Which answers are no success.
    pub conditions: RetryConditions,
}

/// Which answers are asked for again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RetryConditions {
    /// By HTTP status.
    pub statuses: StatusSet,
    /// By gRPC status, in the head or the trailers.
    pub codes: GrpcCodes,
}

impl RetryPolicy {
    /// The most of a request's body that is kept, in bytes.
    pub const MAX_REQUEST_BYTES: usize = 1 << 20;

    /// How much of a request's body is kept where nothing else is said, in bytes; as in Linkerd.
    pub const DEFAULT_REQUEST_BYTES: usize = 64 * 1024;

    /// How long to wait before the retry that `attempt` others went before. `retry_after` is what the last answer asked for,
    /// if it did; `random` is a uniformly random word.
    pub fn wait(&self, attempt: u32, random: u64, retry_after: Option<Duration>) -> Duration {
        let Some(backoff) = &self.backoff else {
            return Duration::ZERO;
        };
        match retry_after.filter(|_| self.respect_retry_after) {
            Some(asked) => asked.clamp(backoff.min(), backoff.max()),
            None => backoff.wait(attempt, random),
        }
    }
}

impl RetryConditions {
    /// True when an answer with this HTTP status is asked for again.
    pub fn status(&self, status: StatusCode) -> bool {
        self.statuses.contains(status)
    }

    /// True when an answer with this gRPC status is asked for again.
    pub fn grpc(&self, code: u16) -> bool {
        self.codes.contains(code)
    }
}
