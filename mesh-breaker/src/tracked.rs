use crate::{AtHeaders, Classify, FailureKind, Outcome};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

/// What is told, once, what a request came to.
pub trait Settle {
    /// The head of the response has come and does not say that the request fails. The rest may take long. Default: nothing.
    fn answering(&mut self) {}

    /// The request has come to this.
    fn settle(self, outcome: Outcome);
}

pin_project! {
    /// A response body that settles its request when it ends, fails or is dropped.
    ///
    /// Dropped early, a response whose headers decided counts for what they said, any other as cancelled.
    #[derive(Debug)]
    pub struct TrackedBody<B, C: Classify, S: Settle> {
        #[pin]
        body: B,
        request: Request<C, S>,
    }
}

impl<B: Body, C: Classify, S: Settle> TrackedBody<B, C, S> {
    /// Follows `response` to its end; `classify` says what it came to, `settle` is told.
    pub fn follow(response: Response<B>, classify: C, mut settle: S) -> Response<Self> {
        let (head, body) = response.into_parts();
        let verdict = classify.at_headers(head.status, &head.headers, SystemTime::now());
        if verdict.may_succeed() {
            settle.answering();
        }
        let mut request = Request {
            settle: Some(settle),
            verdict,
            classify,
        };
        if body.is_end_stream() {
            request.end(None);
        }
        Response::from_parts(head, Self { body, request })
    }
}

impl<B: Body, C: Classify, S: Settle> Body for TrackedBody<B, C, S> {
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
            Some(Err(_)) => this.request.settle(Outcome::Failure(FailureKind::Broken)),
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
struct Request<C: Classify, S: Settle> {
    /// Until the request has ended.
    settle: Option<S>,
    verdict: AtHeaders,
    classify: C,
}

impl<C: Classify, S: Settle> Request<C, S> {
    /// The response has arrived whole.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if self.settle.is_some() {
            self.settle(match self.verdict {
                AtHeaders::Decided(outcome) => outcome,
                AtHeaders::AwaitEnd => self.classify.at_end(trailers, SystemTime::now()),
            });
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(settle) = self.settle.take() {
            settle.settle(outcome);
        }
    }
}

impl<C: Classify, S: Settle> Drop for Request<C, S> {
    fn drop(&mut self) {
        self.settle(match self.verdict {
            AtHeaders::Decided(outcome) => outcome,
            AtHeaders::AwaitEnd => Outcome::Cancelled,
        });
    }
}
