use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::series::{Labels, Lines, SeriesMap};
use crate::{BackendLabels, Histogram, RouteLabels};

/// The HTTP families of one direction: requests by route and, on the way out, by backend.
#[derive(Clone, Debug)]
pub struct HttpMetrics<L> {
    pub(crate) series: Arc<SeriesMap<L, HttpCounts>>,
}

/// Counts the requests of one route, or of one backend of a route. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct HttpHandle(Arc<HttpCounts>);

/// A request under way. Dropped without [`finish`](Self::finish), it counts as [`Failure::Canceled`], and no duration is
/// recorded, as none was measured.
#[derive(Debug)]
#[must_use = "a request that is not finished counts as canceled"]
pub struct ActiveRequest {
    counts: Option<HttpHandle>,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Completion {
    /// A response with this status code, that is not gRPC.
    Status(u16),
    /// A gRPC response with this code (`grpc-status`).
    Grpc(u32),
    /// No response, or not all of it.
    Failed(Failure),
}

/// Why a request had no complete response of its peer's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// A connection could not be opened, TLS included.
    Connect,
    /// A deadline passed.
    Timeout,
    /// The peer reset the stream or closed the connection.
    Reset,
    /// The client went away first.
    Canceled,
    /// No endpoint was available.
    NoEndpoint,
    /// No route was for it.
    NoRoute,
    /// The client was not authorized.
    Unauthorized,
    /// A limit of the proxy's was reached.
    Limit,
    /// The client, or all of them, asked more often than the policy lets them.
    RateLimited,
    /// Something else went wrong within the proxy.
    Internal,
}

#[derive(Debug)]
pub(crate) struct HttpCounts {
    requests: AtomicU64,
    statuses: [AtomicU64; STATUSES.len() + 1],
    grpc: [AtomicU64; GRPC_CODES.len() + 1],
    failures: [AtomicU64; Failure::ALL.len()],
    success: Histogram,
    failure: Histogram,
}

/// Status codes counted each for itself; all others together as `other`. In order.
const STATUSES: [u16; 38] = [
    100, 101, 103, 200, 201, 202, 203, 204, 205, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403,
    404, 405, 406, 408, 409, 410, 411, 412, 413, 415, 422, 429, 431, 499, 500, 501, 502, 503, 504,
];

/// The names of the gRPC codes, by number (gRPC, "Status codes and their use").
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A code that is none of those listed.
const OTHER: &str = "other";

impl HttpMetrics<RouteLabels> {
    /// The handle for the requests of one route.
    pub fn route(&self, labels: &RouteLabels) -> HttpHandle {
        HttpHandle(self.series.resolve(labels))
    }
}

impl HttpMetrics<BackendLabels> {
    /// The handle for the requests of one backend of a route.
    pub fn backend(&self, labels: &BackendLabels) -> HttpHandle {
        HttpHandle(self.series.resolve(labels))
    }
}

impl HttpHandle {
    /// A request starts; end it with [`finished`](Self::finished), once.
    pub fn started(&self) {
        self.0.requests.fetch_add(1, Relaxed);
    }

    /// A request that had [`started`](Self::started) ends, `after` its head came.
    pub fn finished(&self, completion: Completion, after: Duration) {
        self.0.count(completion);
        if completion.is_success() {
            self.0.success.record(after);
        } else {
            self.0.failure.record(after);
        }
    }

    /// As [`started`](Self::started), as a guard that cannot forget to end.
    pub fn start(&self) -> ActiveRequest {
        self.started();
        ActiveRequest {
            counts: Some(self.clone()),
        }
    }
}

impl ActiveRequest {
    /// The request ends, `after` its head came.
    pub fn finish(mut self, completion: Completion, after: Duration) {
        if let Some(counts) = self.counts.take() {
            counts.finished(completion, after);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        if let Some(HttpHandle(counts)) = self.counts.take() {
            counts.count(Completion::Failed(Failure::Canceled));
        }
    }
}

impl Completion {
    /// True when the server is not to blame: no failure, no status of 500 or above, and of the gRPC codes none of
    /// `UNKNOWN`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`, or any unheard of.
    pub fn is_success(self) -> bool {
        match self {
            Self::Status(status) => status < 500,
            Self::Grpc(code) => !matches!(code, 2 | 4 | 8 | 13 | 14 | 15 | 17..),
            Self::Failed(_) => false,
        }
    }
}

impl Failure {
    const ALL: [Self; 10] = [
        Self::Connect,
        Self::Timeout,
        Self::Reset,
        Self::Canceled,
        Self::NoEndpoint,
        Self::NoRoute,
        Self::Unauthorized,
        Self::Limit,
        Self::RateLimited,
        Self::Internal,
    ];

    /// The value of the label `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Canceled => "canceled",
            Self::NoEndpoint => "no_endpoint",
            Self::NoRoute => "no_route",
            Self::Unauthorized => "unauthorized",
            Self::Limit => "limit",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
        }
    }
}

impl HttpCounts {
    /// Requests that started and came to nothing yet. Not counted for itself, which saves two atomic adds a request.
    fn active(&self) -> i64 {
        let ended = self.statuses.iter().chain(&self.grpc).chain(&self.failures);
        // Read before the requests, so that one that starts and ends meanwhile makes no difference below zero.
        let ended: u64 = ended.map(|count| count.load(Relaxed)).sum();
        let active = self.requests.load(Relaxed).saturating_sub(ended);
        i64::try_from(active).unwrap_or(i64::MAX)
    }

    fn count(&self, completion: Completion) {
        let counter = match completion {
            Completion::Status(status) => {
                let index = STATUSES.binary_search(&status);
                &self.statuses[index.unwrap_or(STATUSES.len())]
            }
            Completion::Grpc(code) => {
                let index = usize::try_from(code).unwrap_or(usize::MAX);
                &self.grpc[index.min(GRPC_CODES.len())]
            }
            // The variants are numbered in the order of `ALL`.
            Completion::Failed(failure) => &self.failures[failure as usize],
        };
        counter.fetch_add(1, Relaxed);
    }

    fn show_statuses(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        for (index, count) in self.statuses.iter().enumerate() {
            let status = STATUSES.get(index).map(u16::to_string);
            let status = status.as_deref().unwrap_or(OTHER);
            show_nonzero(lines, ("http_status", status), count)?;
        }
        Ok(())
    }

    fn show_grpc(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let names = GRPC_CODES.into_iter().chain([OTHER]);
        for (name, count) in names.zip(&self.grpc) {
            show_nonzero(lines, ("grpc_status", name), count)?;
        }
        Ok(())
    }

    fn show_failures(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        for (failure, count) in Failure::ALL.iter().zip(&self.failures) {
            show_nonzero(lines, ("error", failure.as_str()), count)?;
        }
        Ok(())
    }

    fn show_durations(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        lines.histogram_with(&[("result", "success")], &self.success)?;
        lines.histogram_with(&[("result", "failure")], &self.failure)
    }
}

/// Adds the families `{prefix}_http_*` and `{prefix}_grpc_*`, where `infix` goes after the protocol.
pub(crate) fn register<L: Labels>(
    registry: &mut Registry,
    direction: &str,
    infix: &str,
    cap: usize,
) -> HttpMetrics<L> {
    let series = SeriesMap::<L, HttpCounts>::new(cap);
    let name = |protocol, rest| format!("{direction}_{protocol}{infix}_{rest}");
    series.show(
        registry,
        name("http", "requests"),
        "Requests, gRPC calls included, counted when they start",
        MetricType::Counter,
        |counts, lines| lines.counter(counts.requests.load(Relaxed)),
    );
    series.show(
        registry,
        name("http", "requests_active"),
        "Requests under way",
        MetricType::Gauge,
        |counts, lines| lines.gauge(counts.active()),
    );
    series.show(
        registry,
        name("http", "statuses"),
        "Responses that are not gRPC, by status code",
        MetricType::Counter,
        HttpCounts::show_statuses,
    );
    series.show(
        registry,
        name("grpc", "statuses"),
        "gRPC responses, by code",
        MetricType::Counter,
        HttpCounts::show_grpc,
    );
    series.show(
        registry,
        name("http", "failures"),
        "Requests without a complete response of their peer's, by cause",
        MetricType::Counter,
        HttpCounts::show_failures,
    );
    series.show(
        registry,
        name("http", "request_duration_seconds"),
        "Time from the head of a request until its response had ended, by whether it succeeded",
        MetricType::Histogram,
        HttpCounts::show_durations,
    );
    HttpMetrics { series }
}

/// A code never seen has no line.
fn show_nonzero(lines: &mut Lines<'_, '_>, label: (&str, &str), count: &AtomicU64) -> fmt::Result {
    match count.load(Relaxed) {
        0 => Ok(()),
        count => lines.counter_with(&[label], count),
    }
}

impl Default for HttpCounts {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            statuses: std::array::from_fn(|_| AtomicU64::new(0)),
            grpc: std::array::from_fn(|_| AtomicU64::new(0)),
            failures: std::array::from_fn(|_| AtomicU64::new(0)),
            success: Histogram::new(),
            failure: Histogram::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order() {
        assert!(STATUSES.is_sorted());
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, index);
        }
    }

    #[test]
    fn a_dropped_request_is_canceled_and_no_longer_active() {
        let handle = HttpHandle(Arc::default());
        let active = handle.start();
        assert_eq!(handle.0.active(), 1);
        drop(active);
        handle
            .start()
            .finish(Completion::Status(204), Duration::ZERO);
        assert_eq!(handle.0.active(), 0);
        assert_eq!(handle.0.requests.load(Relaxed), 2);
        let canceled = &handle.0.failures[Failure::Canceled as usize];
        assert_eq!(canceled.load(Relaxed), 1);
    }

    #[test]
    fn any_code_is_counted_somewhere() {
        let counts = HttpCounts::default();
        for status in [0, 200, 599, u16::MAX] {
            counts.count(Completion::Status(status));
        }
        for code in [0, 16, 17, u32::MAX] {
            counts.count(Completion::Grpc(code));
        }
        let sum = |all: &[AtomicU64]| all.iter().map(|n| n.load(Relaxed)).sum::<u64>();
        assert_eq!((sum(&counts.statuses), sum(&counts.grpc)), (4, 4));
    }
}
