//! Requests as they pass, for those who may observe them: `Tap.Observe` of the proxy API.
//!
//! - `server`: who may observe, and the streams to them. `observer`: those who do, and the queue to each.
//! - `matching`: which requests are meant. `tapped`: one request that is observed. `event`: what is told of it.
//!
//! While nobody observes, a request costs one relaxed load. An observer that does not keep up misses events; traffic
//! never waits for one.

mod event;
mod matching;
mod observer;
pub(crate) mod server;
mod tapped;

pub(crate) use event::Subject;
pub(crate) use observer::Taps;
pub(crate) use tapped::{Body, Tapped};
