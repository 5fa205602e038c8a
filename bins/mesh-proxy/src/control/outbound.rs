//! The policy of one outbound target: watched, with fallbacks while the controller knows none.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use linkerd2_proxy_api::outbound::outbound_policies_client::OutboundPoliciesClient;
use linkerd2_proxy_api::outbound::{TrafficSpec, traffic_spec};
use mesh_metrics::{Api, StreamHandle};
use mesh_policy::outbound::retry::{BudgetLimits, RetryBudget};
use mesh_policy::outbound::{
    BackendKind, BackendSpec, HttpPolicy, OpaquePolicy, OpaqueRoute, OutboundPolicy, Protocol,
    Queue, RoutePolicy,
};
use mesh_policy::route::{Route, Rule};
use mesh_policy::{Distribution, EndpointSpec, Meta, proxy_api};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::metered::Metered;
use super::watched::{Table, Watched};
use super::{Shared, profile};
use crate::config::Config;
use crate::model::{Outbound, Target};

/// The policy of a target that the controller does not know: an address is forwarded to as it is, in plaintext; an
/// authority has no backend, so its traffic is refused.
pub(super) fn provisional(target: &Target, config: &Config) -> OutboundPolicy<BackendSpec> {
    match target {
        Target::Addr(address) => {
            let meta = Arc::new(Meta::default_named("original-destination"));
            let backend = BackendSpec {
                meta: Arc::clone(&meta),
                kind: BackendKind::Forward(Box::new(EndpointSpec::plaintext(*address))),
                queue: Queue::default(),
                failure_accrual: None,
            };
            let opaque = config.outbound.opaque_ports.contains(&address.port());
            let timeout = (!opaque).then_some(config.outbound.detect_timeout);
            simple(meta, &backend, timeout)
        }
        Target::Authority(_) => OutboundPolicy {
            meta: Arc::new(Meta::default_named("unresolved")),
            protocol: Protocol::Opaque(OpaquePolicy { route: None }),
        },
    }
}

/// Whether nothing is known of the target and nothing can be assumed.
pub(super) fn is_unresolved(policy: &Outbound) -> bool {
    matches!(
        policy.protocol,
        Protocol::Opaque(OpaquePolicy { route: None })
    )
}

/// A policy of one route to one backend: detected for so long, or opaque without a timeout.
pub(super) fn simple(
    meta: Arc<Meta>,
    backend: &BackendSpec,
    detect_timeout: Option<Duration>,
) -> OutboundPolicy<BackendSpec> {
    let opaque = OpaquePolicy {
        route: Some(OpaqueRoute {
            meta: Arc::clone(&meta),
            backends: Distribution::FirstAvailable(vec![backend.clone().into()]),
        }),
    };
    let http = || HttpPolicy {
        routes: vec![Route {
            meta: Arc::clone(&meta),
            hosts: Vec::new(),
            rules: vec![Rule {
                matches: Vec::new(),
                policy: RoutePolicy::new(Distribution::FirstAvailable(vec![
                    backend.clone().into(),
                ])),
            }],
        }],
    };
    let protocol = match detect_timeout {
        Some(timeout) => Protocol::Detect {
            timeout,
            opaque,
            http1: http(),
            http2: http(),
        },
        None => Protocol::Opaque(opaque),
    };
    OutboundPolicy { meta, protocol }
}

/// Feeds `watched` until nobody has used it for the idle time.
pub(super) async fn watch(shared: Arc<Shared>, target: Target, watched: Arc<Watched<Outbound>>) {
    tokio::select! {
        never = feed(&shared, &target, &watched) => match never {},
        () = unused(&shared.targets, &target, &watched) => tracing::debug!(%target, "outbound target left"),
    }
}

/// Resolves when the entry has left its table.
pub(super) async fn unused<K: Eq + std::hash::Hash + Clone, T>(
    table: &Table<K, T>,
    key: &K,
    watched: &Arc<Watched<T>>,
) {
    loop {
        sleep(table.idle_check()).await;
        if table.leave_if_idle(key, watched, tokio::time::Instant::now()) {
            return;
        }
    }
}

async fn feed(
    shared: &Arc<Shared>,
    target: &Target,
    watched: &Arc<Watched<Outbound>>,
) -> Infallible {
    let settings = &shared.config.control;
    let metrics = shared.metrics.stream(Api::OutboundPolicy);
    let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
    let mut profile = None;
    loop {
        let Err(status) = follow(
            shared,
            target,
            watched,
            &metrics,
            &mut backoff,
            &mut profile,
        )
        .await;
        if policy_is_unknown(status.code()) {
            // The service may appear later, so the policy is asked for again and again while the profile serves.
            profile.get_or_insert_with(|| {
                let task = profile::follow(Arc::clone(shared), target.clone(), Arc::clone(watched));
                Profile(shared.runtime.spawn(task))
            });
        } else {
            tracing::debug!(%target, %status, "outbound policy watch ended");
        }
        sleep(backoff.next(fastrand::u64(..))).await;
        metrics.reconnecting();
    }
}

/// One stream of policies, to its end.
async fn follow(
    shared: &Shared,
    target: &Target,
    watched: &Watched<Outbound>,
    metrics: &StreamHandle,
    backoff: &mut Backoff,
    profile: &mut Option<Profile>,
) -> Result<Infallible, Status> {
    let spec = TrafficSpec {
        source_workload: shared.config.control.workload.clone(),
        target: Some(match target {
            Target::Addr(address) => traffic_spec::Target::Addr((*address).into()),
            Target::Authority(authority) => traffic_spec::Target::Authority(authority.to_string()),
        }),
    };
    let opened = OutboundPoliciesClient::new(shared.channels.policy.clone())
        .watch(spec)
        .await;
    let mut stream = Metered::new(opened, metrics)?;
    loop {
        let converted = proxy_api::outbound_policy(&stream.next().await?);
        backoff.reset();
        // What the profile said no longer counts; it must not overwrite the policy.
        *profile = None;
        stream.used(converted.is_ok());
        match converted {
            Ok(policy) => {
                let policy = shared.unsupported.take(policy);
                shared.publish(watched, &policy, BudgetLimits::default());
            }
            Err(error) => {
                tracing::warn!(%target, %error, "a wrong outbound policy was refused; the last one stays");
            }
        }
    }
}

/// The codes by which a controller says that it has no policy for a target, now or ever.
pub(super) fn policy_is_unknown(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented
    )
}

impl Shared {
    /// The policy with live backends, each shared with every other policy that names it.
    pub(super) fn live(&self, policy: &OutboundPolicy<BackendSpec>) -> Outbound {
        Outbound {
            policy: policy.map_backends(|spec| self.destinations.backend(spec)),
            retries: Arc::new(RetryBudget::new(BudgetLimits::default())),
        }
    }

    /// Puts `policy` in force. What was taken from the budget stays taken, unless `limits` change it.
    pub(super) fn publish(
        &self,
        watched: &Watched<Outbound>,
        policy: &OutboundPolicy<BackendSpec>,
        limits: BudgetLimits,
    ) {
        let known = watched.load().retries.clone();
        let mut live = self.live(policy);
        live.retries = if known.limits() == limits {
            known
        } else {
            Arc::new(RetryBudget::new(limits))
        };
        watched.publish(live);
    }
}

/// The task that follows the profile, ended when dropped.
struct Profile(JoinHandle<()>);

impl Drop for Profile {
    fn drop(&mut self) {
        self.0.abort();
    }
}
