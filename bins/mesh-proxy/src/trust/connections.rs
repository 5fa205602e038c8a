//! Live TLS connections by the anchor under which their peers were verified, and how they are ended by order.
//!
//! A connection is entered once, when its handshake has ended, and leaves when it does; nothing is done per request. Each
//! belongs to a group: those of one anchor since the last order to drain it, so that an order means the connections of its time.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use mesh_http::connections::Told;
use mesh_metrics::{AnchorConnections, TrustHandle};
use mesh_tls::KeyId;
use slab::Slab;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep};

/// Orders on their way to workers. Who misses one asks what holds.
const MAX_ORDERS: usize = 64;

/// All connections of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    orders: broadcast::Sender<Order>,
    changed: Notify,
    cut: AtomicU64,
    metrics: Option<TrustHandle>,
}

#[derive(Debug, Default)]
struct State {
    entries: Slab<Entry>,
    /// Few: two or three anchors, and what drains of them.
    groups: Vec<Group>,
    /// Of the last group.
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    group: u64,
    since: SystemTime,
    kind: Kind,
}

/// How a connection is ended.
#[derive(Debug)]
enum Kind {
    /// By its worker, which tells it.
    Told,
    /// By its cut, when the time is up.
    Cut(Arc<Cut>),
    /// By its cut, at once: nobody's requests are on it.
    Own(Arc<Cut>),
}

#[derive(Debug)]
struct Group {
    serial: u64,
    anchor: KeyId,
    live: usize,
    draining: bool,
    cut_at: Option<Instant>,
    cut: bool,
}

/// What an order to drain comes to.
#[derive(Debug, Default)]
struct Draining {
    /// The groups that are told to end. Those that were told before are told again, as one may have been missed.
    told: Vec<u64>,
    /// Whether one was not told before.
    new: bool,
    /// The groups that are cut when this order's time is up.
    cut: Vec<u64>,
}

/// What workers are to tell the connections of some groups.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) groups: Arc<[u64]>,
    pub(crate) told: Told,
}

/// A connection's place; dropped when it ends.
#[derive(Debug)]
pub struct Record {
    all: Connections,
    key: usize,
    group: u64,
}

/// Ends a connection from outside its task.
#[derive(Debug, Default)]
pub struct Cut {
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// The connections of one anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which.
    pub anchor: KeyId,
    /// How many.
    pub count: u64,
    /// Since when the oldest is.
    pub oldest: SystemTime,
    /// How many were told to end.
    pub draining: u64,
}

impl Connections {
    /// Shown and counted by these.
    #[must_use]
    pub fn counted_by(metrics: &TrustHandle) -> Self {
        let all = Self::with(Some(metrics.clone()));
        let shown = Arc::downgrade(&all.0);
        metrics.watch(move || {
            let all = shown.upgrade().map(Self);
            all.map(|all| all.shown()).unwrap_or_default()
        });
        all
    }

    fn with(metrics: Option<TrustHandle>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            orders: broadcast::channel(MAX_ORDERS).0,
            changed: Notify::new(),
            cut: AtomicU64::new(0),
            metrics,
        }))
    }

    /// Under the names that operators see: the first eight hex digits of an anchor's key.
    fn shown(&self) -> Vec<AnchorConnections> {
        let summary = self.summary().into_iter();
        let shown = summary.map(|one| AnchorConnections {
            anchor: one.anchor.to_string().chars().take(8).collect(),
            open: one.count,
            draining: one.draining,
        });
        shown.collect()
    }

    /// Takes up a connection that its worker tells to end.
    pub(crate) fn told(&self, anchor: KeyId) -> Record {
        self.enter(anchor, Kind::Told)
    }

    /// Takes up a connection that is cut when its time is up.
    pub(crate) fn cuttable(&self, anchor: KeyId) -> (Record, Arc<Cut>) {
        let cut = Arc::<Cut>::default();
        (self.enter(anchor, Kind::Cut(Arc::clone(&cut))), cut)
    }

    /// Takes up a connection of the proxy's own, which is opened again when it ends.
    pub(crate) fn own(&self, anchor: KeyId) -> (Record, Arc<Cut>) {
        let cut = Arc::<Cut>::default();
        (self.enter(anchor, Kind::Own(Arc::clone(&cut))), cut)
    }

    /// Orders for workers, from now on.
    pub(crate) fn orders(&self) -> broadcast::Receiver<Order> {
        self.0.orders.subscribe()
    }

    /// What holds of all orders that there were, for a worker that missed some.
    pub(crate) fn standing_orders(&self) -> [Order; 2] {
        let state = self.state();
        let groups = |so: fn(&Group) -> bool| {
            let groups = state.groups.iter().filter(|group| so(group));
            groups.map(|group| group.serial).collect()
        };
        [
            Order {
                groups: groups(|group| group.draining),
                told: Told::Drain,
            },
            Order {
                groups: groups(|group| group.cut),
                told: Told::Close,
            },
        ]
    }

    /// Has the connections end that were verified under `anchor` before now; what is left after `cut_after`, if that is set, is
    /// closed. To be called on a runtime.
    pub fn drain(&self, anchor: KeyId, cut_after: Option<Duration>) {
        let cut_at = cut_after.and_then(|after| Instant::now().checked_add(after));
        let Draining { told, new, cut } = self.state().begin_drain(anchor, cut_at);
        if new {
            tracing::info!(%anchor, ?cut_after, "draining connections verified under this anchor");
        }
        if !told.is_empty() {
            self.order(told, Told::Drain);
        }
        if let (false, Some(after)) = (cut.is_empty(), cut_after) {
            let all = self.clone();
            tokio::spawn(async move {
                sleep(after).await;
                all.cut(anchor, cut);
            });
        }
    }

    /// Resolves when an anchor's last connection has ended since it was last asked. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// How many were closed because their time was up.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.0.cut.load(Ordering::Relaxed)
    }

    /// The anchors with live connections, the oldest first.
    #[must_use]
    pub fn summary(&self) -> Vec<Summary> {
        let state = self.state();
        let mut anchors = BTreeMap::<KeyId, Summary>::new();
        for (_, entry) in &state.entries {
            let Some(group) = state.group(entry.group) else {
                continue;
            };
            let summary = anchors.entry(group.anchor).or_insert(Summary {
                anchor: group.anchor,
                count: 0,
                oldest: entry.since,
                draining: 0,
            });
            summary.count += 1;
            summary.oldest = summary.oldest.min(entry.since);
            summary.draining += u64::from(group.draining);
        }
        let mut all: Vec<_> = anchors.into_values().collect();
        all.sort_by_key(|summary| summary.oldest);
        all
    }

    fn enter(&self, anchor: KeyId, kind: Kind) -> Record {
        let mut state = self.state();
        let group = state.current(anchor);
        let key = state.entries.insert(Entry {
            group,
            since: SystemTime::now(),
            kind,
        });
        Record {
            all: self.clone(),
            key,
            group,
        }
    }

    /// Closes what is left of these groups.
    fn cut(&self, anchor: KeyId, groups: Vec<u64>) {
        let mut groups = groups;
        let cut = {
            let mut state = self.state();
            // An order with less time may have come after the one that this is of.
            groups.retain(|serial| state.is_first_cut(*serial));
            let entries = state.entries.iter();
            let left = entries.filter(|(_, entry)| groups.contains(&entry.group));
            left.map(|(_, entry)| entry.kind.fire()).count()
        };
        if cut > 0 {
            let connections = cut;
            tracing::warn!(%anchor, connections, "cut connections verified under this anchor: their time was up");
            self.0.cut.fetch_add(cut as u64, Ordering::Relaxed);
            if let Some(metrics) = &self.0.metrics {
                metrics.cut(cut as u64);
            }
            self.order(groups, Told::Close);
        }
    }

    fn order(&self, groups: Vec<u64>, told: Told) {
        let groups = groups.into();
        // Before there are workers, nobody has connections.
        let _ = self.0.orders.send(Order { groups, told });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::with(None)
    }
}

impl State {
    fn group(&self, serial: u64) -> Option<&Group> {
        self.groups.iter().find(|group| group.serial == serial)
    }

    /// Whether the group is there and was not cut before.
    fn is_first_cut(&mut self, serial: u64) -> bool {
        let group = self.groups.iter_mut().find(|group| group.serial == serial);
        group.is_some_and(|group| !std::mem::replace(&mut group.cut, true))
    }

    /// The group that a new connection under `anchor` belongs to.
    fn current(&mut self, anchor: KeyId) -> u64 {
        let of_now = |group: &&mut Group| group.anchor == anchor && !group.draining;
        if let Some(group) = self.groups.iter_mut().find(of_now) {
            group.live += 1;
            return group.serial;
        }
        self.serial += 1;
        self.groups.push(Group {
            serial: self.serial,
            anchor,
            live: 1,
            draining: false,
            cut_at: None,
            cut: false,
        });
        self.serial
    }

    fn begin_drain(&mut self, anchor: KeyId, cut_at: Option<Instant>) -> Draining {
        let mut draining = Draining::default();
        for group in &mut self.groups {
            if group.anchor != anchor {
                continue;
            }
            draining.new |= !std::mem::replace(&mut group.draining, true);
            draining.told.push(group.serial);
            // An order that is repeated gives no more time.
            if cut_at.is_some_and(|at| group.cut_at.is_none_or(|earlier| at < earlier)) {
                group.cut_at = cut_at;
                draining.cut.push(group.serial);
            }
        }
        for (_, entry) in &self.entries {
            if let Kind::Own(own) = &entry.kind
                && draining.told.contains(&entry.group)
            {
                own.fire();
            }
        }
        draining
    }

    /// Whether that was the last one under its anchor.
    fn leave(&mut self, key: usize) -> bool {
        let Some(entry) = self.entries.try_remove(key) else {
            return false;
        };
        let Some(index) = self
            .groups
            .iter()
            .position(|group| group.serial == entry.group)
        else {
            return false;
        };
        let anchor = self.groups[index].anchor;
        self.groups[index].live -= 1;
        if self.groups[index].live == 0 {
            self.groups.swap_remove(index);
        }
        self.groups.iter().all(|group| group.anchor != anchor)
    }
}

impl Kind {
    fn fire(&self) {
        match self {
            Self::Told => {}
            Self::Cut(cut) | Self::Own(cut) => cut.fire(),
        }
    }
}

impl Record {
    /// The group that orders name.
    pub(crate) fn group(&self) -> u64 {
        self.group
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let last = self.all.state().leave(self.key);
        if last {
            self.all.0.changed.notify_one();
        }
    }
}

impl Cut {
    fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        let waker = self.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Ready once it has fired; wakes the task then, which `known` says is the one that was here last.
    pub(super) fn poll(&self, known: &mut Option<Waker>, cx: &Context<'_>) -> Poll<()> {
        if !known
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *known = Some(cx.waker().clone());
            self.waker().clone_from(known);
        }
        if self.has_fired() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ends once it has fired. To be awaited in the task that reads: there is one place for a task to wake.
    pub(crate) async fn fired(&self) {
        let mut known = None;
        poll_fn(|cx| self.poll(&mut known, cx)).await;
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn counts(all: &Connections) -> Vec<(KeyId, u64, u64)> {
        let summary = all.summary().into_iter();
        let mut counts: Vec<_> = summary
            .map(|one| (one.anchor, one.count, one.draining))
            .collect();
        counts.sort();
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_means_the_connections_of_its_time() {
        let (all, old, new) = (Connections::default(), KeyId::from(OLD), KeyId::from(NEW));
        let mut orders = all.orders();
        let (before, other) = (all.told(old), all.told(new));
        let (request, cut) = all.cuttable(old);
        let (own, at_once) = all.own(old);
        all.drain(old, None);
        let order = orders.try_recv().unwrap();
        assert_eq!(
            (order.told, &*order.groups),
            (Told::Drain, &[before.group()][..])
        );
        assert!(at_once.has_fired() && !cut.has_fired());
        drop(own);
        let after = all.told(old);
        assert_ne!(after.group(), before.group());
        assert_eq!(counts(&all), [(old, 3, 2), (new, 1, 0)]);
        sleep(Duration::from_secs(1_000_000)).await;
        assert!(orders.try_recv().is_err() && !cut.has_fired());
        drop((before, request, other));
        assert_eq!(counts(&all), [(old, 1, 0)]);
        assert_eq!(all.cuts(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_cut_when_its_time_is_up_and_repetition_gives_no_more() {
        let (all, old) = (Connections::default(), KeyId::from(OLD));
        let mut orders = all.orders();
        let (told, (cuttable, cut)) = (all.told(old), all.cuttable(old));
        let ended = all.told(old);
        all.drain(old, None);
        orders.try_recv().unwrap();
        all.drain(old, Some(Duration::from_secs(10)));
        sleep(Duration::from_secs(9)).await;
        all.drain(old, Some(Duration::from_secs(10)));
        drop(ended);
        // Told again, to no effect.
        for _ in 0..2 {
            assert_eq!(orders.try_recv().unwrap().told, Told::Drain);
        }
        assert!(orders.try_recv().is_err() && !cut.has_fired());
        sleep(Duration::from_millis(1001)).await;
        assert!(cut.has_fired());
        assert_eq!(
            (orders.try_recv().unwrap().told, all.cuts()),
            (Told::Close, 2)
        );
        drop((told, cuttable));
        sleep(Duration::from_secs(60)).await;
        assert_eq!((counts(&all), all.cuts()), (vec![], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_missed_orders_is_told_what_holds() {
        let (all, old, new) = (Connections::default(), KeyId::from(OLD), KeyId::from(NEW));
        let (cut, _other) = (all.told(old), all.told(new));
        all.drain(old, Some(Duration::from_secs(1)));
        let told = |all: &Connections| {
            all.standing_orders()
                .map(|order| (order.told, order.groups.to_vec()))
        };
        let group = cut.group();
        assert_eq!(
            told(&all),
            [(Told::Drain, vec![group]), (Told::Close, vec![])]
        );
        sleep(Duration::from_secs(2)).await;
        assert_eq!(
            told(&all),
            [(Told::Drain, vec![group]), (Told::Close, vec![group])]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_with_less_time_counts_and_nothing_is_cut_twice() {
        let (all, old) = (Connections::default(), KeyId::from(OLD));
        let _told = all.told(old);
        all.drain(old, Some(Duration::from_secs(10)));
        all.drain(old, Some(Duration::from_secs(1)));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(all.cuts(), 1);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(all.cuts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_of_an_anchor_is_told_of() {
        let (all, old, new) = (Connections::default(), KeyId::from(OLD), KeyId::from(NEW));
        let (first, second, _other) = (all.told(old), all.told(old), all.told(new));
        let changed = || tokio::time::timeout(Duration::from_secs(1), all.changed());
        drop(first);
        assert!(changed().await.is_err());
        drop(second);
        assert!(changed().await.is_ok());
    }
}
