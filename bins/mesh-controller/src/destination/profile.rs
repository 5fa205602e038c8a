//! Service profiles: what proxies ask for beside policies.

use std::time::Duration;

use linkerd2_proxy_api::destination::{DestinationProfile, RetryBudget};
use mesh_discovery::Registry;

use super::{service_metadata, weighted_addr};
use crate::{
    mesh::target::{Found, Target},
    policy::{PortProtocol, port_protocol},
};

pub(super) fn profile(
    registry: &Registry,
    target: &Target,
    cluster_domain: &str,
) -> DestinationProfile {
    let unknown = DestinationProfile {
        retry_budget: Some(retry_budget()),
        ..DestinationProfile::default()
    };
    match target.find(registry) {
        None => unknown,
        Some(Found::Service { service, port }) => DestinationProfile {
            fully_qualified_name: format!(
                "{}.{}.svc.{cluster_domain}",
                service.name(),
                service.namespace()
            ),
            opaque_protocol: port_protocol(&service, port) == PortProtocol::Opaque,
            parent_ref: Some(service_metadata(&service, port.port)),
            ..unknown
        },
        Some(Found::Endpoint(endpoint)) => {
            let endpoint = weighted_addr(&endpoint, false);
            let opaque = endpoint.protocol_hint.as_ref().is_some_and(|hint| {
                use linkerd2_proxy_api::destination::protocol_hint::Protocol;
                matches!(hint.protocol, Some(Protocol::Opaque(_)))
            });
            DestinationProfile {
                opaque_protocol: opaque,
                endpoint: Some(endpoint),
                ..unknown
            }
        }
    }
}

/// Linkerd's defaults. No route is retryable, so it is never drawn on; a stock proxy wants it all the same.
fn retry_budget() -> RetryBudget {
    RetryBudget {
        retry_ratio: 0.2,
        min_retries_per_second: 10,
        ttl: Duration::from_secs(10).try_into().ok(),
    }
}
