//! Why an exchange did not come to its end.

use std::time::Duration;

use crate::Http1Error;

/// What a request, or its response, broke off with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// Over HTTP/1.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// Over HTTP/1, of a request that is served.
    #[error(transparent)]
    Request(#[from] hyper::Error),
    /// Over HTTP/2: the stream, or the connection that it was of.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The HTTP/2 connection was given up, as nothing was heard for this long after a ping.
    #[error("nothing was heard for {0:?} after a ping")]
    Silent(Duration),
}

impl Broken {
    /// Whether the server says that it did nothing about the request, so that it may be sent again: it refused the stream
    /// (RFC 9113, section 8.7), or went away before it came to it (section 6.8).
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        let Self::Http2(error) = self else {
            return false;
        };
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    }
}
