//! What is recorded is what is written, in both formats, for every family.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use mesh_metrics::{
    AnchorConnections, Api, BackendLabels, BreakerState, BundleRefusal, CloseReason, Completion,
    EndpointCounts, Endpoints, Expiry, Failure, Metrics, Peer, ProxyFamilies, Refusal,
    RegistrySizes, ResourceLabels, RouteLabels, TcpLabels, TlsStatus, TokenEvent, TrustState,
    ZoneCounts,
};

#[derive(Debug)]
struct Balancer(EndpointCounts);

impl Endpoints for Balancer {
    fn counts(&self) -> EndpointCounts {
        self.0
    }
}

/// It lives as long as the tests.
static BALANCER: LazyLock<Arc<dyn Endpoints>> = LazyLock::new(|| {
    Arc::new(Balancer(EndpointCounts {
        ready: 3,
        pending: 2,
        ejected: 1,
        held: 4,
        limited: 5,
        aperture: Some(6),
        zones: Some(ZoneCounts {
            local: 7,
            remote: 1,
            load: 1.25,
            low: 0.8,
            high: 2.0,
        }),
    }))
});

fn route() -> RouteLabels {
    RouteLabels {
        parent: ResourceLabels::new("core", "Service", "shop", "web").with_port(8080),
        route: ResourceLabels::default_named("http"),
    }
}

fn tcp() -> TcpLabels {
    TcpLabels {
        peer: Peer::Source,
        tls: TlsStatus::Mutual,
        parent: ResourceLabels::default_named("all-unauthenticated"),
    }
}

/// A proxy that has seen a little of everything.
fn busy_proxy() -> Metrics<ProxyFamilies> {
    let metrics = Metrics::proxy("1.2.3");
    let families = &metrics.families;
    for http in [&families.inbound_http, &families.outbound_http] {
        let handle = http.route(&route());
        handle
            .start()
            .finish(Completion::Status(200), Duration::from_millis(3));
        handle
            .start()
            .finish(Completion::Grpc(14), Duration::from_secs(20));
        let timeout = Completion::Failed(Failure::Timeout);
        handle.start().finish(timeout, Duration::from_secs(1));
        handle.started();
    }
    let backend = BackendLabels {
        parent: route().parent,
        route: route().route,
        backend: route().parent,
    };
    let handle = families.outbound_backend.backend(&backend);
    handle
        .start()
        .finish(Completion::Status(503), Duration::ZERO);
    let retries = families.outbound_retries.route(&route());
    for _ in 0..3 {
        retries.requested();
    }
    retries.succeeded();
    retries.limit_exceeded();
    retries.overflowed();
    for metrics in [&families.inbound_tcp, &families.outbound_tcp] {
        let handle = metrics.connections(&tcp());
        handle.opened();
        handle.opened();
        handle.add_read(10);
        handle.add_written(20);
        handle.closed(CloseReason::Done);
    }
    let balancer = families.balancer.backend(&route().parent);
    balancer.observe(Arc::downgrade(&BALANCER));
    balancer.shed();
    balancer.sent(true);
    balancer.sent(true);
    balancer.sent(false);
    balancer.updated(6, 0);
    balancer.breaker(BreakerState::Open);
    balancer.unavailable();
    let stream = families.control.stream(Api::Destination);
    stream.connected();
    stream.updated();
    stream.invalid();
    stream.reconnecting();
    let identity = families.control.identity();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    identity.renewed(at(1000), at(2000));
    identity.failed();
    let trust = families.trust.handle();
    trust.loaded(7);
    trust.refused(BundleRefusal::Leap);
    trust.cut(5);
    // More than have lines of their own.
    trust.watch(|| {
        let one = |index: u32| AnchorConnections {
            anchor: format!("{index:02}"),
            open: if index == 0 { 3 } else { 2 },
            draining: u64::from(index == 0),
        };
        (0..18).map(one).collect()
    });
    let tap = families.tap.handle();
    tap.observer_came();
    tap.queued();
    tap.queued();
    tap.dropped();
    metrics
}

const PARENT: &str = concat!(
    r#"parent_group="core",parent_kind="Service",parent_namespace="shop","#,
    r#"parent_name="web",parent_section_name="",parent_port="8080""#
);

/// The value of the one line of `family` that holds all of `labels`.
fn value(text: &str, family: &str, labels: &[&str]) -> f64 {
    let hits: Vec<_> = text
        .lines()
        .filter(|line| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
                && labels.iter().all(|label| line.contains(label))
        })
        .collect();
    let [line] = &hits[..] else {
        panic!("{family} {labels:?}: {hits:?} in\n{text}");
    };
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn of_a_proxy() {
    let text = busy_proxy().render();
    for prefix in ["inbound_http", "outbound_http_route"] {
        let grpc = prefix.replace("http", "grpc");
        let of = |rest: &str, labels: &[&str]| value(&text, &format!("{prefix}_{rest}"), labels);
        assert_eq!(of("requests_total", &[PARENT]), 4.0);
        assert_eq!(of("requests_active", &[PARENT]), 1.0);
        assert_eq!(of("statuses_total", &[r#"http_status="200""#]), 1.0);
        let unavailable = value(
            &text,
            &format!("{grpc}_statuses_total"),
            &[r#"grpc_status="UNAVAILABLE""#],
        );
        assert_eq!(unavailable, 1.0);
        assert_eq!(of("failures_total", &[r#"error="timeout""#]), 1.0);
        let success = r#"result="success""#;
        let failure = r#"result="failure""#;
        let bucket = "request_duration_seconds_bucket";
        assert_eq!(of(bucket, &[success, r#"le="0.0025""#]), 0.0);
        assert_eq!(of(bucket, &[success, r#"le="0.005""#]), 1.0);
        assert_eq!(of(bucket, &[failure, r#"le="10.0""#]), 1.0);
        assert_eq!(of(bucket, &[failure, r#"le="+Inf""#]), 2.0);
        assert_eq!(of("request_duration_seconds_count", &[failure]), 2.0);
        assert_eq!(of("request_duration_seconds_sum", &[failure]), 21.0);
    }
    let backend = r#"backend_name="web""#;
    let attempts = "outbound_http_route_backend_statuses_total";
    assert_eq!(
        value(&text, attempts, &[backend, r#"http_status="503""#]),
        1.0
    );
    for (name, count) in [
        ("requests", 3.0),
        ("successes", 1.0),
        ("limit_exceeded", 1.0),
        ("overflow", 1.0),
    ] {
        let family = format!("outbound_http_route_retry_{name}_total");
        assert_eq!(value(&text, &family, &[PARENT]), count);
    }
    for prefix in ["inbound_tcp", "outbound_tcp"] {
        let of = |rest: &str, labels: &[&str]| value(&text, &format!("{prefix}_{rest}"), labels);
        let peer = [r#"peer="src""#, r#"tls="true""#];
        assert_eq!(of("open_total", &peer), 2.0);
        assert_eq!(of("open_connections", &peer), 1.0);
        assert_eq!(of("close_total", &[r#"reason="done""#]), 1.0);
        assert_eq!(of("read_bytes_total", &peer), 10.0);
        assert_eq!(of("write_bytes_total", &peer), 20.0);
    }
    let endpoints = "outbound_http_balancer_endpoints";
    for (state, count) in [
        ("ready", 3.0),
        ("pending", 2.0),
        ("ejected", 1.0),
        ("held", 4.0),
    ] {
        let state = format!(r#"endpoint_state="{state}""#);
        assert_eq!(value(&text, endpoints, &[&state, backend]), count);
    }
    let of = |rest: &str, labels: &[&str]| {
        value(&text, &format!("outbound_http_balancer_{rest}"), labels)
    };
    assert_eq!(of("limited_endpoints", &[backend]), 5.0);
    assert_eq!(of("aperture_endpoints", &[backend]), 6.0);
    assert_eq!(of("shed_total", &[backend]), 1.0);
    for (locality, endpoints, requests) in [("local", 7.0, 2.0), ("remote", 1.0, 1.0)] {
        let locality = format!(r#"zone_locality="{locality}""#);
        assert_eq!(of("zone_endpoints", &[&locality, backend]), endpoints);
        assert_eq!(of("zone_requests_total", &[&locality, backend]), requests);
    }
    for (bound, load) in [("current", 1.25), ("low", 0.8), ("high", 2.0)] {
        let bound = format!(r#"value="{bound}""#);
        assert_eq!(of("zone_load", &[&bound, backend]), load);
    }
    assert_eq!(
        value(
            &text,
            "outbound_http_balancer_updates_total",
            &[r#"op="add""#]
        ),
        6.0
    );
    assert_eq!(
        value(&text, "outbound_http_balancer_unavailable_total", &[]),
        1.0
    );
    let transitions = "outbound_http_breaker_transitions_total";
    assert_eq!(value(&text, transitions, &[r#"state="open""#]), 1.0);
    let destination = [r#"api="destination""#];
    for family in [
        "control_streams_connected",
        "control_reconnects_total",
        "control_updates_total",
        "control_invalid_messages_total",
    ] {
        assert_eq!(value(&text, family, &destination), 1.0);
    }
    let certificate = "control_identity_cert";
    let of = |rest: &str| value(&text, &format!("{certificate}_{rest}"), &[]);
    assert_eq!(of("expiration_timestamp_seconds"), 2000.0);
    assert_eq!(of("refresh_timestamp_seconds"), 1000.0);
    assert_eq!(of("refreshes_total"), 1.0);
    assert_eq!(of("refresh_failures_total"), 1.0);
    assert_eq!(value(&text, "tap_observers", &[]), 1.0);
    assert_eq!(value(&text, "tap_events_total", &[]), 2.0);
    assert_eq!(value(&text, "tap_events_dropped_total", &[]), 1.0);
    assert_eq!(value(&text, "trust_bundle_generation", &[]), 7.0);
    let of = |reason| value(&text, "trust_bundles_refused_total", &[reason]);
    assert_eq!(
        (of(r#"reason="leap""#), of(r#"reason="stale""#)),
        (1.0, 0.0)
    );
    let of = |labels: [&str; 2]| value(&text, "trust_connections", &labels);
    assert_eq!(of([r#"anchor="00""#, r#"state="open""#]), 2.0);
    assert_eq!(of([r#"anchor="00""#, r#"state="draining""#]), 1.0);
    assert_eq!(of([r#"anchor="other""#, r#"state="open""#]), 4.0);
    assert_eq!(value(&text, "trust_connections_cut_total", &[]), 5.0);
    let build = [r#"program="mesh-proxy""#, r#"version="1.2.3""#];
    assert_eq!(value(&text, "build_info", &build), 1.0);
    assert_eq!(value(&text, "metrics_series_overflow_total", &[]), 0.0);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn of_a_controller() {
    let metrics = Metrics::controller("1.2.3");
    metrics.families.set_registry(RegistrySizes {
        services: 1,
        workloads: 2,
        endpoints: 3,
    });
    metrics.families.manifests_read(4);
    metrics.families.certificate_issued();
    metrics.families.certificate_refused(Refusal::Identity);
    metrics.families.token(TokenEvent::Revoked);
    let subscribers = metrics.families.subscribers(Api::OutboundPolicy);
    subscribers.subscribed();
    subscribers.sent(5);
    let mut state = TrustState::default();
    state.leads = true;
    state.phase = "drain".to_owned();
    state.phase_since = Some(1000);
    (state.consumers, state.ready) = (7, 4);
    state.blockers = vec![("silent".to_owned(), 3)];
    state.quarantined = 2;
    state.anchors = vec![Expiry {
        name: "aa".to_owned(),
        state: "in_use".to_owned(),
        not_after: 9000,
    }];
    state.issuers = vec![Expiry {
        name: "bb".to_owned(),
        state: "signs".to_owned(),
        not_after: 8000,
    }];
    state.oldest_evidence = Some(900);
    state.generations = vec![("reloading".to_owned(), 5, 6)];
    state.generation = 5;
    metrics.families.watch_trust(move || state.clone());

    let text = metrics.render();
    let labelled =
        |family: &str, labels: &[&str]| value(&text, &format!("controller_trust_{family}"), labels);
    assert_eq!(labelled("leads", &[]), 1.0);
    assert_eq!(labelled("phase", &[r#"phase="drain""#]), 1.0);
    assert_eq!(labelled("phase_since_timestamp_seconds", &[]), 1000.0);
    assert_eq!(labelled("consumers", &[r#"ready="true""#]), 4.0);
    assert_eq!(labelled("consumers", &[r#"ready="false""#]), 3.0);
    assert_eq!(labelled("blockers", &[r#"reason="silent""#]), 3.0);
    assert_eq!(labelled("quarantined", &[]), 2.0);
    let anchor = [r#"anchor="aa""#, r#"state="in_use""#];
    assert_eq!(labelled("anchor_expiry_timestamp_seconds", &anchor), 9000.0);
    let issuer = [r#"issuer="bb""#, r#"state="signs""#];
    assert_eq!(labelled("issuer_expiry_timestamp_seconds", &issuer), 8000.0);
    assert_eq!(labelled("oldest_evidence_timestamp_seconds", &[]), 900.0);
    assert_eq!(labelled("generation", &[]), 5.0);
    let class = [r#"class="reloading""#, r#"generation="5""#];
    assert_eq!(labelled("consumers_by_generation", &class), 6.0);
    // None while a change is underway.
    assert!(!text.contains("\ncontroller_trust_next_change_timestamp_seconds "));
    let of = |family: &str, label: &str| value(&text, &format!("controller_{family}"), &[label]);
    assert_eq!(of("registry_objects", r#"kind="service""#), 1.0);
    assert_eq!(of("registry_objects", r#"kind="workload""#), 2.0);
    assert_eq!(of("registry_objects", r#"kind="endpoint""#), 3.0);
    assert_eq!(of("manifest_errors", ""), 4.0);
    assert_eq!(of("manifest_reloads_total", ""), 1.0);
    assert_eq!(of("certificates_issued_total", ""), 1.0);
    assert_eq!(
        of("certificates_refused_total", r#"reason="identity""#),
        1.0
    );
    assert_eq!(of("token_events_total", r#"event="revoked""#), 1.0);
    assert_eq!(of("subscribers", r#"api="outbound_policy""#), 1.0);
    assert_eq!(of("updates_total", r#"api="outbound_policy""#), 5.0);
    subscribers.unsubscribed();
    assert_eq!(value(&metrics.render(), "controller_subscribers", &[]), 0.0);
}

#[test]
#[cfg(target_os = "linux")]
fn of_the_process() {
    let text = Metrics::controller("1").render();
    let of = |family| value(&text, family, &[]);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let age = now.as_secs_f64() - of("process_start_time_seconds");
    assert!((-5.0..3600.0).contains(&age), "{age}");
    assert!(of("process_cpu_seconds_total") >= 0.0);
    assert!(of("process_resident_memory_bytes") > 100_000.0);
    assert!(of("process_virtual_memory_bytes") >= of("process_resident_memory_bytes"));
    assert!(of("process_threads") >= 1.0);
    assert!(of("process_open_fds") >= 1.0);
    assert!(of("process_max_fds") >= of("process_open_fds"));
}

#[test]
fn in_both_formats() {
    let metrics = busy_proxy();
    let (kind, text) =
        metrics.negotiate(Some("text/plain;q=0.1, application/openmetrics-text;q=0.9"));
    assert_eq!(kind, Metrics::<ProxyFamilies>::OPENMETRICS);
    assert!(text.contains("# TYPE inbound_http_requests counter\n"));

    let (kind, text) = metrics.negotiate(None);
    assert_eq!(kind, Metrics::<ProxyFamilies>::PROMETHEUS);
    let descriptor = "# HELP inbound_http_requests_total Requests, gRPC calls included, counted when \
                      they start.\n# TYPE inbound_http_requests_total counter\n\
                      inbound_http_requests_total{";
    assert!(text.contains(descriptor), "{text}");
    assert!(!text.contains("# EOF"));
    assert_eq!(value(&text, "inbound_http_requests_total", &[PARENT]), 4.0);
    // No family is described twice, and every sample is of one that is described.
    let mut described = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, _) = rest.split_once(' ').unwrap();
            assert!(!described.contains(&name), "{name} twice");
            described.push(name);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let last = described.last().unwrap();
            assert!(name.starts_with(last), "{name} under {last}");
        }
    }
}
