//! Request headers by which a client may change how its request is treated.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::retry::{RetryConditions, RetryPolicy};
use super::{Backoff, JitterRatio, Timeouts};
use crate::{GrpcCodes, StatusSet};

/// What a request's `l5d-*` headers ask for, with the meaning that Linkerd gives them:
///
/// | header | value |
/// |---|---|
/// | `l5d-timeout`, or `l5d-request-timeout`, which wins | a duration: [`Timeouts::request`] |
/// | `l5d-response-timeout` | a duration: [`Timeouts::response`] |
/// | `l5d-retry-http` | statuses by commas: `503`, `500-504`, `5xx`, `gateway-error` |
/// | `l5d-retry-grpc` | of `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`, by commas |
/// | `l5d-retry-limit` | how many retries |
/// | `l5d-retry-timeout` | a duration: [`RetryPolicy::timeout`] |
///
/// A duration is a whole number with its unit: `ms`, `s`, `m`, `h` or `d`; zero takes the limit away, and a year is
/// the longest. What cannot be read is as if it were not there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Overrides {
    request: Option<Duration>,
    response: Option<Duration>,
    statuses: Option<StatusSet>,
    codes: Option<GrpcCodes>,
    max_retries: Option<u16>,
    retry_timeout: Option<Duration>,
}

impl Overrides {
    /// Reads the headers and removes them, so that neither the application nor the next proxy acts on them again. Where
    /// they are not `allowed`, they are removed unread.
    pub fn take(headers: &mut HeaderMap, allowed: bool) -> Self {
        // Most requests have none; one look at each name of the request costs less than seven look-ups by hash.
        if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
            return Self::default();
        }
        let mut take = |name: &HeaderName| headers.remove(name).filter(|_| allowed);
        let short = take(&TIMEOUT).and_then(|value| duration(&value));
        let long = take(&REQUEST_TIMEOUT).and_then(|value| duration(&value));
        Self {
            request: long.or(short),
            response: take(&RESPONSE_TIMEOUT).and_then(|value| duration(&value)),
            statuses: take(&RETRY_HTTP).and_then(|value| statuses(&value)),
            codes: take(&RETRY_GRPC).and_then(|value| codes(&value)),
            max_retries: take(&RETRY_LIMIT).and_then(|value| limit(&value)),
            retry_timeout: take(&RETRY_TIMEOUT).and_then(|value| duration(&value)),
        }
    }

    /// True when nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A route's timeouts with what is asked for in their place.
    pub fn timeouts(&self, route: Timeouts) -> Timeouts {
        let over = |asked: Option<Duration>, given| match asked {
            Some(asked) => Some(asked).filter(|asked| !asked.is_zero()),
            None => given,
        };
        Timeouts {
            request: over(self.request, route.request),
            response: over(self.response, route.response),
            idle: route.idle,
        }
    }

    /// A route's retries with what is asked for in their place. Where the route has none and something is asked for, it is
    /// one retry, with the first 64 KiB of the body kept and waits of 25 ms to 250 ms unless said otherwise.
    pub fn retry(&self, route: Option<&RetryPolicy>) -> Option<RetryPolicy> {
        let asked = self.statuses.is_some()
            || self.codes.is_some()
            || self.max_retries.is_some()
            || self.retry_timeout.is_some();
        let mut retry = match route {
            Some(retry) => *retry,
            None if asked => fallback(),
            None => return None,
        };
        if let Some(statuses) = self.statuses {
            retry.conditions.statuses = statuses;
        }
        if let Some(codes) = self.codes {
            retry.conditions.codes = codes;
        }
        if let Some(max_retries) = self.max_retries {
            retry.max_retries = max_retries;
        }
        if let Some(timeout) = self.retry_timeout {
            retry.timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        }
        Some(retry)
    }
}

fn fallback() -> RetryPolicy {
    let jitter = JitterRatio::new(1.0);
    let backoff = jitter.and_then(|jitter| {
        Backoff::new(
            Duration::from_millis(25),
            Duration::from_millis(250),
            jitter,
        )
    });
    RetryPolicy {
        max_retries: 1,
        max_request_bytes: RetryPolicy::DEFAULT_REQUEST_BYTES,
        timeout: None,
        backoff: backoff.ok(),
        respect_retry_after: false,
        conditions: RetryConditions::default(),
    }
}

fn duration(value: &HeaderValue) -> Option<Duration> {
    let value = value.to_str().ok()?.trim();
    let end = value.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (number, unit) = value.split_at(end);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    Some(duration.min(MAX_DURATION))
}

fn limit(value: &HeaderValue) -> Option<u16> {
    let number: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some(u16::try_from(number).unwrap_or(u16::MAX))
}

fn statuses(value: &HeaderValue) -> Option<StatusSet> {
    let mut set = StatusSet::default();
    for item in value.to_str().ok()?.split(',').map(str::trim) {
        let range = match item.to_ascii_lowercase().as_str() {
            "5xx" => Some((500, 599)),
            "gateway-error" => Some((502, 504)),
            item => {
                let (start, end) = item.split_once('-').unwrap_or((item, item));
                start.parse().ok().zip(end.parse().ok())
            }
        };
        if let Some((start, end)) = range {
            // One that is none is left out.
            let _ = set.insert("l5d-retry-http", start, end);
        }
    }
    Some(set)
}

fn codes(value: &HeaderValue) -> Option<GrpcCodes> {
    let items = value.to_str().ok()?.split(',').map(str::trim);
    let code = |item: &str| match item.to_ascii_lowercase().as_str() {
        "cancelled" => Some(GrpcCodes::CANCELLED),
        "deadline-exceeded" => Some(GrpcCodes::DEADLINE_EXCEEDED),
        "internal" => Some(GrpcCodes::INTERNAL),
        "resource-exhausted" => Some(GrpcCodes::RESOURCE_EXHAUSTED),
        "unavailable" => Some(GrpcCodes::UNAVAILABLE),
        _ => None,
    };
    Some(items.filter_map(code).collect())
}

/// Any instant may be put off by it.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the names of all of them start with.
const PREFIX: &str = "l5d-";
const TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");
const RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");
