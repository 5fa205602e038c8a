//! The body of an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// The body of an answer.
pub(crate) enum Answer {
    /// So many bytes at once.
    Full(Option<Bytes>),
    /// One message of gRPC, then its status.
    Message(Option<Bytes>),
    /// What comes in, as it comes, then the status of gRPC.
    Echo(Incoming),
    /// The status of gRPC is what is left.
    Status,
    /// Nothing more.
    End,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            match &mut *self {
                Self::Full(data) => {
                    let data = data.take();
                    *self = Self::End;
                    return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
                }
                Self::Message(data) => {
                    let data = data.take();
                    *self = Self::Status;
                    return Poll::Ready(data.map(|data| Ok(Frame::data(data))));
                }
                Self::Echo(incoming) => {
                    match std::task::ready!(Pin::new(incoming).poll_frame(cx)) {
                        Some(frame) => return Poll::Ready(Some(frame)),
                        None => *self = Self::Status,
                    }
                }
                Self::Status => {
                    *self = Self::End;
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Self::End => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::End | Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Self::End => SizeHint::with_exact(0),
            Self::Message(_) | Self::Echo(_) | Self::Status => SizeHint::default(),
        }
    }
}

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
