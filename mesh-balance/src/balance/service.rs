use super::future::ResponseFuture;
use super::{Account, Builder, UntilResponse, now};
use crate::core::{Pick, PickError, Picker};
use crate::{BoxError, Error};
use futures_core::Stream;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tower::discover::Change;
use tower_service::Service;

/// Sends each call to one of the discovered endpoints.
///
/// An endpoint is a service that is `Clone`, as tonic's `Channel` or hyper-util's `Client` are: a call clones it, waits
/// until the clone is ready and calls it. There is no lock, no queue and no task in between. A balance is always ready;
/// while no endpoint is known, its calls wait, up to [`Builder::empty_timeout`].
#[derive(Debug)]
pub struct Balance<S, A = UntilResponse> {
    picker: Picker<S>,
    any_endpoint: watch::Receiver<bool>,
    empty_timeout: Duration,
    account: A,
}

impl Balance<()> {
    /// Balances over what `discovery` finds.
    pub fn builder<D, K, S, E>(discovery: D) -> Builder<D, K, S>
    where
        D: Stream<Item = Result<Change<K, S>, E>>,
    {
        Builder::new(discovery)
    }
}

impl<S, A> Balance<S, A> {
    pub(super) fn new(
        picker: Picker<S>,
        any_endpoint: watch::Receiver<bool>,
        empty_timeout: Duration,
        account: A,
    ) -> Self {
        Self {
            picker,
            any_endpoint,
            empty_timeout,
            account,
        }
    }

    /// What the calls pick from, for statistics.
    pub fn picker(&self) -> &Picker<S> {
        &self.picker
    }
}

impl<S, A: Clone> Clone for Balance<S, A> {
    fn clone(&self) -> Self {
        Self {
            picker: self.picker.clone(),
            any_endpoint: self.any_endpoint.clone(),
            empty_timeout: self.empty_timeout,
            account: self.account.clone(),
        }
    }
}

impl<S, A, Request> Service<Request> for Balance<S, A>
where
    S: Service<Request> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    A: Account<S::Response, S> + Clone,
{
    type Response = A::Response;
    type Error = Error;
    type Future = ResponseFuture<S, A, Request>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let account = self.account.clone();
        match pick(&self.picker) {
            Ok(pick) => ResponseFuture::picked(pick, request, account),
            Err(PickError::Empty) => {
                let found = wait(
                    self.picker.clone(),
                    self.any_endpoint.clone(),
                    self.empty_timeout,
                );
                ResponseFuture::waiting(Box::pin(found), request, account)
            }
            Err(error) => ResponseFuture::failed(error.into()),
        }
    }
}

fn pick<S>(picker: &Picker<S>) -> Result<Pick<S>, PickError> {
    picker.pick(now(), fastrand::u64(..), &[])
}

/// Picks once there is an endpoint.
async fn wait<S>(
    picker: Picker<S>,
    mut any_endpoint: watch::Receiver<bool>,
    timeout: Duration,
) -> Result<Pick<S>, Error> {
    let start = tokio::time::Instant::now();
    let found = async {
        loop {
            // Fails when the driver has ended, after which the set no longer changes.
            let ended = any_endpoint.wait_for(|any| *any).await.is_err();
            match pick(&picker) {
                Ok(pick) => return Some(Ok(pick)),
                Err(PickError::Empty) if ended => return None,
                // The endpoint that came has gone again: wait for what the driver says next.
                Err(PickError::Empty) => any_endpoint.changed().await.ok()?,
                Err(error) => return Some(Err(error.into())),
            }
        }
    };
    let found = tokio::time::timeout(timeout, found).await.ok().flatten();
    found.unwrap_or_else(|| {
        Err(Error::NoEndpoints {
            waited: start.elapsed(),
        })
    })
}
