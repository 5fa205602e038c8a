//! Retries and their budget.

use std::time::Duration;

use linkerd2_proxy_api::{destination, outbound};

use super::field::{limit, required, required_duration};
use super::unsupported::Unsupported;
use crate::outbound::retry::{BudgetLimits, RetryConditions, RetryPolicy};
use crate::outbound::{Backoff, JitterRatio};
use crate::{Error, GrpcCodes, StatusSet};

pub(super) fn http_retry(
    unsupported: &mut Unsupported,
    proto: &outbound::http_route::Retry,
) -> Result<RetryPolicy, Error> {
    let conditions = required("outbound.HttpRoute.Retry.conditions", &proto.conditions)?;
    let mut statuses = StatusSet::default();
    for range in &conditions.status_ranges {
        let field = "outbound.HttpRoute.Retry.Conditions.status_ranges";
        // From 1 on, as stock proxies take it.
        let start = if (1..100).contains(&range.start) {
            u32::from(StatusSet::MIN)
        } else {
            range.start
        };
        statuses.insert(field, start, range.end)?;
    }
    let field = "outbound.HttpRoute.Retry.max_request_bytes";
    Ok(RetryPolicy {
        max_retries: retries("outbound.HttpRoute.Retry.max_retries", proto.max_retries)?,
        max_request_bytes: request_bytes(unsupported, field, proto.max_request_bytes),
        timeout: limit("outbound.HttpRoute.Retry.timeout", &proto.timeout)?,
        backoff: proto.backoff.as_ref().map(exponential).transpose()?,
        respect_retry_after: respects_hint(&proto.backoff),
        conditions: RetryConditions {
            statuses,
            codes: GrpcCodes::default(),
        },
    })
}

pub(super) fn grpc_retry(
    unsupported: &mut Unsupported,
    proto: &outbound::grpc_route::Retry,
) -> Result<RetryPolicy, Error> {
    let conditions = required("outbound.GrpcRoute.Retry.conditions", &proto.conditions)?;
    let codes = [
        (conditions.cancelled, GrpcCodes::CANCELLED),
        (conditions.deadine_exceeded, GrpcCodes::DEADLINE_EXCEEDED),
        (conditions.resource_exhausted, GrpcCodes::RESOURCE_EXHAUSTED),
        (conditions.internal, GrpcCodes::INTERNAL),
        (conditions.unavailable, GrpcCodes::UNAVAILABLE),
    ];
    let set = codes.into_iter().filter(|(set, _)| *set);
    let field = "outbound.GrpcRoute.Retry.max_request_bytes";
    Ok(RetryPolicy {
        max_retries: retries("outbound.GrpcRoute.Retry.max_retries", proto.max_retries)?,
        max_request_bytes: request_bytes(unsupported, field, proto.max_request_bytes),
        timeout: limit("outbound.GrpcRoute.Retry.timeout", &proto.timeout)?,
        backoff: proto.backoff.as_ref().map(exponential).transpose()?,
        respect_retry_after: respects_hint(&proto.backoff),
        conditions: RetryConditions {
            statuses: StatusSet::default(),
            codes: set.map(|(_, code)| code).collect(),
        },
    })
}

pub(super) fn budget(proto: &destination::RetryBudget) -> Result<BudgetLimits, Error> {
    let ttl = required_duration("destination.RetryBudget.ttl", &proto.ttl)?;
    BudgetLimits::new(proto.retry_ratio, proto.min_retries_per_second, ttl)
}

fn retries(field: &'static str, given: u32) -> Result<u16, Error> {
    u16::try_from(given).map_err(|_| Error::invalid(field, &given.to_string(), "at most 65535"))
}

/// What is above what is kept at most is noted.
fn request_bytes(unsupported: &mut Unsupported, field: &'static str, given: u32) -> usize {
    let given = usize::try_from(given).unwrap_or(usize::MAX);
    unsupported.note(given > RetryPolicy::MAX_REQUEST_BYTES, field);
    given.min(RetryPolicy::MAX_REQUEST_BYTES)
}

fn respects_hint(proto: &Option<outbound::ExponentialBackoff>) -> bool {
    proto
        .as_ref()
        .is_some_and(|proto| proto.respect_retry_after_hint)
}

/// The waits in `proto`.
pub(super) fn exponential(proto: &outbound::ExponentialBackoff) -> Result<Backoff, Error> {
    let min = required_duration(
        "outbound.ExponentialBackoff.min_backoff",
        &proto.min_backoff,
    )?;
    let max = required_duration(
        "outbound.ExponentialBackoff.max_backoff",
        &proto.max_backoff,
    )?;
    // A first wait of zero would stay zero however often it doubles.
    let min = if min.is_zero() {
        Duration::from_millis(1).min(max)
    } else {
        min
    };
    Backoff::new(min, max, JitterRatio::new(proto.jitter_ratio)?)
}
