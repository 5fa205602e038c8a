//! Prints what a scrape of a proxy that carried two requests looks like, as Prometheus text or, with the argument
//! `openmetrics`, as OpenMetrics:
//!
//! ```text
//! cargo run -q -p mesh-metrics --example exposition | promtool check metrics
//! ```

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use mesh_metrics::{
    CloseReason, Completion, EndpointCounts, Endpoints, Metrics, Peer, ResourceLabels, RouteLabels,
    TcpLabels, TlsStatus,
};

/// Endpoints that are all well.
#[derive(Debug)]
struct Three;

impl Endpoints for Three {
    fn counts(&self) -> EndpointCounts {
        EndpointCounts {
            ready: 3,
            ..EndpointCounts::default()
        }
    }
}

fn main() {
    let metrics = Metrics::proxy(env!("CARGO_PKG_VERSION"));
    let web = ResourceLabels::new("core", "Service", "shop", "web").with_port(8080);

    let connections = metrics.families.outbound_tcp.connections(&TcpLabels {
        peer: Peer::Destination,
        tls: TlsStatus::Mutual,
        parent: web.clone(),
    });
    connections.opened();
    connections.add_written(812);
    connections.add_read(4096);

    let route = metrics.families.outbound_http.route(&RouteLabels {
        parent: web.clone(),
        route: ResourceLabels::default_named("http"),
    });
    let answered = route.start();
    answered.finish(Completion::Status(200), Duration::from_micros(1700));
    let unavailable = route.start();
    unavailable.finish(Completion::Grpc(14), Duration::from_millis(30));
    connections.closed(CloseReason::Done);

    let balancer = metrics.families.balancer.backend(&web);
    let endpoints: Arc<dyn Endpoints> = Arc::new(Three);
    balancer.observe(Arc::downgrade(&endpoints));
    metrics.families.control.identity().failed();

    if std::env::args().nth(1).as_deref() == Some("openmetrics") {
        print!("{}", metrics.render());
    } else {
        print!("{}", metrics.render_prometheus());
    }
}
