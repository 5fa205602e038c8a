//! The registry answers as the plain values it was given would.

mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use mesh_discovery::{
    Change, Mesh, Name, Protocol, Registry, Service, ServicePort, TargetPort, View, Workload,
    WorkloadPort,
};
use proptest::prelude::*;
use support::{service, view, workload};

/// The resources themselves, asked in the most obvious way.
#[derive(Debug, Default)]
struct Model {
    workloads: BTreeMap<Name, Workload>,
    services: BTreeMap<Name, Service>,
}

/// Address, application's port, workload, protocol, mesh, identity, zone.
type Facts = (
    SocketAddr,
    u16,
    Name,
    Protocol,
    Mesh,
    Option<String>,
    Option<String>,
);

impl Model {
    fn apply(&mut self, change: Change) {
        match change {
            Change::SetWorkload(workload) => {
                self.workloads.insert(workload.id(), workload);
            }
            Change::RemoveWorkload(name) => {
                self.workloads.remove(&name);
            }
            Change::SetService(service) => {
                self.services.insert(service.id(), service);
            }
            Change::RemoveService(name) => {
                self.services.remove(&name);
            }
            _ => unreachable!(),
        }
    }

    fn endpoints(&self, view: &View) -> Vec<Facts> {
        let mut found = BTreeMap::new();
        let service = self.services.get(&view.service);
        let port =
            service.and_then(|service| service.ports.iter().find(|port| port.port == view.port));
        let (Some(service), Some(service_port)) = (service, port) else {
            return Vec::new();
        };
        for workload in self.workloads.values().filter(|workload| workload.ready) {
            let selected = service.namespace == workload.namespace
                && !service.selector.is_empty()
                && service
                    .selector
                    .iter()
                    .all(|(key, value)| workload.labels.get(key) == Some(value));
            if !selected {
                continue;
            }
            for port in &workload.ports {
                let answers = match &service_port.target_port {
                    TargetPort::Number(number) => *number == port.port,
                    TargetPort::Name(name) => Some(name) == port.name.as_ref(),
                };
                for address in workload.addresses.iter().filter(|_| answers) {
                    let facts = facts(workload, port, *address, service_port.app_protocol);
                    found.entry(facts.0).or_insert(facts);
                }
            }
        }
        found.into_values().collect()
    }

    fn claim(&self, at: SocketAddr) -> Option<Name> {
        let mut workloads = self.workloads.values();
        let claims = |workload: &&Workload| {
            workload.addresses.contains(&at.ip())
                && (workload.ports.iter())
                    .any(|port| port.port == at.port() || port.mesh_port == Some(at.port()))
        };
        workloads.find(claims).map(Workload::id)
    }
}

fn facts(
    workload: &Workload,
    port: &WorkloadPort,
    ip: IpAddr,
    app_protocol: Option<Protocol>,
) -> Facts {
    let mesh = match (port.mesh_port, workload.meshed) {
        (Some(_), _) => Mesh::Listener,
        (None, true) => Mesh::Inbound,
        (None, false) => Mesh::Plain,
    };
    (
        SocketAddr::new(ip, port.mesh_port.unwrap_or(port.port)),
        port.port,
        workload.id(),
        app_protocol.unwrap_or(port.protocol),
        mesh,
        workload.identity.clone().filter(|_| mesh != Mesh::Plain),
        workload.zone.clone(),
    )
}

fn told(registry: &Registry, view: &View) -> Vec<Facts> {
    let endpoints = registry.endpoints(view);
    let facts = endpoints.iter().map(|endpoint| {
        (
            endpoint.address(),
            endpoint.app_port(),
            Name::new(endpoint.namespace(), endpoint.workload()),
            endpoint.protocol(),
            endpoint.mesh(),
            endpoint.identity().map(str::to_owned),
            endpoint.zone().map(str::to_owned),
        )
    });
    facts.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_registry_answers_as_the_values_would(changes in prop::collection::vec(change(), 1..40)) {
        let mut registry = Registry::new(());
        let mut model = Model::default();
        for change in changes {
            registry.apply([change.clone()]);
            model.apply(change);
        }
        for service in model.services.keys() {
            for port in 80..82 {
                let view = View::new(service.clone(), port);
                prop_assert_eq!(told(&registry, &view), model.endpoints(&view));
            }
        }
        for (name, workload) in &model.workloads {
            let found = registry.workload(name).unwrap();
            if !workload.addresses.is_empty() && !workload.ports.is_empty() {
                prop_assert_eq!(&found.addresses(), &workload.addresses);
                prop_assert_eq!(&found.ports(), &workload.ports);
            }
            prop_assert_eq!(found.zone(), workload.zone.as_deref());
            prop_assert_eq!(found.is_ready(), workload.ready);
            let labels = found.labels().map(|(key, value)| (key.to_owned(), value.to_owned()));
            prop_assert_eq!(&labels.collect::<BTreeMap<_, _>>(), &workload.labels);
        }
        let names: Vec<_> = registry.workloads().iter().map(mesh_discovery::WorkloadRef::id).collect();
        prop_assert_eq!(names, model.workloads.keys().cloned().collect::<Vec<_>>());
        for ip in 1..4 {
            for port in 1..6 {
                let at = SocketAddr::from(([10, 0, 0, ip], port));
                prop_assert_eq!(registry.workload_at(at).map(|found| found.id()), model.claim(at));
            }
        }
        // Everything removed leaves nothing.
        registry.apply(model.workloads.into_keys().map(Change::RemoveWorkload));
        registry.apply(model.services.into_keys().map(Change::RemoveService));
        prop_assert_eq!((registry.endpoint_count(), registry.workload_count()), (0, 0));
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => a_workload().prop_map(Change::SetWorkload),
        1 => (0..2u8, 0..4u8).prop_map(|(n, w)| Change::RemoveWorkload(name(n, "w", w))),
        2 => a_service().prop_map(Change::SetService),
        1 => (0..2u8, 0..3u8).prop_map(|(n, s)| Change::RemoveService(name(n, "s", s))),
    ]
}

fn name(namespace: u8, prefix: &str, number: u8) -> Name {
    Name::new(format!("n{namespace}"), format!("{prefix}{number}"))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[ab]", "[xy]", 0..3)
}

fn a_workload() -> impl Strategy<Value = Workload> {
    let ports = prop::collection::btree_map(
        1..4u16,
        (prop::option::of("p[01]"), any::<bool>(), any::<bool>()),
        0..3,
    );
    let addresses = prop::collection::btree_set(1..4u8, 0..3);
    (
        0..2u8,
        0..4u8,
        labels(),
        ports,
        addresses,
        prop::option::of("z[01]"),
        0..16u8,
    )
        .prop_map(
            |(namespace, number, labels, ports, addresses, zone, flags)| {
                let id = name(namespace, "w", number);
                Workload {
                    labels,
                    identity: (flags & 1 == 0).then(|| id.to_string()),
                    zone,
                    addresses: (addresses.iter())
                        .map(|&n| IpAddr::from([10, 0, 0, n]))
                        .collect(),
                    ports: (ports.into_iter())
                        .map(|(port, (name, meshed, http))| WorkloadPort {
                            name,
                            mesh_port: meshed.then_some(3 + port.min(2)),
                            protocol: if http {
                                Protocol::Http
                            } else {
                                Protocol::Opaque
                            },
                            ..WorkloadPort::new(port)
                        })
                        .collect(),
                    meshed: flags & 2 == 0,
                    ready: flags & 12 != 0,
                    ..Workload::new(id.namespace, id.name)
                }
            },
        )
}

fn a_service() -> impl Strategy<Value = Service> {
    let target = prop_oneof![
        (1..4u16).prop_map(TargetPort::Number),
        "p[01]".prop_map(TargetPort::Name),
    ];
    let ports = prop::collection::btree_map(80..82u16, (target, any::<bool>()), 0..3);
    (0..2u8, 0..3u8, labels(), ports).prop_map(|(namespace, number, selector, ports)| {
        let id = name(namespace, "s", number);
        Service {
            selector,
            ports: (ports.into_iter())
                .map(|(port, (target_port, grpc))| ServicePort {
                    target_port,
                    app_protocol: grpc.then_some(Protocol::Grpc),
                    ..ServicePort::new(port)
                })
                .collect(),
            ..Service::new(id.namespace, id.name)
        }
    })
}

#[test]
fn names_and_addresses_lead_to_services() {
    let mut registry = Registry::new(());
    let mut web = service();
    web.cluster_ips = vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let mut claims_the_same = web.clone();
    claims_the_same.name = "zzz".to_owned();
    registry.apply([
        Change::SetService(claims_the_same),
        Change::SetService(web.clone()),
    ]);

    for authority in [
        "web.shop",
        "web.shop.svc:80",
        "web.shop.svc.cluster.local:80",
        "Web.Shop.svc.cluster.local.",
    ] {
        let (found, _) = registry
            .service_by_authority(authority, "cluster.local")
            .unwrap();
        assert_eq!(found.spec(), &web, "{authority}");
    }
    assert!(
        registry
            .service_by_authority("api.shop", "cluster.local")
            .is_none()
    );

    let name_at = |registry: &Registry, address: &str| {
        let found = registry.service_port_at(address.parse().unwrap());
        found.map(|(service, port)| (service.name().to_owned(), port.port))
    };
    for address in ["10.96.0.1:80", "[fd00::1]:80", "[::ffff:10.96.0.1]:80"] {
        assert_eq!(
            name_at(&registry, address),
            Some(("web".to_owned(), 80)),
            "{address}"
        );
    }
    assert_eq!(name_at(&registry, "10.96.0.1:81"), None);
    let mut other_port = Service::new("aaa", "aaa");
    other_port.cluster_ips = vec!["10.96.0.1".parse().unwrap()];
    other_port.ports = vec![ServicePort::new(81)];
    registry.apply([Change::SetService(other_port)]);
    assert_eq!(
        name_at(&registry, "10.96.0.1:80"),
        Some(("web".to_owned(), 80)),
        "a service has its own ports of an address only"
    );
    assert_eq!(
        name_at(&registry, "10.96.0.1:81"),
        Some(("aaa".to_owned(), 81))
    );
    assert_eq!(name_at(&registry, "10.96.0.2:80"), None);
    registry.apply([Change::RemoveService(web.id())]);
    assert_eq!(
        name_at(&registry, "10.96.0.1:80"),
        Some(("zzz".to_owned(), 80))
    );
}

#[test]
fn a_services_protocol_is_its_own_word_else_what_all_workloads_say() {
    let mut registry = Registry::new(());
    let mut http = workload("a", "10.0.0.1", 8080);
    http.ports[0].protocol = Protocol::Http;
    let mut grpc = workload("b", "10.0.0.2", 8080);
    grpc.ports[0].protocol = Protocol::Grpc;
    let mut service = service();
    let protocol = |registry: &Registry| {
        let service = registry.service(&view().service).unwrap();
        service.protocol(service.port(80).unwrap())
    };
    registry.apply([Change::SetService(service.clone())]);
    assert_eq!(protocol(&registry), Protocol::Detect);
    registry.apply([Change::SetWorkload(http)]);
    assert_eq!(protocol(&registry), Protocol::Http);
    registry.apply([Change::SetWorkload(grpc)]);
    assert_eq!(protocol(&registry), Protocol::Detect);
    service.ports[0].app_protocol = Some(Protocol::Opaque);
    registry.apply([Change::SetService(service)]);
    assert_eq!(protocol(&registry), Protocol::Opaque);
}

#[test]
fn zones_and_families_filter() {
    use mesh_discovery::{Family, Filter};
    let mut registry = Registry::new(());
    let mut there = workload("b", "10.0.0.2", 8080);
    there.zone = Some("b".to_owned());
    there.addresses.push("fd00::2".parse().unwrap());
    registry.apply([
        Change::SetService(service()),
        Change::SetWorkload(workload("a", "10.0.0.1", 8080)),
        Change::SetWorkload(there),
    ]);
    let seen = |filter| -> Vec<String> {
        let endpoints = registry.endpoints(&view().filtered(filter));
        endpoints
            .iter()
            .map(|endpoint| endpoint.ip().to_string())
            .collect()
    };
    assert_eq!(seen(Filter::all()), ["10.0.0.1", "10.0.0.2", "fd00::2"]);
    assert_eq!(seen(Filter::all().zone("b")), ["10.0.0.2", "fd00::2"]);
    assert_eq!(
        seen(Filter::all().zone("b").family(Family::V4)),
        ["10.0.0.2"]
    );
    assert_eq!(
        seen(Filter::all().zone("elsewhere")).len(),
        3,
        "better far than nowhere"
    );
}
