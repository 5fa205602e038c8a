//! HTTP/1 on the wire (RFC 9112): heads, and how bodies are framed, as functions of bytes.
//!
//! Where a message ends is decided in one place, [`Framing`], and what can be read in two ways is an error.

mod decode;
mod encode;
mod error;
mod framing;
mod head;
mod outgoing;
mod reading;
mod sending;

pub(crate) use decode::{Decoded, Decoder};
pub(crate) use encode::{Length, request_head};
pub use error::Http1Error;
pub(crate) use framing::{Framing, names};
pub(crate) use head::{Search, response_head};
pub(crate) use outgoing::Outgoing;
pub(crate) use reading::{Reading, is_silent};
pub(crate) use sending::{Filled, Sending};

/// What a request's body may fail with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
