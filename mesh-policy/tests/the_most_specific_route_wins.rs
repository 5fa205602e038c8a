//! Precedence among routes and rules: host, then match, then order (Gateway API).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use mesh_policy::Meta;
use mesh_policy::route::{
    Found, GrpcMatch, HeaderMatch, HostMatch, HttpMatch, Match, PathMatch, Pattern, QueryMatch,
    RequestView, Route, Rule, ValueMatch, find,
};
use proptest::prelude::*;

fn route<M>(hosts: &[&str], rules: Vec<(Vec<M>, &'static str)>) -> Route<M, &'static str> {
    Route {
        meta: Arc::new(Meta::default_named("test")),
        hosts: hosts.iter().map(|host| HostMatch::parse(host)).collect(),
        rules: rules
            .into_iter()
            .map(|(matches, policy)| Rule { matches, policy })
            .collect(),
    }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch {
        path: Some(PathMatch::Prefix(path.into())),
        ..HttpMatch::default()
    }
}

fn chosen<M: Match>(
    routes: &[Route<M, &'static str>],
    request: http::request::Builder,
) -> Option<&'static str> {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    find(routes, &RequestView::from(&parts)).map(|found| *found.policy)
}

#[test]
fn a_host_counts_more_than_a_path() {
    let routes = [
        route(&[], vec![(vec![prefix("/a/b/c")], "any")]),
        route(&["*.example.com"], vec![(vec![prefix("/a/b")], "suffix")]),
        route(&["x.example.com"], vec![(vec![prefix("/a")], "exact")]),
    ];
    let get = |host, path| chosen(&routes, http::Request::get(path).header("host", host));
    assert_eq!(get("x.example.com:8080", "/a/b/c"), Some("exact"));
    assert_eq!(get("y.example.com", "/a/b/c"), Some("suffix"));
    assert_eq!(get("other", "/a/b/c"), Some("any"));
    // A more specific host whose rules do not match leaves the request to the others.
    assert_eq!(get("y.example.com", "/a"), None);
    let fallback = route(&[], vec![(vec![], "fallback")]);
    let routes: Vec<_> = routes.into_iter().chain([fallback]).collect();
    let request = http::Request::get("/z").header("host", "x.example.com");
    assert_eq!(chosen(&routes, request), Some("fallback"));
}

#[test]
fn a_route_with_hosts_needs_a_host() {
    let routes = [route::<HttpMatch>(&["*"], vec![(vec![], "hit")])];
    assert_eq!(chosen(&routes, http::Request::get("/")), None);
}

#[test]
fn then_path_method_headers_and_query() {
    let header = HeaderMatch {
        name: "x-canary".parse().unwrap(),
        value: ValueMatch::exact("yes"),
    };
    let query = QueryMatch {
        name: "v".into(),
        value: ValueMatch::Regex(Pattern::new(r"\d+").unwrap()),
    };
    let with = |matched: HttpMatch, path: &str| HttpMatch {
        path: Some(PathMatch::Prefix(path.into())),
        ..matched
    };
    let plain = HttpMatch::default;
    let routes = [route(
        &[],
        vec![
            (vec![with(plain(), "/a")], "prefix"),
            (
                vec![with(
                    HttpMatch {
                        query: vec![query],
                        ..plain()
                    },
                    "/a",
                )],
                "query",
            ),
            (
                vec![with(
                    HttpMatch {
                        headers: vec![header],
                        ..plain()
                    },
                    "/a",
                )],
                "header",
            ),
            (
                vec![with(
                    HttpMatch {
                        method: Some(http::Method::PUT),
                        ..plain()
                    },
                    "/a",
                )],
                "method",
            ),
            (
                vec![HttpMatch {
                    path: Some(PathMatch::Exact("/a".into())),
                    ..plain()
                }],
                "exact",
            ),
        ],
    )];
    let all = |path: &str, method, header, query| {
        let uri = if query {
            format!("{path}?v=1")
        } else {
            path.to_owned()
        };
        let mut request = http::Request::builder().uri(uri).method(method);
        if header {
            request = request.header("x-canary", "no").header("x-canary", "yes");
        }
        chosen(&routes, request)
    };
    assert_eq!(all("/a", "PUT", true, true), Some("exact"));
    assert_eq!(all("/a/b", "PUT", true, true), Some("method"));
    assert_eq!(all("/a/b", "GET", true, true), Some("header"));
    assert_eq!(all("/a/b", "GET", false, true), Some("query"));
    assert_eq!(all("/a/b", "GET", false, false), Some("prefix"));
    assert_eq!(all("/b", "GET", false, false), None);
}

#[test]
fn grpc_routes_by_service_then_method() {
    let call = |service: Option<&str>, method: Option<&str>| GrpcMatch {
        service: service.map(Into::into),
        method: method.map(Into::into),
        ..GrpcMatch::default()
    };
    let routes = [route(
        &[],
        vec![
            (vec![], "any"),
            (vec![call(None, Some("Get"))], "method"),
            (vec![call(Some("shop.Cart"), None)], "service"),
            (vec![call(Some("shop.Cart"), Some("Add"))], "both"),
        ],
    )];
    let post = |path| chosen(&routes, http::Request::post(path));
    assert_eq!(post("/shop.Cart/Add"), Some("both"));
    assert_eq!(post("/shop.Cart/Get"), Some("service"));
    assert_eq!(post("/shop.Other/Get"), Some("method"));
    assert_eq!(post("/shop.Other/Add"), Some("any"));
    assert_eq!(post("/odd"), Some("any"));
}

fn any_rule() -> impl Strategy<Value = Vec<HttpMatch>> {
    let path = prop_oneof![
        "(/[ab]){0,3}".prop_map(|path| Some(PathMatch::Prefix(path.into()))),
        "(/[ab]){1,3}".prop_map(|path| Some(PathMatch::Exact(path.into()))),
        Just(None),
    ];
    let method = prop::option::of(Just(http::Method::GET));
    let matched = (path, method).prop_map(|(path, method)| HttpMatch {
        path,
        method,
        ..HttpMatch::default()
    });
    prop::collection::vec(matched, 0..3)
}

proptest! {
    /// Against the plainest model: rank every rule, keep the first of the highest.
    #[test]
    fn as_the_model_says(
        rules in prop::collection::vec(any_rule(), 1..8),
        path in "(/[ab]){1,4}",
        get: bool,
    ) {
        let method = if get { "GET" } else { "POST" };
        let request = http::Request::builder().uri(path).method(method).body(()).unwrap();
        let view = RequestView::from(&request);
        let routes: Vec<Route<HttpMatch, usize>> = rules
            .iter()
            .enumerate()
            .map(|(policy, matches)| Route {
                meta: Arc::new(Meta::default_named("test")),
                hosts: Vec::new(),
                rules: vec![Rule { matches: matches.clone(), policy }],
            })
            .collect();

        let ranks = rules.iter().map(|matches| {
            if matches.is_empty() {
                return HttpMatch::default().rank(&view);
            }
            matches.iter().filter_map(|matched| matched.rank(&view)).max()
        });
        let mut model = None;
        for (index, rank) in ranks.enumerate() {
            if rank.is_some() && model.is_none_or(|(best, _)| rank > best) {
                model = Some((rank, index));
            }
        }
        let found = find(&routes, &view).map(|Found { policy, .. }| *policy);
        prop_assert_eq!(found, model.map(|(_, index)| index));
    }
}
