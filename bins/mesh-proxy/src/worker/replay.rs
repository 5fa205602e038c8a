//! A request's body that can be sent again: what passes is kept, up to a limit, while it is streamed.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use mesh_http::Incoming;
use mesh_http::connections::InFlight;
use mesh_http::headers;
use tokio::time::Instant;

use super::body::{BodyError, Progress};

/// The body as the client sends it, and what was kept of it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Rc<Shared>);

/// One sending of the body. Of several, the one that took it over last goes on; the others break off.
#[derive(Debug)]
pub(crate) struct Replay {
    kept: Kept,
    reader: u32,
    /// How many of the kept pieces were sent.
    pieces: usize,
    sent_bytes: u64,
    /// Whether the trailers were sent.
    trailed: bool,
}

#[derive(Debug)]
struct Shared {
    state: RefCell<State>,
    progress: Rc<Progress>,
    length: Option<u64>,
}

#[derive(Debug)]
struct State {
    source: Incoming,
    _in_flight: InFlight,
    /// The sending that has the body.
    reader: u32,
    /// The last sending that was made.
    newest: u32,
    waiting: Option<Waker>,
    /// What was sent before the body was last taken over.
    pieces: Vec<Bytes>,
    /// What was sent since.
    tail: BytesMut,
    trailers: Option<HeaderMap>,
    kept_bytes: usize,
    limit_bytes: usize,
    /// More came than may be kept, or the client broke off: the body cannot be sent again.
    lost: bool,
    /// The client has sent all.
    ended: bool,
}

impl Kept {
    /// Keeps up to `limit_bytes` of `source`.
    pub(super) fn new(
        source: Incoming,
        progress: Rc<Progress>,
        in_flight: InFlight,
        limit_bytes: usize,
    ) -> Self {
        Self(Rc::new(Shared {
            length: source.size_hint().exact(),
            progress,
            state: RefCell::new(State {
                source,
                _in_flight: in_flight,
                reader: 0,
                newest: 0,
                waiting: None,
                pieces: Vec::new(),
                tail: BytesMut::new(),
                trailers: None,
                kept_bytes: 0,
                limit_bytes,
                lost: false,
                ended: false,
            }),
        }))
    }

    /// Whether the whole body can be sent again, what is yet to come included.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.state.borrow().lost
    }

    /// The body from its beginning.
    pub(crate) fn replay(&self) -> Replay {
        let mut state = self.0.state.borrow_mut();
        state.newest += 1;
        Replay {
            kept: self.clone(),
            reader: state.newest,
            pieces: 0,
            sent_bytes: 0,
            trailed: false,
        }
    }
}

impl Replay {
    /// Takes the body over from an earlier sending, which breaks off. `false` when too much of it has passed.
    pub(crate) fn take_over(&self) -> bool {
        let Shared {
            state, progress, ..
        } = &*self.kept.0;
        let mut state = state.borrow_mut();
        if state.lost {
            return false;
        }
        if !state.tail.is_empty() {
            let tail = state.tail.split().freeze();
            state.pieces.push(tail);
        }
        state.reader = self.reader;
        let nothing = state.ended && state.pieces.is_empty() && state.trailers.is_none();
        progress.restart(Instant::now(), nothing);
        if let Some(earlier) = state.waiting.take() {
            earlier.wake();
        }
        true
    }

    /// From its beginning again, once it is taken over.
    pub(super) fn rewind(&mut self) {
        self.pieces = 0;
        self.sent_bytes = 0;
        self.trailed = false;
    }

    /// How far the sending has come.
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.kept.0.progress
    }

    /// The next of what was kept.
    fn kept_frame(&mut self, state: &State) -> Option<Frame<Bytes>> {
        if let Some(piece) = state.pieces.get(self.pieces) {
            self.pieces += 1;
            return Some(Frame::data(piece.clone()));
        }
        if !state.ended || self.trailed {
            return None;
        }
        state.trailers.clone().map(Frame::trailers)
    }

    fn has_ended(&self, state: &State) -> bool {
        state.ended
            && self.pieces >= state.pieces.len()
            && (self.trailed || state.trailers.is_none())
    }
}

impl State {
    /// The next of what the client sends; kept if there is room.
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.waiting {
            Some(waiting) => waiting.clone_from(cx.waker()),
            waiting @ None => *waiting = Some(cx.waker().clone()),
        }
        let mut frame = ready!(Pin::new(&mut self.source).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::remove_client_id(trailers);
                    self.trailers = Some(trailers.clone());
                    self.ended = true;
                } else if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                self.ended |= self.source.is_end_stream();
            }
            Some(Err(_)) => self.lose(),
            None => self.ended = true,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn keep(&mut self, bytes: &Bytes) {
        if self.lost {
            return;
        }
        self.kept_bytes = self.kept_bytes.saturating_add(bytes.len());
        if self.kept_bytes > self.limit_bytes {
            self.lose();
        } else {
            // Copied, as a piece may be a small part of a large buffer that it would hold on to.
            self.tail.extend_from_slice(bytes);
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.pieces = Vec::new();
        self.tail = BytesMut::new();
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let kept = this.kept.clone();
        let state = &mut *kept.0.state.borrow_mut();
        if state.reader != this.reader {
            return Poll::Ready(Some(Err(BodyError::SentAnew)));
        }
        let frame = match this.kept_frame(state) {
            Some(frame) => Some(Ok(frame)),
            None if state.ended => None,
            None => ready!(state.poll_source(cx)),
        };
        if let Some(Ok(frame)) = &frame {
            this.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            this.trailed |= frame.is_trailers();
        }
        let progress = this.progress();
        progress.passed();
        if frame.is_none() || this.has_ended(state) {
            progress.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.kept.0.state.borrow();
        state.reader == self.reader && self.has_ended(&state)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = |length: u64| length.saturating_sub(self.sent_bytes);
        self.kept.0.length.map_or_else(SizeHint::default, |length| {
            SizeHint::with_exact(rest(length))
        })
    }
}
