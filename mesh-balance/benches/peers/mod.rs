//! tower's `p2c::Balance` over its `PeakEwma`, through their public interface, on the real clock.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};

#[derive(Debug)]
pub(crate) struct Tower {
    balance: Balance<Endpoints, ()>,
}

type Endpoints = ServiceList<Vec<PeakEwma<Numbered>>>;

impl Tower {
    pub(crate) fn new(endpoints: usize) -> Self {
        let tracked = |number| {
            let rtt = Duration::from_millis(30);
            PeakEwma::new(Numbered(number), rtt, 1e10, CompleteOnResponse::default())
        };
        let endpoints: Vec<_> = (0..endpoints).map(tracked).collect();
        Self {
            balance: Balance::new(ServiceList::new(endpoints)),
        }
    }

    /// One request, which is answered at once.
    pub(crate) fn call(&mut self) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            // The first times it takes in what was discovered, a part at a time.
            if let Poll::Ready(Ok(())) = self.balance.poll_ready(&mut context) {
                break;
            }
        }
        let mut call = std::pin::pin!(self.balance.call(()));
        loop {
            if let Poll::Ready(Ok(number)) = Pin::as_mut(&mut call).poll(&mut context) {
                return number;
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Numbered(usize);

impl Service<()> for Numbered {
    type Response = usize;
    type Error = Infallible;
    type Future = Ready<Result<usize, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}
