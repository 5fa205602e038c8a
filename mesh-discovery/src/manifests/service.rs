//! `Service` of `v1`, from tree to checked value.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{self, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    checks::{Checks, is_label},
    document::{Node, Value},
    kinds::DefaultPolicy,
    tree::{self, Fault},
};
use crate::Balancing;
use crate::resource::{Protocol, Service, ServicePort, TargetPort};

/// Fields of the published type that the mesh honours, or that say what it does anyway.
const HONOURED: [&str; 8] = [
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "ports",
    "selector",
    "sessionAffinity",
    "type",
];

/// Linkerd's annotation for the policy of a service's ports.
const DEFAULT_POLICY: &str = "config.linkerd.io/default-inbound-policy";

pub(super) fn read_service(root: &Node) -> Result<Service, Vec<Fault>> {
    let (service, unknown) = tree::read::<v1::Service>(root).map_err(|f| vec![f])?;
    let mut checks = Checks::new(root, unknown);
    let name = checks.name(service.metadata.name);
    let namespace = checks.namespace(service.metadata.namespace);
    let annotations = service.metadata.annotations.unwrap_or_default();
    if let Some(word) = annotations.get(DEFAULT_POLICY)
        && DefaultPolicy::parse(word).is_none()
    {
        checks.fault(
            "metadata.annotations",
            format!(
                "{DEFAULT_POLICY}: unknown policy {word:?}: must be one of {}",
                DefaultPolicy::ALL.map(DefaultPolicy::as_str).join(", ")
            ),
        );
    }
    for error in Balancing::of(&annotations).err().unwrap_or_default() {
        checks.annotation(&error);
    }
    let Some(spec) = service.spec else {
        checks.fault("spec", "missing: a service needs a selector and ports");
        return Err(checks.faults);
    };
    check_honoured(root, &spec, &mut checks);

    let cluster_ips = read_cluster_ips(&spec, &mut checks);
    let ports = read_ports(spec.ports.as_deref().unwrap_or_default(), &mut checks);
    checks.endpoints("spec.clusterIPs", cluster_ips.len(), ports.len());
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() {
        checks.fault(
            "spec.selector",
            "missing: name the labels of the workloads behind it, as {app: web}",
        );
    }
    if !checks.faults.is_empty() {
        return Err(checks.faults);
    }
    Ok(Service {
        name,
        namespace,
        cluster_ips,
        selector,
        ports,
        annotations,
    })
}

/// A setting that would silently not count is a fault.
fn check_honoured(root: &Node, spec: &ServiceSpec, checks: &mut Checks<'_>) {
    if let Some(Value::Map(fields)) = root.field("spec").map(|spec| &spec.value) {
        for (key, value) in fields {
            let field = format!("spec.{}", key.name);
            // Unknown ones are noted already.
            let noted = checks.faults.iter().any(|fault| fault.field == field);
            if !noted && !HONOURED.contains(&key.name.as_str()) && value.value != Value::Null {
                checks.fault(field, "is not honoured by the mesh: remove it");
            }
        }
    }
    let words = [
        ("spec.type", &spec.type_, "ClusterIP"),
        ("spec.sessionAffinity", &spec.session_affinity, "None"),
    ];
    for (field, word, only) in words {
        if let Some(word) = word.as_deref().filter(|&word| word != only) {
            checks.fault(
                field,
                format!("{word:?} is not honoured by the mesh: must be {only} or left out"),
            );
        }
    }
}

fn read_cluster_ips(spec: &ServiceSpec, checks: &mut Checks<'_>) -> Vec<std::net::IpAddr> {
    let single = spec
        .cluster_ip
        .iter()
        .map(|text| ("spec.clusterIP".to_owned(), text));
    let several = spec.cluster_ips.iter().flatten().enumerate();
    let several = several.map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text));
    let mut addresses = Vec::new();
    for (field, text) in single.chain(several) {
        // `None` is how a service without a virtual address says so.
        if text.is_empty() || text == "None" {
            continue;
        }
        if let Some(address) = checks.address(&field, text)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

fn read_ports(specs: &[v1::ServicePort], checks: &mut Checks<'_>) -> Vec<ServicePort> {
    if specs.is_empty() {
        checks.fault("spec.ports", "missing: a service needs at least one port");
    }
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        match &spec.name {
            Some(name) => {
                checks.label(&field("name"), name);
                if !names.insert(name) {
                    checks.fault(
                        field("name"),
                        format!("another port is called {name:?} already"),
                    );
                }
            }
            None if specs.len() > 1 => {
                checks.fault(field("name"), "missing: each of several ports needs a name");
            }
            None => {}
        }
        let port = checks.port(&field("port"), spec.port.into());
        if port > 0 && !numbers.insert(port) {
            checks.fault(field("port"), format!("{port} is there twice"));
        }
        if let Some(transport) = spec.protocol.as_deref().filter(|&word| word != "TCP") {
            checks.fault(
                field("protocol"),
                format!("{transport:?} is not carried: must be TCP or left out"),
            );
        }
        if spec.node_port.is_some() {
            checks.fault(field("nodePort"), "is not honoured by the mesh: remove it");
        }
        let target_port = match &spec.target_port {
            None => TargetPort::Number(port),
            Some(IntOrString::Int(number)) => {
                TargetPort::Number(checks.port(&field("targetPort"), (*number).into()))
            }
            Some(IntOrString::String(name)) => {
                if !is_label(name) {
                    checks.fault(
                        field("targetPort"),
                        format!("{name:?} is neither a port's number nor its name"),
                    );
                }
                TargetPort::Name(name.clone())
            }
        };
        let app_protocol = spec.app_protocol.as_deref().and_then(|word| {
            let protocol = app_protocol(word);
            if protocol.is_none() {
                checks.fault(
                    field("appProtocol"),
                    format!("unknown protocol {word:?}: must be one of {}, kubernetes.io/h2c, kubernetes.io/ws, linkerd.io/opaque, https", Protocol::WORDS),
                );
            }
            protocol
        });
        ports.push(ServicePort {
            name: spec.name.clone(),
            port,
            target_port,
            app_protocol,
        });
    }
    ports
}

/// Our own words, and Kubernetes's standard ones (KEP-3726).
fn app_protocol(word: &str) -> Option<Protocol> {
    match word {
        "kubernetes.io/h2c" | "kubernetes.io/ws" => Some(Protocol::Http),
        "https" | "kubernetes.io/wss" => Some(Protocol::Tls),
        "linkerd.io/opaque" | "linkerd.io/tcp" => Some(Protocol::Opaque),
        _ => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_words_mean_what_they_say() {
        let cases = [
            ("http", Some(Protocol::Http)),
            ("kubernetes.io/h2c", Some(Protocol::Http)),
            ("kubernetes.io/wss", Some(Protocol::Tls)),
            ("linkerd.io/opaque", Some(Protocol::Opaque)),
            ("linkerd.io/tcp", Some(Protocol::Opaque)),
            ("smtp", None),
        ];
        for (word, protocol) in cases {
            assert_eq!(app_protocol(word), protocol, "{word}");
        }
    }
}
