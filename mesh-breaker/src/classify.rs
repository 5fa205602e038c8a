//! What an HTTP or gRPC response says about the endpoint that sent it.

use crate::hints::{DEFAULT_CAP, retry_hint};
use crate::{FailureKind, Outcome};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use std::time::{Duration, SystemTime};

/// Turns a response into an [`Outcome`], at its headers or, where those do not tell, at its end.
///
/// `now` is needed for hints that are dates.
pub trait Classify {
    /// What the status and headers say.
    fn at_headers(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> AtHeaders;

    /// What a complete response says whose headers left it open; `trailers` are `None` if it ended without any.
    fn at_end(&self, trailers: Option<&HeaderMap>, now: SystemTime) -> Outcome;
}

/// What the headers of a response say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHeaders {
    /// Enough. The response still has to arrive whole: a broken body is a failure.
    Decided(Outcome),
    /// Nothing yet: the trailers will tell.
    AwaitEnd,
}

impl AtHeaders {
    /// Is it a success, as far as the headers tell?
    pub fn may_succeed(&self) -> bool {
        matches!(self, Self::Decided(Outcome::Success) | Self::AwaitEnd)
    }
}

/// HTTP: 5xx is a failure, 429 is a rate limit, the rest is success. 503 carries its Retry-After.
#[derive(Debug, Clone, Copy)]
pub struct HttpClassifier {
    hint_cap: Duration,
}

impl HttpClassifier {
    /// Believes hints up to `cap`; the default is [`DEFAULT_CAP`].
    #[must_use]
    pub fn hint_cap(self, cap: Duration) -> Self {
        Self { hint_cap: cap }
    }

    fn outcome(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Outcome {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::RateLimited {
                retry_after: retry_hint(headers, now, self.hint_cap),
            },
            StatusCode::SERVICE_UNAVAILABLE => {
                let retry_after = retry_hint(headers, now, self.hint_cap);
                Outcome::Failure(FailureKind::Unavailable { retry_after })
            }
            _ if status.is_server_error() => Outcome::Failure(FailureKind::Response),
            _ => Outcome::Success,
        }
    }
}

impl Default for HttpClassifier {
    fn default() -> Self {
        Self {
            hint_cap: DEFAULT_CAP,
        }
    }
}

impl Classify for HttpClassifier {
    fn at_headers(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> AtHeaders {
        AtHeaders::Decided(self.outcome(status, headers, now))
    }

    fn at_end(&self, _trailers: Option<&HeaderMap>, _now: SystemTime) -> Outcome {
        Outcome::Success
    }
}

/// gRPC: the status in the headers (of a response without messages) or in the trailers decides.
///
/// `RESOURCE_EXHAUSTED` is a rate limit. By default `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE` and
/// `DATA_LOSS` are failures. A response that ends without a status is a broken one.
#[derive(Debug, Clone, Copy)]
pub struct GrpcClassifier {
    http: HttpClassifier,
    /// Bit n is set if status n is a failure.
    failures: u32,
}

impl GrpcClassifier {
    /// With Linkerd's published set, in which `PERMISSION_DENIED` is a failure too. A caller without permission can then
    /// open the breaker for the others, which is why the default set leaves it out.
    pub fn published() -> Self {
        Self::default().failing([2, 4, 7, 13, 14, 15])
    }

    /// Takes these status codes, and no others, for failures. Codes that gRPC does not have (above 16) are ignored.
    #[must_use]
    pub fn failing(self, codes: impl IntoIterator<Item = u8>) -> Self {
        let failures = codes
            .into_iter()
            .filter(|code| *code <= LAST_CODE)
            .fold(0, |set, code| set | 1 << code);
        Self { failures, ..self }
    }

    /// Believes hints up to `cap`; the default is [`DEFAULT_CAP`].
    #[must_use]
    pub fn hint_cap(self, cap: Duration) -> Self {
        Self {
            http: self.http.hint_cap(cap),
            ..self
        }
    }

    fn outcome(&self, code: u8, fields: &HeaderMap, now: SystemTime) -> Outcome {
        let hint = || retry_hint(fields, now, self.http.hint_cap);
        match code {
            RESOURCE_EXHAUSTED => Outcome::RateLimited {
                retry_after: hint(),
            },
            _ if self.failures & 1 << code == 0 => Outcome::Success,
            UNAVAILABLE => Outcome::Failure(FailureKind::Unavailable {
                retry_after: hint(),
            }),
            _ => Outcome::Failure(FailureKind::Response),
        }
    }
}

impl Default for GrpcClassifier {
    fn default() -> Self {
        Self {
            http: HttpClassifier::default(),
            failures: 0,
        }
        .failing([2, 4, 13, 14, 15])
    }
}

impl Classify for GrpcClassifier {
    fn at_headers(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> AtHeaders {
        if status != StatusCode::OK {
            // Not from a gRPC server but from something in between, so it is read as HTTP.
            return AtHeaders::Decided(self.http.outcome(status, headers, now));
        }
        match grpc_status(headers) {
            Some(code) => AtHeaders::Decided(self.outcome(code, headers, now)),
            None => AtHeaders::AwaitEnd,
        }
    }

    fn at_end(&self, trailers: Option<&HeaderMap>, now: SystemTime) -> Outcome {
        match trailers.and_then(|trailers| Some((grpc_status(trailers)?, trailers))) {
            Some((code, trailers)) => self.outcome(code, trailers, now),
            None => Outcome::Failure(FailureKind::Broken),
        }
    }
}

/// gRPC rules for responses whose content type is gRPC, HTTP rules for the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct AutoClassifier {
    http: HttpClassifier,
    grpc: GrpcClassifier,
}

impl AutoClassifier {
    /// With rules other than the default ones.
    pub fn new(http: HttpClassifier, grpc: GrpcClassifier) -> Self {
        Self { http, grpc }
    }
}

impl Classify for AutoClassifier {
    fn at_headers(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) -> AtHeaders {
        if is_grpc(headers) {
            self.grpc.at_headers(status, headers, now)
        } else {
            self.http.at_headers(status, headers, now)
        }
    }

    fn at_end(&self, trailers: Option<&HeaderMap>, now: SystemTime) -> Outcome {
        self.grpc.at_end(trailers, now)
    }
}

/// The gRPC status in headers or trailers. A value that is no known code is `UNKNOWN`, as in the gRPC libraries.
pub fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get(&GRPC_STATUS)?.as_bytes();
    let code = match value {
        [ones @ b'0'..=b'9'] => ones - b'0',
        [b'1', ones @ b'0'..=b'6'] => 10 + ones - b'0',
        _ => UNKNOWN,
    };
    Some(code)
}

/// Is this the content type of gRPC (`application/grpc`, `application/grpc+proto`, ...) and not of gRPC-Web?
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(rest) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const UNKNOWN: u8 = 2;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;
const LAST_CODE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn http(status: u16, headers: &HeaderMap) -> Outcome {
        match HttpClassifier::default().at_headers(
            StatusCode::from_u16(status).unwrap(),
            headers,
            NOW,
        ) {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => panic!("HTTP is decided at the headers"),
        }
    }

    #[test]
    fn http_status_decides() {
        let none = HeaderMap::new();
        let hint = fields(&[("retry-after", "3")]);
        let after = Some(Duration::from_secs(3));
        for status in [200, 204, 301, 400, 404, 499] {
            assert_eq!(http(status, &none), Outcome::Success, "{status}");
        }
        for status in [500, 502, 504, 599] {
            assert_eq!(
                http(status, &none),
                Outcome::Failure(FailureKind::Response),
                "{status}"
            );
        }
        assert_eq!(
            http(429, &hint),
            Outcome::RateLimited { retry_after: after }
        );
        assert_eq!(http(429, &none), Outcome::RateLimited { retry_after: None });
        assert_eq!(
            http(503, &hint),
            Outcome::Failure(FailureKind::Unavailable { retry_after: after })
        );
        assert_eq!(http(503, &hint).retry_after(), after);
    }

    #[test]
    fn grpc_status_is_found_in_headers_or_trailers() {
        let grpc = GrpcClassifier::default();
        assert_eq!(
            grpc.at_headers(StatusCode::OK, &HeaderMap::new(), NOW),
            AtHeaders::AwaitEnd
        );
        let refused = fields(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "20")]);
        let unavailable = Outcome::Failure(FailureKind::Unavailable {
            retry_after: Some(Duration::from_millis(20)),
        });
        assert_eq!(
            grpc.at_headers(StatusCode::OK, &refused, NOW),
            AtHeaders::Decided(unavailable)
        );
        assert_eq!(grpc.at_end(Some(&refused), NOW), unavailable);
        assert_eq!(
            grpc.at_end(Some(&fields(&[("grpc-status", "0")])), NOW),
            Outcome::Success
        );
        let limited = fields(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", "-1")]);
        assert_eq!(
            grpc.at_end(Some(&limited), NOW),
            Outcome::RateLimited { retry_after: None }
        );
    }

    #[test]
    fn grpc_without_a_status_is_broken() {
        let grpc = GrpcClassifier::default();
        assert_eq!(
            grpc.at_end(None, NOW),
            Outcome::Failure(FailureKind::Broken)
        );
        assert_eq!(
            grpc.at_end(Some(&HeaderMap::new()), NOW),
            Outcome::Failure(FailureKind::Broken)
        );
    }

    #[test]
    fn grpc_failures_are_the_chosen_codes() {
        let failing = |grpc: GrpcClassifier| {
            (0..=16_u8)
                .filter(|code| grpc.outcome(*code, &HeaderMap::new(), NOW).is_failure())
                .collect::<Vec<_>>()
        };
        assert_eq!(failing(GrpcClassifier::default()), [2, 4, 13, 14, 15]);
        assert_eq!(failing(GrpcClassifier::published()), [2, 4, 7, 13, 14, 15]);
        assert_eq!(failing(GrpcClassifier::default().failing([5, 200])), [5]);
    }

    #[test]
    fn odd_grpc_statuses_are_unknown() {
        for value in ["17", "99", "-1", "x", "007", ""] {
            assert_eq!(
                grpc_status(&fields(&[("grpc-status", value)])),
                Some(2),
                "{value}"
            );
        }
        assert_eq!(grpc_status(&fields(&[("grpc-status", "16")])), Some(16));
    }

    #[test]
    fn the_content_type_chooses_the_rules() {
        let auto = AutoClassifier::default();
        for (content_type, awaits) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/html", false),
        ] {
            let headers = fields(&[("content-type", content_type)]);
            let awaited = auto.at_headers(StatusCode::OK, &headers, NOW) == AtHeaders::AwaitEnd;
            assert_eq!(awaited, awaits, "{content_type}");
        }
    }
}
