//! Matching a request, picking a backend, authorizing a client and asking limits and budgets allocate nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use mesh_policy::inbound::rate_limit::{RateLimit, RateLimits};
use mesh_policy::inbound::{DefaultPolicy, Peer, ServerPolicy};
use mesh_policy::outbound::l5d::Overrides;
use mesh_policy::outbound::retry::{BudgetLimits, RetryBudget};
use mesh_policy::outbound::{HttpPolicy, HttpRoute, RoutePolicy};
use mesh_policy::route::{
    HeaderMatch, HostMatch, HttpMatch, PathMatch, Pattern, QueryMatch, RequestCondition,
    RequestView, Rule, ValueMatch,
};
use mesh_policy::{Distribution, Meta, Weighted};
use mesh_tls::Identity;

fn policy() -> HttpPolicy<u32> {
    let regex = || ValueMatch::Regex(Pattern::new("[a-z]+").unwrap());
    let matches = HttpMatch {
        path: Some(PathMatch::Regex(Pattern::new(r"/v\d+/.*").unwrap())),
        headers: vec![HeaderMatch {
            name: "x-user".parse().unwrap(),
            value: regex(),
        }],
        query: vec![
            QueryMatch {
                name: "escaped".into(),
                value: ValueMatch::exact("a b"),
            },
            QueryMatch {
                name: "plain".into(),
                value: regex(),
            },
        ],
        method: Some(http::Method::POST),
        condition: Some(Arc::new(RequestCondition::Not(Box::new(
            RequestCondition::Any(Vec::new()),
        )))),
    };
    let rule = || Rule {
        matches: vec![HttpMatch::default(), matches.clone()],
        policy: RoutePolicy::new(Distribution::RandomAvailable(
            Weighted::new([(1.into(), 90), (2.into(), 10)]).unwrap(),
        )),
    };
    let route = |host| HttpRoute {
        meta: Arc::new(Meta::default_named("test")),
        hosts: vec![HostMatch::parse(host)],
        rules: vec![rule(), rule()],
    };
    HttpPolicy {
        routes: vec![route("*.example.com"), route("web.example.com")],
    }
}

#[test]
fn on_the_way_out() {
    let policy = policy();
    let request = http::Request::post("/v1/things?escaped=a%20b&plain=abc")
        .header("host", "WEB.example.com:8080")
        .header("x-user", "someone")
        .body(())
        .unwrap();
    let decide = |random| {
        let found = policy.find(&RequestView::from(&request)).unwrap();
        let pick = found.policy.backends.pick(random);
        let available = found
            .policy
            .backends
            .pick_available(random, |backend| backend.backend == 2);
        black_box((pick, available));
    };
    // A regular expression makes its cache on first use.
    decide(0);
    let counted = measure(|| (0..100).for_each(|n| decide(n << 56)));
    assert_eq!(counted.count_total, 0);
    // What is counted is counted.
    assert_eq!(measure(|| drop(black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn by_limits() {
    let start = Instant::now();
    let limits = RateLimits {
        total: NonZeroU32::new(50),
        identity: NonZeroU32::new(40),
        ..RateLimits::default()
    };
    let client = RateLimit::new(limits).unwrap().client(None, start);
    let budget = RetryBudget::new(BudgetLimits::default());
    let mut headers = http::HeaderMap::new();
    headers.insert("accept", http::HeaderValue::from_static("*/*"));
    let counted = measure(|| {
        for _ in 0..60 {
            let _ = black_box(client.check(start));
            budget.deposit(start);
            black_box(budget.withdraw(start));
            black_box(Overrides::take(&mut headers, true));
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn on_the_way_in() {
    let cluster = ["10.0.0.0/8".parse().unwrap()];
    let default = DefaultPolicy::ClusterAuthenticated;
    let policy = ServerPolicy::from_default(default, &cluster, Duration::from_secs(10));
    let web = Identity::parse("web.example.com").unwrap();
    let clients: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let request = http::Request::get("/").body(()).unwrap();
    let counted = measure(|| {
        for client in clients {
            for peer in [Peer::Plaintext, Peer::Tls(Some(&web))] {
                let view = RequestView::from(&request);
                let _ = black_box(policy.authorize_request(&view, client, peer));
            }
        }
    });
    assert_eq!(counted.count_total, 0);
}
