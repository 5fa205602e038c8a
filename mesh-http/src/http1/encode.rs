//! Heads and trailers as they are written.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Version};

use super::{Http1Error, framing::stated_length};

/// How long a body is that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is no body; a `Content-Length` that is there stays.
    None,
    Known(u64),
    Chunked,
}

impl Length {
    /// That of a request's body which does not end before it begins.
    pub(crate) fn of_request(version: Version, headers: &HeaderMap) -> Result<Self, Http1Error> {
        if headers.contains_key(CONTENT_LENGTH) {
            let not_valid = || Http1Error::Body("its Content-Length is not valid".into());
            return stated_length(headers)
                .map(Self::Known)
                .ok_or_else(not_valid);
        }
        match version {
            Version::HTTP_10 => Err(Http1Error::Body(
                "HTTP/1.0 has no body of unknown length".into(),
            )),
            _ => Ok(Self::Chunked),
        }
    }
}

/// Appends the head of `request` to `out`, framed as `length` says and in no other way.
pub(crate) fn request_head<B>(request: &Request<B>, length: Length, out: &mut Vec<u8>) {
    let (method, uri) = (request.method(), request.uri());
    out.reserve(HEAD_ROOM);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    if let Some(scheme) = uri.scheme_str() {
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
    }
    if let Some(authority) = uri.authority() {
        out.extend_from_slice(authority.as_str().as_bytes());
    }
    if method != Method::CONNECT {
        out.extend_from_slice(uri.path().as_bytes());
        if let Some(query) = uri.query() {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
    out.extend_from_slice(match request.version() {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    fields(request.headers(), length, out);
}

/// Appends `headers`, what `length` has to say, and the empty line.
fn fields(headers: &HeaderMap, length: Length, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if *name == TRANSFER_ENCODING || (*name == CONTENT_LENGTH && length != Length::None) {
            continue;
        }
        field(name, value, out);
    }
    match length {
        Length::None => {}
        Length::Known(bytes) => field(&CONTENT_LENGTH, &HeaderValue::from(bytes), out),
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a body in chunks, without what has no place in trailers (RFC 9110, section 6.5.1).
pub(crate) fn last_chunk(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if may_trail(name) {
            field(name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn may_trail(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NO_TRAILERS.contains(&name) && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// More than most heads have.
const HEAD_ROOM: usize = 512;

/// What frames, routes or controls a message, is of one connection, says who asks, or has to be known before the content. A server may
/// take trailers for headers, which nobody has looked at then.
const NO_TRAILERS: [&str; 22] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];
/// The same, of whatever they end in.
const PREFIXES: [&str; 2] = ["l5d-", "x-forwarded-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_may_take_for_a_header_does_not_trail() {
        let mut trailers = HeaderMap::new();
        for name in ["grpc-status", "x-checksum"].iter().chain(&NO_TRAILERS) {
            let name = HeaderName::from_static(name);
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        trailers.insert("l5d-client-id", HeaderValue::from_static("1"));
        trailers.insert("x-forwarded-for", HeaderValue::from_static("1"));
        let mut out = Vec::new();
        last_chunk(Some(&trailers), &mut out);
        assert_eq!(out, b"0\r\ngrpc-status: 1\r\nx-checksum: 1\r\n\r\n");
    }
}
