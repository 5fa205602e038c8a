//! Breakers take endpoints that fail out of use, as the policy says, for all workers together, and let them back in.

use std::time::Duration;

use linkerd2_proxy_api::outbound::failure_accrual::{Kind, Unified};
use linkerd2_proxy_api::outbound::{ExponentialBackoff, FailureAccrual};

use crate::controller::{messages, soon};
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::told::{
    FAILED, GET, OK, ask, ask_and_leave, ask_until, backoff, broken_by, consecutive,
    endpoint_becomes, endpoints, limited, loaded, penalized, statuses, with_floor,
};
use crate::wire::Wire;

const ENDPOINTS: &str = "outbound_http_balancer_endpoints";
const HOUR: Duration = Duration::from_secs(50);

fn web() -> linkerd2_proxy_api::outbound::OutboundPolicy {
    messages::balanced("web", "web.test:80")
}

async fn ejected_becomes(client: &Proxy, count: f64) {
    client
        .metric_becomes(ENDPOINTS, &[r#"endpoint_state="ejected""#], count)
        .await;
}

fn unified(success_rate_threshold: f64, min_requests: u32) -> Unified {
    Unified {
        success_rate_threshold,
        decay: policy::duration(Duration::from_secs(10)),
        min_requests,
        max_consecutive_failures: 0,
        backoff: Some(backoff(HOUR)),
    }
}

fn accrual(unified: Unified) -> FailureAccrual {
    FailureAccrual {
        kind: Some(Kind::Unified(unified)),
        ejection: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_as_many_failures_as_are_allowed_over_all_workers_and_comes_back() {
    let mesh = Mesh::start();
    let accrual = consecutive(3, backoff(Duration::from_millis(1_500)));
    mesh.says.policy("web.test:80", broken_by(web(), accrual));
    let told = endpoints(&mesh, 3).await;
    told[0].answers(&[FAILED]);
    let client = mesh.client("limits.workers = 4\n").await;
    // Every request is a connection of its own, which any worker may take.
    let mut failed = 0;
    while failed < 3 {
        failed += usize::from(ask(&mesh, 1).await[0].status() == 500);
    }
    ejected_becomes(&client, 1.0).await;
    assert_eq!(told[0].asked(), 3);
    let opened = [r#"state="open""#];
    client
        .metric_becomes("outbound_http_breaker_transitions_total", &opened, 1.0)
        .await;

    told[0].answers(&[OK]);
    let answers = ask(&mesh, 20).await;
    assert_eq!(statuses(&answers), [200; 20]);
    // It is tried when its time has come, and is in use again.
    let answers = ask_until(&mesh, &[&told[0]], 1).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    ejected_becomes(&client, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_long_as_enough_are_left() {
    let mesh = Mesh::start();
    let accrual = with_floor(consecutive(1, backoff(HOUR)), 2);
    mesh.says.policy("web.test:80", broken_by(web(), accrual));
    let told = endpoints(&mesh, 3).await;
    told.iter().for_each(|endpoint| endpoint.answers(&[FAILED]));
    let client = mesh.client("").await;
    assert_eq!(statuses(&ask(&mesh, 30).await), [500; 30]);
    ejected_becomes(&client, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_where_there_is_no_floor_and_no_more_than_a_share_where_the_settings_say_so() {
    for (settings, out, status) in [
        ("", 4.0, 503),
        ("balance.max_ejected_percent = 50\n", 2.0, 500),
    ] {
        let mesh = Mesh::start();
        let accrual = consecutive(1, backoff(HOUR));
        mesh.says.policy("web.test:80", broken_by(web(), accrual));
        let told = endpoints(&mesh, 4).await;
        told.iter().for_each(|endpoint| endpoint.answers(&[FAILED]));
        let client = mesh.client(settings).await;
        let answers = ask(&mesh, 40).await;
        assert_eq!(answers.last().unwrap().status(), status, "{settings}");
        ejected_becomes(&client, out).await;
        let unavailable = client
            .metric("outbound_http_balancer_unavailable_total", &[])
            .await;
        assert_eq!(unavailable > 0.0, status == 503, "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_success_rate_that_is_too_low_of_enough_requests() {
    let mesh = Mesh::start();
    let policy = broken_by(web(), accrual(unified(0.8, 10)));
    mesh.says.policy("web.test:80", policy);
    let told = endpoints(&mesh, 2).await;
    // Never two failures in a row.
    told[0].answers(&[OK, FAILED]);
    let client = mesh.client("").await;
    ask_until(&mesh, &[&told[0]], 9).await;
    ejected_becomes(&client, 0.0).await;
    ask_until(&mesh, &[&told[0]], 10).await;
    ejected_becomes(&client, 1.0).await;
    ask(&mesh, 40).await;
    assert_eq!(told[0].asked(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_for_a_success_rate_that_will_do() {
    let mesh = Mesh::start();
    let policy = broken_by(web(), accrual(unified(0.4, 10)));
    mesh.says.policy("web.test:80", policy);
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[OK, FAILED]);
    let client = mesh.client("").await;
    ask(&mesh, 40).await;
    assert_eq!(told[0].asked(), 40);
    ejected_becomes(&client, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_rate_is_one_of_the_latest_requests() {
    let mesh = Mesh::start();
    let short = Unified {
        decay: policy::duration(Duration::from_millis(50)),
        ..unified(0.8, 10)
    };
    mesh.says
        .policy("web.test:80", broken_by(web(), accrual(short)));
    let told = endpoints(&mesh, 1).await;
    told[0].answers(&[FAILED]);
    let client = mesh.client("").await;
    for _ in 0..20 {
        ask(&mesh, 1).await;
        // So many never fit into the window.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told[0].asked(), 20);
    ejected_becomes(&client, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_failures_in_a_row_where_a_unified_breaker_counts_them() {
    let mesh = Mesh::start();
    let both = Unified {
        max_consecutive_failures: 2,
        ..unified(0.8, 1_000)
    };
    mesh.says
        .policy("web.test:80", broken_by(web(), accrual(both)));
    let told = endpoints(&mesh, 2).await;
    told[0].answers(&[FAILED]);
    let client = mesh.client("").await;
    ask_until(&mesh, &[&told[0]], 2).await;
    ejected_becomes(&client, 1.0).await;
    ask(&mesh, 40).await;
    assert_eq!(told[0].asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_as_long_as_it_asks_where_that_is_respected() {
    for (respect_retry_after_hint, least) in [(true, 1_950), (false, 0)] {
        let mesh = Mesh::start();
        let backoff = ExponentialBackoff {
            respect_retry_after_hint,
            ..backoff(Duration::from_millis(100))
        };
        mesh.says
            .policy("web.test:80", broken_by(web(), consecutive(1, backoff)));
        let told = endpoints(&mesh, 2).await;
        told[0].answers(&[
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n",
            OK,
        ]);
        let _client = mesh.client("").await;
        ask_until(&mesh, &[&told[0]], 2).await;
        let at = told[0].asked_at();
        let out = at[1].duration_since(at[0]);
        assert!(out >= Duration::from_millis(least), "{out:?}");
        if !respect_retry_after_hint {
            assert!(out < Duration::from_millis(1_900), "{out:?}");
        }
    }
}

/// A client that has seen enough does not make a failure undone.
#[tokio::test(flavor = "multi_thread")]
async fn though_nobody_waits_for_the_end_of_its_answer() {
    let mesh = Mesh::start();
    let accrual = consecutive(1, backoff(HOUR));
    mesh.says.policy("web.test:80", broken_by(web(), accrual));
    let told = endpoints(&mesh, 1).await;
    told[0]
        .answers(&["HTTP/1.1 500 Internal Server Error\r\ncontent-length: 1000\r\n\r\nunfinished"]);
    let client = mesh.client("").await;
    assert_eq!(ask_and_leave(&mesh).await, 500);
    ejected_becomes(&client, 1.0).await;
}

/// A stream may be what an endpoint is tried with. Nobody waits for its end.
#[tokio::test(flavor = "multi_thread")]
async fn until_an_answer_to_the_one_request_that_tries_it_goes_on() {
    let mesh = Mesh::start();
    let accrual = consecutive(1, backoff(Duration::from_millis(100)));
    mesh.says.policy("web.test:80", broken_by(web(), accrual));
    let told = endpoints(&mesh, 2).await;
    told[0].answers(&[FAILED]);
    let client = mesh.client("").await;
    ask_until(&mesh, &[&told[0]], 1).await;
    ejected_becomes(&client, 1.0).await;
    told[0].answers(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nunfinished",
        OK,
    ]);
    let mut stream = Wire::connect(mesh.net.web()).await;
    soon("it is tried", async {
        while told[0].asked() == 0 {
            stream = Wire::connect(mesh.net.web()).await;
            stream.send(GET).await;
            assert_eq!(stream.head().await.unwrap().status(), 200);
        }
    })
    .await;
    ask_until(&mesh, &[&told[0]], 2).await;
    ejected_becomes(&client, 0.0).await;
    drop(stream);
}

/// Where the balancer keeps to an endpoint's limit, its refusals do not take it out; where nobody does, they may.
#[tokio::test(flavor = "multi_thread")]
async fn for_refusals_only_where_limits_are_not_learned() {
    use linkerd2_proxy_api::outbound::backend::balance_p2c::Load;
    for (settings, out) in [("", 0.0), ("balance.rate_limits = \"exact\"\n", 1.0)] {
        let mesh = Mesh::start();
        let load = loaded(&Load::PenaltyPeakEwma(penalized()));
        mesh.says
            .policy("web.test:80", broken_by(load, accrual(unified(0.8, 4))));
        let told = endpoints(&mesh, 1).await;
        // Without a word on when to come back it is not held.
        let refusal = limited("0");
        told[0].answers(&[OK, &refusal, &refusal, &refusal]);
        let client = mesh.client(settings).await;
        ask_until(&mesh, &[&told[0]], 4).await;
        let seen = endpoint_becomes(&client, told[0].address, |endpoint| {
            endpoint["ejected"] == (out > 0.0)
        })
        .await;
        assert_eq!(seen["breaker"], if out > 0.0 { "open" } else { "closed" });
        ejected_becomes(&client, out).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_out_is_told_first() {
    let mesh = Mesh::start();
    let accrual = consecutive(1, backoff(HOUR));
    mesh.says.policy("web.test:80", broken_by(web(), accrual));
    let told = endpoints(&mesh, 3).await;
    told[2].answers(&[FAILED]);
    let client = mesh.client("").await;
    ask_until(&mesh, &[&told[2]], 1).await;
    ejected_becomes(&client, 1.0).await;
    let body = client.until("/balancers", |_| true).await;
    let told_by: serde_json::Value = serde_json::from_str(&body).unwrap();
    let balancers = told_by["balancers"].as_array().unwrap();
    let http = balancers.iter().find(|balancer| balancer["ejected"] == 1);
    let first = &http.unwrap()["endpoints"][0];
    assert_eq!(first["address"], told[2].address.to_string());
    assert_eq!(
        (&first["breaker"], &first["ejected"]),
        (&"open".into(), &true.into())
    );
}
