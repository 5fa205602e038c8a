//! The recordings, and HTTP/2 frames as far as they are looked at.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::wire::Wire;

/// What the outbound proxy sent and what the inbound one answered.
pub struct Recorded {
    pub c2s: &'static [u8],
    pub s2c: &'static [u8],
}

macro_rules! recorded {
    ($name:literal) => {
        Recorded {
            c2s: include_bytes!(concat!("recorded/", $name, ".c2s")),
            s2c: include_bytes!(concat!("recorded/", $name, ".s2c")),
        }
    };
}

pub const HTTP1: Recorded = recorded!("http1");
pub const ABSOLUTE_FORM: Recorded = recorded!("absolute_form");
pub const CHUNKED: Recorded = recorded!("chunked");
pub const HTTP2: Recorded = recorded!("http2");
pub const GRPC: Recorded = recorded!("grpc");
pub const UPGRADE: Recorded = recorded!("upgrade");
pub const IDLE: Recorded = recorded!("idle");
pub const OPAQUE: Recorded = recorded!("opaque");

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub ends_stream: bool,
    pub payload: Vec<u8>,
}

/// The next frame of a message: data or headers of a stream.
pub async fn next<I: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<I>) -> Frame {
    loop {
        let head = wire.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let frame = Frame {
            kind: head[3],
            ends_stream: head[4] & END_STREAM != 0,
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: wire.exactly(length).await,
        };
        if matches!(frame.kind, DATA | HEADERS) {
            return frame;
        }
    }
}

/// The frames of the first stream until it ends, and the data in them.
pub async fn message<I: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<I>,
) -> (Vec<Frame>, Vec<u8>) {
    let mut frames: Vec<Frame> = Vec::new();
    while !frames.last().is_some_and(|frame| frame.ends_stream) {
        let frame = next(wire).await;
        assert_eq!(frame.stream, 1, "{frame:?}");
        frames.push(frame);
    }
    let data = frames.iter().filter(|frame| frame.kind == DATA);
    let data = data.flat_map(|frame| frame.payload.clone()).collect();
    (frames, data)
}
