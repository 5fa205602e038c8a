//! Counts are exact under concurrent recording, and a histogram agrees with the plainest model of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use mesh_metrics::{Completion, Histogram, Metrics, ResourceLabels, RouteLabels};
use proptest::prelude::*;

#[test]
fn by_many_threads() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let metrics = Metrics::proxy("1");
    let labels = RouteLabels {
        parent: ResourceLabels::default_named("p"),
        route: ResourceLabels::default_named("r"),
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let handle = metrics.families.inbound_http.route(&labels);
            scope.spawn(move || {
                for n in 0..EACH {
                    let request = handle.start();
                    request.finish(Completion::Status(200), Duration::from_micros(n + thread));
                }
            });
        }
    });
    let text = metrics.render();
    let ends = |family: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{family}{{")));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let all = (THREADS * EACH).to_string();
    assert_eq!(ends("inbound_http_requests_total"), all);
    assert_eq!(ends("inbound_http_statuses_total"), all);
    assert_eq!(ends("inbound_http_request_duration_seconds_count"), all);
    assert_eq!(ends("inbound_http_requests_active"), "0");
}

proptest! {
    #[test]
    fn by_a_histogram(nanos in prop::collection::vec(0..20_000_000_000_u64, 0..200)) {
        let histogram = Histogram::new();
        for nanos in &nanos {
            histogram.record(Duration::from_nanos(*nanos));
        }
        let snapshot = histogram.snapshot();
        prop_assert_eq!(snapshot.count(), nanos.len() as u64);
        prop_assert_eq!(snapshot.sum, Duration::from_nanos(nanos.iter().sum()));
        let mut cumulative = 0;
        for (bound, count) in Histogram::BOUNDS.iter().zip(snapshot.counts) {
            cumulative += count;
            let below = nanos.iter().filter(|nanos| Duration::from_nanos(**nanos) <= *bound);
            prop_assert_eq!(cumulative, below.count() as u64);
        }
    }

    /// Names come from manifests and may hold anything; a label value is escaped, never a line of its own.
    #[test]
    fn by_odd_names(name in "\\PC*|[\"\\\\\n{}]{1,8}") {
        let metrics = Metrics::proxy("1");
        let labels = RouteLabels {
            parent: ResourceLabels::default_named(&name),
            route: ResourceLabels::default_named("r"),
        };
        metrics.families.inbound_http.route(&labels).started();
        let text = metrics.render();
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let label = format!("parent_name=\"{escaped}\",");
        prop_assert!(text.contains(&label), "{text}");
    }
}
