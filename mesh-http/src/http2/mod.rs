//! What both sides of HTTP/2 connections have in common: streams, their bodies, and pings.
//!
//! On the `h2` crate itself: a body is handed to its stream, or read from it, by the task that has the request, with no channel
//! between. A connection's own task reads, writes and pings.

mod pipe;
mod pulse;
mod received;
mod sieve;
mod state;
mod window;

pub(crate) use pipe::Pipe;
pub(crate) use pulse::{Beat, KeepAlive, Pulse};
pub use received::{Offer, Received, Tunnel};
pub(crate) use state::{Counted, State};
pub(crate) use window::MAX_WINDOW;

/// What windows begin at where they follow what is seen: HTTP/2's own default.
pub(crate) const ADAPTIVE_WINDOW_BYTES: u32 = 65_535;
