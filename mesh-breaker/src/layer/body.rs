use super::{BROKEN, Guard, Judge};
use crate::{Classify, Outcome, Settle, TrackedBody};
use http::Response;
use http_body::Body;

/// An HTTP request lasts until the body or the trailers of its response have ended; `C` says what it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct UntilBodyEnd<C>(C);

impl<C> UntilBodyEnd<C> {
    pub(super) fn new(classify: C) -> Self {
        Self(classify)
    }
}

impl<B: Body, E, C: Classify + Clone> Judge<Response<B>, E> for UntilBodyEnd<C> {
    type Response = Response<TrackedBody<B, C, Guard>>;

    fn judge(&self, result: Result<Response<B>, E>, guard: Guard) -> Result<Self::Response, E> {
        match result {
            Ok(response) => Ok(TrackedBody::follow(response, self.0.clone(), guard)),
            Err(error) => {
                guard.finish(BROKEN);
                Err(error)
            }
        }
    }
}

impl Settle for Guard {
    fn answering(&mut self) {
        Self::answering(self);
    }

    fn settle(self, outcome: Outcome) {
        self.finish(outcome);
    }
}
