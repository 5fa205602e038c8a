//! What fails has the answer it is promised; what need not fail does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use linkerd2_proxy_api::http_route::Timeouts;
use tonic::Code;

use crate::controller::messages;
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{App, Wire, app, ask, canned};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn fails(mesh: &Mesh, status: u16, reason: &str, code: Code) {
    let seen = ask(mesh.net.web(), GET).await;
    assert_eq!(
        (seen.status(), seen.header("l5d-proxy-error").as_deref()),
        (status, Some(reason))
    );
    assert_eq!(seen.body_text(), reason);
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("HEAD / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n")
        .await;
    let head = String::from_utf8(wire.rest().await).unwrap();
    assert!(
        head.contains(&status.to_string()) && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let mut grpc = client(mesh.net.web()).await;
    let refused = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(
        (
            refused.code(),
            refused
                .metadata()
                .get("l5d-proxy-error")
                .unwrap()
                .to_str()
                .unwrap()
        ),
        (code, reason)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_is_503_at_once() {
    let mesh = Mesh::start();
    mesh.says.endpoints("web.test:80", Vec::new());
    let _client = mesh.client("").await;
    let started = Instant::now();
    fails(&mesh, 503, "no endpoint is available", Code::Unavailable).await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoints_are_502_only_when_all_are() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    mesh.says.endpoints(
        "web.test:80",
        vec![
            policy::plain(mesh.net.plain(0)),
            policy::plain(mesh.net.plain(1)),
        ],
    );
    fails(
        &mesh,
        502,
        "no endpoint could be connected to",
        Code::Unavailable,
    )
    .await;

    let _app = canned(mesh.net.plain(1), OK).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..50 {
        assert_eq!(wire.ask(GET).await.status(), 200);
        assert_eq!(
            ask(
                mesh.net.web(),
                "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 1\r\n\r\nx"
            )
            .await
            .status(),
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_down_is_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    fails(
        &mesh,
        502,
        "no endpoint could be connected to",
        Code::Unavailable,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_breaks_off_is_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.head().await;
    })
    .await;
    fails(
        &mesh,
        502,
        "the endpoint closed the connection before it answered",
        Code::Unavailable,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_or_no_http_is_502() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let _app = app(mesh.net.app(), move |mut wire| {
        let huge = huge.clone();
        async move {
            let request = wire.request().await.unwrap();
            let no_http = "not http at all\r\n\r\n".to_owned();
            wire.offer(match request.first.contains("/huge") {
                true => huge,
                false => no_http,
            })
            .await;
            wire.ends_within(Duration::from_secs(10)).await;
        }
    })
    .await;
    for path in ["/huge", "/no-http"] {
        let seen = ask(
            mesh.net.web(),
            &format!("GET {path} HTTP/1.1\r\nhost: web.test\r\n\r\n"),
        )
        .await;
        assert_eq!(seen.status(), 502, "{path}: {:?}", seen.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_504() {
    for request in [true, false] {
        let mesh = Mesh::start();
        let limit = policy::duration(Duration::from_millis(300));
        let timeouts = if request {
            Timeouts {
                request: limit,
                ..Timeouts::default()
            }
        } else {
            Timeouts {
                response: limit,
                ..Timeouts::default()
            }
        };
        mesh.says
            .policy("web.test:80", policy::with_timeouts(timeouts));
        let (proxy, _server) = mesh.both().await;
        let _app = app(mesh.net.app(), |mut wire| async move {
            wire.rest().await;
        })
        .await;
        let started = Instant::now();
        fails(
            &mesh,
            504,
            "the deadline passed before the endpoint answered",
            Code::DeadlineExceeded,
        )
        .await;
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
        proxy
            .metric_becomes("outbound_http_route_failures_total", &["timeout"], 3.0)
            .await;
        proxy
            .metric_becomes("outbound_http_route_requests_active", &[], 0.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_outlasts_a_deadline_is_cut_off() {
    let limit = policy::duration(Duration::from_millis(300));
    let none = Timeouts::default();
    for timeouts in [
        Timeouts {
            request: limit,
            ..none
        },
        Timeouts {
            response: limit,
            ..none
        },
        Timeouts {
            idle: limit,
            ..none
        },
    ] {
        let mesh = Mesh::start();
        mesh.says
            .policy("web.test:80", policy::with_timeouts(timeouts));
        let (proxy, _server) = mesh.both().await;
        let _app = app(mesh.net.app(), |mut wire| async move {
            wire.request().await.unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                .await;
            wire.rest().await;
        })
        .await;
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(GET).await;
        assert_eq!(wire.head().await.unwrap().status(), 200);
        assert_eq!(wire.exactly(4).await, b"half");
        assert!(
            wire.ends_within(Duration::from_secs(5)).await,
            "{timeouts:?}"
        );
        proxy
            .metric_becomes("outbound_http_route_failures_total", &["timeout"], 1.0)
            .await;
        proxy
            .metric_becomes("outbound_http_route_requests_active", &[], 0.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_moves_is_not_idle_and_a_slow_upload_is_not_late() {
    let mesh = Mesh::start();
    let timeouts = Timeouts {
        idle: policy::duration(Duration::from_millis(600)),
        response: policy::duration(Duration::from_millis(600)),
        ..Timeouts::default()
    };
    mesh.says
        .policy("web.test:80", policy::with_timeouts(timeouts));
    let _proxies = mesh.both().await;
    let _app = canned(mesh.net.app(), OK).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 6\r\n\r\n")
        .await;
    for byte in b"upload" {
        tokio::time::sleep(Duration::from_millis(200)).await;
        wire.send([*byte]).await;
    }
    assert_eq!(wire.response("POST").await.status(), 200);
}

/// An application that closes each connection after one response without saying so, or after a short time without a request.
async fn closes(address: std::net::SocketAddr, after: Option<Duration>) -> (App, Arc<AtomicUsize>) {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let app = app(address, move |mut wire| {
        let count = count.clone();
        async move {
            let mut served = false;
            loop {
                let request = match after {
                    // A connection that is new has the time it takes.
                    Some(idle) if served => {
                        match tokio::time::timeout(idle, wire.request()).await {
                            Ok(request) => request,
                            Err(_) => return,
                        }
                    }
                    _ => wire.request().await,
                };
                served = true;
                if request.is_none() {
                    return;
                }
                count.fetch_add(1, SeqCst);
                wire.offer(OK).await;
                if after.is_none() {
                    return;
                }
            }
        }
    })
    .await;
    (app, answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_closes_idle_connections_causes_no_error() {
    for (after, pause) in [
        (None, Duration::ZERO),
        (Some(Duration::from_millis(10)), Duration::from_millis(10)),
    ] {
        for meshed in [true, false] {
            let mesh = Mesh::start();
            let (_client, _server) = mesh.both().await;
            let address = if meshed {
                mesh.net.app()
            } else {
                mesh.net.plain(0)
            };
            if !meshed {
                mesh.says
                    .endpoints("web.test:80", vec![policy::plain(address)]);
            }
            let (_app, answered) = closes(address, after).await;
            let mut wire = Wire::connect(mesh.net.web()).await;
            for n in 0..100 {
                let seen = wire.ask(GET).await;
                assert_eq!(
                    seen.status(),
                    200,
                    "request {n}, meshed {meshed}, {after:?}: {:?}",
                    seen.headers
                );
                tokio::time::sleep(pause).await;
            }
            assert_eq!(answered.load(SeqCst), 100, "no request was answered twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_repeated_is_not() {
    let mesh = Mesh::start();
    let _client = mesh.client("limits.workers = 1").await;
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // Answers the first request of a connection and breaks off at the second, having read it.
    let _app = app(mesh.net.plain(0), move |mut wire| {
        let count = count.clone();
        async move {
            wire.request().await.unwrap();
            count.fetch_add(1, SeqCst);
            wire.send(OK).await;
            if wire.request().await.is_some() {
                count.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let post = "POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(wire.ask(post).await.status(), 200);
    let seen = wire.ask(post).await;
    assert_eq!((seen.status(), asked.load(SeqCst)), (502, 2));
    // A GET is sent again, once, on a connection of its own.
    let mut wire = Wire::connect(mesh.net.web()).await;
    assert_eq!(wire.ask(GET).await.status(), 200);
    assert_eq!(wire.ask(GET).await.status(), 200);
    assert_eq!(asked.load(SeqCst), 5);
    // Nor is what is idempotent once its body has been sent.
    for body in [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut wire = Wire::connect(mesh.net.web()).await;
        assert_eq!(wire.ask(GET).await.status(), 200);
        let before = asked.load(SeqCst);
        let put = format!("PUT / HTTP/1.1\r\nhost: web.test\r\n{body}");
        let seen = wire.ask(&put).await;
        assert_eq!((seen.status(), asked.load(SeqCst)), (502, before + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_dies_costs_only_what_was_in_flight() {
    let mesh = Mesh::start();
    let (_client, mut server) = mesh.both().await;
    let _app = canned(mesh.net.app(), OK).await;
    mesh.says
        .policy("other.test:80", messages::balanced("other", "web.test:80"));
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..10 {
        assert_eq!(wire.ask(GET).await.status(), 200);
    }
    assert!(server.is_running());
    drop(server);
    assert_eq!(wire.ask(GET).await.status(), 502);
    let _server = mesh.server("").await;
    // The breaker may keep it out for a moment.
    crate::controller::soon("the endpoint's return", async {
        while wire.ask(GET).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let _grpc = grpc_app(mesh.net.plain(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_route_takes_is_404() {
    let mesh = Mesh::start();
    mesh.says
        .policy("web.test:80", policy::for_host("another.test"));
    let client = mesh.client("").await;
    fails(
        &mesh,
        404,
        "no route matches the request",
        Code::Unimplemented,
    )
    .await;
    client
        .metric_becomes("outbound_http_route_failures_total", &["no_route"], 3.0)
        .await;
    client
        .metric_becomes("outbound_http_route_requests_total", &[], 3.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_nobody_knows_is_refused_in_its_protocol() {
    let mesh = Mesh::start();
    let _client = mesh.client("control.policy_timeout = \"100ms\"").await;
    // The controller has not heard of `other.test`.
    let seen = ask(mesh.net.other(), GET).await;
    assert_eq!(seen.status(), 502);
    assert!(seen.header("l5d-proxy-error").is_some());
    let mut grpc = client(mesh.net.other()).await;
    let refused = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let mut opaque = Wire::connect(mesh.net.other()).await;
    opaque.send(b"\0").await;
    assert!(opaque.ends_within(Duration::from_secs(5)).await);
}
