//! `Workload` and `MeshConfig` of our own group, from tree to checked value.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

use super::{
    checks::{Checks, duration, is_dns_name, is_identity},
    document::Node,
    kinds::{DefaultPolicy, MeshConfig, Ready, Run, WorkloadManifest},
    rotation::{RotationSpec, read_rotation},
    tree::{self, Fault},
};
use crate::resource::{Protocol, Workload, WorkloadPort};

/// What a certificate may live. Shorter ones could not be renewed in time, longer ones need no renewal.
const LEAF_LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(365 * 24 * 60 * 60);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
}

/// The published label of the zone that something runs in; `spec.zone` goes before it.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[derive(Debug, Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Belongs to no namespace and nothing selects it.
#[derive(Debug, Deserialize)]
struct MeshMetadata {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec {
    identity: Option<String>,
    service_account: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<PortSpec>,
    #[serde(default)]
    meshed: bool,
    run: Option<RunSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortSpec {
    name: Option<String>,
    port: i64,
    mesh_port: Option<i64>,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunSpec {
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    working_dir: Option<PathBuf>,
    ready: Option<ReadySpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadySpec {
    http_get: Option<String>,
    port: Option<i64>,
    tcp: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshDocument {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: MeshMetadata,
    spec: MeshSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshSpec {
    trust_domain: Option<String>,
    leaf_lifetime: Option<String>,
    #[serde(default)]
    inbound: InboundSpec,
    #[serde(default)]
    rotation: RotationSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InboundSpec {
    default_policy: Option<String>,
}

pub(super) fn read_workload(root: &Node) -> Result<WorkloadManifest, Vec<Fault>> {
    let (document, unknown) = tree::read::<Document<WorkloadSpec>>(root).map_err(|f| vec![f])?;
    let Document { metadata, spec, .. } = document;
    let mut checks = Checks::new(root, unknown);

    let name = checks.name(metadata.name);
    let namespace = checks.namespace(metadata.namespace);
    let service_account = spec.service_account.unwrap_or_else(|| "default".to_owned());
    checks.label("spec.serviceAccount", &service_account);
    if let Some(identity) = spec.identity.as_deref().filter(|text| !is_identity(text)) {
        checks.fault(
            "spec.identity",
            format!("{identity:?} is no identity: must be a DNS name in lower case or spiffe://<trust domain>/<path>"),
        );
    }
    if spec
        .zone
        .as_deref()
        .is_some_and(|zone| zone.trim().is_empty())
    {
        checks.fault(
            "spec.zone",
            "is empty: name the zone or leave the field out",
        );
    }
    let label = metadata.labels.get(ZONE_LABEL);
    if label.is_some_and(|zone| zone.trim().is_empty()) {
        let reason = format!("{ZONE_LABEL} is empty: name the zone or leave the label out");
        checks.fault("metadata.labels", reason);
    }
    let addresses = read_addresses(&spec.addresses, &mut checks);
    // A workload that only calls has a proxy and nothing to be reached at.
    let only_calls = spec.meshed && spec.run.is_none();
    if spec.ports.is_empty() && !only_calls {
        checks.fault(
            "spec.ports",
            "missing: a workload needs at least one port, or `meshed: true` if it only calls others",
        );
    }
    let ports = read_ports(&spec.ports, &mut checks);
    checks.endpoints("spec.addresses", addresses.len(), ports.len());
    let run = spec.run.map(|run| read_run(run, &ports, &mut checks));

    if !checks.faults.is_empty() {
        return Err(checks.faults);
    }
    let meshed = spec.meshed;
    // As machines of Kubernetes say it.
    let by_label = metadata.labels.get(ZONE_LABEL);
    let zone = spec.zone.or_else(|| by_label.cloned());
    Ok(WorkloadManifest {
        stated: Workload {
            labels: metadata.labels,
            identity: spec.identity,
            zone,
            addresses,
            ports,
            meshed,
            ..Workload::new(namespace, name)
        },
        service_account,
        run,
    })
}

pub(super) fn read_mesh_config(root: &Node) -> Result<MeshConfig, Vec<Fault>> {
    let (document, unknown) = tree::read::<MeshDocument>(root).map_err(|f| vec![f])?;
    let MeshDocument { metadata, spec, .. } = document;
    let mut checks = Checks::new(root, unknown);
    checks.name(metadata.name);
    let mut config = MeshConfig::default();

    if let Some(trust_domain) = spec.trust_domain {
        if !is_dns_name(&trust_domain) {
            checks.fault(
                "spec.trustDomain",
                format!("{trust_domain:?} is no trust domain: must be a DNS name in lower case"),
            );
        }
        config.trust_domain = trust_domain;
    }
    if let Some(text) = spec.leaf_lifetime {
        match duration(&text) {
            Some(lifetime) if LEAF_LIFETIMES.contains(&lifetime) => config.leaf_lifetime = lifetime,
            Some(_) => checks.fault(
                "spec.leafLifetime",
                format!("{text:?} is out of range: must be 10s to 8760h"),
            ),
            None => checks.fault(
                "spec.leafLifetime",
                format!("{text:?} is no duration: must be as 10m, 24h or 1h30m"),
            ),
        }
    }
    if let Some(word) = spec.inbound.default_policy {
        match DefaultPolicy::parse(&word) {
            Some(policy) => config.default_policy = policy,
            None => checks.fault(
                "spec.inbound.defaultPolicy",
                format!(
                    "unknown policy {word:?}: must be one of {}",
                    DefaultPolicy::ALL.map(DefaultPolicy::as_str).join(", ")
                ),
            ),
        }
    }

    config.rotation = read_rotation(spec.rotation, config.leaf_lifetime, &mut checks);

    if checks.faults.is_empty() {
        Ok(config)
    } else {
        Err(checks.faults)
    }
}

fn read_addresses(texts: &[String], checks: &mut Checks<'_>) -> Vec<std::net::IpAddr> {
    if texts.is_empty() {
        checks.fault(
            "spec.addresses",
            "missing: a workload needs at least one address",
        );
    }
    let mut addresses = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        let Some(address) = checks.address(&field, text) else {
            continue;
        };
        if addresses.contains(&address) {
            checks.fault(field, format!("{address} is there twice"));
        }
        addresses.push(address);
    }
    addresses
}

fn read_ports(specs: &[PortSpec], checks: &mut Checks<'_>) -> Vec<WorkloadPort> {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        if let Some(name) = &spec.name {
            checks.label(&field("name"), name);
            if !names.insert(name) {
                checks.fault(
                    field("name"),
                    format!("another port is called {name:?} already"),
                );
            }
        }
        let port = checks.port(&field("port"), spec.port);
        let mesh_port = spec
            .mesh_port
            .map(|port| checks.port(&field("meshPort"), port));
        for (name, number) in [("port", Some(port)), ("meshPort", mesh_port)] {
            let Some(number) = number.filter(|&number| number > 0) else {
                continue;
            };
            if !numbers.insert(number) {
                checks.fault(
                    field(name),
                    format!(
                        "{number} is taken already by another port or meshPort of this workload"
                    ),
                );
            }
        }
        let protocol = match spec.protocol.as_deref().map(str::parse::<Protocol>) {
            None => Protocol::Detect,
            Some(Ok(protocol)) => protocol,
            Some(Err(error)) => {
                checks.fault(field("protocol"), error.to_string());
                Protocol::Detect
            }
        };
        ports.push(WorkloadPort {
            name: spec.name.clone(),
            port,
            mesh_port,
            protocol,
        });
    }
    ports
}

fn read_run(run: RunSpec, ports: &[WorkloadPort], checks: &mut Checks<'_>) -> Run {
    if run.command.first().is_none_or(String::is_empty) {
        checks.fault(
            "spec.run.command",
            "is empty: must be a program and its arguments, as [./web, --verbose]",
        );
    }
    for name in run.env.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            checks.fault("spec.run.env", format!("{name:?} is no name of a variable"));
        }
    }
    Run {
        ready: run
            .ready
            .and_then(|ready| read_ready(&ready, ports, checks)),
        command: run.command,
        env: run.env,
        working_dir: run.working_dir,
    }
}

fn read_ready(ready: &ReadySpec, ports: &[WorkloadPort], checks: &mut Checks<'_>) -> Option<Ready> {
    match (&ready.http_get, ready.tcp) {
        (Some(path), None) => {
            if !path.starts_with('/') {
                checks.fault(
                    "spec.run.ready.httpGet",
                    format!("{path:?} is no path: must start with /"),
                );
            }
            let port = match ready.port {
                Some(port) => checks.port("spec.run.ready.port", port),
                None => ports.first()?.port,
            };
            Some(Ready::HttpGet {
                path: path.clone(),
                port,
            })
        }
        (None, Some(port)) => {
            if ready.port.is_some() {
                checks.fault(
                    "spec.run.ready.port",
                    "belongs to httpGet: tcp names its port itself",
                );
            }
            let port = checks.port("spec.run.ready.tcp", port);
            Some(Ready::Tcp { port })
        }
        _ => {
            checks.fault(
                "spec.run.ready",
                "must have either httpGet, as {httpGet: /healthz}, or tcp, as {tcp: 8080}",
            );
            None
        }
    }
}
