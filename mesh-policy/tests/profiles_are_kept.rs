//! What a service profile says: routes in order, response classes, retries and splits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod samples;

use std::time::Duration;

use http::{Method, Request, StatusCode};
use linkerd2_proxy_api::destination::{
    self, DestinationProfile, HttpStatusRange, RequestMatch, ResponseMatch, request_match,
    response_match,
};
use linkerd2_proxy_api::http_types;
use mesh_policy::outbound::retry::{BudgetLimits, RetryPolicy};
use mesh_policy::profile::Profile;
use mesh_policy::route::RequestView;
use mesh_policy::{Distribution, Error, GrpcCodes, proxy_api};
use proptest::prelude::*;

fn path(regex: &str) -> RequestMatch {
    request(request_match::Match::Path(destination::PathMatch {
        regex: regex.into(),
    }))
}

fn method(method: &str) -> RequestMatch {
    request(request_match::Match::Method(http_types::HttpMethod {
        r#type: Some(http_types::http_method::Type::Unregistered(method.into())),
    }))
}

fn request(of: request_match::Match) -> RequestMatch {
    RequestMatch { r#match: Some(of) }
}

fn all(matches: Vec<RequestMatch>) -> RequestMatch {
    request(request_match::Match::All(request_match::Seq { matches }))
}

fn any_of(matches: Vec<RequestMatch>) -> RequestMatch {
    request(request_match::Match::Any(request_match::Seq { matches }))
}

fn not(other: RequestMatch) -> RequestMatch {
    request(request_match::Match::Not(Box::new(other)))
}

fn status(min: u32, max: u32) -> ResponseMatch {
    ResponseMatch {
        r#match: Some(response_match::Match::Status(HttpStatusRange { min, max })),
    }
}

fn class(condition: ResponseMatch, is_failure: bool) -> destination::ResponseClass {
    destination::ResponseClass {
        condition: Some(condition),
        is_failure,
    }
}

fn route(condition: RequestMatch) -> destination::Route {
    destination::Route {
        condition: Some(condition),
        ..destination::Route::default()
    }
}

fn profile(routes: Vec<destination::Route>) -> Result<Profile, Error> {
    let message = DestinationProfile {
        routes,
        ..DestinationProfile::default()
    };
    proxy_api::profile(&message).map(|converted| converted.value)
}

/// Which of its routes a request takes.
fn found(profile: &Profile, method: Method, path: &str) -> Option<usize> {
    let policy = profile.http_policy(&Distribution::FirstAvailable(vec![().into()]));
    let request = Request::builder().method(method).uri(path);
    let request = request.body(()).unwrap();
    let found = policy.find(&RequestView::from(&request)).unwrap();
    let mut routes = policy.routes.iter();
    let index = routes.position(|route| std::ptr::eq(route, found.route))?;
    (index < profile.routes.len()).then_some(index)
}

#[test]
fn the_first_route_that_matches_counts() {
    let profile = profile(vec![
        route(all(vec![method("GET"), path("/users/[0-9]+")])),
        route(path("/users/.*")),
        route(not(any_of(vec![method("GET"), path("/public.*")]))),
        // As controllers write them: anchored, or with space around.
        route(path(" ^/anchored$ ")),
    ])
    .unwrap();
    let of = |method: Method, path| found(&profile, method, path);
    assert_eq!(of(Method::GET, "/users/7"), Some(0));
    assert_eq!(of(Method::POST, "/users/7"), Some(1));
    // The whole path is to match.
    assert_eq!(of(Method::GET, "/users/7/x"), Some(1));
    assert_eq!(of(Method::GET, "/v1/users/7"), None);
    assert_eq!(of(Method::PUT, "/else"), Some(2));
    assert_eq!(of(Method::PUT, "/public/x"), None);
    assert_eq!(of(Method::GET, "/anchored"), Some(3));
}

#[test]
fn empty_lists_hold_for_all_or_none() {
    let profile = profile(vec![route(any_of(vec![])), route(all(vec![]))]).unwrap();
    assert_eq!(found(&profile, Method::GET, "/"), Some(1));
}

#[test]
fn the_first_class_that_a_response_is_in_counts() {
    let mut with_classes = route(all(vec![]));
    with_classes.response_classes = vec![
        // Either end alone is a range of one.
        class(status(503, 0), false),
        class(status(0, 404), true),
        class(status(500, 503), true),
        class(
            ResponseMatch {
                r#match: Some(response_match::Match::Not(Box::new(ResponseMatch {
                    r#match: Some(response_match::Match::Any(response_match::Seq {
                        matches: vec![status(100, 399), status(400, 599)],
                    })),
                }))),
            },
            true,
        ),
    ];
    with_classes.is_retryable = true;
    let profile = profile(vec![with_classes]).unwrap();
    let classes = profile.routes[0].classes;
    let of = |status| classes.is_failure(StatusCode::from_u16(status).unwrap());
    assert_eq!(of(503), Some(false));
    assert_eq!(of(500), Some(true));
    assert_eq!(of(404), Some(true));
    assert_eq!(of(405), None);
    assert_eq!(of(504), None);
    // What no class speaks of is a failure if it is the server's.
    let failures = classes.failures();
    let failed = |status| failures.contains(StatusCode::from_u16(status).unwrap());
    let given = [200, 404, 405, 500, 503, 504].map(failed);
    assert_eq!(given, [false, true, false, true, false, true]);
}

#[test]
fn a_retryable_route_is_retried_within_the_budget() {
    let message = |retry_budget| {
        let mut first = route(path("/a"));
        first.is_retryable = true;
        first.timeout = samples::seconds(3);
        first.response_classes = vec![class(status(404, 404), true)];
        first.metrics_labels = [("route".to_owned(), "a".to_owned())].into();
        DestinationProfile {
            routes: vec![first, route(path("/b"))],
            retry_budget,
            parent_ref: samples::resource("Service", "web"),
            profile_ref: samples::resource("ServiceProfile", "web"),
            ..DestinationProfile::default()
        }
    };
    let budget = destination::RetryBudget {
        retry_ratio: 0.5,
        min_retries_per_second: 3,
        ttl: samples::seconds(7),
    };
    let converted = proxy_api::profile(&message(Some(budget))).unwrap();
    assert_eq!(converted.unsupported, ["destination.Route.metrics_labels"]);
    let profile = converted.value;
    let limits = BudgetLimits::new(0.5, 3, Duration::from_secs(7)).unwrap();
    assert_eq!(profile.retry_budget, Some(limits));

    let backends = Distribution::FirstAvailable(vec!["web".into()]);
    let policy = profile.http_policy(&backends);
    let get = |path: &str| Request::get(path).body(()).unwrap();
    let a = get("/a?query");
    let found = policy.find(&RequestView::from(&a)).unwrap();
    assert_eq!(found.route.meta.kind(), "ServiceProfile");
    assert_eq!(found.policy.timeouts.request, Some(Duration::from_secs(3)));
    let retry = found.policy.retry.unwrap();
    assert_eq!(retry.max_request_bytes, RetryPolicy::DEFAULT_REQUEST_BYTES);
    assert!(retry.max_retries > 0 && retry.timeout.is_none() && retry.backoff.is_none());
    assert!(retry.conditions.status(StatusCode::NOT_FOUND));
    assert!(retry.conditions.status(StatusCode::BAD_GATEWAY));
    assert!(!retry.conditions.status(StatusCode::FORBIDDEN));
    assert!(retry.conditions.grpc(GrpcCodes::UNAVAILABLE));
    let failures = found.policy.failures.unwrap();
    assert!(failures.contains(StatusCode::NOT_FOUND));

    let b = get("/b");
    let found = policy.find(&RequestView::from(&b)).unwrap();
    assert!(found.policy.retry.is_none() && found.policy.timeouts.request.is_none());
    // What no route is for goes there as it is.
    let c = get("/c");
    let found = policy.find(&RequestView::from(&c)).unwrap();
    assert_eq!(found.policy.backends.pick(0).unwrap().backend, "web");
    assert!(found.policy.retry.is_none() && found.policy.failures.is_none());

    // Without a budget, nothing is retried.
    let profile = proxy_api::profile(&message(None)).unwrap().value;
    let policy = profile.http_policy(&backends);
    let found = policy.find(&RequestView::from(&a)).unwrap();
    assert!(found.policy.retry.is_none());
}

#[test]
fn a_success_by_class_is_one_whatever_its_grpc_status() {
    let mut first = route(all(vec![]));
    first.is_retryable = true;
    first.response_classes = vec![class(status(200, 299), false)];
    let profile = profile(vec![first]).unwrap();
    let retry = profile.routes[0].retry().unwrap();
    assert!(!retry.conditions.grpc(GrpcCodes::UNAVAILABLE));
}

#[test]
fn traffic_is_split_by_weight() {
    let dst = |authority: &str, weight| destination::WeightedDst {
        authority: authority.into(),
        weight,
        backend_ref: samples::resource("Service", "v1"),
    };
    let convert = |dst_overrides| {
        let message = DestinationProfile {
            dst_overrides,
            ..DestinationProfile::default()
        };
        proxy_api::profile(&message).map(|converted| converted.value.dst_overrides)
    };
    let split = vec![
        dst("v1.shop.svc.cluster.local:80", 9),
        dst("v2.shop.svc.cluster.local:80", 0),
    ];
    let given = convert(split).unwrap();
    assert_eq!(given.len(), 1, "one without weight gets nothing");
    assert_eq!(given[0].authority, "v1.shop.svc.cluster.local:80");
    assert_eq!(given[0].weight, 9);
    let meta = given[0].meta.as_ref().unwrap();
    assert_eq!(meta.to_string(), "Service/shop/v1:8080");
    for bad in ["", "v1", "v1:", "v1:70000", "a b:80"] {
        assert!(convert(vec![dst(bad, 1)]).is_err(), "{bad}");
    }
    assert!(convert(vec![dst("v1:80", 1); 1025]).is_err());
}

#[test]
fn what_means_nothing_is_refused_by_name() {
    let field = |routes| match profile(routes).unwrap_err() {
        Error::Missing { field } | Error::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    let condition = RequestMatch { r#match: None };
    assert_eq!(
        field(vec![route(condition)]),
        "destination.RequestMatch.match"
    );
    assert_eq!(
        field(vec![destination::Route::default()]),
        "destination.Route.condition"
    );
    assert_eq!(
        field(vec![route(method("a b"))]),
        "http_types.HttpMethod.type"
    );
    let with = |condition| {
        let mut route = route(all(vec![]));
        route.response_classes = vec![class(condition, true)];
        vec![route]
    };
    for (min, max) in [(0, 0), (500, 400), (1, 200), (500, 600)] {
        assert_eq!(
            field(with(status(min, max))),
            "destination.HttpStatusRange",
            "{min} {max}"
        );
    }
    let unset = ResponseMatch { r#match: None };
    assert_eq!(field(with(unset)), "destination.ResponseMatch.match");
    let regex = profile(vec![route(path("("))]).unwrap_err();
    assert!(matches!(regex, Error::Regex { .. }));
}

#[test]
fn conditions_are_bounded() {
    let nested = |depth| (0..depth).fold(path("/"), |inner, _| not(inner));
    assert!(profile(vec![route(nested(32))]).is_ok());
    assert!(profile(vec![route(nested(33))]).is_err());
    let wide = |width| vec![route(all(vec![method("GET"); width]))];
    assert!(profile(wide(4095)).is_ok());
    assert!(profile(wide(4096)).is_err());
    let patterns = |count| vec![route(any_of(vec![path("/"); count]))];
    assert!(profile(patterns(256)).is_ok());
    assert!(profile(patterns(257)).is_err());
}

#[test]
fn a_budget_that_is_not_used_may_be_of_any_kind() {
    let message = |is_retryable| {
        let mut first = route(all(vec![]));
        first.is_retryable = is_retryable;
        DestinationProfile {
            routes: vec![first],
            retry_budget: Some(destination::RetryBudget::default()),
            ..DestinationProfile::default()
        }
    };
    assert!(proxy_api::profile(&message(false)).is_ok());
    let error = proxy_api::profile(&message(true)).unwrap_err();
    let field = "destination.RetryBudget.ttl";
    assert_eq!(error, Error::Missing { field });
}

/// A condition with what it means, evaluated without the crate.
#[derive(Clone, Debug)]
enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Path(u8),
    Method(bool),
}

impl Condition {
    fn proto(&self) -> RequestMatch {
        let each = |all: &[Self]| all.iter().map(Self::proto).collect();
        match self {
            Self::All(of) => all(each(of)),
            Self::Any(of) => any_of(each(of)),
            Self::Not(other) => not(other.proto()),
            Self::Path(n) => path(&format!("/{n}(/.*)?")),
            Self::Method(get) => method(if *get { "GET" } else { "POST" }),
        }
    }

    fn holds(&self, get: bool, n: u8) -> bool {
        match self {
            Self::All(of) => of.iter().all(|one| one.holds(get, n)),
            Self::Any(of) => of.iter().any(|one| one.holds(get, n)),
            Self::Not(other) => !other.holds(get, n),
            Self::Path(path) => *path == n,
            Self::Method(of_get) => *of_get == get,
        }
    }
}

fn conditions() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        (0..3_u8).prop_map(Condition::Path),
        any::<bool>().prop_map(Condition::Method)
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            list.clone().prop_map(Condition::All),
            list.prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    /// The outbound policy made of a profile and the meaning of its conditions agree.
    #[test]
    fn routes(conditions in prop::collection::vec(conditions(), 0..5), get: bool, n in 0..4_u8, deep: bool) {
        let routes = conditions.iter().map(|condition| route(condition.proto()));
        let profile = profile(routes.collect()).unwrap();
        let expected = conditions.iter().position(|condition| condition.holds(get, n));
        let method = if get { Method::GET } else { Method::POST };
        let path = if deep { format!("/{n}/x") } else { format!("/{n}") };
        prop_assert_eq!(found(&profile, method, &path), expected);
    }
}
