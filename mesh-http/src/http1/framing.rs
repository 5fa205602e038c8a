//! Where a message ends (RFC 9112, section 6.3): the one place where that is decided.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, Version};

use super::Http1Error;

/// How long a body is that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; with zero there is none.
    Length(u64),
    /// Chunks, the last of which is empty.
    Chunked,
    /// Until the connection ends: of responses only.
    UntilEnd,
}

impl Framing {
    /// That of the response to a request of `method`. A length that is said more than once is left once.
    pub(crate) fn of_response(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &mut HeaderMap,
    ) -> Result<Self, Http1Error> {
        let framing = Self::said(version, headers)?;
        let tunnels = method == Method::CONNECT && status.is_success();
        let without_body = method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if without_body || tunnels {
            return Ok(Self::Length(0));
        }
        Ok(framing.unwrap_or(Self::UntilEnd))
    }

    /// What `headers` say, if they do.
    fn said(version: Version, headers: &mut HeaderMap) -> Result<Option<Self>, Http1Error> {
        let (mut lengths, mut codings) = (0, 0);
        for name in headers.keys() {
            lengths += usize::from(name == CONTENT_LENGTH);
            codings += usize::from(name == TRANSFER_ENCODING);
        }
        match (lengths, codings) {
            (0, 0) => Ok(None),
            (_, 0) => length(headers).map(|length| Some(Self::Length(length))),
            (0, _) if version == Version::HTTP_11 => chunked(headers).map(|()| Some(Self::Chunked)),
            (0, _) => Err(Http1Error::Malformed("Transfer-Encoding in HTTP/1.0")),
            _ => Err(Http1Error::Malformed(
                "both Content-Length and Transfer-Encoding",
            )),
        }
    }
}

/// The length that `Content-Length` states, if it does.
pub(crate) fn stated_length(headers: &HeaderMap) -> Option<u64> {
    decimal(headers.get(CONTENT_LENGTH)?.as_bytes())
}

/// The length that all of `Content-Length` agrees on.
fn length(headers: &mut HeaderMap) -> Result<u64, Http1Error> {
    let malformed = || Http1Error::Malformed("Content-Length");
    let (mut said, mut times) = (None, 0);
    for value in headers.get_all(CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let length = decimal(one.trim_ascii()).ok_or_else(malformed)?;
            if said.is_some_and(|said| said != length) {
                return Err(malformed());
            }
            said = Some(length);
            times += 1;
        }
    }
    let length = said.ok_or_else(malformed)?;
    if times > 1 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// Digits and nothing else, as many as fit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Other codings than chunks are not understood here, and would hide where a body ends.
fn chunked(headers: &HeaderMap) -> Result<(), Http1Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Http1Error::Malformed(
            "Transfer-Encoding other than chunked",
        )),
    }
}

/// Whether `Connection` names `option`.
pub(crate) fn names(headers: &HeaderMap, option: &str) -> bool {
    // One look at each name costs less than a look-up by hash of what is mostly not there.
    if !headers.keys().any(|name| name == CONNECTION) {
        return false;
    }
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}
