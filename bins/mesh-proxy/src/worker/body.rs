//! The bodies that pass through a worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use mesh_http::body::{End, Observe, Observed, Short};
use mesh_http::connections::{Activity, InFlight};
use mesh_http::headers;
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::expect::{Gate, Key};

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none, as in most requests.
    Empty,
    /// One that is streamed, and whose end is noted.
    Streaming {
        body: Incoming,
        progress: Rc<Progress>,
        /// Where it waits until the server asks for it, when the client does.
        gate: Option<Gate>,
        /// The body may come in still when the response has ended: it is no head then.
        _in_flight: InFlight,
    },
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
            let (shut, key) = Gate::new();
            *gate = Some(shut);
            hyper::ext::on_informational(&mut request, move |interim| {
                if interim.status() == StatusCode::CONTINUE {
                    key.open();
                }
            });
        }
        request
    }

    fn new(body: Incoming, activity: &Activity) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Streaming {
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
            Self::Empty => None,
        }
    }

    /// The body's progress, when it has one to make.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Streaming { progress, .. } => Some(progress.clone()),
        }
    }
}

impl Progress {
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

    fn passed(&self) {
        if self.moved.get().is_some() {
            self.moved.set(Some(Instant::now()));
        }
    }

    fn end(&self) {
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
        let Self::Streaming {
            body,
            progress,
            gate,
            ..
        } = self.get_mut()
        else {
            return Poll::Ready(None);
        };
        if let Some(waits) = gate {
            if !ready!(waits.poll_open(cx)) {
                return Poll::Ready(Some(Err(BodyError::Unwanted)));
            }
            *gate = None;
        }
        let mut frame = ready!(Pin::new(&mut *body).poll_frame(cx));
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
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Http)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { body, .. } => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody<O: Observe> {
    /// From an endpoint; the deadlines cut it off.
    Upstream {
        body: Observed<Incoming, O>,
        deadlines: Option<Box<Deadlines>>,
        /// Told at the next poll, so that hyper sends on what it has until then; it drops that at an error.
        failed: Option<BodyError>,
    },
    /// From the proxy itself.
    Own(Short),
}

/// Why a body broke off.
#[derive(Debug)]
pub(crate) enum BodyError {
    Http(hyper::Error),
    /// Of a response.
    Deadline,
    /// Of a request that was answered before its body was asked for.
    Unwanted,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Deadline => f.write_str("the request's deadline passed"),
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
                    Poll::Ready(Some(Err(error))) => BodyError::Http(error),
                    Poll::Ready(frame) => {
                        if let Some(deadlines) = deadlines {
                            deadlines.moved();
                        }
                        return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Http)));
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream { body, failed, .. } => failed.is_none() && body.is_end_stream(),
            Self::Own(body) => body.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream { body, .. } => body.size_hint(),
            Self::Own(body) => SizeHint::with_exact(body.len() as u64),
        }
    }
}
