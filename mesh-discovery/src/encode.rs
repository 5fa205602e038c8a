//! How updates become bytes.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::{endpoint::Endpoint, view::View};

/// Endpoints in one message at most, so that a message stays well under what transports admit.
pub const MESSAGE_ENDPOINTS: usize = 1024;

/// Turns updates into messages. Each is called once per view and range of versions, and the bytes are
/// shared by all subscribers of the view.
///
/// The messages a subscriber gets obey: an addition replaces the endpoint of the same address, a
/// removal of an address it does not have changes nothing, and `no_endpoints` removes all it has.
pub trait Encode: Send + Sync + 'static {
    /// These endpoints are there, at most [`MESSAGE_ENDPOINTS`] of them and never none.
    fn add(&self, view: &View, endpoints: &[Endpoint<'_>]) -> Bytes;

    /// These addresses are there no more, at most [`MESSAGE_ENDPOINTS`] of them and never none.
    fn remove(&self, view: &View, addresses: &[SocketAddr]) -> Bytes;

    /// There is nothing to reach; `exists` is false when there is no such service or port.
    fn no_endpoints(&self, view: &View, exists: bool) -> Bytes;
}

/// For registries that are only looked up: messages are empty.
impl Encode for () {
    fn add(&self, _: &View, _: &[Endpoint<'_>]) -> Bytes {
        Bytes::new()
    }

    fn remove(&self, _: &View, _: &[SocketAddr]) -> Bytes {
        Bytes::new()
    }

    fn no_endpoints(&self, _: &View, _: bool) -> Bytes {
        Bytes::new()
    }
}
