//! The header that precedes a connection between two proxies when its target is not where it connects to.
//!
//! Under TLS with the ALPN protocol [`ALPN`]: the line `transport.l5d.io/v1`, a blank line, a length of four bytes
//! (big endian) and a protobuf message with the target port, an optional name and the protocol that follows.
//! The format is Linkerd's, so that either proxy can be at either end.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Error;

/// The ALPN protocol under which a header is sent.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";

const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";

/// The largest message that is read, in bytes: a port, a name of at most 253 bytes and a few tags.
const MAX_MESSAGE: usize = 1024;

/// Where a connection is meant to go, and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// The target's port on the host that was connected to. Never zero.
    pub port: u16,
    /// The target's name, for gateways.
    pub name: Option<String>,
    /// What follows, when it is known; otherwise the connection is opaque.
    pub session: Option<Session>,
}

/// The protocol that follows a [`TransportHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl TransportHeader {
    /// The bytes to send first on a new connection.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = wire::Header {
            port: i32::from(self.port),
            name: self.name.clone().unwrap_or_default(),
            session_protocol: self.session.map(|session| wire::SessionProtocol {
                kind: Some(match session {
                    Session::Http1 => wire::Kind::Http1(wire::Empty {}),
                    Session::Http2 => wire::Kind::Http2(wire::Empty {}),
                }),
            }),
        };
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFACE.len() + 4 + length);
        bytes.put_slice(PREFACE);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut bytes);
        bytes.freeze()
    }

    /// Reads a header from the beginning of `io`, and no byte more. The caller sets the deadline.
    ///
    /// # Errors
    /// [`Error::TransportHeader`] when the bytes are not a header or exceed its bounds; [`Error::Io`] when reading fails.
    pub async fn read<I>(io: &mut I) -> Result<Self, Error>
    where
        I: AsyncRead + Unpin,
    {
        let mut preface = [0u8; PREFACE.len() + 4];
        io.read_exact(&mut preface).await.map_err(read_error)?;
        let (magic, length) = preface.split_at(PREFACE.len());
        if magic != PREFACE {
            return Err(Error::TransportHeader(
                "it does not begin with `transport.l5d.io/v1`",
            ));
        }
        let length = length
            .iter()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        if length > MAX_MESSAGE {
            return Err(Error::TransportHeader("its message is over 1024 bytes"));
        }
        let mut message = vec![0u8; length];
        io.read_exact(&mut message).await.map_err(read_error)?;
        Self::decode(&message)
    }

    fn decode(message: &[u8]) -> Result<Self, Error> {
        let header = wire::Header::decode(message)
            .map_err(|_| Error::TransportHeader("its message is not valid protobuf"))?;
        let port = u16::try_from(header.port).ok().filter(|port| *port != 0);
        Ok(Self {
            port: port.ok_or(Error::TransportHeader(
                "its port is not between 1 and 65535",
            ))?,
            name: (!header.name.is_empty()).then_some(header.name),
            session: header
                .session_protocol
                .and_then(|session| session.kind)
                .map(|kind| match kind {
                    wire::Kind::Http1(_) => Session::Http1,
                    wire::Kind::Http2(_) => Session::Http2,
                }),
        })
    }
}

fn read_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::TransportHeader("the connection ended within it"),
        _ => Error::Io(error),
    }
}

/// The message as it is on the wire.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(int32, tag = "1")]
        pub(super) port: i32,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(message, optional, tag = "3")]
        pub(super) session_protocol: Option<SessionProtocol>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct SessionProtocol {
        #[prost(oneof = "Kind", tags = "1, 2")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Http1(Empty),
        #[prost(message, tag = "2")]
        Http2(Empty),
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Empty {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_wire_form_is_linkerds() {
        let header = TransportHeader {
            port: 4321,
            name: None,
            session: Some(Session::Http2),
        };
        assert_eq!(
            &header.encode()[..],
            b"transport.l5d.io/v1\r\n\r\n\0\0\0\x07\x08\xe1\x21\x1a\x02\x12\x00"
        );
    }

    fn read(bytes: &[u8]) -> Result<TransportHeader, Error> {
        let mut bytes = bytes;
        futures_util::FutureExt::now_or_never(TransportHeader::read(&mut bytes))
            .expect("a slice is always ready")
    }

    #[test]
    fn bad_headers_say_what_is_wrong() {
        let cases: &[(&[u8], &str)] = &[
            (b"GET / HTTP/1.1\r\n\r\nHost: a, and more", "begin"),
            (b"transport.l5d.io/v1\r\n\r\n\0\0\0\x02", "ended"),
            (b"transport.l5d.io/v1\r\n\r\n\0\0\x10\x00", "1024"),
            (b"transport.l5d.io/v1\r\n\r\n\0\0\0\x00", "port"),
            (b"transport.l5d.io/v1\r\n\r\n\0\0\0\x02\xff\xff", "protobuf"),
        ];
        for (bytes, reason) in cases {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(port in 1u16.., name in proptest::option::of("[a-z.]{1,253}"), session in 0..3) {
            let session = [None, Some(Session::Http1), Some(Session::Http2)][session as usize];
            let header = TransportHeader { port, name, session };
            prop_assert_eq!(read(&header.encode()).unwrap(), header);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&bytes);
            let _ = read(&[PREFACE, &bytes].concat());
        }
    }
}
