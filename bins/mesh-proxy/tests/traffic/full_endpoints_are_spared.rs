//! An endpoint that refuses requests for their rate is left alone, and what nobody has room for is turned away at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::StreamBody;
use hyper::body::Frame;
use linkerd2_proxy_api::outbound::backend::balance_p2c::{Load, PenaltyPeakEwma};
use linkerd2_proxy_api::outbound::http_route::Retry;
use linkerd2_proxy_api::outbound::http_route::retry::{Conditions, conditions::StatusRange};
use tokio::task::JoinSet;
use tonic::Code;

use crate::h2;
use crate::http2_and_grpc_are_streamed::{client, unary};
use crate::mesh::Mesh;
use crate::policy;
use crate::told::{
    FAILED, GET, OK, Told, ask, ask_and_leave, ask_until, endpoint_becomes, endpoints, limited,
    loaded, penalized, statuses,
};
use crate::wire::{App, Wire, app};

const ENDPOINTS: &str = "outbound_http_balancer_endpoints";

fn held() -> Vec<&'static str> {
    vec![r#"endpoint_state="held""#]
}

fn penalty() -> Load {
    Load::PenaltyPeakEwma(penalized())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_that_refuses_gets_no_more_and_the_others_take_the_rest() {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", loaded(&penalty()));
    let told = endpoints(&mesh, 3).await;
    told[0].answers(&[&limited("60")]);
    let client = mesh.client("").await;
    let mut answers = ask_until(&mesh, &[&told[0]], 1).await;
    answers.append(&mut ask(&mesh, 60).await);
    let refused = answers.iter().filter(|answer| answer.status() == 429);
    assert_eq!((refused.count(), told[0].asked()), (1, 1));
    assert_eq!(told[1].asked() + told[2].asked(), answers.len() - 1);
    client.metric_becomes(ENDPOINTS, &held(), 1.0).await;
    client
        .metric_becomes(ENDPOINTS, &[r#"endpoint_state="ready""#], 2.0)
        .await;
    client
        .metric_becomes("outbound_http_balancer_shed_total", &[], 0.0)
        .await;
    let held = endpoint_becomes(&client, told[0].address, |endpoint| {
        endpoint["held_ms"].as_f64().unwrap() > 0.0
    })
    .await;
    assert!(
        held["held_ms"].as_f64().unwrap() > 30_000.0,
        "as long as it asked: {held}"
    );
}

/// That it is the policy which makes the difference.
#[tokio::test(flavor = "multi_thread")]
async fn where_latency_alone_counts_a_refusal_is_an_answer_like_any_other() {
    let mesh = Mesh::start();
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[&limited("60")]);
    let client = mesh.client("").await;
    assert_eq!(statuses(&ask(&mesh, 5).await), [429; 5]);
    assert_eq!(told[0].asked(), 5);
    client.metric_becomes(ENDPOINTS, &held(), 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_room_for_is_told_when_to_come_again() {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", loaded(&penalty()));
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[&limited("40")]);
    let client = mesh.client("").await;
    let first = ask(&mesh, 1).await.remove(0);
    assert_eq!(
        (first.status(), first.header("l5d-proxy-error")),
        (429, None)
    );
    let shed = ask(&mesh, 1).await.remove(0);
    assert_eq!(
        (shed.status(), shed.header("l5d-proxy-error").as_deref()),
        (429, Some("every endpoint is at its rate limit"))
    );
    let wait: u64 = shed.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&wait), "{wait} s");
    assert_eq!(told[0].asked(), 1, "nothing is sent, nothing is queued");
    client
        .metric_becomes("outbound_http_balancer_shed_total", &[], 1.0)
        .await;
    let reason = [r#"error="rate_limited""#];
    client
        .metric_becomes("outbound_http_route_failures_total", &reason, 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_is_believed_for_longer_than_the_policy_says() {
    let mesh = Mesh::start();
    let load = Load::PenaltyPeakEwma(PenaltyPeakEwma {
        max_retry_after: policy::duration(Duration::from_secs(20)),
        ..penalized()
    });
    mesh.says.policy("web.test:80", loaded(&load));
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[&limited("9000")]);
    let client = mesh.client("").await;
    assert_eq!(ask_and_leave(&mesh).await, 429);
    let held = endpoint_becomes(&client, told[0].address, |endpoint| {
        endpoint["held_ms"].as_f64().unwrap() > 0.0
    })
    .await;
    let held = held["held_ms"].as_f64().unwrap();
    assert!(held < 40_000.0, "{held} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_penalty_is_all_there_is_where_the_settings_say_so() {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", loaded(&penalty()));
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[&limited("60")]);
    let client = mesh.client("balance.rate_limits = \"exact\"\n").await;
    let answers = ask(&mesh, 3).await;
    assert_eq!(statuses(&answers), [429; 3]);
    assert_eq!(told[0].asked(), 3, "it is never shed");
    let endpoint = endpoint_becomes(&client, told[0].address, |endpoint| {
        endpoint["penalty_ms"].as_f64().unwrap() > 30_000.0
    })
    .await;
    assert_eq!(endpoint["held_ms"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_counts_as_a_latency_that_fades() {
    // With the longer decay it would take half a day until only a hundredth is left.
    for (decay, left) in [
        (Duration::from_secs(10_000), 90_000.0..100_001.0),
        (Duration::from_millis(200), 1.0..1_000.0),
    ] {
        let mesh = Mesh::start();
        let load = Load::PenaltyPeakEwma(PenaltyPeakEwma {
            penalty: policy::duration(Duration::from_secs(100)),
            penalty_decay: policy::duration(decay),
            ..penalized()
        });
        mesh.says.policy("web.test:80", loaded(&load));
        let told = endpoints(&mesh, 1).await;
        told[0].answers(&[FAILED]);
        let client = mesh.client("").await;
        assert_eq!(statuses(&ask(&mesh, 1).await), [500]);
        endpoint_becomes(&client, told[0].address, |endpoint| {
            left.contains(&endpoint["penalty_ms"].as_f64().unwrap())
        })
        .await;
    }
}

/// gRPC refusals are told in trailers, and turned away calls get theirs.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_are_refused_and_turned_away_in_their_own_way() {
    let mesh = Mesh::start();
    let mut policy = policy::grpc(|rule| {
        let Some(linkerd2_proxy_api::outbound::grpc_route::distribution::Kind::FirstAvailable(
            first,
        )) = rule
            .backends
            .as_mut()
            .and_then(|backends| backends.kind.as_mut())
        else {
            panic!("not the first available")
        };
        let Some(linkerd2_proxy_api::outbound::backend::Kind::Balancer(balancer)) = first.backends
            [0]
        .backend
        .as_mut()
        .and_then(|backend| backend.kind.as_mut()) else {
            panic!("not a balancer")
        };
        balancer.load = Some(penalty());
    });
    policy.metadata = crate::controller::messages::named("web");
    mesh.says.policy("web.test:80", policy);
    let address = mesh.net.plain(0);
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(address)]);
    let _app = h2::app(address, |_| async {
        let mut trailers = http::HeaderMap::new();
        for (name, value) in [("grpc-status", "8"), ("grpc-retry-pushback-ms", "30000")] {
            trailers.insert(name, http::HeaderValue::from_static(value));
        }
        // A message first, so that the trailers are not all there is.
        let frames = [
            Ok(Frame::data(bytes::Bytes::from_static(&[0, 0, 0, 0, 0]))),
            Ok(Frame::trailers(trailers)),
        ];
        let body =
            http_body_util::BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(frames)));
        http::Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap()
    })
    .await;
    let _client = mesh.client("").await;
    let mut grpc = client(mesh.net.web()).await;
    let refused = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.metadata().get("l5d-proxy-error").is_none());
    let shed = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(
        (shed.code(), shed.message()),
        (
            Code::ResourceExhausted,
            "every endpoint is at its rate limit"
        )
    );
    let pushback = shed.metadata().get("grpc-retry-pushback-ms").unwrap();
    let wait: u64 = pushback.to_str().unwrap().parse().unwrap();
    assert!((20_000..=60_000).contains(&wait), "{wait} ms");
}

/// What was turned away is not asked for again by the proxy: it would only be in vain.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_away_is_not_sent_again() {
    let mesh = Mesh::start();
    let mut policy = loaded(&penalty());
    let detect = policy::detect(&mut policy);
    for rule in &mut detect.http1.as_mut().unwrap().routes[0].rules {
        rule.retry = Some(Retry {
            max_retries: 3,
            max_request_bytes: 100,
            conditions: Some(Conditions {
                status_ranges: vec![StatusRange {
                    start: 429,
                    end: 429,
                }],
            }),
            ..Default::default()
        });
    }
    mesh.says.policy("web.test:80", policy);
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[&limited("60")]);
    let client = mesh.client("").await;
    let retries = "outbound_http_route_retry_requests_total";
    // There is nobody to send it to again, so its answer is passed on.
    let first = ask(&mesh, 1).await.remove(0);
    assert_eq!(
        (first.status(), first.header("l5d-proxy-error")),
        (429, None)
    );
    client.metric_becomes(retries, &[], 1.0).await;
    let shed = ask(&mesh, 1).await.remove(0);
    assert!(shed.header("l5d-proxy-error").is_some());
    client.metric_becomes(retries, &[], 1.0).await;
    assert_eq!(told[0].asked(), 1);
}

/// Admits so many requests a second, and refuses the others without a word on when to come again.
async fn bucket(address: SocketAddr, per_second: f64, seen: Arc<Seen>) -> App {
    let room = Arc::new(Mutex::new((BURST, Instant::now())));
    app(address, move |mut wire| {
        let (room, seen) = (room.clone(), seen.clone());
        async move {
            while wire.request().await.is_some() {
                let admitted = {
                    let mut room = room.lock().unwrap();
                    let (left, at) = *room;
                    let left = (left + at.elapsed().as_secs_f64() * per_second).min(BURST);
                    let admitted = left >= 1.0;
                    *room = (left - f64::from(u8::from(admitted)), Instant::now());
                    admitted
                };
                let counter = if admitted {
                    &seen.admitted
                } else {
                    &seen.refused
                };
                counter.fetch_add(1, SeqCst);
                let answer = if admitted { OK } else { FULL };
                if !wire.offer(answer).await {
                    return;
                }
            }
        }
    })
    .await
}

const BURST: f64 = 5.0;
const FULL: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";

#[derive(Debug, Default)]
struct Seen {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    all: AtomicUsize,
}

impl Seen {
    fn take(&self) -> (f64, f64, f64) {
        let take = |counter: &AtomicUsize| counter.swap(0, SeqCst) as f64;
        (take(&self.admitted), take(&self.refused), take(&self.all))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_that_has_a_limit_gets_what_it_admits_and_the_others_take_the_rest() {
    const LIMIT: f64 = 50.0;
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", loaded(&penalty()));
    let seen = Arc::new(Seen::default());
    let full = mesh.net.plain(0);
    let _bucket = bucket(full, LIMIT, seen.clone()).await;
    let free = [
        Told::start(mesh.net.plain(1), OK).await,
        Told::start(mesh.net.plain(2), OK).await,
    ];
    let mut all: Vec<_> = free.iter().map(Told::endpoint).collect();
    all.push(policy::plain(full));
    mesh.says.endpoints("web.test:80", all);
    let client = mesh.client("").await;
    let mut asking = JoinSet::new();
    for _ in 0..6 {
        let (address, seen) = (mesh.net.web(), seen.clone());
        asking.spawn(async move {
            let mut wire = Wire::connect(address).await;
            loop {
                wire.ask(GET).await;
                seen.all.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    // The limit is learned from what is refused at first. How soon depends on how often the machine lets the clients ask.
    seen.take();
    let mut since = Instant::now();
    crate::controller::soon(
        "what one admits is used, and no more is asked of it",
        async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let (admitted, refused, all) = seen.take();
                let share = all / 3.0;
                let used = admitted > 0.5 * share.min(LIMIT * since.elapsed().as_secs_f64());
                since = Instant::now();
                if used && refused < 0.05 * all {
                    return;
                }
            }
        },
    )
    .await;
    let limited = "outbound_http_balancer_limited_endpoints";
    client.metric_becomes(limited, &[], 1.0).await;
    endpoint_becomes(&client, full, |endpoint| {
        let learned = endpoint["limit_per_second"].as_f64();
        learned.is_some_and(|learned| (0.5 * LIMIT..2.0 * LIMIT).contains(&learned))
    })
    .await;
    asking.abort_all();
}
