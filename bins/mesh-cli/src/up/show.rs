//! What `mesh up` shows of a mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_discovery::{Name, Protocol, Service};

use super::mesh::{Mesh, Runnable, selects};
use super::plan::label;
use super::ports::Listeners;
use crate::duration;
use crate::error::count;
use crate::output::Table;
use crate::traffic::{Call, Target};

/// Every service with its workloads, and how to call it through the client's proxy on `client`.
pub(crate) fn table(
    mesh: &Mesh,
    listeners: &Listeners,
    targets: &[Target],
    client: IpAddr,
    ready: &BTreeMap<Name, bool>,
) -> Table {
    let mut table = Table::new(&["SERVICE", "WORKLOAD", "ZONE", "IDENTITY", "STATE", "CALL"]);
    let mut shown = Vec::new();
    for service in &mesh.services {
        let workloads: Vec<_> = mesh
            .workloads
            .iter()
            .filter(|one| selects(service, &one.workload))
            .collect();
        let calls = calls(mesh, service, listeners, targets, client);
        for row in 0..workloads.len().max(calls.len()) {
            let (name, call) = calls.get(row).cloned().unwrap_or_default();
            let Some(one) = workloads.get(row) else {
                table.row([
                    name,
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                    call,
                ]);
                continue;
            };
            shown.push(one.workload.id());
            table.row(workload_cells(one, ready, name, call));
        }
    }
    for one in mesh
        .workloads
        .iter()
        .filter(|one| !shown.contains(&one.workload.id()))
    {
        table.row(workload_cells(one, ready, String::new(), String::new()));
    }
    table
}

fn workload_cells(
    one: &Runnable,
    ready: &BTreeMap<Name, bool>,
    name: String,
    call: String,
) -> [String; 6] {
    let workload = &one.workload;
    let state = match (&one.run, ready.get(&workload.id())) {
        (None, _) => "elsewhere",
        (Some(_), Some(true)) => "ready",
        (Some(_), _) => "down",
    };
    let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        name,
        label(&workload.id()),
        cell(&workload.zone),
        cell(&workload.identity),
        state.to_owned(),
        call,
    ]
}

/// Each port of a service, and how to call it.
fn calls(
    mesh: &Mesh,
    service: &Service,
    listeners: &Listeners,
    targets: &[Target],
    client: IpAddr,
) -> Vec<(String, String)> {
    let ports = service.ports.iter().enumerate();
    ports
        .map(|(index, port)| {
            let name = format!("{}:{}", label(&service.id()), port.port);
            let Some(listener) = listeners.of(service, port.port) else {
                return (name, String::new());
            };
            let address = SocketAddr::new(client, listener);
            let call = targets
                .iter()
                .find(|target| target.address == address)
                .map(|target| &target.call);
            let call = match (call, mesh.protocol(service, index)) {
                (Some(Call::Http { path }), _) => format!("curl http://{address}{path}"),
                (None, Protocol::Http | Protocol::Detect) => format!("curl http://{address}/"),
                (Some(Call::Grpc { .. }), _) | (None, Protocol::Grpc) => format!("grpc {address}"),
                _ => format!("nc {} {}", address.ip(), address.port()),
            };
            (name, call)
        })
        .collect()
}

/// The line that ends the start.
pub(crate) fn ready_line(mesh: &Mesh, ready: &BTreeMap<Name, bool>, took: Duration) -> String {
    let down = ready.values().filter(|ready| !**ready).count();
    let size = format!(
        "{}, {}",
        count(mesh.services.len(), "service"),
        count(mesh.workloads.len(), "workload")
    );
    if down == 0 {
        format!(
            "mesh is ready after {}: {size}, mutual TLS between all of them",
            duration::show(took)
        )
    } else {
        format!(
            "mesh is up after {}: {size}, {down} not ready",
            duration::show(took)
        )
    }
}

/// What is said to those whose applications run on while services come and go.
pub(crate) fn variable_lines(new: &BTreeSet<String>, old: &BTreeSet<String>) -> Vec<String> {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    if !new.is_empty() {
        lines.push(format!(
            "new: {}; HTTP_PROXY works at once, an application has the variable from its next start (which any change of \
             spec.run in its Workload brings about)",
            list(new)
        ));
    }
    if !old.is_empty() {
        lines.push(format!(
            "gone: {}; who was started with it is refused there",
            list(old)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use mesh_discovery::manifests::Run;
    use mesh_discovery::{ServicePort, TargetPort, Workload, WorkloadPort};

    use super::*;

    fn workload(name: &str, app: &str, zone: &str, protocol: Protocol) -> Runnable {
        let mut workload = Workload::new("default", name);
        workload.labels = [("app".to_owned(), app.to_owned())].into();
        workload.zone = Some(zone.to_owned());
        workload.identity = Some(format!("{app}.id"));
        workload.ports = vec![WorkloadPort {
            name: Some("main".into()),
            protocol,
            ..WorkloadPort::new(8080)
        }];
        let run = Run {
            command: vec!["x".into()],
            env: BTreeMap::new(),
            working_dir: None,
            ready: None,
        };
        Runnable {
            workload,
            run: Some(run),
        }
    }

    fn service(name: &str) -> Service {
        let mut service = Service::new("default", name);
        service.selector = [("app".to_owned(), name.to_owned())].into();
        service.ports = vec![ServicePort {
            target_port: TargetPort::Name("main".into()),
            ..ServicePort::new(80)
        }];
        service
    }

    #[test]
    fn every_workload_is_shown_once_and_every_service_says_how_to_call_it() {
        let mut external = workload("vm-1", "legacy", "dc", Protocol::Opaque);
        external.run = None;
        let mesh = Mesh {
            trust_domain: "cluster.local".into(),
            services: vec![service("db"), service("web")],
            workloads: vec![
                workload("db-1", "db", "a", Protocol::Opaque),
                external,
                workload("web-1", "web", "a", Protocol::Http),
                workload("web-2", "web", "b", Protocol::Http),
            ],
        };
        let mut listeners = Listeners::default();
        listeners.assign(&mesh.services).unwrap();
        let ready = ["db-1", "web-1"]
            .map(|name| (Name::new("default", name), true))
            .into();

        let lines = table(&mesh, &listeners, &[], [127, 77, 255, 254].into(), &ready).lines();

        assert_eq!(
            lines,
            [
                "SERVICE   WORKLOAD   ZONE   IDENTITY    STATE       CALL",
                "db:80     db-1       a      db.id       ready       nc 127.77.255.254 15001",
                "web:80    web-1      a      web.id      ready       curl http://127.77.255.254:15002/",
                "          web-2      b      web.id      down",
                "          vm-1       dc     legacy.id   elsewhere",
            ]
        );
    }
}
