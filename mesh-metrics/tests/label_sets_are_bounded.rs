//! However many label sets come, a family holds a fixed number; nothing goes uncounted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use mesh_metrics::{
    CloseReason, Completion, Metrics, Peer, ResourceLabels, RouteLabels, TcpLabels, TlsStatus,
};
use std::time::Duration;

/// More than a family holds.
const MANY: usize = 5000;

fn sum(text: &str, family: &str) -> (usize, f64) {
    let values = text
        .lines()
        .filter(|line| line.starts_with(&format!("{family}{{")))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value))
}

#[test]
fn of_routes() {
    let metrics = Metrics::proxy("1");
    for index in 0..MANY {
        let labels = RouteLabels {
            parent: ResourceLabels::default_named(&format!("service-{index}")),
            route: ResourceLabels::default_named("http"),
        };
        let handle = metrics.families.outbound_http.route(&labels);
        handle
            .start()
            .finish(Completion::Status(200), Duration::ZERO);
    }
    let text = metrics.render();
    let (series, requests) = sum(&text, "outbound_http_route_requests_total");
    assert_eq!(requests, MANY as f64);
    assert!(series <= 2049, "{series}");
    let other = r#"route_name="other""#;
    let line = text.lines().find(|line| {
        line.starts_with("outbound_http_route_requests_total") && line.contains(other)
    });
    assert!(line.unwrap().ends_with(&format!(" {}", MANY - 2048)));
    let overflow = format!("metrics_series_overflow_total {}\n", MANY - 2048);
    assert!(text.contains(&overflow));
}

#[test]
fn of_connections_which_keep_peer_and_tls() {
    let metrics = Metrics::proxy("1");
    for index in 0..MANY {
        let labels = TcpLabels {
            peer: Peer::Destination,
            tls: [TlsStatus::Mutual, TlsStatus::Plaintext][index % 2],
            parent: ResourceLabels::default_named(&format!("service-{index}")),
        };
        let handle = metrics.families.outbound_tcp.connections(&labels);
        handle.opened();
        handle.closed(CloseReason::Done);
    }
    let text = metrics.render();
    let (series, opened) = sum(&text, "outbound_tcp_open_total");
    assert_eq!(opened, MANY as f64);
    assert_eq!(series, 2050);
    assert!(!text.contains(r#"peer="src""#));
}
