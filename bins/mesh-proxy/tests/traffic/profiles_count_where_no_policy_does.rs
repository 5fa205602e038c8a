//! Where the controller has no policy for a target, the routes, retries and splits of its service profile take effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use linkerd2_proxy_api::destination::PathMatch;
use linkerd2_proxy_api::destination::{
    DestinationProfile, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, Route,
    WeightedDst, request_match, response_match,
};
use linkerd2_proxy_api::http_types::{HttpMethod, http_method};

use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, app, ask, canned};

fn path(regex: &str) -> RequestMatch {
    RequestMatch {
        r#match: Some(request_match::Match::Path(PathMatch {
            regex: regex.to_owned(),
        })),
    }
}

fn method(method: http_method::Registered) -> RequestMatch {
    RequestMatch {
        r#match: Some(request_match::Match::Method(HttpMethod {
            r#type: Some(http_method::Type::Registered(method.into())),
        })),
    }
}

fn not(other: RequestMatch) -> RequestMatch {
    RequestMatch {
        r#match: Some(request_match::Match::Not(Box::new(other))),
    }
}

fn all(matches: Vec<RequestMatch>) -> RequestMatch {
    RequestMatch {
        r#match: Some(request_match::Match::All(request_match::Seq { matches })),
    }
}

fn failures(min: u32, max: u32) -> ResponseClass {
    let range = response_match::Match::Status(linkerd2_proxy_api::destination::HttpStatusRange {
        min,
        max,
    });
    ResponseClass {
        condition: Some(ResponseMatch {
            r#match: Some(range),
        }),
        is_failure: true,
    }
}

fn budget(per_second: u32, ttl: u64) -> Option<RetryBudget> {
    Some(RetryBudget {
        retry_ratio: 0.0,
        min_retries_per_second: per_second,
        ttl: policy::duration(Duration::from_secs(ttl)),
    })
}

fn profile(routes: Vec<Route>) -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: "other.test".to_owned(),
        routes,
        retry_budget: budget(10, 10),
        ..Default::default()
    }
}

/// A client of `other.test`; its application answers each second request with the status that its path names, and the rest with 200.
async fn service(profile: DestinationProfile) -> (Mesh, Proxy, App, Arc<AtomicUsize>) {
    let mesh = Mesh::start();
    mesh.says.profile("other.test:80", profile);
    mesh.says
        .endpoints("other.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = app(mesh.net.plain(0), move |mut wire| {
        let counted = counted.clone();
        async move {
            while let Some(request) = wire.request().await {
                let path = request.first.split(' ').nth(1).unwrap();
                if path == "/hangs" {
                    wire.rest_if_any().await;
                    return;
                }
                let turn = counted.fetch_add(1, SeqCst).is_multiple_of(2);
                let fails = turn || path.ends_with("always");
                let status = path.split('/').nth(1).filter(|_| fails).unwrap_or("200");
                wire.send(format!(
                    "HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n"
                ))
                .await;
            }
        }
    })
    .await;
    let client = mesh.client("").await;
    (mesh, client, app, asked)
}

async fn status(mesh: &Mesh, method: &str, path: &str) -> u16 {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: other.test\r\ncontent-length: 0\r\n\r\n");
    ask(mesh.net.other(), &request).await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_of_what_a_route_calls_a_failure() {
    let retryable = |condition, class| Route {
        condition: Some(condition),
        response_classes: vec![class],
        is_retryable: true,
        ..Default::default()
    };
    let put = method(http_method::Registered::Put);
    let (mesh, _client, _app, asked) = service(profile(vec![
        retryable(all(vec![path("/404/.*"), not(put)]), failures(404, 404)),
        retryable(path("/500/.*"), failures(500, 599)),
        Route {
            is_retryable: false,
            ..retryable(path("/503/.*"), failures(500, 599))
        },
    ]))
    .await;
    for (method, path, seen, requests) in [
        ("GET", "/404/x", 200, 2),
        ("POST", "/500/x", 200, 2),
        ("PUT", "/404/x", 404, 1),
        ("PUT", "/404/x", 200, 1),
        ("GET", "/503/x", 503, 1),
        ("GET", "/503/x", 200, 1),
        ("GET", "/502/x", 502, 1),
        ("GET", "/502/x", 200, 1),
    ] {
        let before = asked.load(SeqCst);
        assert_eq!(status(&mesh, method, path).await, seen, "{method} {path}");
        assert_eq!(asked.load(SeqCst) - before, requests, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_retries_than_its_budget() {
    let route = Route {
        condition: Some(path("/.*")),
        is_retryable: true,
        ..Default::default()
    };
    let (mesh, _client, _app, asked) = service(DestinationProfile {
        retry_budget: budget(1, 60),
        ..profile(vec![route])
    })
    .await;
    for _ in 0..3 {
        assert_eq!(status(&mesh, "GET", "/500/always").await, 500);
    }
    assert_eq!(asked.load(SeqCst), 63);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts() {
    let route = Route {
        condition: Some(path("/hangs")),
        timeout: policy::duration(Duration::from_millis(200)),
        ..Default::default()
    };
    let (mesh, _client, _app, _) = service(profile(vec![route])).await;
    assert_eq!(status(&mesh, "GET", "/hangs").await, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits() {
    let mesh = Mesh::start();
    let dst = |authority: &str, weight| WeightedDst {
        authority: authority.to_owned(),
        weight,
        ..Default::default()
    };
    let split = DestinationProfile {
        dst_overrides: vec![dst("a.test:80", 1), dst("b.test:80", 3)],
        ..profile(Vec::new())
    };
    mesh.says.profile("other.test:80", split);
    let mut apps = Vec::new();
    for (n, (path, status)) in [
        ("a.test:80", "201"),
        ("b.test:80", "202"),
        ("other.test:80", "500"),
    ]
    .into_iter()
    .enumerate()
    {
        let at = mesh.net.plain(u16::try_from(n).unwrap());
        mesh.says.endpoints(path, vec![policy::plain(at)]);
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
        apps.push(canned(at, answer).await);
    }
    let client = mesh.client("").await;
    let mut seen = [0; 2];
    for _ in 0..200 {
        seen[usize::from(status(&mesh, "GET", "/").await - 201)] += 1;
    }
    // 50 and 150, more than six deviations allowed for.
    assert!((12..=88).contains(&seen[0]), "{seen:?}");
    client
        .until("/config", |text| !text.contains("destination."))
        .await;
}
