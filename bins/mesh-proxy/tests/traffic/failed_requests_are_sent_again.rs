//! A request that fails is sent again as its route says: elsewhere, whole, and no more often than the budget allows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use linkerd2_proxy_api::outbound::http_route::retry::{Conditions, conditions::StatusRange};
use linkerd2_proxy_api::outbound::http_route::{Retry, Rule};
use linkerd2_proxy_api::outbound::{ExponentialBackoff, grpc_route};
use tonic::Code;

use crate::h2;
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, Wire, app, ask, canned, mirror};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const FAILED: &str = "HTTP/1.1 503 Failed\r\ncontent-length: 4\r\n\r\nfail";
const ROUTE: &str = "outbound_http_route_statuses_total";
const ATTEMPTS: &str = "outbound_http_route_backend_statuses_total";

fn retry(max_retries: u32) -> Retry {
    Retry {
        max_retries,
        max_request_bytes: 100,
        conditions: Some(Conditions {
            status_ranges: vec![StatusRange {
                start: 500,
                end: 599,
            }],
        }),
        ..Default::default()
    }
}

fn with(retry: Retry) -> impl Fn(&mut Rule) {
    move |rule| rule.retry = Some(retry.clone())
}

/// A client of a service that consists of these plain addresses, whose requests are sent again so.
async fn retrying(retry: Retry, endpoints: u16) -> (Mesh, Proxy) {
    let mesh = Mesh::start();
    mesh.says
        .policy("web.test:80", policy::changed(with(retry)));
    let all = (0..endpoints).map(|n| policy::plain(mesh.net.plain(n)));
    mesh.says.endpoints("web.test:80", all.collect());
    let client = mesh.client("").await;
    (mesh, client)
}

async fn retries(client: &Proxy, name: &str) -> f64 {
    let family = format!("outbound_http_route_retry_{name}_total");
    client.metric(&family, &[]).await
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

/// Answers every request so and counts them.
async fn counting(address: SocketAddr, answer: &'static str) -> (App, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let app = app(address, move |mut wire| {
        let counted = counted.clone();
        async move {
            while wire.request().await.is_some() {
                counted.fetch_add(1, SeqCst);
                wire.send(answer).await;
            }
        }
    })
    .await;
    (app, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_endpoint_and_counted_once() {
    let (mesh, client) = retrying(retry(1), 2).await;
    let (_failing, failures) = counting(mesh.net.plain(0), FAILED).await;
    let _app = canned(mesh.net.plain(1), OK).await;
    for _ in 0..50 {
        assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
    }
    let failures = failures.load(SeqCst) as f64;
    assert!(failures > 0.0, "the endpoint that fails was never tried");
    client.metric_becomes(ROUTE, &["\"200\""], 50.0).await;
    client.metric_becomes(ROUTE, &[], 50.0).await;
    client
        .metric_becomes(ATTEMPTS, &["\"503\""], failures)
        .await;
    client.metric_becomes(ATTEMPTS, &["\"200\""], 50.0).await;
    for name in ["requests", "successes"] {
        assert!(same(retries(&client, name).await, failures), "{name}");
    }
    for name in ["limit_exceeded", "overflow"] {
        assert!(same(retries(&client, name).await, 0.0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn and_counts_as_failed_while_the_next_try_waits() {
    let minute = policy::duration(Duration::from_secs(60));
    let backoff = ExponentialBackoff {
        min_backoff: minute,
        max_backoff: minute,
        ..Default::default()
    };
    let (mesh, client) = retrying(
        Retry {
            backoff: Some(backoff),
            ..retry(1)
        },
        1,
    )
    .await;
    let _app = canned(mesh.net.plain(0), FAILED).await;
    let web = mesh.net.web();
    let waiting = tokio::spawn(async move { ask(web, GET).await.status() });
    client.metric_becomes(ATTEMPTS, &["\"503\""], 1.0).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_one_that_failed_if_there_is_no_other() {
    let (mesh, _client) = retrying(retry(3), 1).await;
    let asked = AtomicUsize::new(0);
    let asked = Arc::new(asked);
    let _app = app(mesh.net.plain(0), move |mut wire| {
        let asked = asked.clone();
        async move {
            while wire.request().await.is_some() {
                let fails = asked.fetch_add(1, SeqCst) < 3;
                wire.send(if fails { FAILED } else { OK }).await;
            }
        }
    })
    .await;
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_often_than_the_route_says() {
    let (mesh, client) = retrying(retry(2), 1).await;
    let (_app, seen) = counting(mesh.net.plain(0), FAILED).await;
    let answer = ask(mesh.net.web(), GET).await;
    assert_eq!(
        (answer.status(), answer.body_text()),
        (503, "fail".to_owned())
    );
    assert_eq!(seen.load(SeqCst), 3);
    assert!(same(retries(&client, "limit_exceeded").await, 1.0));
    client.metric_becomes(ATTEMPTS, &["\"503\""], 3.0).await;
    client.metric_becomes(ROUTE, &["\"503\""], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_where_nobody_is_to_send_it_to() {
    let (mesh, client) = retrying(retry(3), 0).await;
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 503);
    for name in ["requests", "limit_exceeded", "overflow"] {
        assert!(same(retries(&client, name).await, 0.0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_often_than_the_budget_allows() {
    let (mesh, client) = retrying(retry(100), 1).await;
    let (_app, seen) = counting(mesh.net.plain(0), FAILED).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..100 {
        assert_eq!(wire.ask(GET).await.status(), 503);
    }
    // 10 a second for 10 s, and a fifth of 100 requests; what is used up comes back after 10 s.
    let seen = seen.load(SeqCst);
    assert!((200..=240).contains(&seen), "{seen} attempts");
    assert!(retries(&client, "overflow").await > 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_for_the_statuses_that_the_route_names() {
    let (mesh, client) = retrying(retry(3), 1).await;
    let missing = "HTTP/1.1 404 Missing\r\ncontent-length: 0\r\n\r\n";
    let (_app, seen) = counting(mesh.net.plain(0), missing).await;
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 404);
    assert_eq!(seen.load(SeqCst), 1);
    assert!(same(retries(&client, "requests").await, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_as_long_a_wait_as_the_answer_asks_for_and_the_route_permits() {
    let longest = Duration::from_millis(700);
    let backoff = ExponentialBackoff {
        min_backoff: policy::duration(Duration::from_millis(1)),
        max_backoff: policy::duration(longest),
        respect_retry_after_hint: true,
        ..Default::default()
    };
    let policy = Retry {
        backoff: Some(backoff),
        ..retry(1)
    };
    let (mesh, client) = retrying(policy, 2).await;
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
    let (_busy, refusals) = counting(mesh.net.plain(0), busy).await;
    let _app = canned(mesh.net.plain(1), OK).await;
    while refusals.load(SeqCst) == 0 {
        let began = Instant::now();
        assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
        if refusals.load(SeqCst) > 0 {
            assert!(began.elapsed() >= longest, "{:?}", began.elapsed());
        }
    }
    let config = client.until("/config", |_| true).await;
    assert!(!config.contains("Retry.backoff"), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_wait() {
    let backoff = ExponentialBackoff {
        min_backoff: policy::duration(Duration::from_millis(300)),
        max_backoff: policy::duration(Duration::from_secs(1)),
        ..Default::default()
    };
    let patient = Retry {
        backoff: Some(backoff),
        ..retry(2)
    };
    let (mesh, _client) = retrying(patient, 1).await;
    let (_app, seen) = counting(mesh.net.plain(0), FAILED).await;
    let started = Instant::now();
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 503);
    let took = started.elapsed();
    assert_eq!(seen.load(SeqCst), 3);
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_try_takes_too_long() {
    let limited = Retry {
        timeout: policy::duration(Duration::from_millis(200)),
        ..retry(1)
    };
    let (mesh, client) = retrying(limited, 2).await;
    let _hung = app(mesh.net.plain(0), |mut wire| async move {
        wire.rest_if_any().await;
    })
    .await;
    let _app = canned(mesh.net.plain(1), OK).await;
    for _ in 0..8 {
        assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
    }
    let late = client
        .metric("outbound_http_route_backend_failures_total", &["timeout"])
        .await;
    assert!(late > 0.5, "the endpoint that hangs was never tried");
    assert!(same(retries(&client, "successes").await, late));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_body_and_trailers() {
    let (mesh, client) = retrying(retry(1), 2).await;
    let (_failing, failures) = counting(mesh.net.plain(0), FAILED).await;
    let _app = mirror(mesh.net.plain(1)).await;
    let sized = "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 10\r\n\r\n0123456789";
    let chunked = "POST / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\nx-sum: 45\r\n\r\n";
    for _ in 0..15 {
        for request in [sized, chunked] {
            let answer = ask(mesh.net.web(), request).await;
            let body = answer.body_text();
            assert!(
                answer.status() == 200 && body.ends_with("0123456789"),
                "{body}"
            );
            assert!(request == sized || body.contains("x-sum: 45"), "{body}");
        }
    }
    assert!(failures.load(SeqCst) > 0);
    assert!(retries(&client, "successes").await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_with_more_body_than_is_kept() {
    let (mesh, client) = retrying(retry(3), 1).await;
    let (_app, seen) = counting(mesh.net.plain(0), FAILED).await;
    let long = "x".repeat(101);
    let sized = format!("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 101\r\n\r\n{long}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{long}\r\n0\r\n\r\n"
    );
    for request in [sized, chunked] {
        assert_eq!(ask(mesh.net.web(), &request).await.status(), 503);
    }
    assert_eq!(seen.load(SeqCst), 2);
    assert!(same(retries(&client, "requests").await, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_what_comes_after_it_was_answered() {
    let (mesh, _client) = retrying(retry(1), 2).await;
    // Answers before the body has come.
    let _failing = app(mesh.net.plain(0), |mut wire| async move {
        while wire.head().await.is_some() {
            if !wire.offer(FAILED).await {
                return;
            }
            wire.up_to(5).await;
        }
    })
    .await;
    let _app = mirror(mesh.net.plain(1)).await;
    for _ in 0..10 {
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 10\r\n\r\n01234")
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        wire.send("56789").await;
        let answer = wire.response("POST").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.body_text().ends_with("0123456789"));
    }
}

fn grpc_retry(max_retries: u32) -> impl Fn(&mut grpc_route::Rule) {
    move |rule| {
        rule.retry = Some(grpc_route::Retry {
            max_retries,
            max_request_bytes: 1000,
            conditions: Some(grpc_route::retry::Conditions {
                unavailable: true,
                ..Default::default()
            }),
            ..Default::default()
        });
    }
}

/// A gRPC application that fails with this status, in the head or in trailers.
async fn failing_grpc(address: SocketAddr, in_trailers: bool) -> h2::App {
    h2::app(address, move |request| async move {
        drop(request);
        let response = http::Response::builder().header("content-type", "application/grpc");
        if !in_trailers {
            return response
                .header("grpc-status", "14")
                .body(h2::full(""))
                .unwrap();
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
        let frames = tokio_stream::iter([Ok(hyper::body::Frame::trailers(trailers))]);
        let body = http_body_util::StreamBody::new(frames);
        response
            .body(http_body_util::BodyExt::boxed_unsync(body))
            .unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_by_their_status() {
    for in_trailers in [false, true] {
        let mesh = Mesh::start();
        mesh.says.policy("web.test:80", policy::grpc(grpc_retry(1)));
        let all = (0..2).map(|n| policy::plain(mesh.net.plain(n)));
        mesh.says.endpoints("web.test:80", all.collect());
        let proxy = mesh.client("").await;
        let _failing = failing_grpc(mesh.net.plain(0), in_trailers).await;
        let _app = grpc_app(mesh.net.plain(1)).await;
        let mut grpc = client(mesh.net.web()).await;
        for _ in 0..20 {
            assert_eq!(
                unary(&mut grpc, "Unary").await.unwrap().into_inner(),
                "<hi>"
            );
        }
        let failed = proxy
            .metric(
                "outbound_grpc_route_backend_statuses_total",
                &["UNAVAILABLE"],
            )
            .await;
        assert!(failed > 0.5, "the endpoint that fails was never tried");
        assert!(same(retries(&proxy, "successes").await, failed));
        // What is no reason to try again is passed on.
        let refused = unary(&mut grpc, "Unknown").await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_for_it_never() {
    let mesh = Mesh::start();
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let client = mesh.client("").await;
    let (_app, seen) = counting(mesh.net.plain(0), FAILED).await;
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 503);
    assert_eq!(seen.load(SeqCst), 1);
    assert!(same(retries(&client, "requests").await, 0.0));
}
