use std::io;
use std::time::Duration;

/// What carrying a connection or a request failed with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error("I/O failed: {0}")]
    Io(#[from] io::Error),
    /// What precedes a connection between proxies is not a transport header.
    #[error("the transport header is not valid: {0}")]
    TransportHeader(&'static str),
    /// HTTP failed on one of the two sides.
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    /// An HTTP/2 connection to an endpoint failed before it could be used.
    #[error("HTTP/2 failed: {0}")]
    Http2(h2::Error),
    /// No connection could be made.
    #[error("could not connect: {0}")]
    Connect(String),
    /// Who answered did not prove to be who was called, or refused this side's proof.
    #[error("no mutual TLS: {0}")]
    Untrusted(String),
    /// Connecting took longer than it may.
    #[error("could not connect within {0:?}")]
    ConnectTimeout(Duration),
}
