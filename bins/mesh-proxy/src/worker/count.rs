//! Counting opaque connections and their bytes, on both sides of the proxy.

use mesh_http::tcp::Count;
use mesh_metrics::{
    CloseReason, Peer, ResourceLabels, TcpHandle, TcpLabels, TcpMetrics, TlsStatus,
};

/// The counters of one connection that is carried on by another.
#[derive(Debug)]
pub(crate) struct TcpCount {
    source: TcpHandle,
    destination: TcpHandle,
}

impl TcpCount {
    /// Both connections are open. `source` and `destination` say how each is protected.
    pub(crate) fn open(
        metrics: &TcpMetrics,
        parent: &ResourceLabels,
        source: TlsStatus,
        destination: TlsStatus,
    ) -> Self {
        let open = |peer, tls| {
            let handle = metrics.connections(&TcpLabels {
                peer,
                tls,
                parent: parent.clone(),
            });
            handle.opened();
            handle
        };
        Self {
            source: open(Peer::Source, source),
            destination: open(Peer::Destination, destination),
        }
    }

    /// Both have ended.
    pub(crate) fn close(self, reason: CloseReason) {
        self.source.closed(reason);
        self.destination.closed(reason);
    }
}

impl Count for TcpCount {
    fn forward(&self, bytes: usize) {
        self.source.add_read(bytes as u64);
        self.destination.add_written(bytes as u64);
    }

    fn backward(&self, bytes: usize) {
        self.destination.add_read(bytes as u64);
        self.source.add_written(bytes as u64);
    }
}
