use super::{Error, Judge, Rejected, ResponseFuture, Shared, now};
use crate::{Refused, State};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tower_service::Service;

/// A service with a breaker around it; see [`BreakerLayer`](super::BreakerLayer).
pub struct Breaking<S, J> {
    inner: S,
    shared: Arc<Shared>,
    judge: J,
    wait: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<S, J> Breaking<S, J> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, judge: J, wait: bool) -> Self {
        Self {
            inner,
            shared,
            judge,
            wait,
            sleep: None,
        }
    }

    /// Where the breaker stands.
    pub fn state(&self) -> State {
        self.shared.breaker.state()
    }

    /// Waits until a request would be admitted. Takes no place: who is ready need not call.
    fn poll_admits(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let Err(refused) = self.shared.breaker.check(now()) else {
                return Poll::Ready(());
            };
            let wait = until(refused).unwrap_or(WHILE_PROBED);
            let wait = wait.max(Duration::from_millis(1));
            self.sleep = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }
}

impl<S, J, Request> Service<Request> for Breaking<S, J>
where
    S: Service<Request>,
    J: Judge<S::Response, S::Error> + Clone,
{
    type Response = J::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future, J, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The breaker first: what the service keeps for the call is not kept while it is open.
        if self.wait {
            ready!(self.poll_admits(cx));
        }
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.shared.admit() {
            Ok(guard) => {
                ResponseFuture::admitted(self.inner.call(request), self.judge.clone(), guard)
            }
            Err(refused) => ResponseFuture::rejected(Rejected {
                retry_after: until(refused),
            }),
        }
    }
}

impl<S: Clone, J: Clone> Clone for Breaking<S, J> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.shared.clone(),
            self.judge.clone(),
            self.wait,
        )
    }
}

impl<S: fmt::Debug, J> fmt::Debug for Breaking<S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaking")
            .field("inner", &self.inner)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

fn until(refused: Refused) -> Option<Duration> {
    match refused {
        Refused::Open { until } => Some(until.saturating_duration_since(now())),
        Refused::ProbeInFlight => None,
    }
}

/// How often it is looked whether a probe has ended.
const WHILE_PROBED: Duration = Duration::from_millis(20);
