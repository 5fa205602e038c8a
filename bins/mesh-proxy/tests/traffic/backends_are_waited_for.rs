//! How long a request waits for a backend whose endpoints are not known, and how many do, is the controller's to say.

use std::time::{Duration, Instant};

use linkerd2_proxy_api::outbound::{Backend, OutboundPolicy, Queue, backend};

use crate::mesh::{Mesh, SILENT};
use crate::policy;
use crate::wire::{Wire, ask};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

fn silent(capacity: u32, patience: Duration) -> OutboundPolicy {
    policy::changed(|rule| {
        let Some(Backend {
            queue,
            kind: Some(backend::Kind::Balancer(balancer)),
            ..
        }) = &mut policy::backend(rule).backend
        else {
            panic!("not a balancer")
        };
        *queue = Some(Queue {
            capacity,
            failfast_timeout: policy::duration(patience),
        });
        let Some(backend::endpoint_discovery::Kind::Dst(dst)) = balancer
            .discovery
            .as_mut()
            .and_then(|discovery| discovery.kind.as_mut())
        else {
            panic!("not discovered")
        };
        dst.path = SILENT.to_owned();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn for_as_long_as_is_said_by_all_together() {
    let mesh = Mesh::start();
    let patience = Duration::from_millis(500);
    mesh.says.policy("web.test:80", silent(100, patience));
    let _client = mesh.client("").await;
    let started = Instant::now();
    let seen = ask(mesh.net.web(), GET).await;
    assert_eq!(
        (seen.status(), seen.header("l5d-proxy-error").as_deref()),
        (503, Some("no endpoint is available"))
    );
    let waited = started.elapsed();
    assert!(waited >= patience && waited < 4 * patience, "{waited:?}");
    // The time of all of them is over.
    let started = Instant::now();
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 503);
    assert!(started.elapsed() < patience, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_as_many_as_is_said() {
    let mesh = Mesh::start();
    mesh.says
        .policy("web.test:80", silent(1, Duration::from_secs(60)));
    let client = mesh.client("").await;
    let mut first = Wire::connect(mesh.net.web()).await;
    first.send(GET).await;
    client
        .metric_becomes("outbound_http_route_requests_active", &[], 1.0)
        .await;
    let seen = ask(mesh.net.web(), GET).await;
    assert_eq!(
        (seen.status(), seen.header("l5d-proxy-error").as_deref()),
        (503, Some("too many requests wait for an endpoint"))
    );
    assert!(first.is_silent(Duration::from_millis(50)).await);
}
