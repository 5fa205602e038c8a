use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::TcpLabels;
use crate::series::{Lines, SeriesMap};

/// The TCP families of one direction.
#[derive(Clone, Debug)]
pub struct TcpMetrics {
    series: Arc<SeriesMap<TcpLabels, TcpCounts>>,
}

/// Counts the connections of one kind. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct TcpHandle(Arc<TcpCounts>);

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CloseReason {
    /// In order, by either side.
    Done,
    /// With an error of the socket's.
    Error,
    /// A deadline passed.
    Timeout,
    /// Its peer was not, or no longer, authorized.
    Unauthorized,
    /// The proxy was stopping.
    Shutdown,
}

#[derive(Debug, Default)]
struct TcpCounts {
    opened: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    read_bytes: AtomicU64,
    write_bytes: AtomicU64,
}

impl TcpMetrics {
    pub(crate) fn register(registry: &mut Registry, direction: &str, cap: usize) -> Self {
        let series = SeriesMap::<TcpLabels, TcpCounts>::new(cap);
        let name = |rest| format!("{direction}_tcp_{rest}");
        series.show(
            registry,
            name("open"),
            "Connections opened",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.opened.load(Relaxed)),
        );
        series.show(
            registry,
            name("open_connections"),
            "Connections that are open",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.open()),
        );
        series.show(
            registry,
            name("close"),
            "Connections closed, by how they ended",
            MetricType::Counter,
            TcpCounts::show_closed,
        );
        series.show(
            registry,
            name("read_bytes"),
            "Bytes read from the peer",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.read_bytes.load(Relaxed)),
        );
        series.show(
            registry,
            name("write_bytes"),
            "Bytes written to the peer",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.write_bytes.load(Relaxed)),
        );
        Self { series }
    }

    /// The handle for the connections of one kind.
    pub fn connections(&self, labels: &TcpLabels) -> TcpHandle {
        TcpHandle(self.series.resolve(labels))
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.series.overflows()
    }
}

impl TcpHandle {
    /// A connection opens; end it with [`closed`](Self::closed), once.
    pub fn opened(&self) {
        self.0.opened.fetch_add(1, Relaxed);
    }

    /// A connection that had [`opened`](Self::opened) ends.
    pub fn closed(&self, reason: CloseReason) {
        // The variants are numbered in the order of `ALL`.
        self.0.closed[reason as usize].fetch_add(1, Relaxed);
    }

    /// Bytes were read from the peer.
    pub fn add_read(&self, bytes: u64) {
        self.0.read_bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes were written to the peer.
    pub fn add_written(&self, bytes: u64) {
        self.0.write_bytes.fetch_add(bytes, Relaxed);
    }
}

impl CloseReason {
    const ALL: [Self; 5] = [
        Self::Done,
        Self::Error,
        Self::Timeout,
        Self::Unauthorized,
        Self::Shutdown,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::Shutdown => "shutdown",
        }
    }
}

impl TcpCounts {
    /// Connections that opened and did not close yet.
    fn open(&self) -> i64 {
        // Read before what opened, so that one that opens and closes meanwhile makes no difference below zero.
        let closed: u64 = self.closed.iter().map(|count| count.load(Relaxed)).sum();
        let open = self.opened.load(Relaxed).saturating_sub(closed);
        i64::try_from(open).unwrap_or(i64::MAX)
    }

    fn show_closed(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        for (reason, count) in CloseReason::ALL.iter().zip(&self.closed) {
            let count = count.load(Relaxed);
            if count > 0 {
                lines.counter_with(&[("reason", reason.as_str())], count)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
