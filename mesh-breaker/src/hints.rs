//! What an endpoint says about when to come back, read strictly and bounded.
//!
//! Every function takes a cap: a longer hint counts as the cap, so that no peer can shut itself, or be shut, for ever.

use http::HeaderMap;
use http::header::{HeaderName, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// The longest hint that is believed unless the caller says otherwise: 300 s.
pub const DEFAULT_CAP: Duration = Duration::from_secs(300);

/// The trailer (or header) in which a gRPC server says when to retry, in milliseconds (gRFC A6).
pub const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What `grpc-retry-pushback-ms` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// Retry after this long.
    After(Duration),
    /// Do not retry: the value was negative or unreadable (gRFC A6 treats both alike).
    Never,
}

/// The field that says what is left of a limit (draft-ietf-httpapi-ratelimit-headers).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The soonest retry these headers (or trailers) ask for: Retry-After, else `grpc-retry-pushback-ms`, else RateLimit.
pub fn retry_hint(headers: &HeaderMap, now: SystemTime, cap: Duration) -> Option<Duration> {
    if let Some(after) = headers
        .get(RETRY_AFTER)
        .and_then(|value| retry_after(value.as_bytes(), now, cap))
    {
        return Some(after);
    }
    if let Some(value) = headers.get(GRPC_RETRY_PUSHBACK_MS) {
        return match grpc_pushback(value.as_bytes(), cap) {
            Pushback::After(after) => Some(after),
            Pushback::Never => None,
        };
    }
    rate_limit(headers.get(RATE_LIMIT)?.as_bytes(), cap)
}

/// When the limits of a RateLimit field that have nothing left are renewed: the longest `t` of an item with `r=0`.
///
/// `"default";r=0;t=30` is 30 s (draft-ietf-httpapi-ratelimit-headers, section 4). Items that cannot be read, or that have
/// something left, ask for nothing.
pub fn rate_limit(value: &[u8], cap: Duration) -> Option<Duration> {
    if value.len() > LONGEST_RATE_LIMIT {
        return None;
    }
    let renewed = value.split(|byte| *byte == b',').filter_map(|item| {
        let mut left = None;
        let mut seconds = None;
        for parameter in item.split(|byte| *byte == b';').skip(1) {
            match parameter.trim_ascii() {
                [b'r', b'=', rest @ ..] => left = digits(rest),
                [b't', b'=', rest @ ..] => seconds = digits(rest),
                _ => {}
            }
        }
        (left? == 0).then_some(seconds?)
    });
    renewed
        .max()
        .map(|seconds| Duration::from_secs(seconds).min(cap))
}

/// The value of a Retry-After field: seconds or an HTTP-date (RFC 9110, section 10.2.3).
///
/// A date that has passed is a wait of zero; anything else that cannot be read is `None`.
pub fn retry_after(value: &[u8], now: SystemTime, cap: Duration) -> Option<Duration> {
    let value = value.trim_ascii();
    if let Some(seconds) = digits(value) {
        return Some(Duration::from_secs(seconds).min(cap));
    }
    if value.len() > LONGEST_DATE {
        return None;
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(cap))
}

/// The value of `grpc-retry-pushback-ms` (gRFC A6).
pub fn grpc_pushback(value: &[u8], cap: Duration) -> Pushback {
    match digits(value.trim_ascii()) {
        Some(millis) => Pushback::After(Duration::from_millis(millis).min(cap)),
        None => Pushback::Never,
    }
}

/// Decimal digits and nothing else; what is too large for 64 bits is `u64::MAX`.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// `Wednesday, 30-Sep-26 12:00:00 GMT` is the longest form; some room for the sloppy.
const LONGEST_DATE: usize = 40;
const LONGEST_RATE_LIMIT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAP: Duration = DEFAULT_CAP;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's own examples.
    fn rfc_date() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn seconds_are_read_and_capped() {
        let now = rfc_date();
        for (value, seconds) in [
            ("0", 0),
            ("1", 1),
            (" 120 ", 120),
            ("301", 300),
            ("99999999999999999999999", 300),
        ] {
            assert_eq!(
                retry_after(value.as_bytes(), now, CAP),
                Some(Duration::from_secs(seconds)),
                "{value}"
            );
        }
    }

    #[test]
    fn all_three_date_forms_are_read() {
        let now = rfc_date() - Duration::from_secs(20);
        for value in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                retry_after(value.as_bytes(), now, CAP),
                Some(Duration::from_secs(20)),
                "{value}"
            );
        }
        let past = rfc_date() + Duration::from_secs(1);
        assert_eq!(
            retry_after(b"Sun, 06 Nov 1994 08:49:37 GMT", past, CAP),
            Some(Duration::ZERO)
        );
        assert_eq!(
            retry_after(b"Sat, 06 Nov 2094 08:49:37 GMT", past, CAP),
            Some(CAP)
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_hint() {
        for value in [
            &b""[..],
            b"-1",
            b"1.5",
            b"+1",
            b"1 s",
            b"soon",
            b"\xff\xfe",
            &[b'x'; 5000],
        ] {
            assert_eq!(retry_after(value, rfc_date(), CAP), None, "{value:?}");
        }
    }

    #[test]
    fn pushback_is_milliseconds_or_never() {
        assert_eq!(
            grpc_pushback(b"250", CAP),
            Pushback::After(Duration::from_millis(250))
        );
        assert_eq!(grpc_pushback(b"900000", CAP), Pushback::After(CAP));
        assert_eq!(grpc_pushback(b"-1", CAP), Pushback::Never);
        assert_eq!(grpc_pushback(b"later", CAP), Pushback::Never);
    }

    #[test]
    fn a_limit_that_has_nothing_left_says_when_it_is_renewed() {
        let s = Duration::from_secs;
        for (value, after) in [
            (r#""default";r=0;t=30"#, Some(s(30))),
            (r#""burst";r=0;t=1, "daily"; r=0; t=90"#, Some(s(90))),
            (r#""burst";r=5;t=1,"daily";t=20;r=0"#, Some(s(20))),
            (r#""default";r=50;t=30"#, None),
            (r#""default";r=0"#, None),
            (r#""default";r=0;t=-1"#, None),
            (r#""default";r=0;t=99999"#, Some(CAP)),
            ("", None),
        ] {
            assert_eq!(rate_limit(value.as_bytes(), CAP), after, "{value}");
        }
    }

    #[test]
    fn retry_after_comes_before_pushback() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_hint(&headers, rfc_date(), CAP), None);
        headers.insert(GRPC_RETRY_PUSHBACK_MS, "250".parse().unwrap());
        assert_eq!(
            retry_hint(&headers, rfc_date(), CAP),
            Some(Duration::from_millis(250))
        );
        headers.insert(RETRY_AFTER, "2".parse().unwrap());
        assert_eq!(
            retry_hint(&headers, rfc_date(), CAP),
            Some(Duration::from_secs(2))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_pass_the_cap(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(after) = retry_after(&value, rfc_date(), CAP) {
                prop_assert!(after <= CAP);
            }
            if let Pushback::After(after) = grpc_pushback(&value, CAP) {
                prop_assert!(after <= CAP);
            }
            if let Some(after) = rate_limit(&value, CAP) {
                prop_assert!(after <= CAP);
            }
        }
    }
}
