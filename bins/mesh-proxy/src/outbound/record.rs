//! What is recorded of one request, each once: for the route, for the backend, and its outcome for the balancer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use mesh_balance::core::Pick;
use mesh_breaker::{AtHeaders, AutoClassifier, Classify, FailureKind, Outcome};
use mesh_http::body::{End, Observe};
use mesh_http::connections::InFlight;
use mesh_metrics::{
    ActiveRequest, BackendLabels, Completion, Failure, HttpHandle, ProxyFamilies, RouteLabels,
};
use mesh_policy::Meta;

use crate::labels::resource;
use crate::model::{Backend, Endpoint};
use crate::worker::answer::{completion, completion_at_end};
use crate::worker::upstream::Held;

/// Routes and backends whose counters a connection keeps at hand; those beyond are looked up for each request.
const MAX_KEPT: usize = 16;

/// The counters of the routes and backends that one connection uses.
#[derive(Debug, Default)]
pub(super) struct Kept(RefCell<Vec<Rc<Counters>>>);

/// The counters of one backend of one route.
#[derive(Debug)]
pub(super) struct Counters {
    parent: Arc<Meta>,
    route: Arc<Meta>,
    backend: Arc<Backend>,
    requests: HttpHandle,
    attempts: HttpHandle,
}

impl Kept {
    /// The counters of `backend` under `route` of `parent`.
    pub(super) fn counters(
        &self,
        families: &ProxyFamilies,
        parent: &Arc<Meta>,
        route: &Arc<Meta>,
        backend: &Arc<Backend>,
    ) -> Rc<Counters> {
        let mut kept = self.0.borrow_mut();
        let same = |counters: &&Rc<Counters>| {
            Arc::ptr_eq(&counters.backend, backend)
                && Arc::ptr_eq(&counters.route, route)
                && Arc::ptr_eq(&counters.parent, parent)
        };
        if let Some(counters) = kept.iter().find(same) {
            return counters.clone();
        }
        let counters = Rc::new(Counters::resolve(families, parent, route, backend));
        if kept.len() == MAX_KEPT {
            // Routes of an old policy fill it in time; what is still in use comes back.
            kept.clear();
        }
        kept.push(counters.clone());
        counters
    }
}

impl Counters {
    fn resolve(
        families: &ProxyFamilies,
        parent: &Arc<Meta>,
        route: &Arc<Meta>,
        backend: &Arc<Backend>,
    ) -> Self {
        let labels = RouteLabels {
            parent: resource(parent),
            route: resource(route),
        };
        let requests = families.outbound_http.route(&labels);
        let RouteLabels {
            parent: parent_labels,
            route: route_labels,
        } = labels;
        let labels = BackendLabels {
            parent: parent_labels,
            route: route_labels,
            backend: resource(backend.meta()),
        };
        let attempts = families.outbound_backend.backend(&labels);
        Self {
            parent: parent.clone(),
            route: route.clone(),
            backend: backend.clone(),
            requests,
            attempts,
        }
    }
}

/// A request of the application, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct Asked {
    started: Instant,
    active: ActiveRequest,
    counters: Rc<Counters>,
    _in_flight: InFlight,
}

/// One try of a request on one endpoint. Dropped, it counts as cancelled.
#[derive(Debug)]
pub(super) struct Attempt {
    started: Instant,
    active: ActiveRequest,
    pick: Option<Pick<Endpoint>>,
}

impl Asked {
    pub(super) fn new(counters: Rc<Counters>, in_flight: InFlight) -> Self {
        Self {
            started: Instant::now(),
            active: counters.requests.start(),
            counters,
            _in_flight: in_flight,
        }
    }

    /// The request is sent to the endpoint that `pick` chose.
    pub(super) fn attempt(&self, pick: Option<Pick<Endpoint>>) -> Attempt {
        Attempt {
            started: Instant::now(),
            active: self.counters.attempts.start(),
            pick,
        }
    }

    /// The proxy answered, for this reason.
    pub(super) fn refused(self, failure: Failure) {
        let after = self.started.elapsed();
        self.active.finish(Completion::Failed(failure), after);
    }
}

impl Attempt {
    /// The endpoint failed before it answered.
    pub(super) fn failed(self, kind: FailureKind) {
        let failure = match kind {
            FailureKind::Timeout => Failure::Timeout,
            FailureKind::Connect => Failure::Connect,
            _ => Failure::Reset,
        };
        self.end(
            Instant::now(),
            Completion::Failed(failure),
            Outcome::Failure(kind),
        );
    }

    /// Takes the guard on the endpoint out, for what outlives the request.
    pub(super) fn take_pick(&mut self) -> Option<Pick<Endpoint>> {
        self.pick.take()
    }

    fn end(self, now: Instant, completion: Completion, outcome: Outcome) {
        self.active
            .finish(completion, now.saturating_duration_since(self.started));
        if let Some(pick) = self.pick {
            pick.finish(now, outcome);
        }
    }
}

/// Held by a response's body until it ends; then the connection is given back and all is recorded.
#[derive(Debug)]
pub(crate) struct Record {
    asked: Asked,
    attempt: Attempt,
    held: Held,
    decided: AtHeaders,
    completion: Option<Completion>,
}

impl Record {
    /// The response whose head this is answers `attempt`.
    pub(super) fn new(
        asked: Asked,
        mut attempt: Attempt,
        held: Held,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Self {
        if let Some(pick) = &mut attempt.pick {
            pick.responded(Instant::now());
        }
        let decided = AutoClassifier::default().at_headers(status, headers, SystemTime::now());
        Self {
            asked,
            attempt,
            held,
            decided,
            completion: completion(status, headers),
        }
    }
}

impl Observe for Record {
    fn ended(self, end: End<'_>) {
        let (completion, outcome) = match end {
            End::Complete(trailers) => {
                self.held.complete();
                let outcome = match self.decided {
                    AtHeaders::Decided(outcome) => outcome,
                    AtHeaders::AwaitEnd => {
                        AutoClassifier::default().at_end(trailers, SystemTime::now())
                    }
                };
                (completion_at_end(self.completion, trailers), outcome)
            }
            End::Failed => (
                Completion::Failed(Failure::Reset),
                Outcome::Failure(FailureKind::Broken),
            ),
            End::Late => (
                Completion::Failed(Failure::Timeout),
                Outcome::Failure(FailureKind::Timeout),
            ),
            End::Dropped => (Completion::Failed(Failure::Canceled), Outcome::Cancelled),
        };
        let now = Instant::now();
        let Asked {
            started, active, ..
        } = self.asked;
        active.finish(completion, now.saturating_duration_since(started));
        self.attempt.end(now, completion, outcome);
    }
}
