//! What a target's service profile says: Linkerd's older way to describe routes, retries and splits.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::outbound::retry::{BudgetLimits, RetryConditions, RetryPolicy};
use crate::outbound::{HttpPolicy, HttpRoute, RouteBackend, RoutePolicy, Timeouts};
use crate::route::{HttpMatch, RequestCondition, Rule};
use crate::{Distribution, EndpointSpec, GrpcCodes, Meta, StatusSet};

/// What is known of a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Profile {
    /// The name of the service, to be looked up by, when it has one.
    pub name: Option<String>,
    /// True when connections are not to be looked into.
    pub opaque: bool,
    /// The one endpoint that the target is, when it is no service.
    pub endpoint: Option<EndpointSpec>,
    /// The target's resource.
    pub meta: Option<Arc<Meta>>,
    /// The profile's own resource.
    pub profile_meta: Option<Arc<Meta>>,
    /// The routes, in order: the first that matches counts.
    pub routes: Vec<ProfileRoute>,
    /// How many retries there may be on all routes together; none are made where absent.
    pub retry_budget: Option<BudgetLimits>,
    /// Where requests go in place of the target, by weight; to the target itself when empty.
    pub dst_overrides: Vec<WeightedDst>,
}

/// A route of a profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProfileRoute {
    /// Which requests it is for.
    pub condition: Arc<RequestCondition>,
    /// Which responses are failures.
    pub classes: ResponseClasses,
    /// True when a request that fails is sent again.
    pub retryable: bool,
    /// How long a request may take, retries included; no limit when absent.
    pub timeout: Option<Duration>,
}

/// Which HTTP statuses a profile calls failures and which successes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResponseClasses {
    failures: StatusSet,
    successes: StatusSet,
}

/// A class of responses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResponseClass {
    /// Which responses are in it.
    pub condition: ResponseCondition,
    /// True when they are failures.
    pub is_failure: bool,
}

/// Which responses a class is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ResponseCondition {
    /// All of these hold.
    All(Vec<Self>),
    /// One of these holds.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// The HTTP status is one of these.
    Status(StatusSet),
}

/// A destination that takes a share of a target's requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WeightedDst {
    /// What to ask discovery for: an authority, `name.namespace.svc.cluster.local:8080`.
    pub authority: String,
    /// Its share relative to the others'; never zero.
    pub weight: u32,
    /// Its resource, when known.
    pub meta: Option<Arc<Meta>>,
}

impl Profile {
    /// The routes as those of an outbound policy, all with `backends`; what no route matches goes there as it is.
    ///
    /// Their resource is the profile's, or a default called `profile` where it has none.
    pub fn http_policy<B: Clone>(&self, backends: &Distribution<RouteBackend<B>>) -> HttpPolicy<B> {
        let meta = self.profile_meta.clone();
        let meta = meta.unwrap_or_else(|| Arc::new(Meta::default_named("profile")));
        let route = |matches, policy| HttpRoute {
            meta: Arc::clone(&meta),
            hosts: Vec::new(),
            rules: vec![Rule { matches, policy }],
        };
        let routes = self.routes.iter().map(|of_profile| {
            let tested = HttpMatch {
                condition: Some(Arc::clone(&of_profile.condition)),
                ..HttpMatch::default()
            };
            let retry = of_profile.retry().filter(|_| self.retry_budget.is_some());
            let policy = RoutePolicy {
                timeouts: Timeouts {
                    request: of_profile.timeout,
                    ..Timeouts::default()
                },
                retry,
                failures: Some(of_profile.classes.failures()),
                ..RoutePolicy::new(backends.clone())
            };
            route(vec![tested], policy)
        });
        let rest = route(Vec::new(), RoutePolicy::new(backends.clone()));
        HttpPolicy {
            routes: routes.chain([rest]).collect(),
        }
    }
}

impl ProfileRoute {
    /// How requests of the route are sent again: as often as the budget and the timeout allow, at once, when the response is
    /// a failure. Not at all when it is not retryable.
    pub fn retry(&self) -> Option<RetryPolicy> {
        self.retryable.then(|| RetryPolicy {
            max_retries: u16::MAX,
            max_request_bytes: RetryPolicy::DEFAULT_REQUEST_BYTES,
            timeout: None,
            backoff: None,
            respect_retry_after: false,
            conditions: RetryConditions {
                statuses: self.classes.failures(),
                // What a class calls a success is one whatever its gRPC status.
                codes: match self.classes.is_failure(StatusCode::OK) {
                    Some(false) => GrpcCodes::default(),
                    _ => GrpcCodes::failures(),
                },
            },
        })
    }
}

impl ResponseClasses {
    /// The classes in order: the first that a response is in counts.
    pub fn new(classes: &[ResponseClass]) -> Self {
        let class = |status| {
            let mut classes = classes.iter();
            classes.find(|class| class.condition.holds(status))
        };
        Self {
            failures: StatusSet::of(|status| class(status).is_some_and(|class| class.is_failure)),
            successes: StatusSet::of(|status| class(status).is_some_and(|class| !class.is_failure)),
        }
    }

    /// Whether a class says that a response is a failure; nothing when it is in no class, and is to be judged as any other.
    pub fn is_failure(&self, status: StatusCode) -> Option<bool> {
        if self.failures.contains(status) {
            return Some(true);
        }
        self.successes.contains(status).then_some(false)
    }

    /// The statuses of failures: those that a class says so of, and server errors that are in no class.
    pub fn failures(&self) -> StatusSet {
        let unless_said = |status: StatusCode| status.is_server_error();
        StatusSet::of(|status| {
            self.is_failure(status)
                .unwrap_or_else(|| unless_said(status))
        })
    }
}

impl ResponseCondition {
    /// True when it holds for a response.
    pub fn holds(&self, status: StatusCode) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(status)),
            Self::Any(any) => any.iter().any(|one| one.holds(status)),
            Self::Not(other) => !other.holds(status),
            Self::Status(statuses) => statuses.contains(status),
        }
    }
}
