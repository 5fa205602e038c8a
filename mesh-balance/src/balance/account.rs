use super::now;
use crate::core::{Outcome, Pick};

/// Decides when a request has ended and what it came to.
///
/// It is given the response and the guard of the request, and passes the response on, wrapped if it has to see its end.
/// A guard that is dropped counts as a cancelled request.
pub trait Account<Response, S> {
    /// What the caller gets.
    type Response;

    /// Takes the response over.
    fn account(&self, response: Response, pick: Pick<S>) -> Self::Response;
}

/// A request ends with its response, and every response is a success. For protocols whose responses arrive whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct UntilResponse;

impl<Response, S> Account<Response, S> for UntilResponse {
    type Response = Response;

    fn account(&self, response: Response, pick: Pick<S>) -> Response {
        pick.finish(now(), Outcome::Success);
        response
    }
}
