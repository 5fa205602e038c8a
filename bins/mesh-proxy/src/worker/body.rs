//! The bodies that pass through a worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::{Body, Frame, SizeHint};
use mesh_http::body::{End, Observe, Observed, Short};
use mesh_http::connections::{Activity, InFlight};
use mesh_http::headers;
use mesh_http::{Broken, Incoming, Tunnel};
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::expect::{Gate, Key};
use super::replay::{Kept, Replay};
use crate::tap;

/// A request's body on its way to an endpoint.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    /// There is none, as in most requests.
    #[default]
    Empty,
    /// One that is streamed, and whose end is noted.
    Streaming {
        /// What was taken out of it for a server that did nothing with it.
        put_back: Option<Box<Bytes>>,
        body: Incoming,
        progress: Rc<Progress>,
        /// Where it waits until the server asks for it, when the client does.
        gate: Option<Gate>,
        /// The body may come in still when the response has ended: it is no head then.
        _in_flight: InFlight,
    },
    /// One that can be sent again.
    Replay(Replay),
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    ended: Cell<bool>,
    /// When a deadline depends on it: when the last frame passed.
    moved: Cell<Option<Instant>>,
    waiting: RefCell<Option<Waker>>,
}

impl RequestBody {
    /// A request on the connection that `activity` is of, with its body to be sent on.
    pub(crate) fn of(request: Request<Incoming>, activity: &Activity) -> Request<Self> {
        let expects = headers::expects_continue(request.version(), request.headers());
        let mut request = request.map(|body| Self::new(body, activity));
        if expects && let Self::Streaming { gate, .. } = request.body_mut() {
            *gate = Some(Gate::new());
        }
        request
    }

    fn new(body: Incoming, activity: &Activity) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Streaming {
                put_back: None,
                body,
                progress: Rc::default(),
                gate: None,
                _in_flight: activity.request(),
            }
        }
    }

    /// What opens the gate it waits at, if it does.
    pub(crate) fn gate(&self) -> Option<Key> {
        match self {
            Self::Streaming { gate, .. } => gate.as_ref().map(Gate::key),
            Self::Empty | Self::Replay(_) => None,
        }
    }

    /// The body in a form that can be sent again, when that is not more than `limit_bytes`. A body that announces more stays as it
    /// is, and so does one that waits to be asked for; no body can be sent again anyway.
    pub(crate) fn keep(self, limit_bytes: usize) -> (Self, Option<Kept>) {
        match self {
            Self::Streaming {
                put_back: None,
                body,
                progress,
                gate: None,
                _in_flight,
            } if body.size_hint().lower() <= limit_bytes as u64 => {
                let kept = Kept::new(body, progress, _in_flight, limit_bytes);
                (Self::Replay(kept.replay()), Some(kept))
            }
            other => (other, None),
        }
    }

    /// The body is about to be sent, from its beginning. `false` when too much of it has passed for that.
    pub(crate) fn take_over(&self) -> bool {
        match self {
            Self::Empty | Self::Streaming { .. } => true,
            Self::Replay(replay) => replay.take_over(),
        }
    }

    /// The body is to be sent from its beginning again: `taken` is what is missing there.
    pub(crate) fn put_back(&mut self, taken: Option<Bytes>) {
        match self {
            Self::Empty => {}
            Self::Streaming {
                put_back, progress, ..
            } => {
                // Where nothing was taken, what was put back before is still there.
                if let Some(taken) = taken {
                    *put_back = Some(Box::new(taken));
                }
                progress.restart(Instant::now(), false);
            }
            Self::Replay(replay) => replay.rewind(),
        }
    }

    /// The body's progress, when it has one to make.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Streaming { progress, .. } => Some(progress.clone()),
            Self::Replay(replay) => Some(replay.progress().clone()),
        }
    }
}

impl Progress {
    /// That of a request without a body: it is sent in full with its head, `now`.
    pub(crate) fn ended(now: Instant) -> Rc<Self> {
        let progress = Self::default();
        progress.ended.set(true);
        progress.moved.set(Some(now));
        Rc::new(progress)
    }

    /// The request is sent anew.
    pub(crate) fn restart(&self, now: Instant, ended: bool) {
        self.ended.set(ended);
        if self.moved.get().is_some() {
            self.moved.set(Some(now));
        }
    }

    /// Whether the body was sent in full.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// From now on it is noted when frames pass; it counts as if one did.
    pub(crate) fn watch(&self, now: Instant) {
        self.moved.set(Some(now));
    }

    /// When the last frame passed, once that is watched.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.moved.get()
    }

    /// Whether the body was sent in full; if not, `cx` is woken then.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> bool {
        if !self.ended.get() {
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
        }
        self.ended.get()
    }

    pub(super) fn passed(&self) {
        if self.moved.get().is_some() {
            self.moved.set(Some(Instant::now()));
        }
    }

    pub(super) fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (put_back, body, progress, gate) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Streaming {
                put_back,
                body,
                progress,
                gate,
                ..
            } => (put_back, body, progress, gate),
            Self::Replay(replay) => return Pin::new(replay).poll_frame(cx),
        };
        if let Some(waits) = gate {
            if !ready!(waits.poll_open(cx)) {
                return Poll::Ready(Some(Err(BodyError::Unwanted)));
            }
            *gate = None;
        }
        let mut frame = match put_back.take() {
            Some(first) => Some(Ok(Frame::data(*first))),
            None => ready!(Pin::new(&mut *body).poll_frame(cx)),
        };
        progress.passed();
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            // What a client says of itself counts no more at the end than at the beginning.
            headers::remove_client_id(trailers);
        }
        if frame.is_none() || body.is_end_stream() {
            progress.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { put_back, body, .. } => put_back.is_none() && body.is_end_stream(),
            Self::Replay(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { put_back, body, .. } => {
                let put_back = put_back.as_ref().map_or(0, |bytes| bytes.len());
                longer(body.size_hint(), put_back)
            }
            Self::Replay(replay) => replay.size_hint(),
        }
    }
}

/// What an endpoint sends, of which the first frame may have been looked at.
#[derive(Debug)]
pub(crate) struct Arriving {
    first: Option<Box<Result<Frame<Bytes>, Broken>>>,
    rest: Incoming,
}

impl Arriving {
    /// The trailers of a body that consists of nothing else. Waits for the first frame, which stays the first.
    pub(crate) async fn peek_trailers(&mut self) -> Option<&HeaderMap> {
        if self.first.is_none() && !self.rest.is_end_stream() {
            let frame = poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await;
            self.first = frame.map(Box::new);
        }
        self.peeked_trailers()
    }

    /// Takes the tunnel that the response opened, if it did.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        self.rest.take_tunnel()
    }

    /// The trailers, if they were looked at.
    pub(crate) fn peeked_trailers(&self) -> Option<&HeaderMap> {
        self.first.as_deref()?.as_ref().ok()?.trailers_ref()
    }
}

impl From<Incoming> for Arriving {
    fn from(rest: Incoming) -> Self {
        Self { first: None, rest }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(*first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = match self.first.as_deref() {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        longer(self.rest.size_hint(), read)
    }
}

/// The size of a body before which `bytes` are.
fn longer(mut rest: SizeHint, bytes: usize) -> SizeHint {
    let bytes = bytes as u64;
    match rest.exact() {
        Some(rest_bytes) => rest.set_exact(rest_bytes + bytes),
        None => rest.set_lower(rest.lower() + bytes),
    }
    rest
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody<O: Observe> {
    /// From an endpoint; the deadlines cut it off.
    Upstream {
        body: Observed<Arriving, O>,
        deadlines: Option<Box<Deadlines>>,
        /// Told at the next poll, so that hyper sends on what it has until then; it drops that at an error.
        failed: Option<BodyError>,
    },
    /// From the proxy itself.
    Own(Short),
    /// Any of these, observed.
    Tapped(Box<tap::Body<O>>),
}

/// Why a body broke off.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client's side.
    Client(Broken),
    /// The endpoint's side.
    Endpoint(Broken),
    /// Of a response.
    Deadline,
    /// Of a request that was answered before its body was asked for.
    Unwanted,
    /// Of a request that is sent anew, elsewhere.
    SentAnew,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) | Self::Endpoint(error) => error.fmt(f),
            Self::Deadline => f.write_str("the request's deadline passed"),
            Self::SentAnew => f.write_str("the request is sent anew"),
            Self::Unwanted => f.write_str("the server did not want the request's body"),
        }
    }
}

impl std::error::Error for BodyError {}

impl<O: Observe + Unpin> Body for ResponseBody<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Upstream {
                body,
                deadlines,
                failed,
            } => {
                if let Some(error) = failed.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                let error = match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Err(error))) => BodyError::Endpoint(error),
                    Poll::Ready(frame) => {
                        if let Some(deadlines) = deadlines {
                            deadlines.moved();
                        }
                        return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Endpoint)));
                    }
                    Poll::Pending => {
                        let Some(deadlines) = deadlines else {
                            return Poll::Pending;
                        };
                        ready!(deadlines.poll_passed(cx));
                        body.end(End::Late);
                        BodyError::Deadline
                    }
                };
                *failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Own(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tapped(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream { body, failed, .. } => failed.is_none() && body.is_end_stream(),
            Self::Own(body) => body.is_empty(),
            Self::Tapped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream { body, .. } => body.size_hint(),
            Self::Own(body) => SizeHint::with_exact(body.len() as u64),
            Self::Tapped(body) => body.size_hint(),
        }
    }
}
