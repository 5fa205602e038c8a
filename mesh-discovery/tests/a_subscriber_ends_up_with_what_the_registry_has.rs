//! Whatever the interleaving of writes and reads, replaying the messages gives the registry's view.

mod support;

use std::net::IpAddr;

use mesh_discovery::{
    Change, Family, Filter, Name, Position, Protocol, Registry, Service, ServicePort, TargetPort,
    View, Workload, WorkloadPort,
};
use proptest::prelude::*;
use support::{Lines, Replica, expected};

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>),
    Read(usize),
    /// The subscriber leaves, and another comes in its place.
    Replace(usize, View),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn replaying_gives_the_registrys_view(
        views in prop::collection::vec(view(), 3),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut registry = Registry::new(Lines);
        let mut subscribers: Vec<_> = views
            .into_iter()
            .map(|view| Subscriber::new(&mut registry, view))
            .collect();
        for step in steps {
            match step {
                Step::Write(changes) => {
                    let applied = registry.apply(changes.clone());
                    for subscriber in &mut subscribers {
                        let moved = applied.views.contains(&subscriber.id);
                        prop_assert!(moved || !subscriber.current || registry.updates(subscriber.id, subscriber.position).is_none());
                        subscriber.current &= !moved;
                    }
                    prop_assert!(!registry.apply(last_of_each(changes)).changed, "changes are idempotent");
                }
                Step::Read(at) => {
                    let subscriber = &mut subscribers[at];
                    subscriber.read(&registry);
                    prop_assert_eq!(&subscriber.replica, &expected(&registry, &subscriber.view));
                }
                Step::Replace(at, view) => {
                    let new = Subscriber::new(&mut registry, view);
                    let old = std::mem::replace(&mut subscribers[at], new);
                    registry.close(old.id);
                }
            }
        }
        for subscriber in &mut subscribers {
            subscriber.read(&registry);
            prop_assert_eq!(&subscriber.replica, &expected(&registry, &subscriber.view));
            registry.close(subscriber.id);
        }
        prop_assert_eq!(registry.view_count(), 0);
    }
}

/// A name set and removed in one batch is not the same batch twice; its last word is.
fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    let name = |change: &Change| match change {
        Change::SetWorkload(workload) => (0, workload.id()),
        Change::RemoveWorkload(name) => (0, name.clone()),
        Change::SetService(service) => (1, service.id()),
        Change::RemoveService(name) => (1, name.clone()),
        _ => unreachable!(),
    };
    let mut last: Vec<Change> = Vec::new();
    for change in changes {
        last.retain(|other| name(other) != name(&change));
        last.push(change);
    }
    last
}

struct Subscriber {
    view: View,
    id: mesh_discovery::ViewId,
    position: Position,
    replica: Replica,
    current: bool,
}

impl Subscriber {
    fn new(registry: &mut Registry, view: View) -> Self {
        Self {
            id: registry.open(view.clone()),
            view,
            position: Position::default(),
            replica: Replica::default(),
            current: false,
        }
    }

    fn read(&mut self, registry: &Registry) {
        if let Some(update) = registry.updates(self.id, self.position) {
            self.replica.replay(&update.messages);
            self.position = update.position;
        }
        assert!(registry.updates(self.id, self.position).is_none());
        self.current = true;
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(change(), 1..4).prop_map(Step::Write),
        2 => (0..3usize).prop_map(Step::Read),
        1 => ((0..3usize), view()).prop_map(|(at, view)| Step::Replace(at, view)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => workload().prop_map(Change::SetWorkload),
        3 => name("w").prop_map(Change::RemoveWorkload),
        2 => service().prop_map(Change::SetService),
        1 => name("s").prop_map(Change::RemoveService),
    ]
}

fn name(prefix: &'static str) -> impl Strategy<Value = Name> {
    (0..2u8, 0..3u8).prop_map(move |(namespace, name)| {
        Name::new(format!("n{namespace}"), format!("{prefix}{name}"))
    })
}

fn workload() -> impl Strategy<Value = Workload> {
    let addresses = prop::collection::vec(address(), 0..3);
    let ports = prop::collection::vec(workload_port(), 0..3);
    let rest = (label(), zone(), any::<bool>(), 0..8u8, any::<bool>());
    (name("w"), addresses, ports, rest).prop_map(
        |(id, addresses, ports, (label, zone, identity, ready, meshed))| Workload {
            labels: [("app".to_owned(), label)].into(),
            identity: identity.then(|| "id".to_owned()),
            zone,
            addresses,
            ports,
            meshed,
            ready: ready > 0,
            ..Workload::new(id.namespace, id.name)
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    (
        name("s"),
        label(),
        prop::collection::vec(service_port(), 0..3),
    )
        .prop_map(|(id, label, ports)| {
            let mut service = Service::new(id.namespace, id.name);
            service.selector = [("app".to_owned(), label)].into();
            service.ports = ports;
            service
        })
}

fn workload_port() -> impl Strategy<Value = WorkloadPort> {
    (0..2u8, 1..4u16, prop::option::of(4..6u16), protocol()).prop_map(
        |(name, port, mesh_port, protocol)| WorkloadPort {
            name: Some(format!("p{name}")),
            mesh_port,
            protocol,
            ..WorkloadPort::new(port)
        },
    )
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let target = prop_oneof![
        (1..4u16).prop_map(TargetPort::Number),
        (0..2u8).prop_map(|name| TargetPort::Name(format!("p{name}"))),
    ];
    (80..82u16, target, prop::option::of(protocol())).prop_map(
        |(port, target_port, app_protocol)| ServicePort {
            target_port,
            app_protocol,
            ..ServicePort::new(port)
        },
    )
}

fn view() -> impl Strategy<Value = View> {
    let filter = prop_oneof![
        3 => Just(Filter::all()),
        1 => Just(Filter::all().zone("z0")),
        1 => Just(Filter::all().family(Family::V4)),
        1 => Just(Filter::all().family(Family::V6).zone("z1")),
    ];
    (name("s"), 80..82u16, filter)
        .prop_map(|(service, port, filter)| View::new(service, port).filtered(filter))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1..4u8).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (1..3u16).prop_map(|n| IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, n])),
    ]
}

fn zone() -> impl Strategy<Value = Option<String>> {
    prop::option::of((0..2u8).prop_map(|n| format!("z{n}")))
}

fn label() -> impl Strategy<Value = String> {
    (0..2u8).prop_map(|n| format!("l{n}"))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        Just(Protocol::Detect),
        Just(Protocol::Http),
        Just(Protocol::Opaque)
    ]
}
