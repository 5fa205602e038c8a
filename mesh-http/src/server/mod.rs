//! Serving HTTP/1 and HTTP/2 to a client, within limits, until it ends or is told to.

mod http1;
mod http2;

pub use http1::http1;
pub use http2::{http2, offers_stream};
