//! Requests that are sent again when they fail, as their route says.
//!
//! The body is kept while the first try streams it. A try that fails is followed by another, on another endpoint if there is
//! one, as long as the route, the budget and what was kept of the body allow; the answer to the last is passed on.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderMap, Request};
use mesh_breaker::hints::retry_hint;
use mesh_policy::StatusSet;
use mesh_policy::outbound::Timeouts;
use mesh_policy::outbound::retry::{RetryBudget, RetryPolicy};
use tokio::time::{Instant, sleep, timeout};

use super::choose::Tried;
use super::exchange::{Answered, Exchange};
use crate::worker::answer::{Form, Refusal, is_grpc};
use crate::worker::body::{Arriving, Progress, RequestBody};
use crate::worker::deadlines::Deadlines;
use crate::worker::replay::Kept;

/// How long the first frame after the head of an answer is waited for while the client is still sending.
const TRAILERS_PATIENCE: Duration = Duration::from_millis(50);

/// How one request is sent again.
pub(super) struct Retrying<'a> {
    pub(super) exchange: &'a Exchange<'a>,
    pub(super) policy: RetryPolicy,
    pub(super) budget: &'a RetryBudget,
    pub(super) timeouts: Timeouts,
    /// Which statuses the route calls failures, if it says.
    pub(super) failures: Option<&'a StatusSet>,
    /// In which form the client is answered.
    pub(super) form: Form,
}

/// What each try begins with.
struct Original {
    head: Parts,
    /// `None` where there is no body.
    body: Option<Kept>,
    progress: Rc<Progress>,
}

impl Retrying<'_> {
    /// Sends `request` until it is answered well, or may not be sent again.
    pub(super) async fn run(self, request: Request<RequestBody>) -> Result<Box<Answered>, Refusal> {
        let (head, body) = request.into_parts();
        self.budget.deposit(std::time::Instant::now());
        let (body, kept) = body.keep(self.policy.max_request_bytes);
        let mut request = Request::from_parts(head, body);
        if kept.is_none() && !matches!(request.body(), RequestBody::Empty) {
            // Too large to be kept.
            return self.exchange.run(&mut request, self.timeouts).await;
        }
        let progress = request.body().progress();
        let original = Original {
            progress: progress.unwrap_or_else(|| Progress::ended(Instant::now())),
            head: request.into_parts().0,
            body: kept,
        };
        let progress = Some(original.progress.clone());
        let Some(mut deadlines) = Deadlines::new(self.timeouts, progress) else {
            return self.tries(&original).await;
        };
        let answered = tokio::select! {
            answered = self.tries(&original) => answered?,
            () = deadlines.passed() => return Err(self.exchange.late()),
        };
        Ok(answered.within(deadlines))
    }

    async fn tries(&self, original: &Original) -> Result<Box<Answered>, Refusal> {
        let retries = self.exchange.retries();
        let mut tried = Tried::default();
        for retry in 0..=self.policy.max_retries {
            if retry > 0 {
                retries.requested();
                original
                    .progress
                    .restart(Instant::now(), original.body.is_none());
            }
            let is_last = retry == self.policy.max_retries;
            let mut result = self.send(original, &mut tried, is_last).await;
            if result.is_err()
                && let Some(earlier) = self.exchange.take_kept()
            {
                // Nobody takes the request any more, so it is answered with what came before.
                retries.overflowed();
                return Ok(earlier);
            }
            if !self.fails(&mut result, original.progress.has_ended()).await {
                if retry > 0 && result.is_ok() {
                    retries.succeeded();
                }
                return result;
            }
            if !original.is_whole() {
                return result;
            }
            if is_last {
                retries.limit_exceeded();
                return result;
            }
            if !self.budget.withdraw(std::time::Instant::now()) {
                retries.overflowed();
                return result;
            }
            tried.avoid_last();
            let mut asked = None;
            if let Ok(mut answered) = result {
                asked = self.asked_wait(&answered);
                answered.judge(self.failures);
                self.exchange.keep(answered);
            }
            let wait = self.policy.wait(retry.into(), fastrand::u64(..), asked);
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
        // The last round returns.
        Err(Refusal::Broken)
    }

    /// One try. The time it may take ends with the head of the answer; the last has as much as the request.
    async fn send(
        &self,
        original: &Original,
        tried: &mut Tried,
        is_last: bool,
    ) -> Result<Box<Answered>, Refusal> {
        let mut request = original.request();
        let limit = Timeouts {
            response: self.policy.timeout.filter(|_| !is_last),
            ..Timeouts::default()
        };
        let Some(mut deadline) = Deadlines::new(limit, Some(original.progress.clone())) else {
            return self.exchange.send(&mut request, tried).await;
        };
        tokio::select! {
            sent = self.exchange.send(&mut request, tried) => sent,
            () = deadline.passed() => Err(self.exchange.timed_out()),
        }
    }

    /// How long `answered` asks to be waited, in its head or in trailers that were looked at.
    fn asked_wait(&self, answered: &Answered) -> Option<Duration> {
        if !self.policy.respect_retry_after {
            return None;
        }
        let response = &answered.response;
        let trailers = response.body().peeked_trailers();
        let mut fields = [Some(response.headers()), trailers].into_iter().flatten();
        fields.find_map(|fields| retry_hint(fields, SystemTime::now(), Duration::MAX))
    }

    /// Whether what came of a try asks for another. `sent` says whether the request was sent in full.
    async fn fails(&self, result: &mut Result<Box<Answered>, Refusal>, sent: bool) -> bool {
        let conditions = &self.policy.conditions;
        let answered = match result {
            Ok(answered) => answered,
            Err(Refusal::Unprocessed | Refusal::TryDeadline) => return true,
            // It was not sent, and would not be a moment later.
            Err(
                Refusal::NoEndpoints
                | Refusal::Limited { .. }
                | Refusal::QueueFull
                | Refusal::Untrusted,
            ) => return false,
            Err(refusal) if self.form == Form::Grpc => {
                return conditions.grpc(refusal.grpc_code());
            }
            Err(refusal) => return conditions.status(refusal.status()),
        };
        let response = &mut answered.response;
        if conditions.status(response.status()) {
            return true;
        }
        if conditions.codes.is_empty() || !is_grpc(response.headers()) {
            return false;
        }
        let code = match code(response.headers()) {
            Some(code) => Some(code),
            None => trailers(response.body_mut(), sent).await.and_then(code),
        };
        code.is_some_and(|code| conditions.grpc(code))
    }
}

impl Original {
    fn request(&self) -> Request<RequestBody> {
        let body = match &self.body {
            Some(kept) => RequestBody::Replay(kept.replay()),
            None => RequestBody::Empty,
        };
        Request::from_parts(self.head.clone(), body)
    }

    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Kept::is_whole)
    }
}

/// The trailers of an answer that consists of nothing else. More than its head is waited for: for long only where the request
/// was `sent` in full, as a client may send more when it has seen that.
async fn trailers(body: &mut Arriving, sent: bool) -> Option<&HeaderMap> {
    if sent {
        body.peek_trailers().await
    } else {
        timeout(TRAILERS_PATIENCE, body.peek_trailers())
            .await
            .ok()?
    }
}

fn code(fields: &HeaderMap) -> Option<u16> {
    mesh_breaker::grpc_status(fields).map(u16::from)
}
