use std::io;

use super::BoxError;

/// Why an exchange in HTTP/1 did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Http1Error {
    /// The connection ended before the message did.
    #[error("the connection ended before the message did")]
    Incomplete,
    /// Reading or writing failed.
    #[error("I/O failed: {0}")]
    Io(#[from] io::Error),
    /// A head or a chunk is not as RFC 9112 says, or can be read in two ways.
    #[error("not valid HTTP/1: {0}")]
    Malformed(&'static str),
    /// A head has more than that many bytes.
    #[error("a head of more than {0} bytes")]
    HeadTooLong(usize),
    /// A head has more than that many fields.
    #[error("a head of more than {0} fields")]
    TooManyFields(usize),
    /// A body broke off on the side that it came from, or is not as long as its head says.
    #[error("the body to be sent broke off: {0}")]
    Body(BoxError),
}
