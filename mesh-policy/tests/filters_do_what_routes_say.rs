//! Header modifiers, redirects (RFC 9110, RFC 3986, Gateway API) and injected failures.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroU16;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use mesh_policy::filter::{
    Failure, FailureInjector, Filter, FilterHead, Filters, HeaderModifier, Intercept, PathModifier,
    Ratio, Redirect,
};
use mesh_policy::route::{HttpMatch, PathMatch, Pattern, RequestView, Route, Rule, find};
use mesh_policy::{Error, Meta};
use proptest::prelude::*;

fn filters(filters: Vec<Filter>) -> Filters {
    Filters::new(filters).unwrap()
}

/// What the filters answer a request for `uri` with; `host` is its `Host` where the target names none.
fn on(filters: &Filters, uri: &str, host: &str, prefix: Option<&str>) -> Result<(), Intercept> {
    let uri: Uri = uri.parse().unwrap();
    let authority = uri.authority().cloned();
    let authority = authority.or_else(|| host.parse::<Authority>().ok());
    let mut headers = HeaderMap::new();
    let mut head = FilterHead {
        uri: &uri,
        authority: authority.as_ref(),
        headers: &mut headers,
    };
    filters.on_request(&mut head, prefix, 0)
}

/// Where `redirect` sends a request to, if anywhere.
fn location(redirect: Redirect, uri: &str, prefix: Option<&str>) -> Option<String> {
    let filters = filters(vec![Filter::Redirect(redirect)]);
    match on(&filters, uri, "origin.example", prefix) {
        Ok(()) => None,
        Err(Intercept::Redirect { location, .. }) => Some(location.to_str().unwrap().to_owned()),
        Err(other) => panic!("{other:?}"),
    }
}

fn port(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

#[test]
fn a_redirect_replaces_what_it_says_and_no_more() {
    let to = |redirect| location(redirect, "http://a.example:8080/x?y=1", None);
    let host = || Redirect::new().host("b.example").unwrap();
    assert_eq!(to(host()).unwrap(), "http://b.example:8080/x?y=1");
    let both = host().port(port(9090));
    assert_eq!(to(both).unwrap(), "http://b.example:9090/x?y=1");
    let only_port = Redirect::new().port(port(9090));
    assert_eq!(to(only_port).unwrap(), "http://a.example:9090/x?y=1");
    let path = Redirect::new().path(PathModifier::full("/z").unwrap());
    assert_eq!(to(path).unwrap(), "http://a.example:8080/z");
    let query = Redirect::new().path(PathModifier::full("/z?q").unwrap());
    assert_eq!(to(query).unwrap(), "http://a.example:8080/z?q");
    let other = Scheme::try_from("gopher").unwrap();
    let scheme = Redirect::new().scheme(other).port(port(80));
    assert_eq!(to(scheme).unwrap(), "gopher://a.example:80/x?y=1");
}

#[test]
fn the_target_may_have_any_form() {
    let to = |uri| location(Redirect::new().scheme(Scheme::HTTPS), uri, None).unwrap();
    assert_eq!(to("/x?y"), "https://origin.example/x?y");
    assert_eq!(to("http://a.example"), "https://a.example/");
    assert_eq!(to("http://a.example?q"), "https://a.example/?q");
    assert_eq!(to("*"), "https://origin.example/");
    assert_eq!(to("a.example:443"), "https://a.example/");
    assert_eq!(to("http://[::1]:80/x"), "https://[::1]/x");
    assert_eq!(to("http://user:secret@a.example/x"), "https://a.example/x");
    // What looks like another host's is a path of this one.
    assert_eq!(
        to("//evil.example/x"),
        "https://origin.example//evil.example/x"
    );
}

/// Gateway API, `HTTPRequestRedirectFilter.port`.
#[test]
fn a_port_is_that_of_the_scheme_unless_said() {
    let https = || Redirect::new().scheme(Scheme::HTTPS);
    let to = |redirect| location(redirect, "http://a.example:8080/", None).unwrap();
    assert_eq!(to(https()), "https://a.example/");
    assert_eq!(to(https().port(port(443))), "https://a.example/");
    assert_eq!(to(https().port(port(80))), "https://a.example:80/");
    assert_eq!(to(https().port(port(8443))), "https://a.example:8443/");
    let http = Redirect::new().port(port(80));
    assert_eq!(to(http), "http://a.example/");
}

/// Gateway API, `HTTPPathModifier.replacePrefixMatch`, each row of its table.
#[test]
fn a_prefix_is_replaced_by_whole_segments() {
    let rows = [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar?q=1", "/foo", "/xyz", "/xyz/bar?q=1"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
    ];
    for (path, matched, replacement, expected) in rows {
        let redirect = Redirect::new().path(PathModifier::prefix(replacement).unwrap());
        let given = location(redirect, path, Some(matched)).unwrap();
        assert_eq!(
            given,
            format!("http://origin.example{expected}"),
            "{path} {matched} {replacement}"
        );
    }
}

#[test]
fn a_prefix_that_was_not_matched_cannot_be_replaced() {
    let redirect = Redirect::new().path(PathModifier::prefix("/xyz").unwrap());
    let filters = filters(vec![Filter::Redirect(redirect)]);
    let invalid = Err(Intercept::Invalid);
    assert_eq!(on(&filters, "/foo", "a.example", None), invalid);
    assert_eq!(on(&filters, "/foobar", "a.example", Some("/foo")), invalid);
    assert_eq!(on(&filters, "*", "a.example", Some("/")), invalid);
}

#[test]
fn a_request_that_is_there_already_is_passed_on() {
    let same = Redirect::new()
        .scheme(Scheme::HTTP)
        .host("A.example")
        .unwrap();
    assert_eq!(location(same, "http://a.example:80/x", None), None);
    assert_eq!(
        location(Redirect::new(), "http://a.example:8080/x?y", None),
        None
    );
    let slash = Redirect::new().path(PathModifier::prefix("/x").unwrap());
    assert_eq!(location(slash, "/x/y", Some("/x")), None);
}

#[test]
fn a_redirect_without_a_host_to_go_to_is_invalid() {
    let redirect = Redirect::new().scheme(Scheme::HTTPS);
    let filters = filters(vec![Filter::Redirect(redirect)]);
    assert_eq!(on(&filters, "/x", "", None), Err(Intercept::Invalid));
}

#[test]
fn redirects_that_mean_nothing_are_refused() {
    for host in ["", "a.example:80", "u@a.example", "a b", "a/b", "é"] {
        assert!(Redirect::new().host(host).is_err(), "{host}");
    }
    for path in ["", "x", "x/y", "/x y", "/x#y", "/é", "/\u{7f}"] {
        assert!(PathModifier::full(path).is_err(), "{path}");
        assert_eq!(
            PathModifier::prefix(path).is_err(),
            !path.is_empty(),
            "{path}"
        );
    }
    assert!(PathModifier::prefix("/x?y").is_err());
    for status in [0, 200, 300, 304, 305, 306, 399, 500, 65_536 + 301] {
        assert!(Redirect::new().status(status).is_err(), "{status}");
    }
    for status in [301, 302, 303, 307, 308] {
        let redirect = Redirect::new()
            .scheme(Scheme::HTTPS)
            .status(status)
            .unwrap();
        let filters = filters(vec![Filter::Redirect(redirect)]);
        let Err(Intercept::Redirect { status: given, .. }) = on(&filters, "/", "a", None) else {
            panic!("{status}");
        };
        assert_eq!(u32::from(given.as_u16()), status);
    }
}

/// The prefix that a redirect replaces is that of the match that was best, whichever of the rule's it is.
#[test]
fn a_route_tells_which_prefix_it_matched() {
    let matched = |path: Option<PathMatch>| HttpMatch {
        path,
        ..HttpMatch::default()
    };
    let prefix = |path: &str| matched(Some(PathMatch::Prefix(path.into())));
    let route = |matches| {
        vec![Route {
            meta: Arc::new(Meta::default_named("test")),
            hosts: Vec::new(),
            rules: vec![Rule {
                matches,
                policy: (),
            }],
        }]
    };
    let of = |matches, path| {
        let routes = route(matches);
        let (parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        let found = find(&routes, &RequestView::from(&parts)).unwrap();
        found.matched_prefix().map(str::to_owned)
    };
    let all = || vec![prefix("/a"), prefix("/a/b/"), matched(None)];
    assert_eq!(of(all(), "/a/b/c").as_deref(), Some("/a/b/"));
    assert_eq!(of(all(), "/a/c").as_deref(), Some("/a"));
    assert_eq!(of(all(), "/c").as_deref(), Some("/"));
    assert_eq!(of(vec![], "/c").as_deref(), Some("/"));
    let exact = matched(Some(PathMatch::Exact("/a".into())));
    assert_eq!(of(vec![prefix("/a"), exact], "/a"), None);
    let regex = matched(Some(PathMatch::Regex(Pattern::new("/a.*").unwrap())));
    assert_eq!(of(vec![regex], "/ab"), None);
}

#[test]
fn filters_are_applied_in_order_until_one_answers() {
    let set = |value: &'static str| {
        let pair = (
            HeaderName::from_static("x"),
            HeaderValue::from_static(value),
        );
        Filter::RequestHeaders(HeaderModifier::new(vec![], vec![pair], vec![]).unwrap())
    };
    let failing = Filter::Failure(FailureInjector {
        ratio: Ratio::ALL,
        failure: Failure::http(418, "teapot").unwrap(),
    });
    let all = filters(vec![set("1"), set("2"), failing, set("3"), Filter::Unknown]);
    let uri: Uri = "/".parse().unwrap();
    let mut headers = HeaderMap::new();
    let mut head = FilterHead {
        uri: &uri,
        authority: None,
        headers: &mut headers,
    };
    let Err(Intercept::Failure(Failure::Http { status, message })) =
        all.on_request(&mut head, None, 0)
    else {
        panic!("the failure answers");
    };
    assert_eq!((status, &*message), (StatusCode::IM_A_TEAPOT, "teapot"));
    assert_eq!(headers["x"], "2");
}

#[test]
fn what_is_not_known_fails_every_request() {
    let unknown = filters(vec![Filter::Unknown]);
    assert_eq!(on(&unknown, "/", "a", Some("/")), Err(Intercept::Invalid));
    assert!(Filters::default().is_empty());
    assert_eq!(on(&Filters::default(), "/", "", None), Ok(()));
}

#[test]
fn responses_have_their_own_modifiers() {
    let pair = (HeaderName::from_static("x"), HeaderValue::from_static("1"));
    let modifier = HeaderModifier::new(vec![], vec![pair], vec![]).unwrap();
    let both = filters(vec![
        Filter::RequestHeaders(modifier.clone()),
        Filter::Unknown,
    ]);
    let mut headers = HeaderMap::new();
    both.on_response(&mut headers);
    assert!(headers.is_empty());
    let response = filters(vec![Filter::ResponseHeaders(modifier)]);
    response.on_response(&mut headers);
    assert_eq!(headers["x"], "1");
}

#[test]
fn what_filters_hold_is_bounded() {
    let too_many = |what, given| Error::TooMany {
        what,
        given,
        max: 64,
    };
    assert_eq!(
        Filters::new(vec![Filter::Unknown; 65]),
        Err(too_many("filters of a rule or backend", 65))
    );
    let names = vec![HeaderName::from_static("x"); 65];
    assert_eq!(
        HeaderModifier::new(vec![], vec![], names),
        Err(too_many("headers of a modifier", 65))
    );
    // A map that is full does not panic.
    let pairs = (0..64).map(|n| (format!("x-{n}").parse().unwrap(), HeaderValue::from(n)));
    let pairs: Vec<(HeaderName, HeaderValue)> = pairs.collect();
    let modifier = HeaderModifier::new(pairs.clone(), pairs, vec![]).unwrap();
    let mut headers = HeaderMap::new();
    while headers.try_append("y", HeaderValue::from(1)).is_ok() && headers.len() < 24_600 {}
    modifier.apply(&mut headers);
}

fn small_headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let pair = (0..6_u8, 0..6_u16).prop_map(|(name, value)| {
        let name = HeaderName::try_from(format!("h{name}")).unwrap();
        (name, HeaderValue::from(value))
    });
    prop::collection::vec(pair, 0..8)
}

proptest! {
    /// After a modifier: removed headers are gone, those set have one value (the last said), those added have at least what
    /// was added, and all others are as they were. A modifier that adds nothing does the same twice as once.
    #[test]
    fn modifiers(
        before in small_headers(),
        add in small_headers(),
        set in small_headers(),
        remove in small_headers(),
    ) {
        let remove: Vec<HeaderName> = remove.into_iter().map(|(name, _)| name).collect();
        let before: HeaderMap = {
            let mut map = HeaderMap::new();
            for (name, value) in before {
                map.append(name, value);
            }
            map
        };
        let modifier = HeaderModifier::new(add.clone(), set.clone(), remove.clone()).unwrap();
        let mut after = before.clone();
        modifier.apply(&mut after);
        let values = |map: &HeaderMap, name: &HeaderName| {
            map.get_all(name).iter().cloned().collect::<Vec<_>>()
        };
        for name in (0..6).map(|n| HeaderName::try_from(format!("h{n}")).unwrap()) {
            let last_set = set.iter().rev().find(|(set, _)| *set == name);
            let expected = if remove.contains(&name) {
                Vec::new()
            } else if let Some((_, value)) = last_set {
                vec![value.clone()]
            } else {
                let added = add.iter().filter(|(add, _)| *add == name);
                let added = added.map(|(_, value)| value.clone());
                values(&before, &name).into_iter().chain(added).collect()
            };
            prop_assert_eq!(values(&after, &name), expected);
        }
        let stable = HeaderModifier::new(vec![], set, remove).unwrap();
        let mut once = before;
        stable.apply(&mut once);
        let mut twice = once.clone();
        stable.apply(&mut twice);
        prop_assert_eq!(once, twice);
    }

    /// Wherever a request goes: the location is an absolute URI with nothing of the old place that was to be replaced, and
    /// following it ends the redirecting.
    #[test]
    fn redirects(
        path in "/[a-z]{0,3}(/[a-z]{0,3}){0,3}",
        query in prop::option::of("[a-z=&]{0,6}"),
        from_port in prop::option::of(1..=u16::MAX),
        https: bool,
        scheme in prop::option::of(any::<bool>()),
        host: bool,
        to_port in prop::option::of(1..=u16::MAX),
        replacement in prop::option::of("(/[a-z]{1,3}){0,2}/?"),
    ) {
        let mut uri = format!("{}://from.example", if https { "https" } else { "http" });
        if let Some(port) = from_port {
            uri.push_str(&format!(":{port}"));
        }
        uri.push_str(&path);
        if let Some(query) = &query {
            uri.push_str(&format!("?{query}"));
        }
        let prefix = path.rfind('/').map(|end| &path[..end]).unwrap_or_default();
        let mut redirect = Redirect::new();
        if let Some(https) = scheme {
            redirect = redirect.scheme(if https { Scheme::HTTPS } else { Scheme::HTTP });
        }
        if host {
            redirect = redirect.host("to.example").unwrap();
        }
        if let Some(to_port) = to_port {
            redirect = redirect.port(port(to_port));
        }
        if let Some(with) = &replacement {
            redirect = redirect.path(PathModifier::prefix(with).unwrap());
        }
        // Nothing where it is there already.
        if let Some(to) = location(redirect.clone(), &uri, Some(prefix)) {
            let to: Uri = to.parse().unwrap();
            let expected = scheme.unwrap_or(https);
            prop_assert_eq!(to.scheme_str(), Some(if expected { "https" } else { "http" }));
            prop_assert_eq!(to.host(), Some(if host { "to.example" } else { "from.example" }));
            let default = if expected { 443 } else { 80 };
            prop_assert_ne!(to.port_u16(), Some(default));
            let effective = to.port_u16().unwrap_or(default);
            if let Some(to_port) = to_port {
                prop_assert_eq!(effective, to_port);
            } else if scheme.is_some() {
                prop_assert_eq!(effective, default);
            } else {
                prop_assert_eq!(effective, from_port.unwrap_or(default));
            }
            prop_assert!(to.path().ends_with(path[prefix.len()..].trim_start_matches('/')));
            prop_assert_eq!(to.query(), query.as_deref());
            if replacement.is_none() {
                prop_assert_eq!(location(redirect, &to.to_string(), Some(prefix)), None);
            }
        }
    }

    /// A share of the words fails, to within rounding, and independently for each injector.
    #[test]
    fn ratios(numerator in 0..=1000_u32, denominator in 1..=1000_u32, start: u64) {
        const DRAWS: u32 = 20_000;
        let numerator = numerator.min(denominator);
        let ratio = Ratio::new(numerator, denominator).unwrap();
        let injector = || Filter::Failure(FailureInjector {
            ratio,
            failure: Failure::grpc(14, "").unwrap(),
        });
        let share = f64::from(numerator) / f64::from(denominator);
        let uri: Uri = "/".parse().unwrap();
        let passed = |filters: &Filters| {
            let mut headers = HeaderMap::new();
            let words = (0..u64::from(DRAWS)).map(|n| {
                start.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            });
            let mut passed = 0_u32;
            for word in words {
                let mut head = FilterHead { uri: &uri, authority: None, headers: &mut headers };
                passed += u32::from(filters.on_request(&mut head, None, word).is_ok());
            }
            f64::from(passed) / f64::from(DRAWS)
        };
        let once = passed(&filters(vec![injector()]));
        prop_assert!((once - (1.0 - share)).abs() < 0.02, "{once} for {share}");
        let twice = passed(&filters(vec![injector(), injector()]));
        prop_assert!((twice - (1.0 - share).powi(2)).abs() < 0.02, "{twice} for {share}");
    }
}
