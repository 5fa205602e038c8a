//! `Balance` as its users see it: waiting, ending, cancelling, classifying, and the driver's life.
#![allow(clippy::unwrap_used, reason = "tests")]

use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::channel::Sender;
use http_body_util::{BodyExt, Channel, Empty, Full};
use hyper::body::Body as _;
use mesh_balance::core::{Outcome, State, Transition};
use mesh_balance::{Balance, BoxError, Driver, Error};
use mesh_breaker::{AutoClassifier, ConsecutiveFailures, ExponentialBackoff};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

type Bytes = bytes::Bytes;
type Backend<B> = BoxCloneSyncService<Request<()>, Response<B>, BoxError>;
type Bodies = mpsc::UnboundedReceiver<Sender<Bytes, BoxError>>;
type Found<S> = Result<Change<&'static str, S>, Infallible>;

fn named(name: &'static str) -> Backend<Full<Bytes>> {
    BoxCloneSyncService::new(service_fn(move |_| async move {
        Ok(Response::new(Full::from(name)))
    }))
}

fn only<S: Send + Sync + Clone + 'static>(
    service: S,
) -> impl futures_util::Stream<Item = Found<S>> + Send {
    stream::iter([Ok(Change::Insert("only", service))]).chain(stream::pending())
}

fn channel<S: Send + 'static>() -> (
    mpsc::UnboundedSender<Found<S>>,
    impl futures_util::Stream<Item = Found<S>> + Send,
) {
    let (send, mut receive) = mpsc::unbounded_channel();
    (send, stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

/// Backends whose response bodies the test writes.
fn held(content_type: &'static str) -> (Backend<Channel<Bytes, BoxError>>, Bodies) {
    let (send, receive) = mpsc::unbounded_channel();
    let service = service_fn(move |_| {
        let (sender, body) = Channel::new(4);
        send.send(sender).unwrap();
        let response = Response::builder()
            .header("content-type", content_type)
            .body(body);
        async move { Ok(response?) }
    });
    (BoxCloneSyncService::new(service), receive)
}

fn in_flight<S, A>(balance: &Balance<S, A>) -> u32 {
    balance
        .picker()
        .snapshot()
        .stats(std::time::Instant::now())
        .map(|(_, stats)| stats.in_flight)
        .sum()
}

fn state<S, A>(balance: &Balance<S, A>) -> State {
    balance
        .picker()
        .snapshot()
        .stats(std::time::Instant::now())
        .next()
        .unwrap()
        .1
        .breaker
}

fn spawn(driver: Driver) -> tokio::task::JoinHandle<Result<(), Error>> {
    tokio::spawn(driver)
}

/// One failure opens it for a second.
fn touchy() -> ConsecutiveFailures {
    let second = Duration::from_secs(1);
    ConsecutiveFailures::new(1, ExponentialBackoff::new(second, second, 0.0).unwrap()).unwrap()
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())])
}

#[tokio::test(start_paused = true)]
async fn it_is_shared_by_cloning() {
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let found =
        stream::iter(["a", "b"].map(|name| Ok::<_, Infallible>(Change::Insert(name, named(name)))));
    let (balance, driver) = Balance::builder(found)
        .http(AutoClassifier::default())
        .build();
    shareable(&balance);
    driver.await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..50 {
        let response = balance.clone().oneshot(Request::new(())).await.unwrap();
        answers.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    assert!(answers.iter().any(|name| name == "a") && answers.iter().any(|name| name == "b"));
    assert_eq!(in_flight(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_endpoint() {
    let (found, discovery) = channel();
    let (balance, driver) = Balance::builder(discovery).build();
    spawn(driver);
    let call = tokio::spawn(balance.clone().oneshot(Request::new(())));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!call.is_finished());
    found.send(Ok(Change::Insert("a", named("a")))).unwrap();
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_does_not_pend_for_ever() {
    let (_found, discovery) = channel::<Backend<Full<Bytes>>>();
    let (balance, driver) = Balance::builder(discovery)
        .empty_timeout(Duration::from_secs(5))
        .build();
    spawn(driver);
    let start = tokio::time::Instant::now();
    let error = balance.oneshot(Request::new(())).await.unwrap_err();
    assert!(matches!(error, Error::NoEndpoints { .. }), "{error}");
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_will_stay_empty_fails_at_once() {
    let discovery = stream::iter(Vec::<Found<Backend<Full<Bytes>>>>::new());
    let (balance, driver) = Balance::builder(discovery).build();
    driver.await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(matches!(
        balance.oneshot(Request::new(())).await,
        Err(Error::NoEndpoints { .. })
    ));
    assert!(start.elapsed() < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_gets_no_more_calls() {
    let (found, discovery) = channel();
    let (balance, driver) = Balance::builder(discovery).build();
    spawn(driver);
    for name in ["a", "b"] {
        found.send(Ok(Change::Insert(name, named(name)))).unwrap();
    }
    found.send(Ok(Change::Remove("a"))).unwrap();
    tokio::task::yield_now().await;
    for _ in 0..20 {
        let response = balance.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "b"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_its_last_balance() {
    let (balance, driver) = Balance::builder(only(named("a"))).build();
    let driver = spawn(driver);
    drop(balance.clone());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!driver.is_finished());
    drop(balance);
    driver.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn endpoints_outlive_a_failed_discovery() {
    let found = [Ok(Change::Insert("a", named("a"))), Err("connection lost")];
    let (balance, driver) = Balance::builder(stream::iter(found)).build();
    let error = driver.await.unwrap_err();
    assert_eq!(error.to_string(), "discovery: connection lost");
    balance.oneshot(Request::new(())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn weights_come_from_the_endpoint() {
    let found =
        stream::iter(["a", "b"].map(|name| Ok::<_, Infallible>(Change::Insert(name, named(name)))));
    let (balance, driver) = Balance::builder(found)
        .weight(|name, _| u32::from(*name == "b"))
        .build();
    driver.await.unwrap();
    for _ in 0..20 {
        let response = balance.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "b"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_in_flight_until_its_body_ends() {
    let (service, mut bodies) = held("text/plain");
    let (balance, driver) = Balance::builder(only(service))
        .http(AutoClassifier::default())
        .build();
    spawn(driver);
    let mut response = balance.clone().oneshot(Request::new(())).await.unwrap();
    let mut body = bodies.recv().await.unwrap();
    body.send_data(Bytes::from("part")).await.unwrap();
    response.frame().await.unwrap().unwrap();
    assert_eq!(in_flight(&balance), 1);
    drop(body);
    assert!(response.frame().await.is_none());
    assert_eq!(in_flight(&balance), 0);

    let dropped = balance.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(in_flight(&balance), 1);
    drop(dropped);
    assert_eq!(in_flight(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_ended_already_ends_the_request() {
    let empty =
        service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new())));
    let (balance, driver) = Balance::builder(only(empty))
        .http(AutoClassifier::default())
        .build();
    spawn(driver);
    let response = balance.clone().oneshot(Request::new(())).await.unwrap();
    assert!(response.body().is_end_stream());
    assert_eq!(in_flight(&balance), 0, "although nobody has read the body");
}

#[tokio::test(start_paused = true)]
async fn grpc_trailers_decide() {
    for (status, opens) in [("0", false), ("14", true)] {
        let (service, mut bodies) = held("application/grpc");
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let (balance, driver) = Balance::builder(only(service))
            .http(AutoClassifier::default())
            .breaker(touchy())
            .on_event(move |event| seen.lock().unwrap().push(event))
            .build();
        spawn(driver);
        let mut response = balance.clone().oneshot(Request::new(())).await.unwrap();
        bodies
            .recv()
            .await
            .unwrap()
            .send_trailers(trailers(status))
            .await
            .unwrap();
        assert_eq!(state(&balance), State::Closed, "not at the headers");
        assert!(response.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(state(&balance) == State::Open, opens, "status {status}");
        let events = events.lock().unwrap();
        assert_eq!(events.len(), usize::from(opens));
        assert!(
            events
                .iter()
                .all(|event| matches!(event.transition, Transition::Opened { .. }))
        );
        assert!(
            events.iter().all(|event| !event.ejected),
            "the only endpoint stays in use"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_is_a_failure() {
    let (service, mut bodies) = held("text/plain");
    let (balance, driver) = Balance::builder(only(service))
        .http(AutoClassifier::default())
        .breaker(touchy())
        .build();
    spawn(driver);
    let mut response = balance.clone().oneshot(Request::new(())).await.unwrap();
    bodies.recv().await.unwrap().abort("reset".into());
    let _ = response.frame().await;
    assert_eq!(state(&balance), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_says_why_and_counts() {
    let failing = service_fn(async |_: Request<()>| {
        Err::<Response<Empty<Bytes>>, BoxError>("refused".into())
    });
    let (balance, driver) = Balance::builder(only(failing)).breaker(touchy()).build();
    spawn(driver);
    let error = balance.clone().oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "endpoint: refused");
    assert_eq!((state(&balance), in_flight(&balance)), (State::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_ends_and_shows_how_long_it_hung() {
    let hanging = service_fn(async |_: Request<()>| {
        std::future::pending::<Result<Response<Empty<Bytes>>, BoxError>>().await
    });
    let (balance, driver) = Balance::builder(only(hanging)).build();
    spawn(driver);
    let call = balance.clone().oneshot(Request::new(()));
    assert!(
        tokio::time::timeout(Duration::from_secs(4), call)
            .await
            .is_err()
    );
    let snapshot = balance.picker().snapshot();
    let (_, stats) = snapshot
        .stats(tokio::time::Instant::now().into_std())
        .next()
        .unwrap();
    assert_eq!(stats.in_flight, 0);
    assert!(stats.rtt.unwrap() >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
    let (service, mut bodies) = held("text/plain");
    let (balance, driver) = Balance::builder(only(service))
        .http(AutoClassifier::default())
        .breaker(touchy())
        .build();
    spawn(driver);
    let mut response = balance.clone().oneshot(Request::new(())).await.unwrap();
    bodies.recv().await.unwrap().abort("reset".into());
    let _ = response.frame().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let probe = balance
        .picker()
        .pick(tokio::time::Instant::now().into_std(), 1, &[])
        .unwrap();
    assert!(probe.is_probe());
    drop(probe);
    let probe = balance
        .picker()
        .pick(tokio::time::Instant::now().into_std(), 1, &[])
        .unwrap();
    assert!(probe.is_probe());
    let now = tokio::time::Instant::now().into_std();
    assert_eq!(
        probe.finish(now, Outcome::Success),
        Some(Transition::Closed)
    );
}
