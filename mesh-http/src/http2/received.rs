//! What comes in on a stream: a response's body, or the bytes of another protocol.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::state::State;
use crate::Broken;

/// The body of a request or response that comes over HTTP/2.
pub struct Received {
    stream: RecvStream,
    /// How much of it is to come, where that was said.
    left: Option<u64>,
    /// What is left of the request's side where it asked for a tunnel and got it.
    sending: Option<SendStream<Bytes>>,
    data_ended: bool,
    ended: bool,
    state: Rc<State>,
}

/// A stream of an HTTP/2 connection that carries another protocol (RFC 8441).
pub struct Tunnel {
    receiving: RecvStream,
    sending: SendStream<Bytes>,
    /// What came in and was not read yet.
    unread: Bytes,
}

/// A stream that a client offers for another protocol. It is there once a response of success has opened it; where another was
/// sent there is none.
#[derive(Debug)]
pub struct Offer(pub(crate) oneshot::Receiver<Tunnel>);

impl Received {
    /// That of a request, of so many bytes if its head says so.
    pub(crate) fn of_request(stream: RecvStream, length: Option<u64>, state: Rc<State>) -> Self {
        Self {
            left: length,
            ..Self::of_response(stream, None, state)
        }
    }

    pub(crate) fn of_response(
        stream: RecvStream,
        sending: Option<SendStream<Bytes>>,
        state: Rc<State>,
    ) -> Self {
        let ended = sending.is_none() && stream.is_end_stream();
        Self {
            stream,
            left: None,
            sending,
            data_ended: ended,
            ended,
            state,
        }
    }

    /// The tunnel that a CONNECT asked for and that the response opened.
    ///
    /// # Errors
    /// The body itself, where there is none.
    pub(crate) fn into_tunnel(mut self) -> Result<Tunnel, Self> {
        match self.sending.take() {
            Some(sending) => Ok(Tunnel::new(self.stream, sending)),
            None => Err(self),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let data = match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => data,
            // Whatever the reason: what comes after the end, as where a server needs no more of the request (RFC 9113, section 8.1),
            // `h2` keeps to itself.
            Some(Err(error)) => return Poll::Ready(Some(Err(self.state.broken(error)))),
            None => return Poll::Ready(None),
        };
        // It fails only for more than came in.
        let _ = self.stream.flow_control().release_capacity(data.len());
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Broken>> {
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(Ok(trailers)),
            Err(error) => Poll::Ready(Err(self.state.broken(error))),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if !this.data_ended {
            match ready!(this.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.ended = this.stream.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.poll_trailers(cx));
        this.ended = true;
        Poll::Ready(
            trailers
                .map(|trailers| trailers.map(Frame::trailers))
                .transpose(),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.ended => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Tunnel {
    pub(crate) fn new(receiving: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self {
            receiving,
            sending,
            unread: Bytes::new(),
        }
    }
}

impl Future for Offer {
    type Output = Option<Tunnel>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tunnel>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receiving.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    return match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Poll::Ready(Ok(())),
                        _ => Poll::Ready(Err(io_error(error))),
                    };
                }
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        // It fails only for more than came in.
        let _ = self.receiving.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sending.reserve_capacity(bytes.len());
        let room = loop {
            match self.sending.capacity() {
                0 => match ready!(self.sending.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                room => break room,
            }
        };
        let length = room.min(bytes.len());
        let data = Bytes::copy_from_slice(&bytes[..length]);
        match self.sending.send_data(data, false) {
            Ok(()) => Poll::Ready(Ok(length)),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task sends it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.sending.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io_error))
    }
}

fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
