//! One balancer: its pool, fed by the control side, and the backend through which the data path picks.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mesh_balance::core::{
    Aperture, Change, EjectionLimits, Event, PeakEwma, Policy, Pool, PoolBuilder, RateLimits,
    State, Zones,
};
use mesh_breaker::{ConsecutiveFailures, ExponentialBackoff, SuccessRate, Unified};
use mesh_metrics::{BalancerHandle, BalancerMetrics, BreakerState, Endpoints};
use mesh_policy::outbound::{
    BackendKind as SpecKind, BackendSpec, FailureAccrual, Load, Penalty, Trip,
};
use tokio::sync::watch;

use crate::config::{self, RateLimiting};
use crate::labels;
use crate::model::{Backend, Endpoint, Population};

/// The writing half of a balancer's [`Backend`].
#[derive(Debug)]
pub(super) struct Balanced {
    spec: BackendSpec,
    pool: Pool<SocketAddr, Arc<Endpoint>>,
    population: watch::Sender<Population>,
    backend: Weak<Backend>,
    metrics: BalancerHandle,
}

impl Balanced {
    /// An empty pool, of which nothing is known yet.
    pub(super) fn new(
        spec: &BackendSpec,
        settings: &config::Balance,
        metrics: &BalancerMetrics,
    ) -> (Self, Arc<Backend>) {
        let metrics = metrics.backend(&labels::resource(&spec.meta));
        let observer = {
            let metrics = metrics.clone();
            move |event: Event| {
                metrics.breaker(match event.transition.state() {
                    State::Closed => BreakerState::Closed,
                    State::Open => BreakerState::Open,
                    State::HalfOpen => BreakerState::HalfOpen,
                });
            }
        };
        let pool = builder(spec, settings)
            .drop_clock(Instant::now)
            .on_event(observer)
            .build(Instant::now());
        let (population, receiver) = watch::channel(Population::Unknown);
        let backend = Arc::new(Backend::balancer(
            spec.meta.as_ref().clone(),
            pool.picker(),
            receiver,
            spec.queue,
            metrics.clone(),
        ));
        let weak = Arc::downgrade(&backend);
        let endpoints: Weak<dyn Endpoints> = weak.clone();
        metrics.observe(endpoints);
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

    /// The backend, if any policy still names it.
    pub(super) fn backend(&self) -> Option<Arc<Backend>> {
        self.backend.upgrade()
    }

    /// Whether any policy still names it.
    pub(super) fn is_used(&self) -> bool {
        self.backend.strong_count() > 0
    }

    /// Takes out `removed`, then takes in `added`, as one new snapshot. `empty` says whether nothing is left.
    pub(super) fn apply(&mut self, removed: &[SocketAddr], added: &[Arc<Endpoint>], empty: bool) {
        if !removed.is_empty() || !added.is_empty() {
            self.metrics
                .updated(added.len() as u64, removed.len() as u64);
            let removed = removed.iter().map(|address| Change::remove(*address));
            let added = added.iter().map(|endpoint| Change::Insert {
                key: endpoint.addr,
                value: endpoint.clone(),
                weight: endpoint.weight,
                zone: endpoint.zone.clone(),
            });
            self.pool.apply(removed.chain(added));
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

fn builder(spec: &BackendSpec, settings: &config::Balance) -> PoolBuilder {
    let mut builder = Pool::<SocketAddr, Arc<Endpoint>>::builder().slow_start(settings.slow_start);
    if settings.aperture > 0 {
        builder = builder.aperture(Aperture::new(settings.aperture, fastrand::u64(..)));
    }
    let mut penalty = None;
    if let SpecKind::Balancer { load, .. } = &spec.kind {
        builder = builder.load(ewma(load));
        penalty = load.penalty;
    }
    if let Some(penalty) = penalty {
        builder = builder.rate_limits(rate_limits(penalty, settings.rate_limits));
    }
    if let Some(zones) = zones(settings) {
        builder = builder.zones(zones);
    }
    // Who is paced at the limit it was learned to have need not be taken out for it.
    let paced = penalty.is_some() && settings.rate_limits == RateLimiting::Learned;
    if let Some(accrual) = &spec.failure_accrual
        && let Some(policy) = breaker(accrual, !paced)
    {
        let limits = ejection(
            accrual.min_ready_endpoints,
            settings.max_ejected_percent.get(),
        );
        builder = builder.breaker(policy).ejection(limits);
    }
    builder
}

fn ewma(load: &Load) -> PeakEwma {
    PeakEwma::default()
        .default_rtt(load.default_rtt)
        .decay(load.decay)
}

fn rate_limits(penalty: Penalty, limiting: RateLimiting) -> RateLimits {
    let limits = match limiting {
        RateLimiting::Learned => RateLimits::default()
            .penalty(penalty.latency)
            .longest(penalty.max_retry_after),
        RateLimiting::Exact => RateLimits::exact(penalty.latency, penalty.max_retry_after),
    };
    limits.penalty_decay(penalty.decay)
}

/// `None` where the workload's own zone is not known.
fn zones(settings: &config::Balance) -> Option<Zones> {
    let zones = Zones::new(settings.zone.as_ref()?.as_str());
    let nearest = settings.zones_nearest.iter();
    let zones = nearest.fold(zones, |zones, zone| zones.then(zone.as_str()));
    let band = settings.zones;
    // It is a band, as the setting says so.
    zones.band(band.low(), band.high()).ok()
}

/// The breaker that a failure accrual asks for. Its numbers are ones that a breaker takes.
fn breaker(accrual: &FailureAccrual, rate_limited_fails: bool) -> Option<Policy> {
    let backoff = &accrual.backoff;
    let jitter = f64::from(backoff.jitter().get());
    let backoff = ExponentialBackoff::new(backoff.min(), backoff.max(), jitter)
        .ok()?
        .respect_retry_after(accrual.respect_retry_after);
    let success_rate = |rate: mesh_policy::outbound::SuccessRate, backoff| {
        let policy = SuccessRate::new(rate.threshold(), rate.window(), backoff).ok()?;
        Some(
            policy
                .min_requests(rate.min_requests())
                .rate_limited_fails(rate_limited_fails),
        )
    };
    Some(match accrual.trip {
        Trip::Consecutive(failures) => ConsecutiveFailures::new(failures.get(), backoff)
            .ok()?
            .into(),
        Trip::SuccessRate(rate) => success_rate(rate, backoff)?.into(),
        Trip::Either(failures, rate) => Unified::new(failures.get(), success_rate(rate, backoff)?)
            .ok()?
            .into(),
    })
}

/// In the proxy API, no floor means no limit at all.
fn ejection(floor: u32, max_percent: u8) -> EjectionLimits {
    EjectionLimits::default()
        .max_ejected_percent(max_percent)
        .min_ready_endpoints(floor)
        .eject_last(floor == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_policy::Meta;
    use mesh_policy::outbound::{Backoff, JitterRatio, Queue, SuccessRate as Rate};

    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn accrual(trip: Trip) -> FailureAccrual {
        FailureAccrual {
            trip,
            backoff: Backoff::new(2 * SECOND, 9 * SECOND, JitterRatio::new(0.25).unwrap()).unwrap(),
            respect_retry_after: true,
            min_ready_endpoints: 0,
        }
    }

    #[test]
    fn a_breaker_is_what_the_policy_says() {
        let backoff = ExponentialBackoff::new(2 * SECOND, 9 * SECOND, 0.25)
            .unwrap()
            .respect_retry_after(true);
        let three = 3.try_into().unwrap();
        let rate = Rate::new(0.9, 30 * SECOND, 7).unwrap();
        let success_rate = |limited| {
            SuccessRate::new(0.9, 30 * SECOND, backoff.clone())
                .unwrap()
                .min_requests(7)
                .rate_limited_fails(limited)
        };
        for limited in [true, false] {
            let cases = [
                (
                    Trip::Consecutive(three),
                    ConsecutiveFailures::new(3, backoff.clone()).unwrap().into(),
                ),
                (Trip::SuccessRate(rate), success_rate(limited).into()),
                (
                    Trip::Either(three, rate),
                    Unified::new(3, success_rate(limited)).unwrap().into(),
                ),
            ];
            for (trip, policy) in cases {
                assert_eq!(breaker(&accrual(trip), limited), Some(policy), "{trip:?}");
            }
        }
    }

    #[test]
    fn no_floor_is_no_limit() {
        let all = EjectionLimits::default().max_ejected_percent(100);
        assert_eq!(ejection(0, 100), all.eject_last(true));
        assert_eq!(ejection(3, 100), all.min_ready_endpoints(3));
        let half = EjectionLimits::default().max_ejected_percent(50);
        assert_eq!(ejection(3, 50), half.min_ready_endpoints(3));
    }

    #[test]
    fn a_penalty_is_what_the_policy_says() {
        let penalty = Penalty {
            latency: 4 * SECOND,
            max_retry_after: 200 * SECOND,
            decay: 7 * SECOND,
        };
        let learned = RateLimits::default()
            .penalty(4 * SECOND)
            .longest(200 * SECOND)
            .penalty_decay(7 * SECOND);
        assert_eq!(rate_limits(penalty, RateLimiting::Learned), learned);
        let exact = RateLimits::exact(4 * SECOND, 200 * SECOND).penalty_decay(7 * SECOND);
        assert_eq!(rate_limits(penalty, RateLimiting::Exact), exact);
    }

    #[test]
    fn a_load_is_what_the_policy_says() {
        let load = Load {
            default_rtt: 3 * SECOND,
            decay: 5 * SECOND,
            penalty: None,
        };
        let expected = PeakEwma::default()
            .default_rtt(3 * SECOND)
            .decay(5 * SECOND);
        assert_eq!(ewma(&load), expected);
    }

    fn settings(balance: &str) -> Result<config::Balance, config::Error> {
        let rest = "identity.name = \"a.b\"\nidentity.trust_anchors_file = \"a\"\n\
                    identity.token_file = \"t\"\ncontrol.address = \"127.0.0.1:1\"\n";
        Config::from_toml(&format!("{rest}{balance}")).map(|config| config.balance)
    }

    /// Workers drop their connections to who is not there by this.
    #[test]
    fn who_is_in_which_place_is_known_while_there_is_an_owner() {
        let spec = BackendSpec {
            meta: Arc::new(Meta::default_named("web")),
            kind: SpecKind::Balancer {
                path: "web:80".to_owned(),
                load: Load::default(),
            },
            queue: Queue::default(),
            failure_accrual: None,
        };
        let metrics = mesh_metrics::Metrics::proxy("test");
        let (mut owner, backend) =
            Balanced::new(&spec, &settings("").unwrap(), &metrics.families.balancer);
        let plain = |address| Arc::new(Endpoint::plain(address));
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        owner.apply(&[], &[plain(a), plain(b)], false);
        let both = backend.generations().unwrap();
        assert!(
            both.len() == 2 && both.iter().all(Option::is_some),
            "{both:?}"
        );
        owner.apply(&[a], &[], false);
        let one = backend.generations().unwrap();
        assert_eq!(one.iter().flatten().count(), 1, "{one:?}");
        // Who comes into a place is not who was there.
        owner.apply(&[], &[plain(a)], false);
        let again = backend.generations().unwrap();
        assert_eq!(again.iter().zip(&both).filter(|(a, b)| a == b).count(), 1);
        drop(owner);
        assert_eq!(backend.generations(), Some(Vec::new()));
    }

    /// The settings of a pool can only be seen as they are printed.
    #[test]
    fn a_pool_has_all_of_it() {
        let spec = BackendSpec {
            meta: Arc::new(Meta::default_named("web")),
            kind: SpecKind::Balancer {
                path: "web:80".to_owned(),
                load: Load {
                    penalty: Some(Penalty::default()),
                    ..Load::default()
                },
            },
            queue: Queue::default(),
            failure_accrual: Some(accrual(Trip::Consecutive(3.try_into().unwrap()))),
        };
        let of = |text: &str| format!("{:?}", builder(&spec, &settings(text).unwrap()));
        let all = of("[balance]\nslow_start = \"20s\"\nzone = \"a\"");
        for part in [
            "slow_start: 20s",
            "zones: Some(",
            "rate_limits: Some(",
            "breaker: Some(ConsecutiveFailures(",
            "max_ejected_percent: 100",
            "aperture: Some(Aperture { least: 256,",
        ] {
            assert!(all.contains(part), "{part} is not in {all}");
        }
        let plain = of("[balance]\nmax_ejected_percent = 40\naperture = 0");
        for part in [
            "aperture: None",
            "slow_start: 0ns",
            "zones: None",
            "max_ejected_percent: 40",
        ] {
            assert!(plain.contains(part), "{part} is not in {plain}");
        }
    }

    #[test]
    fn zones_are_what_the_settings_say() {
        assert_eq!(zones(&settings("").unwrap()), None);
        let own = settings("balance.zone = \"a\"").unwrap();
        assert_eq!(zones(&own), Some(Zones::new("a")));
        let all = settings(
            "[balance]\nzone = \"a\"\nzones_nearest = [\"b\", \"c\"]\nzones = {low = 0.5, high = 3}",
        );
        let expected = Zones::new("a").then("b").then("c").band(0.5, 3.0).unwrap();
        assert_eq!(zones(&all.unwrap()), Some(expected));
        for wrong in ["zones_nearest = [\"b\"]", "zone = \"\"", "zones = \"2-1\""] {
            assert!(settings(&format!("[balance]\n{wrong}")).is_err(), "{wrong}");
        }
    }
}
