use super::{BROKEN, Guard, Judge};
use crate::{AtHeaders, Classify, Outcome};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

/// An HTTP request lasts until the body or the trailers of its response have ended; `C` says what it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct UntilBodyEnd<C>(C);

impl<C> UntilBodyEnd<C> {
    pub(super) fn new(classify: C) -> Self {
        Self(classify)
    }
}

impl<B: Body, E, C: Classify + Clone> Judge<Response<B>, E> for UntilBodyEnd<C> {
    type Response = Response<TrackedBody<B, C>>;

    fn judge(&self, result: Result<Response<B>, E>, guard: Guard) -> Result<Self::Response, E> {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                guard.finish(BROKEN);
                return Err(error);
            }
        };
        let (head, body) = response.into_parts();
        let verdict = self
            .0
            .at_headers(head.status, &head.headers, SystemTime::now());
        let mut request = Request {
            guard: Some(guard),
            verdict,
            classify: self.0.clone(),
        };
        if body.is_end_stream() {
            request.end(None);
        }
        Ok(Response::from_parts(head, TrackedBody { body, request }))
    }
}

pin_project! {
    /// A response body that ends its request when it ends, fails or is dropped.
    ///
    /// Dropped early, a response whose headers decided counts for what they said, any other as cancelled.
    #[derive(Debug)]
    pub struct TrackedBody<B, C: Classify> {
        #[pin]
        body: B,
        request: Request<C>,
    }
}

impl<B: Body, C: Classify> Body for TrackedBody<B, C> {
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
            Some(Err(_)) => this.request.finish(BROKEN),
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
struct Request<C: Classify> {
    /// Until the request has ended.
    guard: Option<Guard>,
    verdict: AtHeaders,
    classify: C,
}

impl<C: Classify> Request<C> {
    /// The response has arrived whole.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.finish(match self.verdict {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => self.classify.at_end(trailers, SystemTime::now()),
        });
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(guard) = self.guard.take() {
            guard.finish(outcome);
        }
    }
}

impl<C: Classify> Drop for Request<C> {
    fn drop(&mut self) {
        self.finish(match self.verdict {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => Outcome::Cancelled,
        });
    }
}
