//! How many connections and streams there may be.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use mesh_metrics::SubscriberHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tracing::warn;

use super::Peer;

/// How many connections there are, over all listeners. Strangers have places of their own, so that they can never take
/// those of the mesh's proxies.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    members: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    max_connections: u32,
    pub(super) max_uncertified: u32,
}

impl ConnectionLimits {
    /// Admits up to `max_connections` at a time, and up to `max_uncertified` strangers beside them.
    #[must_use]
    pub(crate) fn new(max_connections: u32, max_uncertified: u32) -> Self {
        Self {
            members: Arc::new(Semaphore::new(max_connections as usize)),
            strangers: Arc::new(Semaphore::new(max_uncertified as usize)),
            max_connections,
            max_uncertified,
        }
    }

    /// A place for a connection, if there is one left for its kind.
    pub(super) fn admit(&self, peer: &Peer) -> Option<OwnedSemaphorePermit> {
        let (places, limit, key) = if peer.is_stranger() {
            (&self.strangers, self.max_uncertified, "max-uncertified")
        } else {
            (&self.members, self.max_connections, "max-connections")
        };
        let permit = Arc::clone(places).try_acquire_owned().ok();
        if permit.is_none() {
            warn!(address = %peer.address, limit, "refused a connection: {key} is reached");
        }
        permit
    }
}

/// Admits streams up to a limit, and tells the rest when to come back.
#[derive(Debug)]
pub(crate) struct StreamAdmission {
    streams: Arc<Semaphore>,
    limit: u32,
}

impl StreamAdmission {
    /// Admits up to `limit` at a time.
    #[must_use]
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limit as usize)),
            limit,
        }
    }

    /// A place for one stream.
    ///
    /// # Errors
    /// `UNAVAILABLE` when all are taken, with the time after which to ask again in `grpc-retry-pushback-ms`.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            come_back(format!(
                "this controller already serves {} streams (max-streams)",
                self.limit
            ))
        })
    }

    /// How many streams there are now.
    #[must_use]
    pub(crate) fn open(&self) -> u64 {
        u64::from(self.limit).saturating_sub(self.streams.available_permits() as u64)
    }
}

/// `UNAVAILABLE` with a time to wait, as gRPC (`grpc-retry-pushback-ms`) and as HTTP (`retry-after`) know it.
pub(crate) fn come_back(reason: String) -> Status {
    let mut status = Status::unavailable(reason);
    let metadata = status.metadata_mut();
    metadata.insert("grpc-retry-pushback-ms", 1000.into());
    metadata.insert("retry-after", 1.into());
    status
}

/// A body that keeps a stream's place until it is dropped, and counts what it sends.
pub(crate) struct Admitted<B> {
    body: B,
    subscriber: SubscriberHandle,
    _place: OwnedSemaphorePermit,
}

impl<B> Admitted<B> {
    pub(crate) fn new(body: B, place: OwnedSemaphorePermit, subscriber: SubscriberHandle) -> Self {
        subscriber.subscribed();
        Self {
            body,
            subscriber,
            _place: place,
        }
    }
}

impl<B> Drop for Admitted<B> {
    fn drop(&mut self) {
        self.subscriber.unsubscribed();
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Admitted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && frame.is_data()
        {
            self.subscriber.sent(1);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> SubscriberHandle {
        let metrics = mesh_metrics::Metrics::controller("0");
        metrics.families.subscribers(mesh_metrics::Api::Destination)
    }

    #[test]
    fn strangers_never_take_the_places_of_members() {
        let peer = |tls, certified: bool| Peer {
            leaf: None,
            accepted: crate::trust::Shown::Chain(None),
            address: "192.0.2.1:1".parse().unwrap(),
            tls,
            certified: certified.then(|| {
                (
                    "a.example".parse().unwrap(),
                    std::time::SystemTime::UNIX_EPOCH,
                )
            }),
        };
        let limits = ConnectionLimits::new(2, 1);
        let _stranger = limits.admit(&peer(true, false)).unwrap();
        assert!(limits.admit(&peer(true, false)).is_none());
        let _member = limits.admit(&peer(true, true)).unwrap();
        let _local = limits.admit(&peer(false, false)).unwrap();
        assert!(limits.admit(&peer(true, true)).is_none());
    }

    #[test]
    fn the_limit_holds_and_a_place_returns_with_its_stream() {
        let admission = StreamAdmission::new(1);
        let place = admission.admit().unwrap();
        let refusal = admission.admit().unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::Unavailable);
        assert!(refusal.metadata().contains_key("grpc-retry-pushback-ms"));
        let body = Admitted::new(tonic::body::Body::empty(), place, handle());
        assert_eq!(admission.open(), 1);
        drop(body);
        assert_eq!(admission.open(), 0);
        assert!(admission.admit().is_ok());
    }
}
