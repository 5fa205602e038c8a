//! The answers that the proxy gives itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use mesh_breaker::hints::GRPC_RETRY_PUSHBACK_MS;
use mesh_http::body::{Observe, Short};
use mesh_http::headers::{self, PROXY_ERROR};
use mesh_metrics::{Completion, Failure};
use mesh_policy::filter::{Failure as Injected, Intercept};

use super::body::ResponseBody;

/// Why the proxy, and not the service, answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request names no host, or one that cannot be read.
    BadAuthority,
    /// The target is not known and cannot be found.
    UnknownTarget,
    /// No route matches.
    NoRoute,
    /// The route has no backend.
    NoBackend,
    /// The backend has no endpoint.
    NoEndpoints,
    /// Each of the backend's endpoints is at its rate limit, or has asked to be left alone.
    Limited {
        /// When there will be room.
        retry_after: Duration,
    },
    /// Too many wait for the backend's first endpoint.
    QueueFull,
    /// No endpoint could be connected to.
    Connect,
    /// No endpoint proved to be who it should be.
    Untrusted,
    /// The endpoint broke the connection or the protocol before it answered.
    Broken,
    /// The endpoint turned the request away without having looked at it.
    Unprocessed,
    /// The time for one of several tries passed before the endpoint answered.
    TryDeadline,
    /// A filter of the route cannot be applied.
    Filter,
    /// A deadline passed before the endpoint answered.
    Deadline,
    /// The client may not do this.
    Unauthorized,
    /// The client, or all of them, ask more often than the policy lets them.
    RateLimited,
    /// The proxy does not carry requests of this kind.
    Unsupported,
}

impl Refusal {
    /// The status code of the answer, but for gRPC.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadAuthority => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoBackend | Self::Filter => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoints | Self::QueueFull | Self::Unprocessed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UnknownTarget | Self::Connect | Self::Untrusted | Self::Broken => {
                StatusCode::BAD_GATEWAY
            }
            Self::Deadline | Self::TryDeadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Unauthorized => StatusCode::FORBIDDEN,
            Self::RateLimited | Self::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The gRPC status code (the mapping of gRPC's own HTTP table, with deadlines and permissions named as such).
    pub(crate) fn grpc_code(self) -> u16 {
        match self {
            Self::BadAuthority | Self::NoBackend | Self::Filter => 13,
            Self::NoRoute | Self::Unsupported => 12,
            Self::NoEndpoints
            | Self::QueueFull
            | Self::Unprocessed
            | Self::UnknownTarget
            | Self::Connect
            | Self::Untrusted
            | Self::Broken => 14,
            Self::Deadline | Self::TryDeadline => 4,
            Self::Unauthorized => 7,
            Self::RateLimited | Self::Limited { .. } => 8,
        }
    }

    /// What `l5d-proxy-error` says.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadAuthority => "the request names no valid host",
            Self::UnknownTarget => {
                "the target is no service, on that port, and no name that resolves"
            }
            Self::NoRoute => "no route matches the request",
            Self::NoBackend => "the route has no backend",
            Self::NoEndpoints => "no endpoint is available",
            Self::Limited { .. } => "every endpoint is at its rate limit",
            Self::QueueFull => "too many requests wait for an endpoint",
            Self::Connect => "no endpoint could be connected to",
            Self::Untrusted => "no endpoint proved to be who the controller says it is",
            Self::Broken => "the endpoint closed the connection before it answered",
            Self::Unprocessed => "the endpoint turned the request away unread",
            Self::Filter => "a filter of the route cannot be applied",
            Self::TryDeadline => "no endpoint answered in the time for one try",
            Self::Deadline => "the deadline passed before the endpoint answered",
            Self::Unauthorized => "the client is not authorized",
            Self::RateLimited => "the rate limit is reached",
            Self::Unsupported => "requests of this kind are not carried",
        }
    }

    /// What it is counted as.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::NoRoute => Failure::NoRoute,
            Self::NoBackend | Self::NoEndpoints => Failure::NoEndpoint,
            Self::QueueFull => Failure::Limit,
            Self::UnknownTarget | Self::Connect | Self::Untrusted => Failure::Connect,
            Self::Broken | Self::Unprocessed => Failure::Reset,
            Self::Deadline | Self::TryDeadline => Failure::Timeout,
            Self::Unauthorized => Failure::Unauthorized,
            Self::RateLimited | Self::Limited { .. } => Failure::RateLimited,
            Self::BadAuthority | Self::Unsupported | Self::Filter => Failure::Internal,
        }
    }

    /// The answer, in the form that the client takes; it says why in its body.
    pub(crate) fn answer<O: Observe>(self, form: Form) -> Response<ResponseBody<O>> {
        let reason = self.reason();
        let mut response = match form {
            Form::Grpc => grpc(self.grpc_code()),
            Form::Text | Form::HeadOnly => {
                text(form, self.status(), Bytes::from_static(reason.as_bytes()))
            }
        };
        let reason = HeaderValue::from_static(reason);
        let headers = response.headers_mut();
        if form == Form::Grpc {
            headers.insert(GRPC_MESSAGE, reason.clone());
        }
        headers.insert(PROXY_ERROR, reason);
        if let Self::Limited { retry_after } = self {
            let (name, value) = come_again(form, retry_after);
            headers.insert(name, value);
        }
        response
    }
}

/// What tells a client when to come again: not earlier than after `wait`, as it would be in vain.
pub(crate) fn come_again(form: Form, wait: Duration) -> (HeaderName, HeaderValue) {
    let (name, unit) = match form {
        Form::Grpc => (GRPC_RETRY_PUSHBACK_MS, Duration::from_millis(1)),
        Form::Text | Form::HeadOnly => (RETRY_AFTER, Duration::from_secs(1)),
    };
    let units = wait.as_nanos().div_ceil(unit.as_nanos());
    let units = u64::try_from(units).unwrap_or(u64::MAX).max(1);
    (name, units.into())
}

/// The answer to a request that a route's filter keeps from its backend, and what it is counted as.
pub(crate) fn intercepted<O: Observe>(
    intercept: &Intercept,
    form: Form,
) -> (Response<ResponseBody<O>>, Completion) {
    match intercept {
        Intercept::Redirect { status, location } => {
            let mut response = Response::new(ResponseBody::Own(Short::default()));
            *response.status_mut() = *status;
            let headers = response.headers_mut();
            headers.insert(LOCATION, location.clone());
            headers.insert(CONTENT_LENGTH, 0.into());
            (response, Completion::Status(status.as_u16()))
        }
        Intercept::Failure(Injected::Http { status, message }) => {
            let mut response = text(form, *status, Bytes::copy_from_slice(message.as_bytes()));
            if let Ok(message) = HeaderValue::from_str(message) {
                response.headers_mut().insert(PROXY_ERROR, message);
            }
            (response, Completion::Status(status.as_u16()))
        }
        Intercept::Failure(Injected::Grpc { code, message }) => {
            let mut response = grpc(*code);
            let message = headers::grpc_message(message);
            response.headers_mut().insert(PROXY_ERROR, message.clone());
            response.headers_mut().insert(GRPC_MESSAGE, message);
            (response, Completion::Grpc(u32::from(*code)))
        }
        Intercept::Invalid => {
            let refusal = Refusal::Filter;
            (refusal.answer(form), Completion::Failed(refusal.failure()))
        }
    }
}

/// The form in which a client takes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// With a status code and a body.
    Text,
    /// The same, of which only the head is asked for.
    HeadOnly,
    /// With a gRPC status, in headers alone.
    Grpc,
}

impl Form {
    /// That of the answer to `request`.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        if is_grpc(request.headers()) {
            Self::Grpc
        } else if request.method() == Method::HEAD {
            Self::HeadOnly
        } else {
            Self::Text
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

fn text<O: Observe>(form: Form, status: StatusCode, body: Bytes) -> Response<ResponseBody<O>> {
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        // They have no body, and need no length (RFC 9110, sections 15.3.5 and 15.4.5).
        let mut response = Response::new(ResponseBody::Own(Short::default()));
        *response.status_mut() = status;
        return response;
    }
    let length = HeaderValue::from(body.len());
    let sent = if form == Form::HeadOnly {
        Short::default()
    } else {
        Short::new(body)
    };
    let mut response = Response::new(ResponseBody::Own(sent));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn grpc<O: Observe>(code: u16) -> Response<ResponseBody<O>> {
    let mut response = Response::new(ResponseBody::Own(Short::default()));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(GRPC_STATUS, code.into());
    response
}

/// The version of the answer to a request of `version`. An HTTP/1.0 client is answered as in HTTP/1.1: hyper writes what it
/// understands, and keeps the connection only then.
pub(crate) fn answer_version(version: Version) -> Version {
    match version {
        Version::HTTP_10 => Version::HTTP_11,
        other => other,
    }
}

/// What a response's head says the request came to; `None` when its trailers will tell.
pub(crate) fn completion(status: StatusCode, headers: &HeaderMap) -> Option<Completion> {
    if !is_grpc(headers) {
        return Some(Completion::Status(status.as_u16()));
    }
    grpc_code(headers).map(Completion::Grpc)
}

/// What a request came to whose response has ended.
pub(crate) fn completion_at_end(
    at_head: Option<Completion>,
    trailers: Option<&HeaderMap>,
) -> Completion {
    // A gRPC response that ends without a status is broken (gRPC over HTTP/2, "Responses").
    let in_trailers = || {
        trailers
            .and_then(grpc_code)
            .map_or(Completion::Failed(Failure::Reset), Completion::Grpc)
    };
    at_head.unwrap_or_else(in_trailers)
}

fn grpc_code(fields: &HeaderMap) -> Option<u32> {
    mesh_breaker::grpc_status(fields).map(u32::from)
}

/// Whether a request is a gRPC call, or a response the answer to one.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_to_come_too_early() {
        let ms = Duration::from_millis;
        for (wait, seconds, millis) in [
            (Duration::ZERO, "1", "1"),
            (ms(1), "1", "1"),
            (ms(1_000), "1", "1000"),
            (Duration::from_micros(1_000_001), "2", "1001"),
        ] {
            let value = |form| come_again(form, wait).1;
            assert_eq!(value(Form::Text), seconds, "{wait:?}");
            assert_eq!(value(Form::Grpc), millis, "{wait:?}");
        }
        assert_eq!(come_again(Form::HeadOnly, ms(1)).0, "retry-after");
        assert_eq!(come_again(Form::Grpc, ms(1)).0, "grpc-retry-pushback-ms");
    }
}
