use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::http;
use crate::process::Process;
use crate::{
    BackendLabels, BalancerMetrics, ControlMetrics, ControllerMetrics, HttpMetrics, RetryMetrics,
    RouteLabels, TapMetrics, TcpMetrics, TrustMetrics,
};

/// Every family of one program, and their text.
#[derive(Clone)]
pub struct Metrics<T> {
    registry: Arc<Registry>,
    /// The families, to take handles from.
    pub families: T,
}

/// The families of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyFamilies {
    /// `inbound_http_*`, `inbound_grpc_*`: requests by server and route.
    pub inbound_http: HttpMetrics<RouteLabels>,
    /// `inbound_tcp_*`.
    pub inbound_tcp: TcpMetrics,
    /// `outbound_http_route_*`, `outbound_grpc_route_*`: requests by service and route.
    pub outbound_http: HttpMetrics<RouteLabels>,
    /// `outbound_http_route_backend_*`, `outbound_grpc_route_backend_*`: attempts by backend.
    pub outbound_backend: HttpMetrics<BackendLabels>,
    /// `outbound_http_route_retry_*`: requests sent again, by service and route.
    pub outbound_retries: RetryMetrics,
    /// `outbound_tcp_*`.
    pub outbound_tcp: TcpMetrics,
    /// `outbound_http_balancer_*`, `outbound_http_breaker_*`.
    pub balancer: BalancerMetrics,
    /// `control_*`.
    pub control: ControlMetrics,
    /// `tap_*`.
    pub tap: TapMetrics,
    /// What it trusts.
    pub trust: TrustMetrics,
}

/// How many label sets a family of one kind holds before it counts under `other`: 2048.
const MAX_SERIES: usize = 2048;

impl Metrics<ProxyFamilies> {
    /// The families of a proxy. `version` is that of the program.
    pub fn proxy(version: &str) -> Self {
        let mut registry = base("mesh-proxy", version);
        let families = ProxyFamilies {
            inbound_http: http::register(&mut registry, "inbound", "", MAX_SERIES),
            inbound_tcp: TcpMetrics::register(&mut registry, "inbound", MAX_SERIES),
            outbound_http: http::register(&mut registry, "outbound", "_route", MAX_SERIES),
            outbound_backend: http::register(
                &mut registry,
                "outbound",
                "_route_backend",
                MAX_SERIES,
            ),
            outbound_retries: RetryMetrics::register(&mut registry, MAX_SERIES),
            outbound_tcp: TcpMetrics::register(&mut registry, "outbound", MAX_SERIES),
            balancer: BalancerMetrics::register(&mut registry, MAX_SERIES),
            control: ControlMetrics::register(&mut registry),
            tap: TapMetrics::register(&mut registry),
            trust: TrustMetrics::register(&mut registry),
        };
        registry.register_collector(Box::new(Overflows(families.clone())));
        Self {
            registry: Arc::new(registry),
            families,
        }
    }
}

impl Metrics<ControllerMetrics> {
    /// The families of a controller. `version` is that of the program.
    pub fn controller(version: &str) -> Self {
        let mut registry = base("mesh-controller", version);
        let families = ControllerMetrics::register(&mut registry);
        Self {
            registry: Arc::new(registry),
            families,
        }
    }
}

impl<T> Metrics<T> {
    /// The media type of [`render`](Self::render).
    pub const OPENMETRICS: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The media type of [`render_prometheus`](Self::render_prometheus).
    pub const PROMETHEUS: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// All families as OpenMetrics text (version 1.0.0).
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail, nor does any of the families.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// All families as Prometheus text (version 0.0.4), for what does not ask for OpenMetrics.
    ///
    /// It differs in that a counter's descriptor carries the suffix `_total` as its samples do, and no end is marked.
    pub fn render_prometheus(&self) -> String {
        let open = self.render();
        let mut out = String::with_capacity(open.len());
        let mut lines = open.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '));
            // The type follows the help.
            let named = help.zip(lines.peek().and_then(|next| next.strip_prefix("# TYPE ")));
            match named {
                Some(((name, help), kind)) if kind == format!("{name} counter") => {
                    lines.next();
                    out.push_str(&format!(
                        "# HELP {name}_total {help}\n# TYPE {name}_total counter\n"
                    ));
                }
                _ if line == "# EOF" => {}
                _ => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        out
    }

    /// OpenMetrics when `accept` names it, else Prometheus text; the media type first.
    pub fn negotiate(&self, accept: Option<&str>) -> (&'static str, String) {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            (Self::OPENMETRICS, self.render())
        } else {
            (Self::PROMETHEUS, self.render_prometheus())
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Metrics<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("families", &self.families)
            .finish_non_exhaustive()
    }
}

/// What every program has: what was built, and the process.
fn base(program: &str, version: &str) -> Registry {
    let mut registry = Registry::default();
    let build = Family::<[(&'static str, String); 2], Gauge>::default();
    let labels = [
        ("program", program.to_owned()),
        ("version", version.to_owned()),
    ];
    build.get_or_create(&labels).set(1);
    registry.register("build_info", "What was built; always 1", build);
    registry.register_collector(Box::new(Process));
    registry
}

/// How often a label set was counted under `other` because its family was full.
#[derive(Debug)]
struct Overflows(ProxyFamilies);

impl Collector for Overflows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &self.0;
        let total = families.inbound_http.series.overflows()
            + families.inbound_tcp.overflows()
            + families.outbound_http.series.overflows()
            + families.outbound_backend.series.overflows()
            + families.outbound_retries.overflows()
            + families.outbound_tcp.overflows()
            + families.balancer.overflows();
        let counter = ConstCounter::new(total);
        let metric = encoder.encode_descriptor(
            "metrics_series_overflow",
            "Times a label set was counted under other, its family being full.",
            None,
            MetricType::Counter,
        )?;
        counter.encode(metric)
    }
}
