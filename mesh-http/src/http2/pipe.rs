//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

/// The most bytes of a body that are kept until the head of the response has come.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// A body and where it goes, one frame at a time: the next one is asked for when there is room for it.
pub(crate) struct Pipe<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// A frame that waits for room, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    taken: Taken,
    done: bool,
    /// Why the stream is reset where the body breaks off.
    failure: Reason,
}

/// What was taken out of a body.
enum Taken {
    Nothing,
    /// The whole of most bodies that are short.
    One(Bytes),
    /// More than is kept, or nobody asks any more.
    More,
}

/// The stream takes no more: its response tells why.
struct Ended;

impl<B> Pipe<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// That of a request, whose body [`Self::into_body`] may give back.
    pub(crate) fn of_request(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            waiting: None,
            taken: Taken::Nothing,
            done: false,
            failure: Reason::CANCEL,
        }
    }

    /// That of a response.
    pub(crate) fn of_response(body: B, stream: SendStream<Bytes>) -> Self {
        Self {
            taken: Taken::More,
            failure: Reason::INTERNAL_ERROR,
            ..Self::of_request(body, stream)
        }
    }

    /// Ready when the body was sent in full, or cannot be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Ready(());
        }
        let polled = match self.advance(cx) {
            Poll::Ready(Ok(()) | Err(Ended)) => Poll::Ready(()),
            // Whatever it waits for, a server that wants no more of it ends the wait.
            Poll::Pending => self.stream.poll_reset(cx).map(|_| ()),
        };
        self.done = polled.is_ready();
        polled
    }

    /// Whether the body was sent in full, or cannot be.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// What was taken out of the body is of no use any more.
    pub(crate) fn forget(&mut self) {
        self.taken = Taken::More;
    }

    /// The body, and what was taken out of it, where that is all still there.
    pub(crate) fn into_body(self) -> Option<(B, Option<Bytes>)> {
        match self.taken {
            Taken::Nothing => Some((self.body, None)),
            Taken::One(first) => Some((self.body, Some(first))),
            Taken::More => None,
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
                    self.taken = Taken::More;
                    self.stream.send_reset(self.failure);
                    return Poll::Ready(Err(Ended));
                }
                None => {
                    let ended = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(ended.map_err(|_| Ended));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    self.take(&data);
                    let last = self.body.is_end_stream();
                    // A frame without bytes says nothing unless it is the last.
                    if last || !data.is_empty() {
                        self.waiting = Some((data, last));
                    }
                }
                Err(frame) => {
                    self.taken = Taken::More;
                    let Ok(trailers) = frame.into_trailers() else {
                        continue;
                    };
                    let ended = self.stream.send_trailers(trailers);
                    return Poll::Ready(ended.map_err(|_| Ended));
                }
            }
        }
    }

    fn take(&mut self, data: &Bytes) {
        if data.is_empty() {
            return;
        }
        self.taken = match self.taken {
            Taken::Nothing if data.len() <= MAX_KEPT_BYTES => Taken::One(data.clone()),
            _ => Taken::More,
        };
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
