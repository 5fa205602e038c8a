use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::ResourceLabels;
use crate::series::SeriesMap;

/// The families of balancers and of the breakers on their endpoints, by backend.
#[derive(Clone, Debug)]
pub struct BalancerMetrics {
    series: Arc<SeriesMap<ResourceLabels, BalancerCounts>>,
}

/// Counts for the balancer of one backend. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct BalancerHandle(Arc<BalancerCounts>);

/// How many endpoints a balancer holds in each state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EndpointCounts {
    /// Take traffic.
    pub ready: u64,
    /// Are known but take none yet.
    pub pending: u64,
    /// Were taken out by a breaker.
    pub ejected: u64,
}

/// The state a breaker went into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BreakerState {
    /// Lets everything through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets a probe through.
    HalfOpen,
}

#[derive(Debug, Default)]
struct BalancerCounts {
    ready: AtomicI64,
    pending: AtomicI64,
    ejected: AtomicI64,
    added: AtomicU64,
    removed: AtomicU64,
    closed: AtomicU64,
    opened: AtomicU64,
    half_opened: AtomicU64,
    unavailable: AtomicU64,
}

impl BalancerMetrics {
    pub(crate) fn register(registry: &mut Registry, cap: usize) -> Self {
        let series = SeriesMap::<ResourceLabels, BalancerCounts>::new(cap);
        series.show(
            registry,
            "outbound_http_balancer_endpoints",
            "Endpoints of a balancer, by state",
            MetricType::Gauge,
            |counts, lines| {
                for (state, count) in [
                    ("ready", &counts.ready),
                    ("pending", &counts.pending),
                    ("ejected", &counts.ejected),
                ] {
                    lines.gauge_with(&[("endpoint_state", state)], count.load(Relaxed))?;
                }
                Ok(())
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_updates",
            "Endpoints added to and removed from a balancer",
            MetricType::Counter,
            |counts, lines| {
                lines.counter_with(&[("op", "add")], counts.added.load(Relaxed))?;
                lines.counter_with(&[("op", "remove")], counts.removed.load(Relaxed))
            },
        );
        series.show(
            registry,
            "outbound_http_breaker_transitions",
            "Changes of the breakers on a balancer's endpoints, by the state they went into",
            MetricType::Counter,
            |counts, lines| {
                for (state, count) in [
                    ("closed", &counts.closed),
                    ("open", &counts.opened),
                    ("half_open", &counts.half_opened),
                ] {
                    lines.counter_with(&[("state", state)], count.load(Relaxed))?;
                }
                Ok(())
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_unavailable",
            "Requests that found no endpoint to go to",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.unavailable.load(Relaxed)),
        );
        Self { series }
    }

    /// The handle for the balancer of `backend`.
    pub fn backend(&self, backend: &ResourceLabels) -> BalancerHandle {
        BalancerHandle(self.series.resolve(backend))
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.series.overflows()
    }
}

impl BalancerHandle {
    /// The balancer's endpoints are now these.
    pub fn set_endpoints(&self, counts: EndpointCounts) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.ready.store(gauge(counts.ready), Relaxed);
        self.0.pending.store(gauge(counts.pending), Relaxed);
        self.0.ejected.store(gauge(counts.ejected), Relaxed);
    }

    /// An update of discovery's came.
    pub fn updated(&self, added: u64, removed: u64) {
        self.0.added.fetch_add(added, Relaxed);
        self.0.removed.fetch_add(removed, Relaxed);
    }

    /// The breaker on some endpoint went into `state`.
    pub fn breaker(&self, state: BreakerState) {
        let counter = match state {
            BreakerState::Closed => &self.0.closed,
            BreakerState::Open => &self.0.opened,
            BreakerState::HalfOpen => &self.0.half_opened,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A request found no endpoint to go to.
    pub fn unavailable(&self) {
        self.0.unavailable.fetch_add(1, Relaxed);
    }
}
