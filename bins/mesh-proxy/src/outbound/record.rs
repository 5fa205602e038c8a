//! What is recorded of one request, each once: for the route, for the backend, and its outcome for the balancer.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use mesh_balance::core::Pick;
use mesh_breaker::{
    AtHeaders, AutoClassifier, Classify, FailureKind, GrpcClassifier, HttpClassifier, Outcome,
};
use mesh_http::body::{End, Observe};
use mesh_http::connections::InFlight;
use mesh_metrics::{
    ActiveRequest, BackendLabels, Completion, Failure, HttpHandle, ProxyFamilies, RetryHandle,
    RouteLabels,
};
use mesh_policy::{Meta, StatusSet};

use super::route::Route;
use crate::labels::resource;
use crate::model::{Backend, Endpoint};
use crate::tap::{Subject, Tapped, Taps};
use crate::worker::answer::{completion, completion_at_end};
use crate::worker::upstream::Held;

/// Routes and backends whose counters a connection keeps at hand; those beyond are looked up for each request.
const MAX_KEPT: usize = 16;

/// No endpoint is believed that asks for longer.
const LONGEST_HINT: Duration = Duration::from_secs(86_400);

/// The counters of the routes and backends that one connection uses.
#[derive(Debug, Default)]
pub(super) struct Kept(RefCell<Vec<Rc<Counters>>>);

/// The counters of one backend of one route, or of a route that leads to none.
#[derive(Debug)]
pub(super) struct Counters {
    parent: Arc<Meta>,
    route: Arc<Meta>,
    backend: Option<Arc<Backend>>,
    requests: HttpHandle,
    attempts: Option<HttpHandle>,
    /// Resolved where a request is sent again for the first time.
    retries: OnceCell<RetryHandle>,
}

impl Kept {
    /// The counters of what `route` leads to.
    pub(super) fn counters(&self, families: &ProxyFamilies, route: &Route<'_>) -> Rc<Counters> {
        let mut kept = self.0.borrow_mut();
        if let Some(counters) = kept.iter().find(|counters| counters.are_of(route)) {
            return counters.clone();
        }
        let counters = Rc::new(Counters::resolve(families, route));
        if kept.len() == MAX_KEPT {
            // Routes of an old policy fill it in time; what is still in use comes back.
            kept.clear();
        }
        kept.push(counters.clone());
        counters
    }
}

impl Counters {
    fn are_of(&self, route: &Route<'_>) -> bool {
        let same_backend = match (&self.backend, route.backend()) {
            (Some(own), Some(backend)) => Arc::ptr_eq(own, backend),
            (None, None) => true,
            _ => false,
        };
        same_backend
            && Arc::ptr_eq(&self.route, route.meta)
            && Arc::ptr_eq(&self.parent, route.parent)
    }

    fn resolve(families: &ProxyFamilies, route: &Route<'_>) -> Self {
        let labels = RouteLabels {
            parent: resource(route.parent),
            route: resource(route.meta),
        };
        let requests = families.outbound_http.route(&labels);
        let attempts = route.backend().map(|backend| {
            let RouteLabels { parent, route } = labels;
            let labels = BackendLabels {
                parent,
                route,
                backend: resource(backend.meta()),
            };
            families.outbound_backend.backend(&labels)
        });
        Self {
            parent: route.parent.clone(),
            route: route.meta.clone(),
            backend: route.backend().cloned(),
            requests,
            attempts,
            retries: OnceCell::new(),
        }
    }
}

/// A request of the application, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct Asked {
    started: Instant,
    active: ActiveRequest,
    counters: Rc<Counters>,
    /// Where the application connected from.
    client: SocketAddr,
    _in_flight: InFlight,
}

/// One try of a request on one endpoint. Dropped before the head of its answer, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Attempt {
    started: Instant,
    active: Option<ActiveRequest>,
    guard: Guard,
    tapped: Option<Box<Tapped>>,
}

/// The balancer's guard on an endpoint.
#[derive(Debug)]
struct Guard {
    pick: Option<Pick<Arc<Endpoint>>>,
    /// What it came to if nobody waits for its end.
    so_far: Outcome,
}

impl Asked {
    pub(super) fn new(counters: Rc<Counters>, client: SocketAddr, in_flight: InFlight) -> Self {
        Self {
            started: Instant::now(),
            active: counters.requests.start(),
            counters,
            client,
            _in_flight: in_flight,
        }
    }

    /// Who observes `request`, as it is sent to `endpoint`.
    pub(super) fn tap<B>(
        &self,
        taps: &Taps,
        request: &Request<B>,
        endpoint: &Endpoint,
    ) -> Option<Box<Tapped>> {
        let subject = || Subject::outbound(self.client, endpoint, &self.counters.route);
        taps.begin(request, subject)
    }

    /// What counts how often the route's requests are sent again.
    pub(super) fn retries(&self, families: &ProxyFamilies) -> &RetryHandle {
        let counters = &self.counters;
        counters.retries.get_or_init(|| {
            families.outbound_retries.route(&RouteLabels {
                parent: resource(&counters.parent),
                route: resource(&counters.route),
            })
        })
    }

    /// When its head had come.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The request is sent to the endpoint that `pick` chose, at the time `started`.
    pub(super) fn attempt(
        &self,
        started: Instant,
        pick: Option<Pick<Arc<Endpoint>>>,
        tapped: Option<Box<Tapped>>,
    ) -> Attempt {
        Attempt {
            started,
            active: self.counters.attempts.as_ref().map(HttpHandle::start),
            guard: Guard {
                pick,
                so_far: Outcome::Cancelled,
            },
            tapped,
        }
    }

    /// The proxy answered itself.
    pub(super) fn ended(self, completion: Completion) {
        let after = self.started.elapsed();
        self.active.finish(completion, after);
    }
}

impl Attempt {
    /// The endpoint failed before it answered.
    pub(super) fn failed(mut self, kind: FailureKind) {
        let failure = match kind {
            FailureKind::Timeout => Failure::Timeout,
            FailureKind::Connect => Failure::Connect,
            _ => Failure::Reset,
        };
        if kind != FailureKind::Timeout
            && let Some(tapped) = self.tapped.take()
        {
            tapped.broke();
        }
        self.end(
            Instant::now(),
            Completion::Failed(failure),
            Outcome::Failure(kind),
        );
    }

    /// Takes the guard on the endpoint out, for what outlives the request, which has succeeded.
    pub(super) fn take_pick(&mut self) -> Option<Pick<Arc<Endpoint>>> {
        let mut pick = self.guard.pick.take()?;
        pick.succeeded(Instant::now());
        Some(pick)
    }

    /// Only the first time counts.
    fn end(&mut self, now: Instant, completion: Completion, outcome: Outcome) {
        if let Some(active) = self.active.take() {
            active.finish(completion, now.saturating_duration_since(self.started));
        }
        self.guard.finish(now, outcome);
    }
}

impl Guard {
    /// Only the first time counts.
    fn finish(&mut self, now: Instant, outcome: Outcome) {
        if let Some(pick) = self.pick.take() {
            pick.finish(now, outcome);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.pick.is_some() {
            self.finish(Instant::now(), self.so_far);
        }
    }
}

/// The answer of an endpoint, of which only the head has come.
#[derive(Debug)]
pub(super) struct Reply {
    attempt: Attempt,
    held: Held,
    decided: AtHeaders,
    completion: Option<Completion>,
    /// When the head had come.
    came: Instant,
}

impl Reply {
    /// `response` answers `attempt`.
    pub(super) fn new<B>(mut attempt: Attempt, held: Held, response: &Response<B>) -> Self {
        if let Some(tapped) = &mut attempt.tapped {
            tapped.responded(response);
        }
        let (status, headers) = (response.status(), response.headers());
        let came = Instant::now();
        if let Some(pick) = &mut attempt.guard.pick {
            pick.responded(came);
        }
        let decided = classifier().at_headers(status, headers, date(headers));
        attempt.guard.so_far = so_far(decided);
        Self {
            attempt,
            held,
            decided,
            completion: completion(status, headers),
            came,
        }
    }

    /// Takes out who observes the request, for the response's body.
    pub(super) fn take_tapped(&mut self) -> Option<Box<Tapped>> {
        self.attempt.tapped.take()
    }

    /// Takes out what outlives the answer: the connection, and the guard on the endpoint.
    pub(super) fn take_connection(&mut self) -> (Held, Option<Pick<Arc<Endpoint>>>) {
        let held = std::mem::replace(&mut self.held, Held::Nothing);
        (held, self.attempt.take_pick())
    }

    /// The route says which statuses are failures; not of gRPC.
    pub(super) fn judge(&mut self, status: StatusCode, failures: &StatusSet) {
        if matches!(self.completion, Some(Completion::Status(_))) {
            self.decided = judged(self.decided, failures.contains(status));
            self.attempt.guard.so_far = so_far(self.decided);
        }
    }

    /// The request may be sent again. What is known of this answer, in its head or in these trailers, is recorded before the
    /// wait for another try and the choice of its endpoint.
    pub(super) fn settle(&mut self, trailers: Option<&HeaderMap>) {
        if self.decided == AtHeaders::AwaitEnd && trailers.is_none() {
            return;
        }
        let (completion, outcome) = at_end(self.completion, self.decided, trailers);
        self.attempt.end(Instant::now(), completion, outcome);
    }

    /// It is passed on in answer to `asked`.
    pub(super) fn passed_on(mut self, asked: Asked) -> Record {
        if self.decided.may_succeed()
            && let Some(pick) = &mut self.attempt.guard.pick
        {
            pick.answering(self.came);
        }
        Record { asked, reply: self }
    }

    /// It is not passed on, and ends here, with these trailers if they are known. What is left of its connection is returned.
    pub(super) fn discarded(mut self, trailers: Option<&HeaderMap>) -> Held {
        let now = Instant::now();
        if let Some(tapped) = self.take_tapped() {
            tapped.discarded(trailers);
        }
        let (completion, outcome) = at_end(self.completion, self.decided, trailers);
        self.attempt.end(now, completion, outcome);
        self.held
    }
}

/// Held by a response's body until it ends; then the connection is given back and all is recorded.
#[derive(Debug)]
pub(crate) struct Record {
    asked: Asked,
    reply: Reply,
}

/// What a response is by the word of its route. How it is limited, or fails by its trailers, the route does not say.
fn judged(decided: AtHeaders, fails: bool) -> AtHeaders {
    match (decided, fails) {
        (AtHeaders::Decided(Outcome::Success), true) => {
            AtHeaders::Decided(Outcome::Failure(FailureKind::Response))
        }
        (AtHeaders::Decided(Outcome::Failure(_)), false) => AtHeaders::Decided(Outcome::Success),
        (decided, _) => decided,
    }
}

fn at_end(
    completion: Option<Completion>,
    decided: AtHeaders,
    trailers: Option<&HeaderMap>,
) -> (Completion, Outcome) {
    let outcome = match decided {
        AtHeaders::Decided(outcome) => outcome,
        AtHeaders::AwaitEnd => classifier().at_end(trailers, SystemTime::now()),
    };
    (completion_at_end(completion, trailers), outcome)
}

/// What an answer came to whose end nobody waits for: what its head said, if it said anything.
fn so_far(decided: AtHeaders) -> Outcome {
    match decided {
        AtHeaders::Decided(outcome) => outcome,
        AtHeaders::AwaitEnd => Outcome::Cancelled,
    }
}

/// The time by which a hint in `headers` counts that is a date. The clock is not read where there is none.
fn date(headers: &HeaderMap) -> SystemTime {
    if headers.contains_key(RETRY_AFTER) {
        SystemTime::now()
    } else {
        SystemTime::UNIX_EPOCH
    }
}

/// How long an endpoint's word counts for is for the policy to say: balancers and breakers have a limit each.
fn classifier() -> AutoClassifier {
    AutoClassifier::new(
        HttpClassifier::default().hint_cap(LONGEST_HINT),
        GrpcClassifier::default().hint_cap(LONGEST_HINT),
    )
}

impl Observe for Record {
    fn ended(self, end: End<'_>) {
        let Reply {
            mut attempt,
            held,
            decided,
            completion,
            ..
        } = self.reply;
        let (completion, outcome) = match end {
            End::Complete(trailers) => {
                held.complete();
                at_end(completion, decided, trailers)
            }
            End::Failed => (
                Completion::Failed(Failure::Reset),
                Outcome::Failure(FailureKind::Broken),
            ),
            End::Late => (
                Completion::Failed(Failure::Timeout),
                Outcome::Failure(FailureKind::Timeout),
            ),
            End::Dropped => (Completion::Failed(Failure::Canceled), so_far(decided)),
        };
        let now = Instant::now();
        let Asked {
            started, active, ..
        } = self.asked;
        active.finish(completion, now.saturating_duration_since(started));
        attempt.end(now, completion, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_has_the_last_word_on_what_fails() {
        let (success, failure) = (
            AtHeaders::Decided(Outcome::Success),
            AtHeaders::Decided(Outcome::Failure(FailureKind::Response)),
        );
        assert_eq!(
            (judged(success, true), judged(success, false)),
            (failure, success)
        );
        assert_eq!(
            (judged(failure, true), judged(failure, false)),
            (failure, success)
        );
        let limited = AtHeaders::Decided(Outcome::RateLimited { retry_after: None });
        for other in [limited, AtHeaders::AwaitEnd] {
            assert_eq!((judged(other, true), judged(other, false)), (other, other));
        }
    }

    #[test]
    fn an_answer_that_nobody_waits_for_counts_for_what_its_head_said() {
        let limited = Outcome::RateLimited { retry_after: None };
        assert_eq!(so_far(AtHeaders::Decided(limited)), limited);
        assert_eq!(so_far(AtHeaders::AwaitEnd), Outcome::Cancelled);
    }
}
