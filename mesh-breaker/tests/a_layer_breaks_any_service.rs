//! A breaker around a service: what passes, what is rejected, when it waits, and what trailers decide.
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Channel};
use mesh_breaker::layer::{BreakerLayer, Error};
use mesh_breaker::{
    AutoClassifier, ConsecutiveFailures, ExponentialBackoff, FailureKind, Outcome, State,
    Transition,
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

/// Two failures open it for a second.
fn policy() -> ConsecutiveFailures {
    let second = Duration::from_secs(1);
    ConsecutiveFailures::new(2, ExponentialBackoff::new(second, second, 0.0).unwrap()).unwrap()
}

fn outcome(result: &Result<bool, &'static str>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure(FailureKind::Broken),
    }
}

async fn fails_when_told(ok: bool) -> Result<bool, &'static str> {
    if ok { Ok(true) } else { Err("down") }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_rejects_without_a_call() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let transitions = Arc::new(Mutex::new(Vec::new()));
    let seen = transitions.clone();
    let layer = BreakerLayer::new(policy(), outcome)
        .on_transition(move |transition| seen.lock().unwrap().push(transition));
    let service = layer.layer(service_fn(move |ok| {
        counted.fetch_add(1, Ordering::Relaxed);
        fails_when_told(ok)
    }));
    let call = |ok| service.clone().oneshot(ok);
    assert_eq!(call(false).await, Err(Error::Inner("down")));
    assert_eq!(call(false).await, Err(Error::Inner("down")));
    let Err(Error::Rejected(rejected)) = call(true).await else {
        panic!("it is open")
    };
    assert_eq!(rejected.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(calls.load(Ordering::Relaxed), 2, "clones share the breaker");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(call(true).await, Ok(true));
    assert_eq!(service.state(), State::Closed);
    let transitions = transitions.lock().unwrap();
    assert!(matches!(
        transitions.as_slice(),
        [
            Transition::Opened { .. },
            Transition::ProbeAdmitted,
            Transition::Closed
        ]
    ));
}

#[tokio::test(start_paused = true)]
async fn told_to_wait_it_is_not_ready_while_it_is_open() {
    let layer = BreakerLayer::new(policy(), outcome).wait(true);
    let mut service = layer.layer(service_fn(fails_when_told));
    for _ in 0..2 {
        service
            .ready()
            .await
            .unwrap()
            .call(false)
            .await
            .unwrap_err();
    }
    let start = Instant::now();
    let answer = service.ready().await.unwrap().call(true).await;
    assert_eq!(answer, Ok(true));
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_ready_before_it_opened_is_rejected() {
    let layer = BreakerLayer::new(policy(), outcome).wait(true);
    let mut early = layer.layer(service_fn(fails_when_told));
    let mut service = early.clone();
    early.ready().await.unwrap();
    for _ in 0..2 {
        let ready = service.ready().await.unwrap();
        ready.call(false).await.unwrap_err();
    }
    let answer = early.call(true).await;
    assert!(matches!(answer, Err(Error::Rejected(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_ready_and_does_not_call_keeps_no_place() {
    let layer = BreakerLayer::new(policy(), outcome).wait(true);
    let mut service = layer.layer(service_fn(fails_when_told));
    for _ in 0..2 {
        let ready = service.ready().await.unwrap();
        ready.call(false).await.unwrap_err();
    }
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(5), service.ready()).await;
    assert_eq!(ready.unwrap().unwrap().call(true).await, Ok(true));
    // The one that was idle finds it closed.
    assert_eq!(idle.call(true).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
    let layer = BreakerLayer::new(policy(), outcome);
    let service = layer.layer(service_fn(async |ok: Option<bool>| match ok {
        Some(ok) => fails_when_told(ok).await,
        None => std::future::pending().await,
    }));
    let call = |ok| service.clone().oneshot(ok);
    for _ in 0..2 {
        call(Some(false)).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let hung = tokio::time::timeout(Duration::from_secs(5), call(None)).await;
    assert!(hung.is_err());
    assert_eq!(service.state(), State::Open);
    assert_eq!(call(Some(true)).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn trailers_decide() {
    for (status, opens) in [("0", false), ("14", true)] {
        let layer = BreakerLayer::http(policy(), AutoClassifier::default());
        let service = layer.layer(service_fn(move |()| async move {
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
            let fields = [("grpc-status".parse().unwrap(), status.parse().unwrap())];
            sender
                .send_trailers(HeaderMap::from_iter(fields))
                .await
                .unwrap();
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(response.body(body).unwrap())
        }));
        for _ in 0..2 {
            let response = service.clone().oneshot(()).await.unwrap();
            assert_eq!(service.state(), State::Closed, "not at the headers");
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(service.state() == State::Open, opens, "status {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lasts_keeps_nobody_out() {
    let layer = BreakerLayer::http(policy(), AutoClassifier::default());
    // Streams on which nothing is sent.
    let senders = Arc::new(Mutex::new(Vec::new()));
    let keep = senders.clone();
    let service = layer.layer(service_fn(move |status: u16| {
        let (sender, body) = Channel::<Bytes, Infallible>::new(4);
        keep.lock().unwrap().push(sender);
        let response = Response::builder().status(status);
        let response = response.header("content-type", "application/grpc");
        std::future::ready(Ok::<_, Infallible>(response.body(body).unwrap()))
    }));
    let call = |status| service.clone().oneshot(status);
    for _ in 0..2 {
        drop(call(503).await.unwrap());
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let stream = call(200).await.unwrap();
    assert_eq!(service.state(), State::HalfOpen);
    assert!(matches!(call(200).await, Err(Error::Rejected(_))));
    tokio::time::advance(Duration::from_secs(1)).await;
    call(200).await.unwrap();
    assert_eq!(service.state(), State::Closed);
    drop(stream);
    assert_eq!(service.state(), State::Closed);
}
