//! Telling HTTP/1, HTTP/2, TLS and everything else apart from the first bytes a client sends.
//!
//! [`classify`] is the whole decision as a function of bytes; [`detect`] reads until that function knows,
//! the deadline passes, the client stops, or [`MAX_PREFIX`] bytes have said nothing.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Prefixed;

/// The most bytes that are read before a connection is taken for [`Protocol::Opaque`] or, when a request line has
/// begun and not ended, for [`Protocol::Http1`] (whose own limits then answer it).
pub const MAX_PREFIX: usize = 8 * 1024;

/// The longest method that is taken for HTTP: the longest registered one (`UPDATEREDIRECTREF`) has 17 letters.
const MAX_METHOD: usize = 24;

/// Carriage returns and line feeds before a request line that leave it one.
const MAX_EMPTY_LINES: usize = 16;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4) up to its first line's end.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What the first bytes of a connection say it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// An HTTP/1.0 or HTTP/1.1 request line.
    Http1,
    /// The HTTP/2 connection preface (prior knowledge).
    Http2,
    /// A TLS record that holds a handshake message.
    Tls,
    /// Something else, or nothing before the deadline.
    Opaque,
}

/// Decides what `bytes`, the first of a connection, carry; `None` while they could still become more than one.
///
/// ```
/// use mesh_http::detect::{classify, Protocol};
///
/// assert_eq!(classify(b"GET / HTTP/1.1\r\n"), Some(Protocol::Http1));
/// assert_eq!(classify(b"GE"), None);
/// assert_eq!(classify(b"\x16\x03\x01"), Some(Protocol::Tls));
/// assert_eq!(classify(b"\x00\x01"), Some(Protocol::Opaque));
/// ```
#[must_use]
pub fn classify(bytes: &[u8]) -> Option<Protocol> {
    // Servers skip empty lines before a request (RFC 9112, section 2.2).
    let lines = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    if lines > 0 {
        return match &bytes[lines..] {
            // However the bytes come: what is decided of some of them is so of all.
            _ if lines >= MAX_EMPTY_LINES => Some(Protocol::Opaque),
            [] => None,
            line => classify_http1(line),
        };
    }
    let common = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..common] == HTTP2_PREFACE[..common] {
        return (bytes.len() >= HTTP2_PREFACE.len()).then_some(Protocol::Http2);
    }
    if bytes[0] == 0x16 {
        return match bytes {
            [_] => None,
            [_, 0x03, ..] => Some(Protocol::Tls),
            _ => Some(Protocol::Opaque),
        };
    }
    classify_http1(bytes)
}

/// A request line is `method SP target SP HTTP/1.x` (RFC 9112, section 3); anything that cannot become one is opaque.
fn classify_http1(bytes: &[u8]) -> Option<Protocol> {
    let method = bytes
        .iter()
        .position(|b| !is_token(*b))
        .unwrap_or(bytes.len());
    if method == 0 || method > MAX_METHOD {
        return Some(Protocol::Opaque);
    }
    let after_method = *bytes.get(method)?;
    if after_method != b' ' {
        return Some(Protocol::Opaque);
    }
    let target = &bytes[method + 1..];
    let target_length = target
        .iter()
        .position(|b| !is_target(*b))
        .unwrap_or(target.len());
    let Some(&after_target) = target.get(target_length) else {
        return (bytes.len() >= MAX_PREFIX).then_some(Protocol::Http1);
    };
    if after_target != b' ' || target_length == 0 {
        return Some(Protocol::Opaque);
    }
    let version = &target[target_length + 1..];
    let wanted: &[u8] = b"HTTP/1.";
    let common = version.len().min(wanted.len());
    if version[..common] != wanted[..common] {
        return Some(Protocol::Opaque);
    }
    (version.len() > wanted.len()).then_some(Protocol::Http1)
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes that hyper's parser accepts in a request target: visible ASCII and, leniently, above.
fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// Reads from `io` until [`classify`] knows, `timeout` passes or the client ends; gives the bytes back in front of `io`.
///
/// # Errors
/// Whatever reading fails with. An end of stream before anything is known is no error: it is [`Protocol::Opaque`].
pub async fn detect<I>(mut io: I, timeout: Duration) -> io::Result<(Protocol, Prefixed<I>)>
where
    I: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(1024);
    let protocol = tokio::time::timeout(timeout, read_until_known(&mut io, &mut buffer))
        .await
        .unwrap_or(Ok(Protocol::Opaque))?;
    Ok((protocol, Prefixed::new(buffer.freeze(), io)))
}

async fn read_until_known<I>(io: &mut I, buffer: &mut BytesMut) -> io::Result<Protocol>
where
    I: AsyncRead + Unpin,
{
    loop {
        if buffer.len() >= MAX_PREFIX {
            return Ok(Protocol::Opaque);
        }
        buffer.reserve(1024);
        if io.read_buf(buffer).await? == 0 {
            return Ok(Protocol::Opaque);
        }
        if let Some(protocol) = classify(buffer) {
            return Ok(protocol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn whole_beginnings_are_told_apart() {
        let cases: &[(&[u8], Protocol)] = &[
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"GET / HTTP/1.0\r\n", Protocol::Http1),
            (b"\r\n\nGET / HTTP/1.1\r\n", Protocol::Http1),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", Protocol::Opaque),
            (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http1),
            (b"CONNECT a:1 HTTP/1.1\r\n", Protocol::Http1),
            (b"GET http://a/b?c HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
            (b"\x16\x03\x01\x02\x00", Protocol::Tls),
            (b"\x16\x02", Protocol::Opaque),
            (b"PING\r\n", Protocol::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Protocol::Opaque),
            (b"GET /\r\n", Protocol::Opaque),
            (b"GET  HTTP/1.1\r\n", Protocol::Opaque),
            (b"GET / HTTP/2.0\r\n", Protocol::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Opaque),
            (b"PRI * HTTP/1.1\r\n", Protocol::Http1),
            (b"PRINT this please", Protocol::Opaque),
        ];
        for (bytes, protocol) in cases {
            assert_eq!(classify(bytes), Some(*protocol), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        /// What is known from a beginning stays true however much follows, and nothing panics.
        #[test]
        fn a_verdict_never_changes(bytes in proptest::collection::vec(any::<u8>(), 1..64), more in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(protocol) = classify(&bytes) {
                let longer = [bytes, more].concat();
                prop_assert_eq!(classify(&longer), Some(protocol));
            }
        }

        /// A request line split anywhere is never taken for something else on the way.
        #[test]
        fn a_split_request_line_is_still_http(path in "/[a-z0-9/?=&]{0,40}", at in 1usize..10) {
            let line = format!("DELETE {path} HTTP/1.1\r\n");
            prop_assert!(matches!(classify(&line.as_bytes()[..at]), None | Some(Protocol::Http1)));
            prop_assert_eq!(classify(line.as_bytes()), Some(Protocol::Http1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_opaque_at_the_deadline_and_loses_no_byte() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GE").await.unwrap();
        let (protocol, mut io) = detect(server, Duration::from_secs(10)).await.unwrap();
        assert_eq!(protocol, Protocol::Opaque);
        client.write_all(b"T").await.unwrap();
        drop(client);
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"GET");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_line_that_never_ends_is_left_to_http() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(b"GET /").await.unwrap();
        client.write_all(&vec![b'a'; MAX_PREFIX]).await.unwrap();
        let (protocol, _) = detect(server, Duration::from_secs(10)).await.unwrap();
        assert_eq!(protocol, Protocol::Http1);
    }
}
