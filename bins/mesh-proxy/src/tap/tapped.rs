//! One request that is observed, until its response has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Body as _, Frame, SizeHint};
use linkerd2_proxy_api::tap::tap_event::http::StreamId;
use linkerd2_proxy_api::tap::{TapEvent, eos};
use mesh_http::Broken;
use mesh_http::body::Observe;

use super::event::{self, Ended};
use super::observer::Observer;
use crate::worker::body::{BodyError, ResponseBody};

/// A request that is observed. Dropped before its response has ended, it was cancelled.
#[derive(Debug)]
pub(crate) struct Tapped {
    takers: Vec<Arc<Observer>>,
    base: TapEvent,
    id: StreamId,
    begun: Instant,
    answered: Option<Instant>,
    bytes: u64,
    /// The status of a gRPC response that is a head alone.
    grpc_status: Option<u32>,
    ended: bool,
}

/// A response's body that is observed.
#[derive(Debug)]
pub(crate) struct Body<O: Observe> {
    body: ResponseBody<O>,
    tapped: Box<Tapped>,
}

impl Tapped {
    pub(super) fn new(takers: Vec<Arc<Observer>>, base: TapEvent, id: StreamId) -> Self {
        Self {
            takers,
            base,
            id,
            begun: Instant::now(),
            answered: None,
            bytes: 0,
            grpc_status: None,
            ended: false,
        }
    }

    /// Tells of `response`, its end included, that the proxy gives itself or passes on.
    pub(crate) fn answer<O: Observe + Unpin>(
        mut self: Box<Self>,
        response: Response<ResponseBody<O>>,
    ) -> Response<ResponseBody<O>> {
        self.responded(&response);
        self.watch(response)
    }

    /// Tells of the head of `response`.
    pub(crate) fn responded<B>(&mut self, response: &Response<B>) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.begun);
        self.answered = Some(now);
        self.grpc_status = grpc_status(response.headers());
        for observer in &self.takers {
            observer.tell(&self.base, |headers| {
                event::response_init(response, self.id, since, headers)
            });
        }
    }

    /// Tells of the end of `response`, the head of which was told of, when it has come.
    pub(crate) fn watch<O: Observe + Unpin>(
        mut self: Box<Self>,
        response: Response<ResponseBody<O>>,
    ) -> Response<ResponseBody<O>> {
        if response.body().is_end_stream() {
            self.complete(None);
            return response;
        }
        response.map(|body| ResponseBody::Tapped(Box::new(Body { body, tapped: self })))
    }

    /// The response is not passed on; what is known of its trailers is this.
    pub(crate) fn discarded(mut self: Box<Self>, trailers: Option<&HeaderMap>) {
        self.complete(trailers);
    }

    /// There is no response: the endpoint, or the way to it, broke.
    pub(crate) fn broke(mut self: Box<Self>) {
        self.end(Some(reset(h2::Reason::INTERNAL_ERROR)), None);
    }

    fn complete(&mut self, trailers: Option<&HeaderMap>) {
        let status = trailers.and_then(grpc_status).or(self.grpc_status);
        self.end(status.map(eos::End::GrpcStatusCode), trailers);
    }

    fn failed(&mut self, error: &BodyError) {
        let reason = match error {
            BodyError::Client(error) => reason(error),
            _ => h2::Reason::CANCEL,
        };
        self.end(Some(reset(reason)), None);
    }

    fn end(&mut self, end: Option<eos::End>, trailers: Option<&HeaderMap>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = Instant::now();
        let ended = Ended {
            since_request: now.saturating_duration_since(self.begun),
            since_response: self
                .answered
                .map(|answered| now.saturating_duration_since(answered)),
            bytes: self.bytes,
            end,
            trailers,
        };
        for observer in &self.takers {
            observer.tell(&self.base, |headers| {
                event::response_end(ended, self.id, headers)
            });
        }
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.end(Some(reset(h2::Reason::CANCEL)), None);
    }
}

impl<O: Observe + Unpin> Body<O> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.tapped.bytes += bytes as u64;
                if let Some(trailers) = frame.trailers_ref() {
                    self.tapped.complete(Some(trailers));
                } else if self.body.is_end_stream() {
                    self.tapped.complete(None);
                }
            }
            Some(Err(error)) => self.tapped.failed(error),
            None => self.tapped.complete(None),
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    mesh_breaker::grpc_status(fields).map(u32::from)
}

/// Why an HTTP/2 stream was reset. HTTP/1 has no such word: what breaks off there is an error within the connection.
fn reason(error: &Broken) -> h2::Reason {
    let reason = match error {
        Broken::Http2(error) => error.reason(),
        _ => None,
    };
    reason.unwrap_or(h2::Reason::INTERNAL_ERROR)
}

fn reset(reason: h2::Reason) -> eos::End {
    eos::End::ResetErrorCode(reason.into())
}
