use super::{Account, now};
use crate::core::{Outcome, Pick};
use http::Response;
use http_body::Body;
use mesh_breaker::{Classify, Settle, TrackedBody};

/// An HTTP request is in flight until the body or the trailers of its response have ended; `C` says what it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct UntilBodyEnd<C>(pub(super) C);

impl<B: Body, S, C: Classify + Clone> Account<Response<B>, S> for UntilBodyEnd<C> {
    type Response = Response<TrackedBody<B, C, InFlight<S>>>;

    fn account(&self, response: Response<B>, mut pick: Pick<S>) -> Self::Response {
        pick.responded(now());
        TrackedBody::follow(response, self.0.clone(), InFlight(pick))
    }
}

/// A request that an endpoint has answered, held by the body of the answer.
#[derive(Debug)]
pub struct InFlight<S>(Pick<S>);

impl<S> Settle for InFlight<S> {
    fn answering(&mut self) {
        self.0.answering(now());
    }

    fn settle(self, outcome: Outcome) {
        self.0.finish(now(), outcome);
    }
}
