use super::{Error, Guard, Judge, Rejected};
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project! {
    /// A call through a [`Breaking`](super::Breaking). Dropped before it is done, the request was cancelled.
    pub struct ResponseFuture<F, J, E> {
        #[pin]
        state: State<F, J>,
        error: PhantomData<fn() -> E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, J> {
        Admitted { #[pin] future: F, judge: J, guard: Option<Guard> },
        Rejected { rejected: Rejected },
    }
}

impl<F, J, E> ResponseFuture<F, J, E> {
    pub(super) fn admitted(future: F, judge: J, guard: Guard) -> Self {
        let guard = Some(guard);
        Self {
            state: State::Admitted {
                future,
                judge,
                guard,
            },
            error: PhantomData,
        }
    }

    pub(super) fn rejected(rejected: Rejected) -> Self {
        Self {
            state: State::Rejected { rejected },
            error: PhantomData,
        }
    }
}

impl<F, J, R, E> Future for ResponseFuture<F, J, E>
where
    F: Future<Output = Result<R, E>>,
    J: Judge<R, E>,
{
    type Output = Result<J::Response, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Rejected { rejected } => Poll::Ready(Err(Error::Rejected(*rejected))),
            StateProjection::Admitted {
                future,
                judge,
                guard,
            } => {
                let result = ready!(future.poll(cx));
                let guard = guard.take().expect("a future is not polled after its end");
                Poll::Ready(judge.judge(result, guard).map_err(Error::Inner))
            }
        }
    }
}

impl<F, J, E> fmt::Debug for ResponseFuture<F, J, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
