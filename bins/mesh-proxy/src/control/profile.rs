//! Service profiles: what a controller without outbound policies, or without one for a target, says about it.

use std::convert::Infallible;
use std::sync::Arc;

use linkerd2_proxy_api::destination::GetDestination;
use linkerd2_proxy_api::destination::destination_client::DestinationClient;
use mesh_metrics::{Api, StreamHandle};
use mesh_policy::outbound::retry::BudgetLimits;
use mesh_policy::outbound::{
    BackendKind, BackendSpec, Load, OpaquePolicy, OutboundPolicy, Protocol, Queue,
};
use mesh_policy::profile::Profile;
use mesh_policy::{Distribution, Meta, Weighted, proxy_api};
use tokio::time::sleep;
use tonic::Status;

use super::Shared;
use super::backoff::Backoff;
use super::metered::Metered;
use super::outbound::{policy_is_unknown, provisional, simple};
use super::watched::Watched;
use crate::config::{self, Config};
use crate::model::{Outbound, Target};

/// Feeds `watched` from the target's profile, or with the fallback where there is none. Ends only by being aborted.
pub(super) async fn follow(shared: Arc<Shared>, target: Target, watched: Arc<Watched<Outbound>>) {
    let settings = &shared.config.control;
    if !is_looked_up(settings, &target) {
        let policy = provisional(&target, &shared.config);
        watched.publish(shared.live(&policy));
        return std::future::pending().await;
    }
    let metrics = shared.metrics.stream(Api::Profile);
    let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
    // Whether the fallback is in force already.
    let mut unknown = false;
    loop {
        let Err(status) = stream(
            &shared,
            &target,
            &watched,
            &metrics,
            &mut backoff,
            &mut unknown,
        )
        .await;
        if policy_is_unknown(status.code()) {
            if !std::mem::replace(&mut unknown, true) {
                let policy = provisional(&target, &shared.config);
                shared.publish(&watched, &policy, BudgetLimits::default());
            }
        } else {
            tracing::debug!(%target, %status, "profile watch ended");
        }
        sleep(backoff.next(fastrand::u64(..))).await;
        metrics.reconnecting();
    }
}

/// Whether profiles are asked for such targets.
fn is_looked_up(settings: &config::Control, target: &Target) -> bool {
    match target {
        Target::Addr(address) => settings.profile_networks.as_ref().is_none_or(|networks| {
            let ip = address.ip().to_canonical();
            networks.iter().any(|network| network.contains(&ip))
        }),
        Target::Authority(authority) => settings.profile_suffixes.as_ref().is_none_or(|suffixes| {
            let host = authority
                .rsplit_once(':')
                .map_or(&**authority, |(host, _)| host);
            suffixes.iter().any(|suffix| suffix.contains(host))
        }),
    }
}

async fn stream(
    shared: &Shared,
    target: &Target,
    watched: &Watched<Outbound>,
    metrics: &StreamHandle,
    backoff: &mut Backoff,
    unknown: &mut bool,
) -> Result<Infallible, Status> {
    let request = GetDestination {
        scheme: String::new(),
        path: target.to_string(),
        context_token: shared.config.control.context.clone(),
    };
    let opened = DestinationClient::new(shared.channels.destination.clone())
        .get_profile(request)
        .await;
    let mut stream = Metered::new(opened, metrics)?;
    loop {
        let converted = proxy_api::profile(&stream.next().await?);
        backoff.reset();
        *unknown = false;
        stream.used(converted.is_ok());
        match converted {
            Ok(profile) => {
                let profile = shared.unsupported.take(profile);
                let limits = profile.retry_budget.unwrap_or_default();
                let policy = policy(&profile, target, &shared.config);
                let policy = policy.unwrap_or_else(|| provisional(target, &shared.config));
                shared.publish(watched, &policy, limits);
            }
            Err(error) => {
                tracing::warn!(%target, %error, "a wrong profile was refused; the last state stays");
            }
        }
    }
}

/// The policy that a profile amounts to; `None` when it knows nothing of the target.
fn policy(
    profile: &Profile,
    target: &Target,
    config: &Config,
) -> Option<OutboundPolicy<BackendSpec>> {
    let default = || Arc::new(Meta::default_named("profile"));
    let meta = profile.meta.clone().unwrap_or_else(default);
    let backend = |kind, of_backend: Option<&Arc<Meta>>| BackendSpec {
        meta: Arc::clone(of_backend.unwrap_or(&meta)),
        kind,
        queue: Queue {
            failfast_timeout: config.balance.ready_timeout,
            ..Queue::default()
        },
        failure_accrual: None,
    };
    let balancer = |path| BackendKind::Balancer {
        path,
        load: Load::default(),
    };
    let spec = match (&profile.endpoint, &profile.name) {
        (Some(endpoint), _) => backend(BackendKind::Forward(Box::new(endpoint.clone())), None),
        (None, Some(name)) => backend(balancer(format!("{name}:{}", port(target))), None),
        (None, None) => return None,
    };
    let detect_timeout = (!profile.opaque).then_some(config.outbound.detect_timeout);
    // What is one endpoint is not split.
    let dsts = profile.dst_overrides.iter();
    let split = dsts.filter(|_| profile.endpoint.is_none()).map(|dst| {
        let spec = backend(balancer(dst.authority.clone()), dst.meta.as_ref());
        (spec, dst.weight)
    });
    let split: Vec<_> = split.collect();
    let mut policy = simple(Arc::clone(&meta), &spec, detect_timeout);
    let backends = match Weighted::new(split) {
        Ok(split) if !split.entries().is_empty() => Distribution::RandomAvailable(split),
        Ok(_) => Distribution::FirstAvailable(vec![spec]),
        Err(error) => {
            tracing::warn!(%target, %error, "the overrides of a profile are left out");
            Distribution::FirstAvailable(vec![spec])
        }
    };
    match &mut policy.protocol {
        Protocol::Detect {
            opaque,
            http1,
            http2,
            ..
        } => {
            split_opaque(opaque, &backends);
            if !profile.routes.is_empty() || !profile.dst_overrides.is_empty() {
                *http1 = profile.http_policy(&backends.map(|spec| spec.clone().into()));
                *http2 = http1.clone();
            }
        }
        Protocol::Opaque(opaque) => split_opaque(opaque, &backends),
        // A policy without a protocol of its own is one of these.
        _ => {}
    }
    Some(policy)
}

fn split_opaque(policy: &mut OpaquePolicy<BackendSpec>, backends: &Distribution<BackendSpec>) {
    if let Some(route) = &mut policy.route {
        route.backends = backends.map(|spec| spec.clone().into());
    }
}

fn port(target: &Target) -> u16 {
    match target {
        Target::Addr(address) => address.port(),
        // Port 80 where the authority names none, as in HTTP.
        Target::Authority(authority) => authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(80),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_wait_for_first_endpoints_as_the_configuration_says() {
        let config = Config::from_toml(
            r#"
            identity.name = "web.example"
            identity.trust_anchors_file = "anchors.pem"
            identity.token_file = "token"
            control.address = "127.0.0.1:8086"
            balance.ready_timeout = "7s"
            "#,
        );
        let profile = Profile {
            name: Some("web.default.svc.cluster.local".to_owned()),
            opaque: true,
            endpoint: None,
            meta: None,
            profile_meta: None,
            routes: Vec::new(),
            retry_budget: None,
            dst_overrides: Vec::new(),
        };
        let target = Target::Authority("web.default.svc.cluster.local:80".into());
        let policy = policy(&profile, &target, &config.unwrap()).unwrap();
        let Protocol::Opaque(opaque) = policy.protocol else {
            panic!("{:?}", policy.protocol)
        };
        let backends = opaque.route.unwrap().backends;
        let waits: Vec<_> = backends
            .backends()
            .map(|to| to.backend.queue.failfast_timeout)
            .collect();
        assert_eq!(waits, [Duration::from_secs(7)]);
    }
}
