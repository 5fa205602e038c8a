use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::labels::Api;
use crate::series::SeriesMap;

/// The families of a proxy's conversation with its controller.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    streams: Arc<SeriesMap<Api, StreamCounts>>,
    identity: Arc<SeriesMap<(), IdentityCounts>>,
}

/// Counts the streams of one API. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct StreamHandle(Arc<StreamCounts>);

/// Counts what becomes of the proxy's certificate. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct IdentityHandle(Arc<IdentityCounts>);

#[derive(Debug, Default)]
struct StreamCounts {
    connected: AtomicI64,
    reconnects: AtomicU64,
    updates: AtomicU64,
    invalid: AtomicU64,
}

#[derive(Debug, Default)]
struct IdentityCounts {
    expiration: AtomicI64,
    refresh: AtomicI64,
    renewals: AtomicU64,
    failures: AtomicU64,
}

impl ControlMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // The label sets are those of an enum, and one.
        let streams = SeriesMap::<Api, StreamCounts>::new(usize::MAX);
        let identity = SeriesMap::<(), IdentityCounts>::new(usize::MAX);
        streams.show(
            registry,
            "control_streams_connected",
            "Streams from the controller that are up",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.connected.load(Relaxed)),
        );
        streams.show(
            registry,
            "control_reconnects",
            "Streams from the controller that ended and were tried again",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.reconnects.load(Relaxed)),
        );
        streams.show(
            registry,
            "control_updates",
            "Messages from the controller that were taken over",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.updates.load(Relaxed)),
        );
        streams.show(
            registry,
            "control_invalid_messages",
            "Messages from the controller that were refused",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.invalid.load(Relaxed)),
        );
        identity.show(
            registry,
            "control_identity_cert_expiration_timestamp_seconds",
            "When the certificate expires, in seconds since 1970; zero without one",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.expiration.load(Relaxed)),
        );
        identity.show(
            registry,
            "control_identity_cert_refresh_timestamp_seconds",
            "When the certificate was last renewed, in seconds since 1970; zero without one",
            MetricType::Gauge,
            |counts, lines| lines.gauge(counts.refresh.load(Relaxed)),
        );
        identity.show(
            registry,
            "control_identity_cert_refreshes",
            "Certificates received",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.renewals.load(Relaxed)),
        );
        identity.show(
            registry,
            "control_identity_cert_refresh_failures",
            "Attempts to get a certificate that failed",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.failures.load(Relaxed)),
        );
        Self { streams, identity }
    }

    /// The handle for the streams of `api`.
    pub fn stream(&self, api: Api) -> StreamHandle {
        StreamHandle(self.streams.resolve(&api))
    }

    /// The handle for the proxy's certificate.
    pub fn identity(&self) -> IdentityHandle {
        IdentityHandle(self.identity.resolve(&()))
    }
}

impl StreamHandle {
    /// A stream came up; end it with [`disconnected`](Self::disconnected), once.
    pub fn connected(&self) {
        self.0.connected.fetch_add(1, Relaxed);
    }

    /// A stream that was [`connected`](Self::connected) ended.
    pub fn disconnected(&self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }

    /// A stream that ended, or never came up, is tried again.
    pub fn reconnecting(&self) {
        self.0.reconnects.fetch_add(1, Relaxed);
    }

    /// A message was taken over.
    pub fn updated(&self) {
        self.0.updates.fetch_add(1, Relaxed);
    }

    /// A message was refused.
    pub fn invalid(&self) {
        self.0.invalid.fetch_add(1, Relaxed);
    }
}

impl IdentityHandle {
    /// At `now`, a certificate came that is valid until `expiration`.
    pub fn renewed(&self, now: SystemTime, expiration: SystemTime) {
        self.0.renewals.fetch_add(1, Relaxed);
        self.0.refresh.store(unix_seconds(now), Relaxed);
        self.0.expiration.store(unix_seconds(expiration), Relaxed);
    }

    /// An attempt to get a certificate failed.
    pub fn failed(&self) {
        self.0.failures.fetch_add(1, Relaxed);
    }
}

/// Times before 1970 are taken as zero.
fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
