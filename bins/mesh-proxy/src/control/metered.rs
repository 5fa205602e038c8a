//! A stream from the controller that is counted.

use mesh_metrics::StreamHandle;
use tonic::{Response, Status, Streaming};

/// A stream that is up until it is dropped.
#[derive(Debug)]
pub(super) struct Metered<'a, T> {
    messages: Streaming<T>,
    metrics: &'a StreamHandle,
}

impl<'a, T> Metered<'a, T> {
    /// What opening a stream came to.
    pub(super) fn new(
        opened: Result<Response<Streaming<T>>, Status>,
        metrics: &'a StreamHandle,
    ) -> Result<Self, Status> {
        let messages = opened?.into_inner();
        metrics.connected();
        Ok(Self { messages, metrics })
    }

    /// The next message; the end of the stream is an error like any other.
    pub(super) async fn next(&mut self) -> Result<T, Status> {
        let ended = || Status::unavailable("the controller ended the watch");
        self.messages.message().await?.ok_or_else(ended)
    }

    /// Counts whether the last message could be used.
    pub(super) fn used(&self, used: bool) {
        if used {
            self.metrics.updated();
        } else {
            self.metrics.invalid();
        }
    }
}

impl<T> Drop for Metered<'_, T> {
    fn drop(&mut self) {
        self.metrics.disconnected();
    }
}
