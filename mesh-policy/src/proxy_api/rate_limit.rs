//! Rate limits of servers.

use std::num::NonZeroU32;

use linkerd2_proxy_api::inbound::{HttpLocalRateLimit, http_local_rate_limit};
use mesh_tls::Identity;

use super::field::metadata;
use super::unsupported::Unsupported;
use crate::Error;
use crate::inbound::rate_limit::{Override, RateLimit, RateLimits};

/// Nothing when no limit is set.
///
/// A limit of zero is none, as stock proxies have it; so is an override of zero, which leaves its clients under the limit
/// that every identity has.
pub(super) fn rate_limit(
    unsupported: &mut Unsupported,
    proto: &HttpLocalRateLimit,
) -> Result<Option<RateLimit>, Error> {
    let meta = match &proto.metadata {
        Some(_) => Some(metadata(
            "inbound.HttpLocalRateLimit.metadata",
            &proto.metadata,
        )?),
        None => None,
    };
    let mut overrides = Vec::new();
    let mut named = 0;
    for over in &proto.overrides {
        let clients = over.clients.as_ref();
        let clients = clients.map_or(&[][..], |clients| &clients.identities);
        // Counted before they are parsed, those that are none too.
        named += clients.len().max(1);
        if named > RateLimit::MAX_OVERRIDES {
            return Err(Error::TooMany {
                what: "identities in overrides of a rate limit",
                given: named,
                max: RateLimit::MAX_OVERRIDES,
            });
        }
        let Some(limit) = limit(&over.limit) else {
            continue;
        };
        let mut identities = Vec::with_capacity(clients.len());
        for client in clients {
            match Identity::parse(&client.name) {
                Ok(identity) => identities.push(identity),
                // It cannot be anyone's.
                Err(_) => unsupported.note(true, "inbound.Identity.name"),
            }
        }
        if !identities.is_empty() {
            overrides.push(Override { limit, identities });
        }
    }
    unsupported.note(meta.is_some(), "inbound.HttpLocalRateLimit.metadata");
    let limits = RateLimits {
        meta,
        total: limit(&proto.total),
        identity: limit(&proto.identity),
        overrides,
    };
    if limits.total.is_none() && limits.identity.is_none() && limits.overrides.is_empty() {
        return Ok(None);
    }
    RateLimit::new(limits).map(Some)
}

fn limit(proto: &Option<http_local_rate_limit::Limit>) -> Option<NonZeroU32> {
    NonZeroU32::new(proto.as_ref()?.requests_per_second)
}
