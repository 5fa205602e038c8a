//! Requests stay in the workload's zone while it can take them, and leave it when it cannot.

use std::collections::HashMap;

use linkerd2_proxy_api::destination::WeightedAddr;
use tokio::task::JoinSet;

use crate::controller::messages;
use crate::mesh::Mesh;
use crate::told::{
    FAILED, GET, OK, Told, ask, ask_until, backoff, broken_by, consecutive, endpoint_becomes,
    statuses,
};

const REMOTE: &[&str] = &[r#"zone_locality="remote""#];
const LOCAL: &[&str] = &[r#"zone_locality="local""#];
const REQUESTS: &str = "outbound_http_balancer_zone_requests_total";
const ENDPOINTS: &str = "outbound_http_balancer_zone_endpoints";

fn in_zone(told: &Told, zone: &str) -> WeightedAddr {
    WeightedAddr {
        metric_labels: HashMap::from([("zone".to_owned(), zone.to_owned())]),
        ..told.endpoint()
    }
}

/// An endpoint in each of these zones.
async fn zones(mesh: &Mesh, zones: &[&str]) -> Vec<Told> {
    let mut told = Vec::new();
    for index in 0..zones.len() {
        told.push(Told::start(mesh.net.plain(index as u16), OK).await);
    }
    let placed = told
        .iter()
        .zip(zones)
        .map(|(told, zone)| in_zone(told, zone));
    mesh.says.endpoints("web.test:80", placed.collect());
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_none_leaves_it() {
    let mesh = Mesh::start();
    let told = zones(&mesh, &["b", "a", "b", "a", "c"]).await;
    let client = mesh.client("balance.zone = \"a\"\n").await;
    let mut answers = ask(&mesh, 300).await;
    answers.append(&mut ask_until(&mesh, &[&told[1], &told[3]], 1).await);
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let asked: Vec<_> = told.iter().map(Told::asked).collect();
    assert_eq!((asked[0], asked[2], asked[4]), (0, 0, 0));
    let sent = answers.len() as f64;
    client.metric_becomes(REQUESTS, LOCAL, sent).await;
    assert!(client.metric(REQUESTS, REMOTE).await.abs() < 0.5);
    client.metric_becomes(ENDPOINTS, LOCAL, 2.0).await;
    client.metric_becomes(ENDPOINTS, REMOTE, 0.0).await;
    let high = [r#"value="high""#];
    client
        .metric_becomes("outbound_http_balancer_zone_load", &high, 2.0)
        .await;
}

/// That it is the setting which makes the difference.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_zone_of_its_own_a_proxy_uses_all() {
    let mesh = Mesh::start();
    let told = zones(&mesh, &["b", "a"]).await;
    let client = mesh.client("").await;
    ask_until(&mesh, &[&told[0], &told[1]], 1).await;
    let text = client.until("/metrics", |_| true).await;
    assert!(!text.contains("zone_locality"), "nothing is said of zones");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_comes_first_and_the_nearest_of_the_others() {
    let mesh = Mesh::start();
    let accrual = consecutive(1, backoff(std::time::Duration::from_secs(50)));
    mesh.says.policy(
        "web.test:80",
        broken_by(messages::balanced("web", "web.test:80"), accrual),
    );
    let told = zones(&mesh, &["a", "far", "near"]).await;
    told[0].answers(&[FAILED]);
    let client = mesh
        .client("balance.zone = \"a\"\nbalance.zones_nearest = [\"near\"]\n")
        .await;
    assert_eq!(statuses(&ask(&mesh, 1).await), [500]);
    endpoint_becomes(&client, told[0].address, |endpoint| {
        endpoint["ejected"] == true
    })
    .await;
    // None of these fails for a zone that is lost.
    assert_eq!(statuses(&ask(&mesh, 100).await), [200; 100]);
    assert_eq!((told[0].asked(), told[1].asked()), (1, 0));
    client.metric_becomes(REQUESTS, REMOTE, 100.0).await;
    client.metric_becomes(ENDPOINTS, REMOTE, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_without_endpoints_is_no_reason_to_fail() {
    let mesh = Mesh::start();
    let told = zones(&mesh, &["b", "c"]).await;
    let _client = mesh.client("balance.zone = \"a\"\n").await;
    let answers = ask_until(&mesh, &[&told[0], &told[1]], 50).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_has_too_much_to_do_is_helped() {
    let mesh = Mesh::start();
    let told = zones(&mesh, &["a", "b"]).await;
    let _client = mesh
        .client("balance.zone = \"a\"\nbalance.zones = {low = 0.1, high = 0.5}\n")
        .await;
    // One endpoint cannot have less than one request in flight per endpoint while eight clients ask all the time.
    let mut clients = JoinSet::new();
    let until_helped = told[1].asked_when_told();
    for _ in 0..8 {
        let (address, helped) = (mesh.net.web(), until_helped.clone());
        clients.spawn(async move {
            let mut wire = crate::wire::Wire::connect(address).await;
            while !helped() {
                assert_eq!(wire.ask(GET).await.status(), 200);
            }
        });
    }
    crate::controller::soon("help from the other zone", async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    })
    .await;
}
