//! Backends and how requests spread over them.

use std::num::NonZeroU32;

use linkerd2_proxy_api::outbound::{self, backend};

use super::destination::endpoint;
use super::field::{duration, metadata, required, required_duration};
use super::retries::exponential;
use super::unsupported::Unsupported;
use crate::outbound::{
    BackendKind, BackendSpec, FailureAccrual, Load, Penalty, Queue, SuccessRate, Trip,
};
use crate::{Distribution, Error, Weighted};

/// What backends of one protocol have in common, and what was left out of them.
pub(super) struct Backends<'u> {
    pub(super) unsupported: &'u mut Unsupported,
    pub(super) failure_accrual: Option<FailureAccrual>,
}

/// A distribution of any kind of route, which differ in the types they are made of but not in shape: backends with what
/// their filters amount to, and their weights.
pub(super) enum Spread<'p, F> {
    Empty,
    First(Vec<(Option<&'p outbound::Backend>, F)>),
    Random(Vec<(Option<&'p outbound::Backend>, F, u32)>),
}

/// A [`Spread`] of the distribution of one kind of route. `$filters` is what makes something of a backend's filters.
macro_rules! spread {
    ($routes:ident, $name:literal, $distribution:expr, $filters:expr) => {{
        use ::linkerd2_proxy_api::outbound::$routes::distribution::Kind;

        use $crate::proxy_api::backend::Spread;
        use $crate::proxy_api::field::required;

        const FIELD: &str = concat!("outbound.", $name, ".Distribution");
        match required(FIELD, &required(FIELD, $distribution)?.kind)? {
            Kind::Empty(_) => Spread::Empty,
            Kind::FirstAvailable(first) => {
                let mut backends = Vec::with_capacity(first.backends.len());
                for of_route in &first.backends {
                    backends.push((
                        of_route.backend.as_ref(),
                        ($filters)(of_route.filters.as_slice())?,
                    ));
                }
                Spread::First(backends)
            }
            Kind::RandomAvailable(random) => {
                let field = concat!("outbound.", $name, ".WeightedRouteBackend.backend");
                let mut backends = Vec::with_capacity(random.backends.len());
                for weighted in &random.backends {
                    let of_route = required(field, &weighted.backend)?;
                    let backend = of_route.backend.as_ref();
                    backends.push((
                        backend,
                        ($filters)(of_route.filters.as_slice())?,
                        weighted.weight,
                    ));
                }
                Spread::Random(backends)
            }
        }
    }};
}

pub(super) use spread;

impl Backends<'_> {
    /// `make` puts a backend and what its filters amount to together.
    pub(super) fn distribution<F, T>(
        &mut self,
        spread: Spread<'_, F>,
        make: impl Fn(BackendSpec, F) -> T,
    ) -> Result<Distribution<T>, Error> {
        let empty = |kind| Error::invalid("outbound.Distribution", kind, "at least one backend");
        match spread {
            Spread::Empty => Ok(Distribution::Empty),
            Spread::First(backends) if backends.is_empty() => Err(empty("FirstAvailable")),
            Spread::First(backends) => {
                let backends = backends.into_iter();
                let backends = backends.map(|(proto, part)| Ok(make(self.backend(proto)?, part)));
                Ok(Distribution::FirstAvailable(
                    backends.collect::<Result<_, Error>>()?,
                ))
            }
            Spread::Random(backends) if backends.is_empty() => Err(empty("RandomAvailable")),
            Spread::Random(backends) => {
                let entries = backends
                    .into_iter()
                    .map(|(proto, part, weight)| Ok((make(self.backend(proto)?, part), weight)))
                    .collect::<Result<Vec<_>, Error>>()?;
                Ok(Distribution::RandomAvailable(Weighted::new(entries)?))
            }
        }
    }

    fn backend(&mut self, proto: Option<&outbound::Backend>) -> Result<BackendSpec, Error> {
        let proto = proto.ok_or(Error::Missing {
            field: "outbound.RouteBackend.backend",
        })?;
        let kind = match required("outbound.Backend.kind", &proto.kind)? {
            outbound::backend::Kind::Forward(addr) => {
                let none = std::iter::empty();
                BackendKind::Forward(Box::new(endpoint(addr, none, self.unsupported)?))
            }
            outbound::backend::Kind::Balancer(balancer) => self.balancer(balancer)?,
        };
        let queue = required("outbound.Backend.queue", &proto.queue)?;
        Ok(BackendSpec {
            meta: metadata("outbound.Backend.metadata", &proto.metadata)?,
            kind,
            queue: Queue {
                capacity: queue.capacity,
                failfast_timeout: required_duration(
                    "outbound.Queue.failfast_timeout",
                    &queue.failfast_timeout,
                )?,
            },
            failure_accrual: self.failure_accrual,
        })
    }

    fn balancer(&mut self, proto: &backend::BalanceP2c) -> Result<BackendKind, Error> {
        let field = "outbound.BalanceP2c.discovery";
        let discovery = required(field, &required(field, &proto.discovery)?.kind)?;
        let backend::endpoint_discovery::Kind::Dst(dst) = discovery;
        if dst.path.is_empty() {
            let field = "outbound.EndpointDiscovery.DestinationGet.path";
            return Err(Error::invalid(field, "", "an authority"));
        }
        Ok(BackendKind::Balancer {
            path: dst.path.clone(),
            load: load(required("outbound.BalanceP2c.load", &proto.load)?)?,
        })
    }
}

fn load(proto: &backend::balance_p2c::Load) -> Result<Load, Error> {
    use backend::balance_p2c::Load as Proto;
    let (default_rtt, decay, penalty) = match proto {
        Proto::PeakEwma(load) => (&load.default_rtt, &load.decay, None),
        Proto::PenaltyPeakEwma(load) => (&load.default_rtt, &load.decay, Some(penalty(load)?)),
    };
    let load = Load {
        default_rtt: required_duration("outbound.BalanceP2c.PeakEwma.default_rtt", default_rtt)?,
        decay: required_duration("outbound.BalanceP2c.PeakEwma.decay", decay)?,
        penalty,
    };
    if load.decay.is_zero() {
        let field = "outbound.BalanceP2c.PeakEwma.decay";
        return Err(Error::invalid(field, "0s", "a duration above zero"));
    }
    Ok(load)
}

/// What is absent is as Linkerd has it.
fn penalty(proto: &backend::balance_p2c::PenaltyPeakEwma) -> Result<Penalty, Error> {
    let default = Penalty::default();
    let or = |field, value: &Option<_>, default| match value {
        Some(value) => duration(field, value),
        None => Ok(default),
    };
    Ok(Penalty {
        latency: or(
            "outbound.BalanceP2c.PenaltyPeakEwma.penalty",
            &proto.penalty,
            default.latency,
        )?,
        max_retry_after: or(
            "outbound.BalanceP2c.PenaltyPeakEwma.max_retry_after",
            &proto.max_retry_after,
            default.max_retry_after,
        )?,
        decay: or(
            "outbound.BalanceP2c.PenaltyPeakEwma.penalty_decay",
            &proto.penalty_decay,
            default.decay,
        )?,
    })
}

/// When endpoints of a protocol's backends are taken out; never when unset or disabled.
pub(super) fn failure_accrual(
    proto: &Option<outbound::FailureAccrual>,
) -> Result<Option<FailureAccrual>, Error> {
    use outbound::failure_accrual::Kind;
    let Some(proto) = proto else {
        return Ok(None);
    };
    let (max_failures, success_rate, backoff) =
        match required("outbound.FailureAccrual.kind", &proto.kind)? {
            Kind::ConsecutiveFailures(policy) => (policy.max_failures, None, &policy.backoff),
            Kind::Unified(policy) => (
                policy.max_consecutive_failures,
                success_rate(policy)?,
                &policy.backoff,
            ),
        };
    let trip = match (NonZeroU32::new(max_failures), success_rate) {
        (None, None) => return Ok(None),
        (Some(failures), None) => Trip::Consecutive(failures),
        (None, Some(rate)) => Trip::SuccessRate(rate),
        (Some(failures), Some(rate)) => Trip::Either(failures, rate),
    };
    let backoff = required("outbound.FailureAccrual.backoff", backoff)?;
    let ejection = proto.ejection.as_ref();
    Ok(Some(FailureAccrual {
        trip,
        backoff: exponential(backoff)?,
        respect_retry_after: backoff.respect_retry_after_hint,
        min_ready_endpoints: ejection.map_or(0, |ejection| ejection.min_ready_endpoints),
    }))
}

/// The part of a unified breaker that looks at the success rate; `None` when its threshold of zero turns it off.
fn success_rate(proto: &outbound::failure_accrual::Unified) -> Result<Option<SuccessRate>, Error> {
    let threshold = proto.success_rate_threshold;
    if threshold == 0.0 {
        return Ok(None);
    }
    // The API calls the window a decay.
    let window = match &proto.decay {
        Some(window) => duration("outbound.FailureAccrual.Unified.decay", window)?,
        None => SuccessRate::DEFAULT_WINDOW,
    };
    SuccessRate::new(threshold, window, proto.min_requests).map(Some)
}
