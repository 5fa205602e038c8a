//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// A body and where it goes, one frame at a time: the next one is asked for when there is room for it.
pub(super) struct Pipe<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// A frame that waits for room, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

/// The stream takes no more: its response tells why.
struct Ended;

impl<B> Pipe<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            waiting: None,
        }
    }

    /// Ready when the body was sent in full, or cannot be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.advance(cx) {
            Poll::Ready(Ok(()) | Err(Ended)) => Poll::Ready(()),
            // Whatever it waits for, a server that wants no more of it ends the wait.
            Poll::Pending => self.stream.poll_reset(cx).map(|_| ()),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            if let Some((data, last)) = self.waiting.take() {
                if !data.is_empty() && !self.has_room(cx)? {
                    self.waiting = Some((data, last));
                    return Poll::Pending;
                }
                self.stream.send_data(data, last).map_err(|_| Ended)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(Ended));
                }
                None => {
                    let ended = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(ended.map_err(|_| Ended));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    // A frame without bytes says nothing unless it is the last.
                    if last || !data.is_empty() {
                        self.waiting = Some((data, last));
                    }
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else {
                        continue;
                    };
                    let ended = self.stream.send_trailers(trailers);
                    return Poll::Ready(ended.map_err(|_| Ended));
                }
            }
        }
    }

    /// Whether something may be sent. More than there is room for is kept by the stream, so that a single byte's room is asked
    /// for: what is asked for and not used is taken from others' streams.
    fn has_room(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        if self.stream.capacity() > 0 {
            return Ok(true);
        }
        self.stream.reserve_capacity(1);
        loop {
            if self.stream.capacity() > 0 {
                return Ok(true);
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Err(Ended),
                Poll::Pending => return Ok(false),
            }
        }
    }
}
