//! What an endpoint and a subscriber cost in memory: `cargo run --release -p mesh-discovery --features tokio --example memory`.

#![allow(clippy::print_stdout)]

use std::{fs, time::Instant};

use mesh_discovery::{
    Change, Name, Registry, Service, ServicePort, View, Workload, WorkloadPort, shared,
};

const WORKLOADS: u32 = 1_000_000;
const SERVICES: u32 = 1000;
const SUBSCRIBERS: usize = 10_000;

fn main() {
    let before = resident_kib();
    let (writer, reader) = shared::new(Registry::new(()));
    let start = Instant::now();
    writer.apply((0..SERVICES).map(|n| {
        let mut service = Service::new(namespace(n), format!("service-{n}"));
        service.selector = [("app".to_owned(), format!("app-{n}"))].into();
        service.ports = vec![ServicePort::new(8080)];
        Change::SetService(service)
    }));
    for n in 0..WORKLOADS {
        writer.apply([Change::SetWorkload(workload(n))]);
    }
    let registry = resident_kib() - before;
    println!(
        "{WORKLOADS} endpoints: {} B each, {:.1} us to set one",
        registry * 1024 / u64::from(WORKLOADS),
        start.elapsed().as_secs_f64() * 1e6 / f64::from(WORKLOADS),
    );

    let before = resident_kib();
    let start = Instant::now();
    let mut subscriptions: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| reader.subscribe(View::new(Name::new(namespace(1), "service-1"), 8080)))
        .collect();
    let messages: usize = subscriptions
        .iter_mut()
        .filter_map(shared::Subscription::try_next)
        .map(|messages| messages.len())
        .sum();
    println!(
        "{SUBSCRIBERS} subscribers of one view: {} B each, {:.1} us each for the first {} messages",
        (resident_kib() - before) * 1024 / SUBSCRIBERS as u64,
        start.elapsed().as_secs_f64() * 1e6 / SUBSCRIBERS as f64,
        messages / SUBSCRIBERS,
    );
}

fn workload(n: u32) -> Workload {
    let app = n % SERVICES;
    let mut workload = Workload::new(namespace(app), format!("workload-{n:07}-7d4b9c"));
    workload.labels = [("app".to_owned(), format!("app-{app}"))].into();
    workload.identity = Some(format!(
        "app-{app}.shop.serviceaccount.identity.linkerd.cluster.local"
    ));
    workload.zone = Some(format!("zone-{}", n % 3));
    workload.addresses = vec![std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()];
    workload.ports = vec![WorkloadPort {
        name: Some("http".to_owned()),
        mesh_port: Some(4143),
        ..WorkloadPort::new(8080)
    }];
    workload
}

/// Ten services in each.
fn namespace(service: u32) -> String {
    format!("namespace-{}", service / 10)
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or_default()
}
