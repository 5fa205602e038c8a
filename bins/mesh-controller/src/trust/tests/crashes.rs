//! A controller that dies in the middle of a change: at each write of its store, at each operation on the store's file, and
//! before and after each action. What is killed is the driver, with all it has in memory; what it wrote until then is there, as
//! the kernel keeps what a killed process wrote. Another driver goes on from that.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mesh_trust_rotation::Action;

use super::*;
use crate::store::{
    Most, StoreError,
    etcd::tests::{Etcd, Running},
};

/// How a run ended, whatever happened on the way.
#[derive(Debug, PartialEq, Eq)]
struct End {
    outcome: Option<Outcome>,
    another_anchor: bool,
    /// Of anchors and issuers.
    keys: usize,
    consumers: usize,
    bundles: Vec<usize>,
    refusals: Vec<String>,
}

/// One rotation with a proxy of leaves that end soon, in which `armed` says how it dies; how it ended, and how often it died.
async fn rotate(store: Arc<Dying>, armed: impl FnOnce(&mut World)) -> (End, u64) {
    let leaf = Duration::from_secs(10);
    let settings = Settings {
        leaf_lifetime: leaf,
        rotation: Rotate::of_leaves(leaf),
        ..Settings::default()
    };
    let mut world = World::on(store, settings, 1).await;
    world.seconds(2).await;
    let old = world.anchor();
    armed(&mut world);
    world.second(Some(ROTATE)).await;
    if world.rotation_ended() && world.anchor() == old {
        // It died before the operator's word was on record, and the operator was told so.
        world.second(Some(ROTATE)).await;
    }
    world.until_ended().await;
    world.seconds(3).await;
    let record = world.trust.record();
    let rotation = record.rotation();
    record.audit().verify(&Sha256).unwrap();
    let bundles = world
        .proxies
        .iter()
        .map(|proxy| proxy.bundle.anchors().len());
    let end = End {
        outcome: rotation.last_outcome(),
        another_anchor: world.anchor() != old,
        keys: world.authorities().await.len(),
        consumers: rotation.consumers().len(),
        bundles: bundles.collect(),
        refusals: world.refusals.clone(),
    };
    (end, world.restarts)
}

fn right() -> End {
    End {
        outcome: Some(Outcome::Completed),
        another_anchor: true,
        keys: 2,
        consumers: 2,
        bundles: vec![1],
        refusals: Vec::new(),
    }
}

/// Without what the run before left.
async fn emptied(store: Arc<Dying>) -> Arc<Dying> {
    for (key, found) in store.list("trust/", None, 9999).await.unwrap() {
        store.delete(&key, found.version).await.unwrap();
    }
    store
}

/// Dies at each write, before and after it, on stores that `fresh` makes.
async fn at_each_write(on: &str, fresh: impl Fn() -> Arc<Dying>) {
    let (counted, from) = (emptied(fresh()).await, Arc::new(AtomicU64::new(0)));
    let begin = from.clone();
    let (end, _) = rotate(counted.clone(), move |world| {
        begin.store(world.store.writes(), Ordering::SeqCst);
    })
    .await;
    assert_eq!(end, right());
    let writes = counted.writes() - from.load(Ordering::SeqCst);
    assert!(writes > 10, "{writes}");
    let mut deaths = 0;
    for at in 0..writes {
        for after in [false, true] {
            let store = emptied(fresh()).await;
            let (end, died) = rotate(store, |world| world.store.dies_at(at, after)).await;
            assert_eq!(end, right(), "write {at}, {after}");
            deaths += died;
        }
    }
    println!(
        "{on}: killed before and after each of {writes} writes of a rotation: {deaths} deaths, one end"
    );
    assert!(deaths >= 2 * writes - 20, "{deaths}");
}

#[tokio::test]
async fn killed_at_any_write_it_ends_in_the_same_place() {
    at_each_write("in memory", Dying::in_memory).await;
}

/// Where what changes does not fit into one transaction, and is written beside what is in use first.
#[tokio::test]
async fn killed_at_any_write_of_a_piece_it_ends_in_the_same_place() {
    at_each_write("two keys at a time", || {
        let most = Most {
            keys: 2,
            bytes: usize::MAX,
        };
        let memory: Arc<dyn StateStore> = Arc::new(dying::Memory::taking(most));
        Dying::opened_by(move || memory.clone())
    })
    .await;
}

#[tokio::test]
async fn killed_at_any_write_to_etcd_it_ends_in_the_same_place() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let running = Running::start(&etcd, "a", "mesh/");
    running.leads().await;
    // All of it is written as the one who leads.
    let leads = running.store.fenced();
    at_each_write("etcd", || {
        let store = leads.clone();
        Dying::opened_by(move || Arc::new(store.clone()))
    })
    .await;
}

#[tokio::test]
async fn killed_at_any_operation_on_its_file_it_ends_in_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = |number: u64| Dying::in_file(&folder.path().join(format!("{number}.redb")));
    let (counted, from) = (fresh(0), Arc::new(AtomicU64::new(0)));
    let begin = from.clone();
    let (end, _) = rotate(counted.clone(), move |world| {
        begin.store(world.store.fate.operations(), Ordering::SeqCst);
    })
    .await;
    assert_eq!(end, right());
    let operations = counted.fate.operations() - from.load(Ordering::SeqCst);
    let mut deaths = 0;
    for at in 0..operations {
        let (end, died) = rotate(fresh(1 + at), |world| world.store.fate.dies_at(at)).await;
        assert_eq!(end, right(), "operation {at}");
        deaths += died;
        let _ = std::fs::remove_file(folder.path().join(format!("{}.redb", 1 + at)));
    }
    println!(
        "redb: killed before each of {operations} operations on the file in a rotation: {deaths} deaths, one end"
    );
    assert!(deaths + 30 >= operations, "{deaths}");
}

#[tokio::test]
async fn killed_before_and_after_any_action_it_ends_in_the_same_place() {
    /// Has the driver die at a moment before or after an action; counts the moments.
    fn armed(world: &mut World, at: i64, passed: &Arc<AtomicU64>) {
        let (store, passed) = (world.store.clone(), passed.clone());
        let left = AtomicI64::new(at);
        world.driver.watched = Some(Box::new(move |_: &Action| {
            passed.fetch_add(1, Ordering::SeqCst);
            if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                store.die();
                return Err(StoreError::Io("dies at an action".into()));
            }
            Ok(())
        }));
    }
    let passed = Arc::new(AtomicU64::new(0));
    let (end, _) = rotate(Dying::in_memory(), |world| armed(world, -1, &passed)).await;
    assert_eq!(end, right());
    let moments = passed.load(Ordering::SeqCst);
    assert!(moments > 20, "{moments}");
    let mut deaths = 0;
    for at in 0..i64::try_from(moments).unwrap() {
        let none = Arc::new(AtomicU64::new(0));
        let (end, died) = rotate(Dying::in_memory(), |world| armed(world, at, &none)).await;
        assert_eq!(end, right(), "moment {at}");
        deaths += died;
    }
    println!(
        "killed before and after each of {} actions of a rotation: {deaths} deaths, one end",
        moments / 2
    );
    assert_eq!(deaths, moments);
}
