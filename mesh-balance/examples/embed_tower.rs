//! Any tower service, balanced: three workers of different speed behind channels, and one that fails.
//!
//! `cargo run -p mesh-balance --features tower --example embed_tower`
#![allow(clippy::print_stdout, reason = "an example prints")]

use mesh_balance::{Balance, BoxError, ConsecutiveFailures};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tower::discover::Change;
use tower::{ServiceBuilder, ServiceExt};

type Job = (u64, oneshot::Sender<(&'static str, u64)>);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let workers = [("quick", 2), ("steady", 4), ("slow", 40), ("broken", 0)];
    let endpoints = workers.map(|(name, millis)| {
        Ok::<_, Infallible>(Change::Insert(
            name,
            worker(name, Duration::from_millis(millis)),
        ))
    });
    let (balance, driver) = Balance::builder(futures_util::stream::iter(endpoints))
        .breaker(ConsecutiveFailures::default())
        .on_event(|event| println!("{event:?}"))
        .build();
    tokio::spawn(driver);

    // A limit around it, as around any other service.
    let service = ServiceBuilder::new()
        .concurrency_limit(32)
        .map_err(BoxError::from)
        .service(balance);
    let mut calls = JoinSet::new();
    for number in 0..500_u64 {
        let service = service.clone();
        calls.spawn(async move { service.oneshot(number).await.ok() });
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let mut served = [("quick", 0), ("steady", 0), ("slow", 0), ("nobody", 0)];
    while let Some(answer) = calls.join_next().await {
        let by = answer?.map_or("nobody", |(name, _)| name);
        for (name, count) in &mut served {
            *count += u64::from(*name == by);
        }
    }
    println!("served by: {served:?}");
    if served[0].1 <= served[2].1 || served[3].1 > 50 {
        return Err(
            "the quick one should have had the most, and the broken one should be out".into(),
        );
    }
    Ok(())
}

/// A task that does jobs as they come, as a tower service; without a pace it fails them.
fn worker(
    name: &'static str,
    each: Duration,
) -> impl tower::Service<u64, Response = (&'static str, u64), Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
    tokio::spawn(async move {
        while let Some((number, answer)) = waiting.recv().await {
            if !each.is_zero() {
                tokio::spawn(async move {
                    tokio::time::sleep(each).await;
                    // Whoever asked may have left.
                    let _ = answer.send((name, number * number));
                });
            }
        }
    });
    tower::service_fn(move |number| {
        let (answer, answered) = oneshot::channel();
        let sent = jobs.send((number, answer));
        async move {
            sent?;
            Ok(answered.await?)
        }
    })
}
