use std::cmp::Reverse;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

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

/// What tells how a balancer's endpoints stand. It is asked whenever metrics are read.
pub trait Endpoints: fmt::Debug + Send + Sync {
    /// How they stand now.
    fn counts(&self) -> EndpointCounts;
}

/// How many endpoints a balancer holds in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointCounts {
    /// Take traffic.
    pub ready: u64,
    /// Are known but take none yet.
    pub pending: u64,
    /// Were taken out by a breaker.
    pub ejected: u64,
    /// Are left alone because they asked for it.
    pub held: u64,
    /// Are sent no more than the rate that they were learned to admit, whichever state they are in.
    pub limited: u64,
    /// Requests are kept to so many, if not to all.
    pub aperture: Option<u64>,
    /// How zones stand, if the balancer knows any.
    pub zones: Option<ZoneCounts>,
}

/// How the zones of a balancer stand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ZoneCounts {
    /// Endpoints of the own zone.
    pub local: u64,
    /// Endpoints of other zones that are in use.
    pub remote: u64,
    /// Requests in flight per endpoint in use, smoothed.
    pub load: f64,
    /// The load below which endpoints of other zones leave.
    pub low: f64,
    /// The load above which they come in.
    pub high: f64,
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
    /// Those that live; the backend of one may have others, as for opaque connections.
    balancers: Mutex<Vec<Weak<dyn Endpoints>>>,
    added: AtomicU64,
    removed: AtomicU64,
    closed: AtomicU64,
    opened: AtomicU64,
    half_opened: AtomicU64,
    unavailable: AtomicU64,
    shed: AtomicU64,
    local: AtomicU64,
    remote: AtomicU64,
}

impl BalancerCounts {
    /// How the endpoints stand: of several balancers, in the one with the fewest that are ready, or with the most that something
    /// is up with.
    fn endpoints(&self) -> Option<EndpointCounts> {
        let mut balancers = self
            .balancers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        balancers.retain(|balancer| balancer.strong_count() > 0);
        let live: Vec<_> = balancers.iter().filter_map(Weak::upgrade).collect();
        // What they are asked may take a while, and dropping the last of one may lead here again.
        drop(balancers);
        let counts = live.iter().map(|balancer| balancer.counts());
        counts.min_by_key(|counts| {
            let zones = counts.zones.unwrap_or_default();
            (counts.ready, Reverse((counts.limited, zones.remote)))
        })
    }

    fn zones(&self) -> Option<ZoneCounts> {
        self.endpoints()?.zones
    }
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
                let counts = counts.endpoints().unwrap_or_default();
                for (state, count) in [
                    ("ready", counts.ready),
                    ("pending", counts.pending),
                    ("ejected", counts.ejected),
                    ("held", counts.held),
                ] {
                    lines.gauge_with(&[("endpoint_state", state)], gauge(count))?;
                }
                Ok(())
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_limited_endpoints",
            "Endpoints that are sent no more than the rate they were learned to admit",
            MetricType::Gauge,
            |counts, lines| {
                let counts = counts.endpoints().unwrap_or_default();
                lines.gauge(gauge(counts.limited))
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_aperture_endpoints",
            "Endpoints that requests are kept to, where they are not kept to all",
            MetricType::Gauge,
            |counts, lines| match counts.endpoints().and_then(|counts| counts.aperture) {
                Some(aperture) => lines.gauge(gauge(aperture)),
                None => Ok(()),
            },
        );
        Self::register_zones(&series, registry);
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
        series.show(
            registry,
            "outbound_http_balancer_shed",
            "Requests turned away because every endpoint was at its rate limit",
            MetricType::Counter,
            |counts, lines| lines.counter(counts.shed.load(Relaxed)),
        );
        Self { series }
    }

    /// What is shown of balancers that know zones.
    fn register_zones(
        series: &Arc<SeriesMap<ResourceLabels, BalancerCounts>>,
        registry: &mut Registry,
    ) {
        series.show(
            registry,
            "outbound_http_balancer_zone_endpoints",
            "Endpoints of the own zone, and those of others that are in use",
            MetricType::Gauge,
            |counts, lines| {
                let Some(zones) = counts.zones() else {
                    return Ok(());
                };
                lines.gauge_with(&[("zone_locality", "local")], gauge(zones.local))?;
                lines.gauge_with(&[("zone_locality", "remote")], gauge(zones.remote))
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_zone_load",
            "Requests in flight per endpoint in use, smoothed, and the band that it is kept in",
            MetricType::Gauge,
            |counts, lines| {
                let Some(zones) = counts.zones() else {
                    return Ok(());
                };
                for (value, load) in [
                    ("current", zones.load),
                    ("low", zones.low),
                    ("high", zones.high),
                ] {
                    lines.gauge_with(&[("value", value)], load)?;
                }
                Ok(())
            },
        );
        series.show(
            registry,
            "outbound_http_balancer_zone_requests",
            "Requests and connections sent to endpoints of the own zone and of others",
            MetricType::Counter,
            |counts, lines| {
                let (local, remote) = (counts.local.load(Relaxed), counts.remote.load(Relaxed));
                if local == 0 && remote == 0 {
                    return Ok(());
                }
                lines.counter_with(&[("zone_locality", "local")], local)?;
                lines.counter_with(&[("zone_locality", "remote")], remote)
            },
        );
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
    /// Asks `balancer` how its endpoints stand whenever metrics are read, as long as it lives.
    pub fn observe(&self, balancer: Weak<dyn Endpoints>) {
        let balancers = self.0.balancers.lock();
        balancers
            .unwrap_or_else(PoisonError::into_inner)
            .push(balancer);
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

    /// A request was turned away because every endpoint was at its rate limit.
    pub fn shed(&self) {
        self.0.shed.fetch_add(1, Relaxed);
    }

    /// A request was sent to an endpoint of the own zone, or of another.
    pub fn sent(&self, local: bool) {
        let counter = if local { &self.0.local } else { &self.0.remote };
        counter.fetch_add(1, Relaxed);
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
