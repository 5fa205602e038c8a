//! Weights are shares of the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{App, Wire, app};

const REQUESTS: usize = 2_000;

async fn counting(address: std::net::SocketAddr, delay: Duration) -> (App, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let app = app(address, move |mut wire| {
        let counter = counter.clone();
        async move {
            while wire.request().await.is_some() {
                counter.fetch_add(1, SeqCst);
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                if !wire
                    .offer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                {
                    return;
                }
            }
        }
    })
    .await;
    (app, count)
}

/// All requests, from so many clients at once.
async fn drive(mesh: &Mesh, clients: usize) {
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let address = mesh.net.web();
        asking.spawn(async move {
            let mut wire = Wire::connect(address).await;
            for _ in 0..REQUESTS / clients {
                let seen = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
                assert_eq!(seen.status(), 200);
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}

/// Within four standard deviations of a fair draw, and some for the balancer's taste.
fn is_share(count: &AtomicUsize, share: f64, slack: f64) {
    let got = count.load(SeqCst) as f64 / REQUESTS as f64;
    assert!((got - share).abs() < slack, "{got} instead of {share}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_get_their_weight() {
    let mesh = Mesh::start();
    mesh.says.policy(
        "web.test:80",
        policy::weighted(&[("a", 70), ("b", 25), ("c", 5), ("d", 0)]),
    );
    let mut apps = Vec::new();
    for (index, path) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let address = mesh.net.plain(index as u16);
        apps.push(counting(address, Duration::ZERO).await);
        mesh.says.endpoints(path, vec![policy::plain(address)]);
    }
    let _client = mesh.client("").await;
    drive(&mesh, 4).await;
    for ((_, count), share) in apps.iter().zip([0.70, 0.25, 0.05, 0.0]) {
        is_share(count, share, 0.042);
    }
    assert_eq!(apps[3].1.load(SeqCst), 0, "no weight is no request");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_get_their_weight() {
    let mesh = Mesh::start();
    let mut apps = Vec::new();
    let mut endpoints = Vec::new();
    for index in 0..2 {
        let address = mesh.net.plain(index);
        apps.push(counting(address, Duration::from_millis(10)).await);
        let weight = [90_000, 10_000][usize::from(index)];
        endpoints.push(linkerd2_proxy_api::destination::WeightedAddr {
            weight,
            ..policy::plain(address)
        });
    }
    mesh.says.endpoints("web.test:80", endpoints);
    let _client = mesh.client("").await;
    drive(&mesh, 20).await;
    // Latency has its say, too; the exact share is shown with a manual clock, in mesh-balance. Here it shows that the weights arrive there.
    let heavy = apps[0].1.load(SeqCst) as f64 / REQUESTS as f64;
    assert!(heavy > 0.7, "{heavy} instead of about 0.9");
}
