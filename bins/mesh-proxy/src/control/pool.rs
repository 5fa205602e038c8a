//! One balancer: its pool, fed by the control side, and the backend through which the data path picks.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use mesh_balance::core::{Change, EjectionLimits, Event, PeakEwma, Pool, PoolBuilder, State};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff};
use mesh_metrics::{BalancerHandle, BalancerMetrics, BreakerState, EndpointCounts};
use mesh_policy::outbound::{BackendKind as SpecKind, BackendSpec, FailureAccrual};
use tokio::sync::watch;

use crate::labels;
use crate::model::{Backend, BackendKind, Endpoint, Population};

/// The writing half of a balancer's [`Backend`].
#[derive(Debug)]
pub(super) struct Balanced {
    spec: BackendSpec,
    pool: Pool<SocketAddr, Endpoint>,
    population: watch::Sender<Population>,
    backend: Weak<Backend>,
    metrics: BalancerHandle,
}

impl Balanced {
    /// An empty pool, of which nothing is known yet.
    pub(super) fn new(spec: &BackendSpec, metrics: &BalancerMetrics) -> (Self, Arc<Backend>) {
        let metrics = metrics.backend(&labels::resource(&spec.meta));
        let known = Arc::new(OnceLock::<Weak<Backend>>::new());
        let observer = {
            let (metrics, known) = (metrics.clone(), Arc::clone(&known));
            move |event: Event| {
                metrics.breaker(match event.transition.state() {
                    State::Closed => BreakerState::Closed,
                    State::Open => BreakerState::Open,
                    State::HalfOpen => BreakerState::HalfOpen,
                });
                if let Some(backend) = known.get().and_then(Weak::upgrade) {
                    metrics.set_endpoints(counts(&backend));
                }
            }
        };
        let pool = builder(spec)
            .drop_clock(Instant::now)
            .on_event(observer)
            .build(Instant::now());
        let (population, receiver) = watch::channel(Population::Unknown);
        let backend = Arc::new(Backend::balancer(
            spec.meta.as_ref().clone(),
            pool.picker(),
            receiver,
            spec.queue,
        ));
        let weak = Arc::downgrade(&backend);
        // Weak, as the pool owns the observer: a strong one would keep both for ever.
        let _ = known.set(weak.clone());
        (
            Self {
                spec: spec.clone(),
                pool,
                population,
                backend: weak,
                metrics,
            },
            backend,
        )
    }

    /// The backend, if it was made from this specification and is still in use.
    pub(super) fn backend_of(&self, spec: &BackendSpec) -> Option<Arc<Backend>> {
        (self.spec == *spec)
            .then(|| self.backend.upgrade())
            .flatten()
    }

    /// Whether any policy still names it.
    pub(super) fn is_used(&self) -> bool {
        self.backend.strong_count() > 0
    }

    /// Takes out `removed`, then takes in `added`, as one new snapshot. `empty` says whether nothing is left.
    pub(super) fn apply(&mut self, removed: &[SocketAddr], added: &[Endpoint], empty: bool) {
        if !removed.is_empty() || !added.is_empty() {
            self.metrics
                .updated(added.len() as u64, removed.len() as u64);
            let removed = removed.iter().map(|address| Change::remove(*address));
            let added = added
                .iter()
                .map(|endpoint| Change::insert(endpoint.addr, endpoint.clone(), endpoint.weight));
            self.pool.apply(removed.chain(added));
            if let Some(backend) = self.backend.upgrade() {
                self.metrics.set_endpoints(counts(&backend));
            }
        }
        // After the snapshot, so that whoever waited finds it.
        let population = if empty {
            Population::Empty
        } else {
            Population::Known
        };
        self.population
            .send_if_modified(|known| std::mem::replace(known, population) != population);
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        self.metrics.set_endpoints(EndpointCounts::default());
    }
}

fn counts(backend: &Backend) -> EndpointCounts {
    let BackendKind::Balancer(picker) = backend.kind() else {
        return EndpointCounts::default();
    };
    let snapshot = picker.snapshot();
    let ejected = u64::from(snapshot.ejected());
    let ready = (snapshot.len() as u64).saturating_sub(ejected);
    EndpointCounts {
        ready,
        pending: 0,
        ejected,
    }
}

fn builder(spec: &BackendSpec) -> PoolBuilder {
    let builder = Pool::<SocketAddr, Endpoint>::builder();
    let builder = match &spec.kind {
        SpecKind::Balancer { load, .. } => builder.load(
            PeakEwma::default()
                .default_rtt(load.default_rtt)
                .decay(load.decay),
        ),
        SpecKind::Forward(_) => builder,
    };
    match spec.failure_accrual.as_ref().and_then(breaker) {
        Some((policy, limits)) => builder.breaker(policy).ejection(limits),
        None => builder,
    }
}

/// The breaker that a failure accrual asks for; `None` when it asks for one that never opens.
fn breaker(accrual: &FailureAccrual) -> Option<(ConsecutiveFailures, EjectionLimits)> {
    let backoff = &accrual.backoff;
    let backoff = ExponentialBackoff::new(
        backoff.min(),
        backoff.max(),
        f64::from(backoff.jitter().get()),
    )
    .ok()?;
    let policy = ConsecutiveFailures::new(accrual.max_failures.get(), backoff).ok()?;
    // In the proxy API, no floor means no limit at all.
    let limits = match accrual.min_ready_endpoints {
        0 => EjectionLimits::default()
            .max_ejected_percent(100)
            .eject_last(true),
        floor => EjectionLimits::default()
            .max_ejected_percent(100)
            .min_ready_endpoints(floor),
    };
    Some((policy, limits))
}
