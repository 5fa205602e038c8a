//! A value that the control side replaces and the data path reads without a lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::Instant;

/// A watched value: the newest snapshot, and when it changed.
///
/// Holding the `Arc` keeps the watch alive; an unheld one leaves after the idle time.
#[derive(Debug)]
pub struct Watched<T> {
    value: ArcSwap<T>,
    version: AtomicU64,
    changes: watch::Sender<u64>,
    /// When it was last handed out or seen held.
    used: Mutex<Instant>,
    started: Instant,
}

impl<T> Watched<T> {
    pub(super) fn new(first: T, now: Instant) -> Self {
        Self {
            value: ArcSwap::from_pointee(first),
            version: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            used: Mutex::new(now),
            started: now,
        }
    }

    /// Replaces the value and wakes everyone that waits for a change.
    pub(super) fn publish(&self, value: T) {
        self.value.store(Arc::new(value));
        self.changes.send_modify(|version| {
            *version += 1;
            self.version.store(*version, Ordering::Release);
        });
    }

    /// The newest snapshot. Lock-free; hold the guard briefly, or take `load_full`.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// The newest snapshot, to keep.
    pub fn load_full(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// How often the value was replaced. 0 until the controller, or a fallback, has answered: the value is then the
    /// provisional one.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Resolves with the new version once it is past `since`. Cancel safe; usable on any runtime.
    pub async fn changed(&self, since: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        // The sender is a field of `self`, so the channel outlives this call.
        changes
            .wait_for(|version| *version > since)
            .await
            .map_or(since, |version| *version)
    }

    /// When the watch began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    fn touch(&self, now: Instant) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is watched at the moment, bounded, one entry for each key.
#[derive(Debug)]
pub(super) struct Table<K, T> {
    entries: Mutex<HashMap<K, Arc<Watched<T>>>>,
    limit: usize,
    idle: Duration,
}

/// The owners of an entry that nobody uses: the table and the task that feeds it.
const UNUSED: usize = 2;

impl<K: Eq + Hash + Clone, T> Table<K, T> {
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
            limit,
            idle,
        }
    }

    /// The entry of `key`, and whether it is new: then the caller starts the task that feeds it. `None` when the table
    /// is full.
    pub(super) fn enter(
        &self,
        key: &K,
        now: Instant,
        first: impl FnOnce() -> T,
    ) -> Option<(Arc<Watched<T>>, bool)> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let full = entries.len() >= self.limit;
        match entries.entry(key.clone()) {
            Entry::Occupied(entry) => {
                entry.get().touch(now);
                Some((Arc::clone(entry.get()), false))
            }
            Entry::Vacant(_) if full => None,
            Entry::Vacant(entry) => Some((
                Arc::clone(entry.insert(Arc::new(Watched::new(first(), now)))),
                true,
            )),
        }
    }

    /// Takes `key` out if nobody has used it for the idle time. `true`: it left, its task should end.
    ///
    /// `watched` is the feeding task's own handle. Counting under the lock is sound because new handles are only made
    /// under it or from a handle that is counted already.
    pub(super) fn leave_if_idle(&self, key: &K, watched: &Arc<Watched<T>>, now: Instant) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(watched) > UNUSED {
            watched.touch(now);
            return false;
        }
        if now.saturating_duration_since(watched.used()) < self.idle {
            return false;
        }
        entries.remove(key);
        true
    }

    /// How often a feeding task asks whether its entry is idle.
    pub(super) fn idle_check(&self) -> Duration {
        (self.idle / 4).max(Duration::from_millis(10))
    }

    pub(super) fn len(&self) -> usize {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_wakes_waiters_and_counts() {
        let watched = Arc::new(Watched::new("provisional", Instant::now()));
        assert_eq!(watched.version(), 0);
        let waiting = tokio::spawn({
            let watched = Arc::clone(&watched);
            async move { watched.changed(0).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        watched.publish("first");
        assert_eq!(waiting.await.unwrap(), 1);
        assert_eq!(**watched.load(), "first");
        assert_eq!(
            watched.changed(0).await,
            1,
            "a change that already happened resolves at once"
        );
        assert!(
            tokio::time::timeout(Duration::from_secs(60), watched.changed(1))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_leaves_only_when_unheld_and_idle() {
        let table = Table::new(1, Duration::from_secs(10));
        let start = Instant::now();
        let (task, fresh) = table.enter(&1, start, || 0).unwrap();
        assert!(fresh);
        let (held, fresh) = table.enter(&1, start, || 0).unwrap();
        assert!(!fresh);
        assert!(table.enter(&2, start, || 0).is_none(), "full");

        let later = start + Duration::from_secs(60);
        assert!(!table.leave_if_idle(&1, &task, later), "held");
        drop(held);
        assert!(
            !table.leave_if_idle(&1, &task, later + Duration::from_secs(9)),
            "held until a moment ago"
        );
        assert!(table.leave_if_idle(&1, &task, later + Duration::from_secs(10)));
        assert_eq!(table.len(), 0);
    }
}
