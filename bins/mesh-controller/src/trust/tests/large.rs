//! A record of many workloads, on a real etcd: more than etcd takes in one request, written in pieces that it does take.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    pieces::{self, Found, Layout},
    quiet::Counted,
    *,
};
use crate::store::{Most, StoreError, StoreFuture, Version, Versioned, etcd::tests::Etcd};

/// A record in which so many workloads have leaves and have said what they use.
async fn record_of(most: usize) -> Record {
    let world = World::new(0).await;
    let mut record = Record::clone(&world.trust.record());
    for number in 0..most {
        let workload = workload(number);
        let joined = Event::Joined {
            workload: workload.clone(),
            cluster: record::cluster(),
            class: mesh_trust_rotation::Class::Reloading,
            incarnation: INCARNATION,
        };
        apply(&mut record, joined, unix(world.now));
        say(&mut record, number, 1, unix(world.now));
    }
    record
}

fn workload(number: usize) -> WorkloadId {
    let name = format!(
        "some-namespace/workload-{number}@workload-{number}.some-namespace.serviceaccount.identity.linkerd.cluster.local"
    );
    WorkloadId::new(&name).unwrap()
}

fn say(record: &mut Record, number: usize, sequence: u64, at: UnixTime) {
    let issuer = *record.rotation().issuers().keys().next().unwrap();
    let bundles = record.rotation().bundles();
    let report = mesh_trust_rotation::Report {
        sequence,
        at,
        loaded: Some(Loaded {
            generation: bundles.current(),
            digest: bundles.known(bundles.current()).unwrap().digest.unwrap(),
        }),
        leaf: Some((issuer, at)),
        connections: mesh_trust_rotation::Connections::None,
    };
    let said = Event::said(&workload(number), INCARNATION, report);
    apply(record, said, at);
}

fn apply(record: &mut Record, event: Event, at: UnixTime) {
    let epoch = record.rotation().epoch();
    record.apply(epoch, at, "test", event, &Sha256).unwrap();
}

async fn found(
    store: &dyn StateStore,
    before: Option<(&Layout, &Record)>,
) -> (Layout, Arc<Record>) {
    match pieces::read(store, before).await.unwrap() {
        Found::Record(layout, record) => (layout, record),
        other => panic!("{other:?}"),
    }
}

/// Writes the change, and has somebody else who knew the record before read it.
async fn change(
    what: &str,
    store: &Counted,
    layout: Layout,
    before: &Record,
    after: &Record,
) -> Layout {
    let (commits, bytes) = (&store.commits, &store.bytes);
    let counts = || (commits.load(Ordering::SeqCst), bytes.load(Ordering::SeqCst));
    let (from, began) = (counts(), Instant::now());
    let next = pieces::write(store, &layout, before, after).await.unwrap();
    let (wrote, to) = (began.elapsed(), counts());
    let began = Instant::now();
    let (_, read) = found(store, Some((&layout, before))).await;
    println!(
        "{what}: {} transactions, {} kB, written in {:.0?}, read by another in {:.0?}",
        to.0 - from.0,
        (to.1 - from.1) / 1000,
        wrote,
        began.elapsed()
    );
    assert!(*read == *after);
    next
}

#[tokio::test]
async fn twenty_thousand_workloads_fit_into_etcd() {
    const MANY: usize = 20_000;
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (store, _) = etcd.connect("a", "mesh/");
    let store = Counted::of(Arc::new(store));
    let all = record_of(MANY).await;
    let whole = all.to_bytes().unwrap().len();
    println!("{MANY} workloads: {whole} bytes");
    assert!(whole > 4 * crate::store::EtcdStore::MAX_VALUE_BYTES);
    let none = record_of(0).await;
    let bytes = none.to_bytes().unwrap();
    store
        .put(pieces::KEY, Expected::Absent, bytes)
        .await
        .unwrap();
    let (layout, none) = found(&*store, None).await;
    let layout = change("all of them", &store, layout, &none, &all).await;

    let later = all.rotation().consumers()[&workload(0)].started.after(LEAF);
    let mut one = all.clone();
    say(&mut one, 7, 2, later);
    let before = store.bytes.load(Ordering::SeqCst);
    let layout = change("what one says", &store, layout, &all, &one).await;
    let wrote = store.bytes.load(Ordering::SeqCst) - before;
    assert!(wrote < 200_000, "{wrote}");

    let mut some = one.clone();
    for number in 0..1000 {
        say(&mut some, number * 20, 3, later);
    }
    change("what a thousand say", &store, layout.clone(), &one, &some).await;

    let began = Instant::now();
    let (_, read) = found(&*store, None).await;
    println!("read as a whole in {:.0?}", began.elapsed());
    assert!(*read == some);
    // Whoever knew it before somebody else wrote does not write over that.
    let refused = pieces::write(&*store, &layout, &one, &all).await;
    let error = refused.unwrap_err();
    assert!(
        matches!(error, TrustError::Store(StoreError::Conflict { .. })),
        "{error}"
    );
}

/// The record of controllers from before there were pieces is read where it is, and written in pieces from then on.
#[tokio::test]
async fn a_record_in_one_value_is_read_and_goes_on_in_pieces() {
    let store = Counted::of(Arc::new(dying::Memory::default()));
    let all = record_of(100).await;
    let bytes = all.to_bytes().unwrap();
    store
        .put(pieces::KEY, Expected::Absent, bytes)
        .await
        .unwrap();
    let (layout, read) = found(&*store, None).await;
    assert!(*read == all);
    let mut next = all.clone();
    let later = all.rotation().consumers()[&workload(0)].started.after(LEAF);
    say(&mut next, 7, 2, later);
    let layout = change("the first", &store, layout, &all, &next).await;
    assert!(Record::from_bytes(&store.get(pieces::KEY).await.unwrap().unwrap().value).is_err());
    let mut last = next.clone();
    apply(&mut last, Event::Left(workload(7)), later);
    let layout = change("one leaves", &store, layout, &next, &last).await;
    let unchanged = pieces::read(&*store, Some((&layout, &last))).await.unwrap();
    assert!(matches!(unchanged, Found::Unchanged));
}

/// Two that write beside at the same moment: what is read in the end is what the one wrote whose head it is.
#[tokio::test]
async fn of_two_that_write_beside_one_has_its_way() {
    let most = Most {
        keys: 3,
        bytes: usize::MAX,
    };
    let store: Arc<dyn StateStore> = Arc::new(dying::Memory::taking(most));
    let all = record_of(20).await;
    let bytes = all.to_bytes().unwrap();
    store
        .put(pieces::KEY, Expected::Absent, bytes)
        .await
        .unwrap();
    let (layout, all) = found(&*store, None).await;
    let later = all.rotation().consumers()[&workload(0)].started.after(LEAF);
    let changed = |sequence| {
        let mut record = Record::clone(&all);
        for number in 0..20 {
            say(
                &mut record,
                number,
                sequence,
                later.after(LEAF * u32::try_from(sequence).unwrap()),
            );
        }
        record
    };
    let (one, two) = (changed(2), changed(3));
    let slow = Slow(store.clone());
    let (first, second) = tokio::join!(
        pieces::write(&slow, &layout, &all, &one),
        pieces::write(&slow, &layout, &all, &two)
    );
    let (_, read) = found(&*store, None).await;
    match (first, second) {
        (Ok(_), Err(_)) => assert!(*read == one),
        (Err(_), Ok(_)) => assert!(*read == two),
        (Err(_), Err(_)) => assert!(read == all),
        both @ (Ok(_), Ok(_)) => panic!("{both:?}"),
    }
}

/// Lets others in before each call.
#[derive(Debug)]
struct Slow(Arc<dyn StateStore>);

impl StateStore for Slow {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        self.0.get(key)
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.commit(expected, values).await
        })
    }

    fn most(&self) -> Most {
        self.0.most()
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        self.0.written(prefix, since)
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        self.0.delete(key, expected)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        self.0.list(prefix, after, limit)
    }
}

const INCARNATION: Incarnation = Incarnation(1_800_000_000_000_000);
