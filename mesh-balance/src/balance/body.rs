use super::{Account, now};
use crate::core::{FailureKind, Outcome, Pick};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use mesh_breaker::{AtHeaders, Classify};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

/// An HTTP request is in flight until the body or the trailers of its response have ended; `C` says what it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct UntilBodyEnd<C>(pub(super) C);

impl<B: Body, S, C: Classify + Clone> Account<Response<B>, S> for UntilBodyEnd<C> {
    type Response = Response<TrackedBody<B, S, C>>;

    fn account(&self, response: Response<B>, mut pick: Pick<S>) -> Self::Response {
        pick.responded(now());
        let (head, body) = response.into_parts();
        let verdict = self
            .0
            .at_headers(head.status, &head.headers, SystemTime::now());
        let request = Request {
            pick: Some(pick),
            verdict,
            classify: self.0.clone(),
        };
        let mut body = TrackedBody { body, request };
        body.end_with_the_body();
        Response::from_parts(head, body)
    }
}

pin_project! {
    /// A response body that ends its request's time in flight when it ends, fails or is dropped.
    ///
    /// Dropped early, a response whose headers decided counts for what they said, any other as cancelled.
    #[derive(Debug)]
    pub struct TrackedBody<B, S, C: Classify> {
        #[pin]
        body: B,
        request: Request<S, C>,
    }
}

impl<B: Body, S, C: Classify> TrackedBody<B, S, C> {
    fn end_with_the_body(&mut self) {
        if self.body.is_end_stream() {
            self.request.end(None);
        }
    }
}

impl<B: Body, S, C: Classify> Body for TrackedBody<B, S, C> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                // The reader may stop at trailers or once the body says that it has ended.
                if let Some(trailers) = frame.trailers_ref() {
                    this.request.end(Some(trailers));
                } else if this.body.is_end_stream() {
                    this.request.end(None);
                }
            }
            Some(Err(_)) => this.request.finish(Outcome::Failure(FailureKind::Broken)),
            None => this.request.end(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug)]
struct Request<S, C: Classify> {
    /// Until the request has ended.
    pick: Option<Pick<S>>,
    verdict: AtHeaders,
    classify: C,
}

impl<S, C: Classify> Request<S, C> {
    /// The response has arrived whole.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if self.pick.is_some() {
            self.finish(match self.verdict {
                AtHeaders::Decided(outcome) => outcome,
                AtHeaders::AwaitEnd => self.classify.at_end(trailers, SystemTime::now()),
            });
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(pick) = self.pick.take() {
            pick.finish(now(), outcome);
        }
    }
}

impl<S, C: Classify> Drop for Request<S, C> {
    fn drop(&mut self) {
        self.finish(match self.verdict {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => Outcome::Cancelled,
        });
    }
}
