//! The policy of one inbound port.

use std::convert::Infallible;
use std::sync::Arc;

use linkerd2_proxy_api::inbound::PortSpec;
use linkerd2_proxy_api::inbound::inbound_server_policies_client::InboundServerPoliciesClient;
use mesh_metrics::{Api, StreamHandle};
use mesh_policy::inbound::{Authentication, DefaultPolicy, ServerPolicy, ServerProtocol};
use mesh_policy::proxy_api;
use tokio::time::sleep;
use tonic::Status;

use super::Shared;
use super::backoff::Backoff;
use super::metered::Metered;
use super::outbound::{policy_is_unknown, unused};
use super::watched::Watched;
use crate::config::{self, contains_port};

/// What is permitted while the controller says nothing.
pub(super) fn default_policy(settings: &config::Inbound, port: u16) -> ServerPolicy {
    let mut policy = ServerPolicy::from_default(
        settings.default_policy,
        &settings.networks,
        settings.detect_timeout,
    );
    if contains_port(&settings.opaque_ports, port) {
        policy.protocol = ServerProtocol::Opaque;
    }
    for authorization in &mut policy.authorizations {
        let asked = &mut authorization.authentication;
        if contains_port(&settings.identity_ports, port) {
            *asked = Authentication::any_identity();
        } else if *asked == Authentication::Unauthenticated
            && contains_port(&settings.tls_ports, port)
        {
            *asked = Authentication::TlsUnauthenticated;
        }
    }
    policy
}

/// What is permitted when the controller says something that makes no sense, or cannot be asked: nothing.
pub(super) fn closed(settings: &config::Inbound) -> ServerPolicy {
    ServerPolicy::from_default(DefaultPolicy::Deny, &[], settings.detect_timeout)
}

/// Feeds `watched` until nobody has used it for the idle time.
pub(super) async fn watch(shared: Arc<Shared>, port: u16, watched: Arc<Watched<ServerPolicy>>) {
    tokio::select! {
        never = feed(&shared, port, &watched) => match never {},
        () = unused(&shared.ports, &port, &watched) => tracing::debug!(port, "inbound port left"),
    }
}

async fn feed(shared: &Shared, port: u16, watched: &Watched<ServerPolicy>) -> Infallible {
    let settings = &shared.config.control;
    let metrics = shared.metrics.stream(Api::InboundPolicy);
    let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
    loop {
        let Err(status) = follow(shared, port, watched, &metrics, &mut backoff).await;
        // A policy that was in force stays: that its port is no longer known is no reason to let more clients in.
        if policy_is_unknown(status.code()) && watched.version() == 0 {
            watched.publish(default_policy(&shared.config.inbound, port));
        }
        tracing::debug!(port, %status, "inbound policy watch ended");
        sleep(backoff.next(fastrand::u64(..))).await;
        metrics.reconnecting();
    }
}

/// One stream of policies, to its end.
async fn follow(
    shared: &Shared,
    port: u16,
    watched: &Watched<ServerPolicy>,
    metrics: &StreamHandle,
    backoff: &mut Backoff,
) -> Result<Infallible, Status> {
    let spec = PortSpec {
        workload: shared.config.control.workload.clone(),
        port: u32::from(port),
    };
    let opened = InboundServerPoliciesClient::new(shared.channels.policy.clone())
        .watch_port(spec)
        .await;
    let mut stream = Metered::new(opened, metrics)?;
    loop {
        let converted = proxy_api::server_policy(&stream.next().await?);
        backoff.reset();
        stream.used(converted.is_ok());
        watched.publish(match converted {
            Ok(policy) => shared.unsupported.take(policy).continuing(&watched.load()),
            Err(error) => {
                tracing::warn!(port, %error, "a wrong inbound policy was refused: the port is closed");
                closed(&shared.config.inbound)
            }
        });
    }
}
