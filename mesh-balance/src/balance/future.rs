use super::{Account, now};
use crate::core::{FailureKind, Outcome, Pick};
use crate::{BoxError, Error};
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

pin_project! {
    /// A call through a [`Balance`](super::Balance). Dropped before it is done, the request was cancelled.
    pub struct ResponseFuture<S, A, Request>
    where
        S: Service<Request>,
    {
        account: Option<A>,
        request: Option<Request>,
        pick: Option<Pick<S>>,
        #[pin]
        stage: Stage<S, S::Future>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S, F> {
        Waiting { found: Found<S> },
        Ready { service: S },
        Calling { #[pin] future: F },
        Failed { error: Option<Error> },
    }
}

type Found<S> = Pin<Box<dyn Future<Output = Result<Pick<S>, Error>> + Send>>;

impl<S, A, Request> ResponseFuture<S, A, Request>
where
    S: Service<Request> + Clone,
{
    pub(super) fn picked(pick: Pick<S>, request: Request, account: A) -> Self {
        let stage = Stage::Ready {
            service: pick.endpoint().clone(),
        };
        Self {
            account: Some(account),
            request: Some(request),
            pick: Some(pick),
            stage,
        }
    }

    pub(super) fn waiting(found: Found<S>, request: Request, account: A) -> Self {
        Self {
            account: Some(account),
            request: Some(request),
            pick: None,
            stage: Stage::Waiting { found },
        }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self {
            account: None,
            request: None,
            pick: None,
            stage: Stage::Failed { error: Some(error) },
        }
    }
}

impl<S, A, Request> Future for ResponseFuture<S, A, Request>
where
    S: Service<Request> + Clone,
    S::Error: Into<BoxError>,
    A: Account<S::Response, S>,
{
    type Output = Result<A::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProjection::Waiting { found } => {
                    let pick = ready!(found.as_mut().poll(cx))?;
                    let service = pick.endpoint().clone();
                    *this.pick = Some(pick);
                    Stage::Ready { service }
                }
                StageProjection::Ready { service } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(fail(this.pick, FailureKind::Connect, error)));
                    }
                    let request = this
                        .request
                        .take()
                        .expect("a future is not polled after its end");
                    Stage::Calling {
                        future: service.call(request),
                    }
                }
                StageProjection::Calling { future } => {
                    return Poll::Ready(match ready!(future.poll(cx)) {
                        Ok(response) => {
                            let pick = this
                                .pick
                                .take()
                                .expect("a future is not polled after its end");
                            let account =
                                this.account.take().expect("taken together with the pick");
                            Ok(account.account(response, pick))
                        }
                        Err(error) => Err(fail(this.pick, FailureKind::Broken, error)),
                    });
                }
                StageProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().unwrap_or(Error::Exhausted)));
                }
            };
            this.stage.set(next);
        }
    }
}

impl<S, A, Request> fmt::Debug for ResponseFuture<S, A, Request>
where
    S: Service<Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("slot", &self.pick.as_ref().map(Pick::slot))
            .finish_non_exhaustive()
    }
}

fn fail<S>(pick: &mut Option<Pick<S>>, kind: FailureKind, error: impl Into<BoxError>) -> Error {
    if let Some(pick) = pick.take() {
        pick.finish(now(), Outcome::Failure(kind));
    }
    Error::Endpoint(error.into())
}
