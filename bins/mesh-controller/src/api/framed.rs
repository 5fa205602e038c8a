//! gRPC messages as bytes.
//!
//! A message that many subscribers get is encoded and framed once; what travels is a reference to those bytes. The stock
//! codec would encode, and copy, once for each of them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use hyper::body::Incoming;
use prost::Message;
use tonic::{Status, Streaming, body::Body, codec::Codec as _};
use tonic_prost::ProstCodec;

/// A message with its gRPC prefix (not compressed, length in four bytes).
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + len);
    framed.put_u8(0);
    // Messages are bounded by what they are made of, far below four gigabytes.
    framed.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    let encoded = message.encode(&mut framed);
    debug_assert!(encoded.is_ok(), "the buffer grows");
    framed.freeze()
}

/// A response body of framed messages, then the status.
pub(crate) struct Frames {
    messages: BoxStream<'static, Result<Bytes, Status>>,
    ended: bool,
}

impl Frames {
    pub(crate) fn new(
        messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
    ) -> Self {
        Self {
            messages: messages.boxed(),
            ended: false,
        }
    }

    pub(crate) fn one(message: Bytes) -> Self {
        Self::new(stream::iter([Ok(message)]))
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.messages.poll_next_unpin(context));
        let status = match next {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        self.messages = stream::empty().boxed();
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The one message of a request to a call that is not client-streaming.
pub(super) async fn read_one<M>(request: Request<Incoming>) -> Result<M, Status>
where
    M: Message + Default + Send + 'static,
{
    let decoder = ProstCodec::<M, M>::default().decoder();
    let mut messages =
        Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST_BYTES));
    let read = async {
        messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the request has no message"))
    };
    tokio::time::timeout(READ_TIMEOUT, read)
        .await
        .map_err(|_| Status::deadline_exceeded("the request's message took too long to arrive"))?
}

/// The messages of a request, as they come.
pub(super) fn read_many<M>(request: Request<Incoming>) -> Streaming<M>
where
    M: Message + Default + Send + 'static,
{
    let decoder = ProstCodec::<M, M>::default().decoder();
    Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST_BYTES))
}

/// The value of binary metadata (base64, padded or not).
pub(super) fn binary(headers: &http::HeaderMap, name: &str) -> Option<Vec<u8>> {
    let text = headers.get(name)?.as_bytes();
    let text = text.strip_suffix(b"==").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    STANDARD_NO_PAD.decode(text).ok()
}

pub(super) fn respond<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

const PREFIX_BYTES: usize = 5;
/// The largest request is Certify's: a CSR and a token.
const MAX_REQUEST_BYTES: usize = 64 << 10;
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
