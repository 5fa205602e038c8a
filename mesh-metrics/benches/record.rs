//! What recording costs: `cargo bench -p mesh-metrics`. Nanoseconds per operation, one thread, the best of five rounds.

#![allow(
    clippy::print_stdout,
    reason = "the result of a benchmark is what it prints"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use mesh_metrics::{
    Completion, Histogram, Metrics, Peer, ResourceLabels, RouteLabels, TcpLabels, TlsStatus,
};

const OPERATIONS: u32 = 1_000_000;

fn measure(name: &str, mut operation: impl FnMut(u32)) {
    let round = |operation: &mut dyn FnMut(u32)| {
        let start = Instant::now();
        for n in 0..OPERATIONS {
            operation(black_box(n));
        }
        start.elapsed()
    };
    let best = (0..5).map(|_| round(&mut operation)).min();
    let best = best.unwrap_or_default();
    let nanos = best.as_secs_f64() * 1e9 / f64::from(OPERATIONS);
    println!("{name:<40} {nanos:>7.1} ns");
}

fn main() {
    let metrics = Metrics::proxy("bench");
    let parent = ResourceLabels::new("core", "Service", "shop", "web").with_port(8080);
    let labels = RouteLabels {
        parent: parent.clone(),
        route: ResourceLabels::default_named("http"),
    };
    let took = |n: u32| Duration::from_micros(u64::from(n % 20_000));

    let histogram = Histogram::new();
    measure("histogram, record", |n| histogram.record(took(n)));

    let http = metrics.families.outbound_http.route(&labels);
    measure("request, started and finished", |n| {
        http.started();
        http.finished(Completion::Status(200), took(n));
    });
    measure("request, as a guard", |n| {
        http.start().finish(Completion::Status(200), took(n));
    });

    let labels_tcp = TcpLabels {
        peer: Peer::Source,
        tls: TlsStatus::Mutual,
        parent,
    };
    let tcp = metrics.families.outbound_tcp.connections(&labels_tcp);
    measure("bytes, read and written", |n| {
        tcp.add_read(u64::from(n));
        tcp.add_written(u64::from(n));
    });
    measure("route, looked up by its labels", |_| {
        black_box(metrics.families.outbound_http.route(&labels));
    });
}
