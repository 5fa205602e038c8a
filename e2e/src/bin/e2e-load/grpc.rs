//! As much of gRPC as a message there and back takes (PROTOCOL-HTTP2.md of gRPC): a flag, a length, the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::counts::Failure;

const PREFIX_BYTES: usize = 5;
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The head of a call.
pub(crate) fn call<B>(uri: &Uri, body: B) -> Result<Request<B>, Failure> {
    Request::builder()
        .method(Method::POST)
        .uri(uri.clone())
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .map_err(|error| Failure::new("other", error.to_string()))
}

/// A message as it is sent.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The first message of what was received, once all of it is there.
pub(crate) fn message(received: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Some(prefix) = received.get(..PREFIX_BYTES) else {
        return Ok(None);
    };
    let length = (&prefix[1..]).get_u32() as usize;
    if prefix[0] != 0 || length > MAX_MESSAGE_BYTES {
        return Err(Failure::new("content", "not a gRPC message"));
    }
    if received.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

/// Whether a call ended well, by its trailers.
pub(crate) fn status(trailers: Option<&HeaderMap>) -> Result<(), Failure> {
    let status = trailers.and_then(|trailers| trailers.get("grpc-status"));
    let text = |value: Option<&HeaderValue>| {
        let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        text.unwrap_or_default()
    };
    match status {
        Some(status) if status == "0" => Ok(()),
        Some(status) => {
            let why = text(trailers.and_then(|trailers| trailers.get("grpc-message")));
            let status = text(Some(status));
            Err(Failure::new(
                "status",
                format!("grpc-status {status} {why}"),
            ))
        }
        None => Err(Failure::new("status", "no grpc-status")),
    }
}
