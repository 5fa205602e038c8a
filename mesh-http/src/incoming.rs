//! The body of a request or response, whichever way it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Broken;
use crate::client::Answering;
use crate::http2::{Offer, Received, Tunnel};

/// The body of a request that was served, or of an endpoint's response.
#[derive(Debug)]
pub enum Incoming {
    /// Of a request, over HTTP/1.
    Http1(hyper::body::Incoming),
    /// Of a response, over HTTP/1.
    Answering(Answering),
    /// Over HTTP/2.
    Http2(Received),
    /// There is none: the request is an extended CONNECT (RFC 8441), which offers its stream for another protocol.
    Offer(Offer),
    /// There is none, or none any more.
    Nothing,
}

impl Incoming {
    /// Takes the stream that an extended CONNECT (RFC 8441) offers, if this is of one.
    pub fn take_offer(&mut self) -> Option<Offer> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Offer(offer) => Some(offer),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Takes the tunnel that an extended CONNECT (RFC 8441) opened, if this is the answer to one; nothing is left of the body then.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Http2(received) => match received.into_tunnel() {
                Ok(tunnel) => Some(tunnel),
                Err(received) => {
                    *self = Self::Http2(received);
                    None
                }
            },
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::Request))),
            Self::Answering(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::Http1))),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
            Self::Offer(_) | Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Answering(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Offer(_) | Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Answering(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Offer(_) | Self::Nothing => SizeHint::with_exact(0),
        }
    }
}
