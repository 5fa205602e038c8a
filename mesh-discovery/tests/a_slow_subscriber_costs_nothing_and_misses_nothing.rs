//! Messages are encoded once for all subscribers of a view, and whoever is behind gets one update.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use mesh_discovery::{Change, Encode, Endpoint, Name, Position, Registry, View};
use support::{Lines, Replica, expected, service, view, workload};

/// Counts what is encoded.
struct Counting(Arc<AtomicUsize>);

impl Encode for Counting {
    fn add(&self, view: &View, endpoints: &[Endpoint<'_>]) -> Bytes {
        self.0.fetch_add(1, Ordering::Relaxed);
        Lines.add(view, endpoints)
    }

    fn remove(&self, view: &View, addresses: &[std::net::SocketAddr]) -> Bytes {
        self.0.fetch_add(1, Ordering::Relaxed);
        Lines.remove(view, addresses)
    }

    fn no_endpoints(&self, view: &View, exists: bool) -> Bytes {
        self.0.fetch_add(1, Ordering::Relaxed);
        Lines.no_endpoints(view, exists)
    }
}

fn set(name: &str, address: &str) -> Change {
    Change::SetWorkload(workload(name, address, 8080))
}

#[test]
fn ten_thousand_subscribers_cost_one_encoding() {
    let encoded = Arc::new(AtomicUsize::new(0));
    let mut registry = Registry::new(Counting(encoded.clone()));
    registry.apply([Change::SetService(service()), set("a", "10.0.0.1")]);
    let ids: Vec<_> = (0..10_000).map(|_| registry.open(view())).collect();
    let updates: Vec<_> = ids
        .iter()
        .map(|&id| registry.updates(id, Position::default()).unwrap())
        .collect();
    assert_eq!(encoded.load(Ordering::Relaxed), 1);
    assert!(
        updates
            .iter()
            .all(|update| Arc::ptr_eq(&update.messages, &updates[0].messages))
    );

    registry.apply([set("b", "10.0.0.2")]);
    for (&id, update) in ids.iter().zip(&updates) {
        registry.updates(id, update.position).unwrap();
    }
    assert_eq!(encoded.load(Ordering::Relaxed), 2);
    assert_eq!(registry.view_count(), 1);
}

#[test]
fn changes_in_between_come_as_one() {
    let mut registry = Registry::new(Lines);
    registry.apply([
        Change::SetService(service()),
        set("a", "10.0.0.1"),
        set("z", "10.0.0.9"),
    ]);
    let id = registry.open(view());
    let first = registry.updates(id, Position::default()).unwrap();
    for n in 0..100 {
        registry.apply([set("a", &format!("10.0.1.{n}"))]);
    }
    let update = registry.updates(id, first.position).unwrap();
    let text: String = (update.messages.iter())
        .map(|message| std::str::from_utf8(message).unwrap())
        .collect();
    assert_eq!(text.matches("+ ").count(), 1, "{text}");
    assert!(text.contains("- 10.0.0.1:8080\n"), "{text}");
    assert!(text.starts_with('+'), "additions come first: {text}");
}

#[test]
fn who_is_too_far_behind_starts_over() {
    let mut registry = Registry::new(Lines);
    registry.apply([
        Change::SetService(service()),
        set("a", "10.0.0.1"),
        set("z", "10.0.0.9"),
    ]);
    let id = registry.open(view());
    let first = registry.updates(id, Position::default()).unwrap();
    let mut behind = Replica::default();
    behind.replay(&first.messages);
    let mut near = Position::default();
    for n in 0..2000u16 {
        let [high, low] = n.to_be_bytes();
        registry.apply([set("a", &format!("10.1.{high}.{low}"))]);
        if n == 1900 {
            near = registry.updates(id, first.position).unwrap().position;
        }
    }
    let update = registry.updates(id, first.position).unwrap();
    assert_eq!(&update.messages[0][..], b"0 true\n");
    behind.replay(&update.messages);
    assert_eq!(behind, expected(&registry, &view()));
    let bytes: usize = update.messages.iter().map(Bytes::len).sum();
    assert!(bytes < 2000, "what is forgotten is not sent: {bytes}");

    let update = registry.updates(id, near).unwrap();
    assert_eq!(update.messages[0][0], b'+', "who is not, does not");
}

#[test]
fn large_snapshots_are_cut_into_messages() {
    let mut registry = Registry::new(Lines);
    registry.apply([Change::SetService(service())]);
    registry.apply((0..3000u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        set(&format!("w-{n}"), &format!("10.1.{high}.{low}"))
    }));
    let id = registry.open(view());
    let update = registry.updates(id, Position::default()).unwrap();
    assert_eq!(update.messages.len(), 3);
    let mut replica = Replica::default();
    replica.replay(&update.messages);
    assert_eq!(replica.endpoints.len(), 3000);
}

#[test]
fn empty_and_unknown_are_answers() {
    let mut registry = Registry::new(Lines);
    let id = registry.open(view());
    let first = registry.updates(id, Position::default()).unwrap();
    assert_eq!(&first.messages[0][..], b"0 false\n");
    registry.apply([Change::SetService(service())]);
    let second = registry.updates(id, first.position).unwrap();
    assert_eq!(&second.messages[0][..], b"0 true\n");
    registry.apply([set("a", "10.0.0.1")]);
    let third = registry.updates(id, second.position).unwrap();
    assert_eq!(third.messages[0][0], b'+');
    registry.apply([Change::RemoveService(Name::new("shop", "web"))]);
    let fourth = registry.updates(id, third.position).unwrap();
    assert_eq!(&fourth.messages[..], [Bytes::from_static(b"0 false\n")]);
    assert!(registry.updates(id, fourth.position).is_none());
}

#[test]
fn labels_and_other_services_are_no_news() {
    let mut registry = Registry::new(Lines);
    registry.apply([Change::SetService(service()), set("a", "10.0.0.1")]);
    let id = registry.open(view());
    let mut labelled = workload("a", "10.0.0.1", 8080);
    labelled
        .labels
        .insert("tier".to_owned(), "front".to_owned());
    let mut other = service();
    other.name = "other".to_owned();
    let applied = registry.apply([Change::SetWorkload(labelled), Change::SetService(other)]);
    assert!(applied.changed && applied.views.is_empty());
    assert!(registry.close(id));
    assert!(registry.updates(id, Position::default()).is_none());
    assert!(!registry.close(id), "closing twice is harmless");
}
