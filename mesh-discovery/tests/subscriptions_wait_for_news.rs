//! The async half: woken by what concerns it, never left waiting, ended with the writer.

#![cfg(feature = "tokio")]

mod support;

use mesh_discovery::{Change, Error, Registry, shared};
use support::{Lines, Replica, expected, service, view, workload};
use tokio::task::yield_now;

#[tokio::test]
async fn the_first_message_comes_at_once_and_the_next_with_a_change() {
    let (writer, reader) = shared::new(Registry::new(Lines));
    let mut subscription = reader.subscribe(view());
    assert_eq!(&subscription.next().await.unwrap()[0][..], b"0 false\n");
    assert!(subscription.try_next().is_none());

    let waiting = tokio::spawn(async move { (subscription.next().await, subscription) });
    yield_now().await;
    assert!(!waiting.is_finished());
    writer.apply([
        Change::SetService(service()),
        Change::SetWorkload(workload("a", "10.0.0.1", 1)),
    ]);
    let (messages, mut subscription) = waiting.await.unwrap();
    let mut replica = Replica::default();
    replica.replay(&messages.unwrap());
    assert_eq!(replica, expected(&reader.read(), &view()));

    // What another view gets wakes nobody here.
    let mut other = service();
    other.name = "other".to_owned();
    writer.apply([Change::SetService(other)]);
    assert!(subscription.try_next().is_none());

    drop(writer);
    assert!(matches!(subscription.next().await, Err(Error::Closed)));
    let mut late = reader.subscribe(view());
    assert!(late.next().await.is_ok(), "the last state stays readable");
    assert!(matches!(late.next().await, Err(Error::Closed)));
}

#[tokio::test]
async fn what_was_written_before_the_writer_left_is_read() {
    let (writer, reader) = shared::new(Registry::new(Lines));
    let mut subscription = reader.subscribe(view());
    subscription.next().await.unwrap();
    writer.apply([Change::SetService(service())]);
    drop(writer);
    assert_eq!(&subscription.next().await.unwrap()[0][..], b"0 true\n");
    assert!(matches!(subscription.next().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_view_lives_as_long_as_its_subscribers() {
    let (_writer, reader) = shared::new(Registry::new(Lines));
    let subscriptions = [reader.subscribe(view()), reader.subscribe(view())];
    assert_eq!(reader.read().view_count(), 1);
    drop(subscriptions);
    assert_eq!(reader.read().view_count(), 0);
}

#[tokio::test]
async fn changes_tell_of_everything() {
    let (writer, reader) = shared::new(Registry::new(Lines));
    writer.apply([Change::SetService(service())]);
    let mut changes = reader.changes();
    let waiting = tokio::spawn(async move { (changes.changed().await, changes) });
    yield_now().await;
    assert!(!waiting.is_finished(), "the present is no change");

    // The same again is none either.
    writer.apply([Change::SetService(service())]);
    yield_now().await;
    assert!(!waiting.is_finished());

    let mut annotated = service();
    annotated.annotations.insert("a".to_owned(), "b".to_owned());
    writer.apply([Change::SetService(annotated)]);
    let (version, mut changes) = waiting.await.unwrap();
    assert_eq!(version.unwrap(), reader.read().version());
    drop(writer);
    assert!(matches!(changes.changed().await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_on_other_threads_end_up_with_the_present() {
    let (writer, reader) = shared::new(Registry::new(Lines));
    writer.apply([Change::SetService(service())]);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let mut subscription = reader.subscribe(view());
            tokio::spawn(async move {
                let mut replica = Replica::default();
                while let Ok(messages) = subscription.next().await {
                    replica.replay(&messages);
                }
                replica
            })
        })
        .collect();
    for n in 0..2000u16 {
        let name = format!("w-{}", n % 7);
        let change = match n % 3 {
            0 => Change::RemoveWorkload(mesh_discovery::Name::new("shop", name)),
            _ => Change::SetWorkload(workload(&name, &format!("10.0.0.{}", n % 11), 1 + n % 2)),
        };
        writer.apply([change]);
    }
    drop(writer);
    for task in tasks {
        assert_eq!(task.await.unwrap(), expected(&reader.read(), &view()));
    }
}
