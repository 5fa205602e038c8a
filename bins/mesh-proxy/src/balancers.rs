//! How the endpoints of each backend stand, for `/balancers`.

use std::time::{Duration, Instant};

use mesh_balance::core::{EndpointStats, State};
use mesh_metrics::{EndpointCounts, Endpoints};
use serde_json::{Value as Json, json};

use crate::control::Control;
use crate::model::{Backend, BackendKind, Endpoint};

/// The most endpoints told of one backend; those that something is up with come first.
const MAX_ENDPOINTS: usize = 200;

/// All backends that balance, as JSON.
pub(crate) fn show(control: &Control) -> String {
    let balancers: Vec<_> = control
        .balancers()
        .iter()
        .map(|(path, backend)| of_backend(path, backend))
        .collect();
    format!("{:#}\n", json!({ "balancers": balancers }))
}

fn of_backend(path: &str, backend: &Backend) -> Json {
    let EndpointCounts {
        ready,
        ejected,
        held,
        limited,
        zones,
        ..
    } = backend.counts();
    let mut told = json!({
        "path": path,
        "backend": backend.meta().to_string(),
        "ready": ready,
        "ejected": ejected,
        "held": held,
        "limited": limited,
    });
    if let Some(zones) = zones {
        told["zones"] = json!({
            "local": zones.local,
            "remote": zones.remote,
            "load": zones.load,
            "low": zones.low,
            "high": zones.high,
        });
    }
    if let BackendKind::Balancer(picker) = backend.kind() {
        let snapshot = picker.snapshot();
        let mut endpoints: Vec<_> = snapshot.stats(Instant::now()).collect();
        endpoints.sort_by_key(|(endpoint, stats)| (is_as_usual(stats), endpoint.addr));
        let shown = endpoints.iter().take(MAX_ENDPOINTS);
        told["endpoints"] = shown
            .map(|(endpoint, stats)| of_endpoint(endpoint, stats))
            .collect();
        told["more"] = endpoints.len().saturating_sub(MAX_ENDPOINTS).into();
    }
    told
}

fn is_as_usual(stats: &EndpointStats) -> bool {
    let clear = stats.held.is_zero() && stats.penalty.is_zero() && stats.limit.is_none();
    clear && !stats.ejected && stats.breaker == State::Closed
}

fn of_endpoint(endpoint: &Endpoint, stats: &EndpointStats) -> Json {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "address": endpoint.addr.to_string(),
        "zone": endpoint.zone.as_deref(),
        "zone_rank": stats.zone_rank,
        "weight": stats.weight,
        "in_flight": stats.in_flight,
        "latency_ms": stats.rtt.map(milliseconds),
        "breaker": match stats.breaker {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        },
        "ejected": stats.ejected,
        "held_ms": milliseconds(stats.held),
        "limit_per_second": stats.limit,
        "penalty_ms": milliseconds(stats.penalty),
    })
}
