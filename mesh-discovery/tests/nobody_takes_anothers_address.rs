//! An address and port that a resource of a folder holds cannot be taken by another, and who tries is told.

#![cfg(feature = "manifests")]
#![allow(clippy::unwrap_used)]

use mesh_discovery::{
    Registry,
    manifests::{Content, Folder},
};
use proptest::prelude::*;

/// `namespace/name`.
fn service(id: &str, address: &str, port: u16) -> String {
    service_with(id, address, &[port])
}

fn service_with(id: &str, address: &str, ports: &[u16]) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    let ports: Vec<_> = (ports.iter())
        .map(|port| format!("{{name: p{port}, port: {port}}}"))
        .collect();
    let ports = ports.join(", ");
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         clusterIP: {address}\n  selector: {{app: {name}}}\n  ports: [{ports}]\n"
    )
}

fn workload(id: &str, addresses: &str, ports: &str) -> String {
    let (namespace, name) = id.split_once('/').unwrap();
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         addresses: [{addresses}]\n  ports: [{ports}]\n"
    )
}

/// A folder and the registry that follows it.
struct Mesh {
    folder: Folder,
    registry: Registry,
}

impl Mesh {
    fn new() -> Self {
        Self {
            folder: Folder::new(),
            registry: Registry::new(()),
        }
    }

    fn apply(&mut self, files: &[(&str, Option<String>)]) {
        let files = files.iter().map(|(name, text)| {
            let content = text.as_deref().map_or(Content::Gone, Content::Text);
            (*name, content)
        });
        let changes = self.folder.apply_all(files);
        self.registry.apply(changes.registry);
    }

    fn write(&mut self, file: &str, text: &str) {
        self.apply(&[(file, Some(text.to_owned()))]);
    }

    fn remove(&mut self, file: &str) {
        self.apply(&[(file, None)]);
    }

    fn service_at(&self, address: &str) -> Option<String> {
        let (service, _) = self.registry.service_port_at(address.parse().unwrap())?;
        Some(service.id().to_string())
    }

    fn workload_at(&self, address: &str) -> Option<String> {
        let workload = self.registry.workload_at(address.parse().unwrap())?;
        Some(workload.id().to_string())
    }

    fn errors(&self) -> Vec<String> {
        self.folder
            .errors()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

#[test]
fn the_service_that_was_there_first_keeps_its_address() {
    let mut mesh = Mesh::new();
    mesh.write("z.yaml", &service("shop/web", "10.96.0.1", 80));
    mesh.write("a.yaml", &service("evil/web", "10.96.0.1", 80));
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "shop/web");
    assert_eq!(
        mesh.errors(),
        [
            "a.yaml:5:14: spec.clusterIP: 10.96.0.1:80 belongs to Service shop/web in z.yaml already, \
             so Service evil/web does without 10.96.0.1: state another"
        ]
    );
    assert!(mesh.folder.keeps("a.yaml"), "by its name it is reached");

    // A change of the holder is no chance, its end is.
    mesh.write(
        "z.yaml",
        &service("shop/web", "10.96.0.1", 80).replace("app: web", "app: w"),
    );
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "shop/web");
    mesh.remove("z.yaml");
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "evil/web");
    assert!(mesh.errors().is_empty() && !mesh.folder.keeps("a.yaml"));
}

#[test]
fn another_port_of_the_address_is_free() {
    let mut mesh = Mesh::new();
    mesh.write("a.yaml", &service("shop/web", "10.96.0.1", 80));
    mesh.write("b.yaml", &service("shop/api", "10.96.0.1", 81));
    assert!(mesh.errors().is_empty());
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "shop/web");
    assert_eq!(mesh.service_at("10.96.0.1:81").unwrap(), "shop/api");
}

#[test]
fn of_those_that_come_at_once_the_first_by_name_has_it_however_often_it_starts() {
    let files = [
        ("a.yaml", Some(service("shop/web", "::ffff:10.96.0.1", 80))),
        ("b.yaml", Some(service("shop/api", "10.96.0.1", 80))),
    ];
    for turned in [false, true] {
        let mut mesh = Mesh::new();
        let mut files = files.clone();
        if turned {
            files.reverse();
        }
        mesh.apply(&files);
        assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "shop/api");
        assert_eq!(mesh.errors().len(), 1, "{:?}", mesh.errors());
        assert!(mesh.errors()[0].starts_with("a.yaml:5:14: spec.clusterIP: "));
    }
}

#[test]
fn addresses_change_hands_in_one_step() {
    let mut mesh = Mesh::new();
    mesh.write("a.yaml", &service("shop/a", "10.96.0.1", 80));
    mesh.write("b.yaml", &service("shop/b", "10.96.0.2", 80));
    mesh.apply(&[
        ("a.yaml", Some(service("shop/a", "10.96.0.2", 80))),
        ("b.yaml", Some(service("shop/b", "10.96.0.1", 80))),
    ]);
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "shop/b");
    assert_eq!(mesh.service_at("10.96.0.2:80").unwrap(), "shop/a");
}

#[test]
fn a_workload_keeps_its_ports_and_its_proxys() {
    let mut mesh = Mesh::new();
    let ports = "{port: 8080, meshPort: 14143}";
    mesh.write("z.yaml", &workload("shop/web", "10.0.0.1", ports));
    // One has another address, the other has none but the one that is taken.
    mesh.write(
        "a.yaml",
        &workload("evil/a", "10.0.0.9, 10.0.0.1", "{port: 14143}"),
    );
    mesh.write("b.yaml", &workload("evil/b", "10.0.0.1", "{port: 8080}"));
    mesh.write("c.yaml", &workload("evil/c", "10.0.0.1", "{port: 9090}"));
    assert_eq!(mesh.workload_at("10.0.0.1:14143").unwrap(), "shop/web");
    assert_eq!(mesh.workload_at("10.0.0.1:8080").unwrap(), "shop/web");
    assert_eq!(mesh.workload_at("10.0.0.9:14143").unwrap(), "evil/a");
    assert_eq!(mesh.workload_at("10.0.0.1:9090").unwrap(), "evil/c");
    let errors = mesh.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with(
            "a.yaml:5:25: spec.addresses[1]: 10.0.0.1:14143 belongs to Workload shop/web in z.yaml"
        ),
        "{errors:?}"
    );
    assert!(mesh.folder.keeps("a.yaml") && !mesh.folder.keeps("b.yaml"));
    assert_eq!(mesh.folder.workloads().count(), 3);

    mesh.remove("z.yaml");
    assert_eq!(mesh.workload_at("10.0.0.1:8080").unwrap(), "evil/b");
    assert_eq!(mesh.workload_at("10.0.0.1:14143").unwrap(), "evil/a");
    assert_eq!(mesh.errors(), [""; 0]);
}

#[test]
fn a_service_stands_at_no_workload_of_another_namespace() {
    let mut mesh = Mesh::new();
    mesh.write("w.yaml", &workload("shop/web-1", "10.0.0.1", "{port: 80}"));
    mesh.write("own.yaml", &service("shop/web", "10.0.0.1", 80));
    assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());
    mesh.remove("own.yaml");
    mesh.write("foreign.yaml", &service("evil/web", "10.0.0.1", 80));
    assert_eq!(mesh.errors().len(), 1);
    assert_eq!(mesh.service_at("10.0.0.1:80"), None);
    assert_eq!(mesh.workload_at("10.0.0.1:80").unwrap(), "shop/web-1");
}

#[test]
fn addresses_times_ports_stay_within_reason() {
    let addresses: Vec<_> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
    let ports: Vec<_> = (1..=51).map(|n| format!("{{port: {n}}}")).collect();
    let mut mesh = Mesh::new();
    mesh.write(
        "a.yaml",
        &workload("shop/a", &addresses.join(","), &ports.join(",")),
    );
    assert_eq!(mesh.errors().len(), 1);
    assert!(
        mesh.errors()[0].contains("10200 endpoints"),
        "{:?}",
        mesh.errors()
    );
}

#[test]
fn who_loses_an_address_holds_no_other_port_of_it() {
    let mut mesh = Mesh::new();
    mesh.write("a.yaml", &service("a/a", "10.96.0.1", 80));
    mesh.write("b.yaml", &service_with("b/b", "10.96.0.1", &[80, 443]));
    mesh.write("c.yaml", &service("c/c", "10.96.0.1", 443));
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "a/a");
    assert_eq!(mesh.service_at("10.96.0.1:443").unwrap(), "c/c");
    let errors = mesh.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("10.96.0.1:80 belongs to Service a/a"));

    // It waits for all that is not its own.
    mesh.remove("a.yaml");
    assert_eq!(mesh.service_at("10.96.0.1:80"), None);
    assert!(mesh.errors()[0].contains("10.96.0.1:443 belongs to Service c/c"));
    mesh.remove("c.yaml");
    assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), "b/b");
    assert_eq!(mesh.service_at("10.96.0.1:443").unwrap(), "b/b");
    assert_eq!(mesh.errors(), [""; 0]);
}

#[test]
fn who_asks_for_a_port_too_many_makes_room_for_who_waited() {
    for waiting in ["a/a", "z/z"] {
        let mut mesh = Mesh::new();
        mesh.write("holder.yaml", &service("m/m", "10.96.0.1", 443));
        mesh.write("greedy.yaml", &service("n/n", "10.96.0.1", 80));
        mesh.write("waiting.yaml", &service(waiting, "10.96.0.1", 80));
        assert_eq!(mesh.errors().len(), 1);
        let greedy = service_with("n/n", "10.96.0.1", &[80, 443]);
        mesh.write("greedy.yaml", &greedy);
        assert_eq!(mesh.service_at("10.96.0.1:80").unwrap(), waiting);
        assert_eq!(mesh.service_at("10.96.0.1:443").unwrap(), "m/m");
        let errors = mesh.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("greedy.yaml"), "{errors:?}");
    }
}

/// An address, and the ports that a service wants of it.
type Spot = (u8, std::collections::BTreeSet<u16>);

proptest! {
    /// Whatever happened before: no place has two holders, every loser is named, and none loses to nobody.
    #[test]
    fn every_address_has_one_holder_and_every_other_an_error(
        steps in proptest::collection::vec(
            proptest::collection::vec(
                (
                    0..6_usize,
                    proptest::option::of((0..3_u8, proptest::collection::btree_set(1..4_u16, 1..4))),
                ),
                1..4,
            ),
            1..12,
        )
    ) {
        let names = ["a/a", "a/b", "b/a", "b/b", "c/a", "c/b"];
        let mut mesh = Mesh::new();
        let mut now: [Option<Spot>; 6] = Default::default();
        let mut held = [false; 6];
        for step in steps {
            let before = now.clone();
            let files: std::collections::BTreeMap<_, _> = step.into_iter().collect();
            let texts: Vec<_> = files.into_iter().map(|(index, spot)| {
                let text = spot.as_ref().map(|(ip, ports)| {
                    let ports: Vec<_> = ports.iter().copied().collect();
                    service_with(names[index], &format!("10.0.0.{ip}"), &ports)
                });
                now[index] = spot;
                (names[index], text)
            }).collect();
            mesh.apply(&texts);
            let was_held = held;
            for (index, name) in names.iter().enumerate() {
                let mut services = mesh.folder.services();
                let found = services.find(|service| service.id().to_string() == *name);
                prop_assert_eq!(found.is_some(), now[index].is_some());
                held[index] = found.is_some_and(|service| !service.cluster_ips.is_empty());
            }
            let errors = mesh.errors();
            for (index, spot) in now.iter().enumerate() {
                let Some((ip, ports)) = spot else { continue };
                // Who was there first and wants no more than before keeps it.
                let keeps = was_held[index] && before[index].as_ref().is_some_and(|(old, had)| {
                    old == ip && had.is_superset(ports)
                });
                prop_assert!(held[index] || !keeps, "{} lost it", names[index]);
                let rivals = now.iter().enumerate().filter(|(other, rival)| {
                    let shares = rival.as_ref().is_some_and(|(at, of)| at == ip && !of.is_disjoint(ports));
                    *other != index && held[*other] && shares
                });
                prop_assert_eq!(rivals.count() == 0, held[index], "{}: {:?}", names[index], errors);
                let named = errors.iter().filter(|error| error.starts_with(names[index])).count();
                prop_assert_eq!(named, usize::from(!held[index]));
                for port in ports.iter().filter(|_| held[index]) {
                    let at = mesh.service_at(&format!("10.0.0.{ip}:{port}"));
                    prop_assert_eq!(at.as_deref(), Some(names[index]));
                }
            }
        }
    }
}
