use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::RouteLabels;
use crate::series::SeriesMap;

/// The families of retries, by route.
#[derive(Clone, Debug)]
pub struct RetryMetrics {
    series: Arc<SeriesMap<RouteLabels, RetryCounts>>,
}

/// Counts the retries of one route. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct RetryHandle(Arc<RetryCounts>);

#[derive(Debug, Default)]
struct RetryCounts {
    requests: AtomicU64,
    successes: AtomicU64,
    limit_exceeded: AtomicU64,
    overflow: AtomicU64,
}

impl RetryMetrics {
    pub(crate) fn register(registry: &mut Registry, cap: usize) -> Self {
        let series = SeriesMap::<RouteLabels, RetryCounts>::new(cap);
        series.show(
            registry,
            "outbound_http_route_retry_requests",
            "Requests that were sent again",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.requests.load(Relaxed)),
        );
        series.show(
            registry,
            "outbound_http_route_retry_successes",
            "Requests sent again whose answer needed no further retry",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.successes.load(Relaxed)),
        );
        series.show(
            registry,
            "outbound_http_route_retry_limit_exceeded",
            "Requests that failed though sent again as often as the route allows",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.limit_exceeded.load(Relaxed)),
        );
        series.show(
            registry,
            "outbound_http_route_retry_overflow",
            "Requests that failed and were not sent again, as the budget was used up or no endpoint took them",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.overflow.load(Relaxed)),
        );
        Self { series }
    }

    /// The handle for the retries of one route.
    pub fn route(&self, labels: &RouteLabels) -> RetryHandle {
        RetryHandle(self.series.resolve(labels))
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.series.overflows()
    }
}

impl RetryHandle {
    /// A request is sent again.
    pub fn requested(&self) {
        self.0.requests.fetch_add(1, Relaxed);
    }

    /// A request that was sent again is answered, and not retried any more for that.
    pub fn succeeded(&self) {
        self.0.successes.fetch_add(1, Relaxed);
    }

    /// A request failed, and was sent again as often as may be.
    pub fn limit_exceeded(&self) {
        self.0.limit_exceeded.fetch_add(1, Relaxed);
    }

    /// A request failed, and could not be sent again: the budget is used up, or there is no endpoint for it.
    pub fn overflowed(&self) {
        self.0.overflow.fetch_add(1, Relaxed);
    }
}
