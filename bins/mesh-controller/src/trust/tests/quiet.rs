//! Who follows another controller reads the record when that has written, and not otherwise.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use mesh_discovery::{Registry, shared};
use tokio::sync::watch;

use super::{several::Controller, *};
use crate::{
    destination::UpdateEncoder,
    mesh::Mesh,
    store::{
        Most, StoreFuture, Version, Versioned,
        etcd::tests::{Etcd, Running, TTL},
    },
};

/// A store that counts what is read of the record, and what is written.
pub(super) struct Counted {
    inner: Arc<dyn StateStore>,
    reads: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Counted {
    pub(super) fn of(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            reads: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    fn read(&self, key: &str) {
        if record::KEY.starts_with(key) || key.starts_with(record::KEY) {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

impl StateStore for Counted {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        self.read(key);
        self.inner.get(key)
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let bytes: usize = values
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        self.inner.commit(expected, values)
    }

    fn most(&self) -> Most {
        self.inner.most()
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        self.read(prefix);
        self.inner.written(prefix, since)
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        self.inner.delete(key, expected)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        self.read(prefix);
        self.inner.list(prefix, after, limit)
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive()
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let began = tokio::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_follows_reads_the_record_when_it_was_written_only() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let leader = Running::start(&etcd, "a", "mesh/");
    leader.leads().await;
    let place = Place::among_several(leader.store.clone(), "a".to_owned());
    let now = SystemTime::now();
    let mut leader = Controller::open(leader, place, &settings(), now).await;
    let follower = Running::start(&etcd, "b", "mesh/");
    let store = Counted::of(Arc::new(follower.store.clone()));
    let place = Place {
        shared: store.clone(),
        ..Place::among_several(follower.store.clone(), "b".to_owned())
    };
    let follower = Controller::open(follower, place, &settings(), now).await;
    let (_writer, registry) = shared::new(Registry::new(UpdateEncoder));
    let mesh = Arc::new(Mesh::new(registry, "cluster.local".to_owned()));
    let (_stop, stopping) = watch::channel(false);
    let Controller { trust, driver, .. } = follower;
    let news = driver.stored.news();
    let follows = tokio::spawn(driver.run(mesh, stopping));
    until("nothing is told", || news.is_told()).await;
    // Until what it writes of itself is told to it.
    tokio::time::sleep(TTL).await;
    let before = store.reads();
    tokio::time::sleep(TTL * 4).await;
    let quiet = store.reads() - before;
    println!("reads of the record over four leases in which nobody wrote: {quiet}");
    assert_eq!(quiet, 0);
    leader.turn(SystemTime::now(), Some(ROTATE)).await.unwrap();
    let at = leader.trust.record().audit().length();
    until("what was written is not seen", || {
        trust.record().audit().length() >= at
    })
    .await;
    println!("and after a rotation began: {}", store.reads() - before);
    follows.abort();
}
