//! The connections that one worker serves: how many there are, which of them keep a client's head waiting, and how they
//! are all asked to end.
//!
//! A [`Connections`] belongs to one thread. Each connection holds a [`Connection`] for as long as it lives; its task
//! selects on [`Connection::told`]. Nothing here keeps a timer per request: whoever owns the worker calls
//! [`Connections::sweep`] once a tick, and a head that was begun more than the allowed ticks ago is told to end. So is, where
//! that is wanted, a connection that has carried no request for long. One without a request for [`REST_TICKS`] may give back its
//! buffers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// The most ticks that the head of a request may take while draining.
pub const DRAIN_HEAD_TICKS: u64 = 5;

/// How many ticks in a row without a request before a connection rests.
pub const REST_TICKS: u64 = 2;

/// All connections of one worker.
#[derive(Clone, Debug)]
pub struct Connections(Rc<Inner>);

/// One connection's place among its worker's; dropping it gives the place back.
#[derive(Debug)]
pub struct Connection {
    key: usize,
    entry: Rc<Entry>,
    all: Rc<Inner>,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Take no new request, finish what is in flight, then close.
    Drain,
    /// Close now.
    Close,
}

#[derive(Debug)]
struct Inner {
    entries: RefCell<Slab<Rc<Entry>>>,
    limit: usize,
    head_ticks: u64,
    idle_ticks: Option<u64>,
    tick: Arc<AtomicU64>,
    draining: Cell<bool>,
    /// Who waits for a place, or for the last connection to end.
    waiting: RefCell<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct Entry {
    told: Cell<Option<Told>>,
    waker: RefCell<Option<Waker>>,
    /// How many ticks in a row have found it between requests.
    idle: Cell<u64>,
    /// Whether it was told that it may rest, and has not looked since.
    may_rest: Cell<bool>,
    seen: Arc<Seen>,
    /// By what it can be told with others; zero for nothing.
    mark: Cell<u64>,
}

/// What a connection's stream and service note. Only its thread writes, but a stream that can be upgraded must be `Send`.
#[derive(Debug, Default)]
struct Seen {
    /// Requests whose head was read and whose response has not ended.
    in_flight: AtomicU32,
    /// The tick at which a head was begun that is not complete yet, plus one; zero when there is none.
    head_begun: AtomicU64,
    /// Whether no request has come yet on a connection that can be told so: it is asked to end before it is made to.
    unused: AtomicBool,
    /// Whether it is HTTP that is served, so that there is a time between requests.
    http: AtomicBool,
    /// Whether a request has come since the last tick.
    used: AtomicBool,
    /// Whether bytes wait that the other side has no room for.
    unsent: AtomicBool,
}

impl Connections {
    /// At most `limit` connections, and heads that may take `head_ticks` calls of [`Connections::sweep`].
    #[must_use]
    pub fn new(limit: usize, head_ticks: u64) -> Self {
        Self::ending_idle(limit, head_ticks, None)
    }

    /// The same, and HTTP connections without a request for `idle_ticks` are told to drain.
    #[must_use]
    pub fn ending_idle(limit: usize, head_ticks: u64, idle_ticks: Option<u64>) -> Self {
        Self(Rc::new(Inner {
            entries: RefCell::default(),
            limit: limit.max(1),
            head_ticks,
            idle_ticks,
            tick: Arc::default(),
            draining: Cell::new(false),
            waiting: RefCell::default(),
        }))
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there is room for one more, without taking it.
    pub async fn room(&self) {
        self.until(|inner| inner.entries.borrow().len() < inner.limit)
            .await;
    }

    /// Takes a place, waiting for one while the limit is reached.
    pub async fn open(&self) -> Connection {
        self.room().await;
        let entry = Rc::new(Entry::default());
        if self.0.draining.get() {
            entry.told.set(Some(Told::Drain));
        }
        let key = self.0.entries.borrow_mut().insert(entry.clone());
        Connection {
            key,
            entry,
            all: self.0.clone(),
        }
    }

    /// Tells every connection, and those that open later, to drain.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.tell_all(Told::Drain);
    }

    /// Tells every connection to close now.
    pub fn close(&self) {
        self.tell_all(Told::Close);
    }

    /// Tells every connection that has one of these marks; not those that get one later.
    pub fn tell_marked(&self, marks: &[u64], told: Told) {
        for (_, entry) in self.0.entries.borrow().iter() {
            if marks.contains(&entry.mark.get()) {
                entry.tell(told);
            }
        }
    }

    /// Resolves when there is no connection.
    pub async fn ended(&self) {
        self.until(|inner| inner.entries.borrow().is_empty()).await;
    }

    /// Counts one tick and tells every connection whose head takes too long to close. Returns how many those are.
    ///
    /// While draining, a head gets at most [`DRAIN_HEAD_TICKS`]. A connection that is idle for too long is told to drain; if
    /// it is still there [`DRAIN_HEAD_TICKS`] later, to close. Long before, it may rest.
    pub fn sweep(&self) -> usize {
        let tick = self.0.tick.load(Relaxed) + 1;
        self.0.tick.store(tick, Relaxed);
        let allowed = match self.0.draining.get() {
            true => self.0.head_ticks.min(DRAIN_HEAD_TICKS),
            false => self.0.head_ticks,
        };
        let mut late = 0;
        for (_, entry) in self.0.entries.borrow().iter() {
            entry.count_idle(self.0.idle_ticks);
            let begun = entry.seen.head_begun.load(Relaxed);
            if begun == 0 || tick - (begun - 1) <= allowed {
                continue;
            }
            if entry.seen.unused.load(Relaxed) && entry.tell(Told::Drain) {
                entry.seen.head_begun.store(tick + 1, Relaxed);
            } else if entry.tell(Told::Close) {
                late += 1;
            }
        }
        late
    }

    fn tell_all(&self, told: Told) {
        for (_, entry) in self.0.entries.borrow().iter() {
            entry.tell(told);
        }
    }

    async fn until(&self, condition: impl Fn(&Inner) -> bool) {
        poll_fn(|cx| {
            if condition(&self.0) {
                return Poll::Ready(());
            }
            self.0.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Connection {
    /// Gives the connection a mark, by which [`Connections::tell_marked`] finds it. Zero is none.
    pub fn mark(&self, mark: u64) {
        self.entry.mark.set(mark);
    }

    /// Resolves when the connection is told something beyond `known`.
    pub async fn told(&self, known: Option<Told>) -> Told {
        poll_fn(|cx| self.poll_told(known, cx)).await
    }

    /// Ready with what the connection is told, when that is beyond `known`.
    pub fn poll_told(&self, known: Option<Told>, cx: &mut Context<'_>) -> Poll<Told> {
        if let Some(told) = self.entry.told.get().filter(|told| Some(*told) > known) {
            return Poll::Ready(told);
        }
        self.entry.wake_later(cx);
        Poll::Pending
    }

    /// Ready when the connection has carried no request for [`REST_TICKS`] and carries none now, and all of the last response is
    /// gone: what it holds for requests is of no use to it. Told once after a request.
    pub fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        let seen = &self.entry.seen;
        if self.entry.may_rest.take()
            && seen.is_idle()
            && !seen.used.load(Relaxed)
            && !seen.unsent.load(Relaxed)
        {
            return Poll::Ready(());
        }
        self.entry.wake_later(cx);
        Poll::Pending
    }

    /// A handle by which the connection's I/O and service say what they see.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity {
            seen: self.entry.seen.clone(),
            tick: self.all.tick.clone(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.entries.borrow_mut().remove(self.key);
        for waker in self.all.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

/// Where a connection's progress is noted, by the tick.
#[derive(Clone, Debug)]
pub struct Activity {
    seen: Arc<Seen>,
    tick: Arc<AtomicU64>,
}

impl Activity {
    /// Bytes came in. Between requests they begin a head.
    pub fn received(&self) {
        if self.seen.in_flight.load(Relaxed) == 0 && self.seen.head_begun.load(Relaxed) == 0 {
            self.seen
                .head_begun
                .store(self.tick.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Whether bytes wait to be sent.
    pub(crate) fn unsent(&self, unsent: bool) {
        self.seen.unsent.store(unsent, Relaxed);
    }

    /// HTTP is served from now on.
    pub(crate) fn http_begins(&self) {
        self.seen.used.store(true, Relaxed);
        self.seen.http.store(true, Relaxed);
    }

    /// What is served from now on, if anything, is not HTTP.
    pub(crate) fn http_ends(&self) {
        self.seen.http.store(false, Relaxed);
    }

    /// The connection was opened for HTTP/2. Until its first request it is as one whose head was begun; when that takes too
    /// long it is told to drain, and to close only if that does not end it.
    pub fn opened(&self) {
        self.received();
        self.seen.unused.store(true, Relaxed);
    }

    /// A head is complete; the request lasts until the guard is dropped.
    #[must_use]
    pub fn request(&self) -> InFlight {
        self.seen.head_begun.store(0, Relaxed);
        self.seen.unused.store(false, Relaxed);
        self.seen.used.store(true, Relaxed);
        self.seen
            .in_flight
            .store(self.seen.in_flight.load(Relaxed) + 1, Relaxed);
        InFlight(self.seen.clone())
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub struct InFlight(Arc<Seen>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0
            .in_flight
            .store(self.0.in_flight.load(Relaxed) - 1, Relaxed);
    }
}

impl Seen {
    /// Whether it is HTTP, between requests.
    fn is_idle(&self) -> bool {
        self.http.load(Relaxed)
            && self.in_flight.load(Relaxed) == 0
            && self.head_begun.load(Relaxed) == 0
    }
}

impl Entry {
    /// Counts a tick without a request. A connection that had none for some may rest; one that had none for `allowed` is told
    /// that it ends.
    fn count_idle(&self, allowed: Option<u64>) {
        let used = self.seen.used.swap(false, Relaxed);
        let idle = !used && self.seen.is_idle();
        self.idle.set(if idle { self.idle.get() + 1 } else { 0 });
        if self.idle.get() == REST_TICKS {
            self.may_rest.set(true);
            self.wake();
        }
        let Some(allowed) = allowed else {
            return;
        };
        if self.idle.get() >= allowed.saturating_add(DRAIN_HEAD_TICKS) {
            self.tell(Told::Close);
        } else if self.idle.get() >= allowed {
            self.tell(Told::Drain);
        }
    }

    /// Whether this is news.
    fn tell(&self, told: Told) -> bool {
        if self.told.get() >= Some(told) {
            return false;
        }
        self.told.set(Some(told));
        self.wake();
        true
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wake_later(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_limit_is_kept_and_a_place_comes_back() {
        let connections = Connections::new(1, 2);
        let first = connections.open().now_or_never().expect("a place is free");
        let mut second = Box::pin(connections.open());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn only_a_head_that_was_begun_can_be_late() {
        let connections = Connections::new(10, 2);
        let idle = connections.open().now_or_never().unwrap();
        let slow = connections.open().now_or_never().unwrap();
        let busy = connections.open().now_or_never().unwrap();
        slow.activity().received();
        busy.activity().received();
        let request = busy.activity().request();
        busy.activity().received();
        assert_eq!(
            (
                connections.sweep(),
                connections.sweep(),
                connections.sweep()
            ),
            (0, 0, 1)
        );
        assert_eq!(slow.told(None).now_or_never(), Some(Told::Close));
        assert_eq!(idle.told(None).now_or_never(), None);
        assert_eq!(busy.told(None).now_or_never(), None);
        drop(request);
        busy.activity().received();
        assert_eq!(
            (
                connections.sweep(),
                connections.sweep(),
                connections.sweep()
            ),
            (0, 0, 1)
        );
    }

    #[test]
    fn room_is_waited_for_and_not_taken() {
        let connections = Connections::new(1, 2);
        assert!(connections.room().now_or_never().is_some());
        assert!(connections.room().now_or_never().is_some());
        let only = connections.open().now_or_never().unwrap();
        assert!(connections.room().now_or_never().is_none());
        drop(only);
        assert!(connections.room().now_or_never().is_some());
    }

    #[test]
    fn while_draining_a_head_gets_less_time() {
        let connections = Connections::new(1, 1_000);
        let slow = connections.open().now_or_never().unwrap();
        slow.activity().received();
        assert_eq!((0..10).map(|_| connections.sweep()).sum::<usize>(), 0);
        connections.drain();
        assert_eq!(connections.sweep(), 1);
        assert_eq!(
            slow.told(Some(Told::Drain)).now_or_never(),
            Some(Told::Close)
        );
    }

    #[test]
    fn an_unused_connection_is_asked_before_it_is_closed() {
        let connections = Connections::new(10, 2);
        let unused = connections.open().now_or_never().unwrap();
        let used = connections.open().now_or_never().unwrap();
        unused.activity().opened();
        used.activity().opened();
        drop(used.activity().request());
        let sweeps = |count: usize| (0..count).map(|_| connections.sweep()).sum::<usize>();
        assert_eq!(sweeps(3), 0);
        assert_eq!(unused.told(None).now_or_never(), Some(Told::Drain));
        assert_eq!(sweeps(3), 1);
        assert_eq!(unused.told(None).now_or_never(), Some(Told::Close));
        assert_eq!(used.told(None).now_or_never(), None);
    }

    #[test]
    fn only_http_between_requests_is_idle() {
        let connections = Connections::ending_idle(10, 100, Some(2));
        let open = || connections.open().now_or_never().unwrap();
        let (idle, busy, used, tunnel, slow) = (open(), open(), open(), open(), open());
        for connection in [&idle, &busy, &used, &slow] {
            connection.activity().http_begins();
        }
        tunnel.activity().http_begins();
        tunnel.activity().http_ends();
        slow.activity().received();
        let _request = busy.activity().request();
        for _ in 0..20 {
            drop(used.activity().request());
            assert_eq!(connections.sweep(), 0);
        }
        for connection in [&busy, &used, &tunnel, &slow] {
            assert_eq!(connection.told(None).now_or_never(), None);
        }
        assert_eq!(idle.told(None).now_or_never(), Some(Told::Close));
        let late = open();
        late.activity().http_begins();
        for told in [None, None, Some(Told::Drain)] {
            connections.sweep();
            assert_eq!(late.told(None).now_or_never(), told);
        }
        drop(late.activity().request());
        connections.sweep();
        assert_eq!(late.told(Some(Told::Drain)).now_or_never(), None);
    }

    #[test]
    fn only_those_with_the_mark_are_told() {
        let connections = Connections::new(10, 2);
        let open = || connections.open().now_or_never().unwrap();
        let (marked, other, unmarked) = (open(), open(), open());
        marked.mark(7);
        other.mark(8);
        connections.tell_marked(&[5, 7], Told::Drain);
        assert_eq!(marked.told(None).now_or_never(), Some(Told::Drain));
        assert_eq!(other.told(None).now_or_never(), None);
        assert_eq!(unmarked.told(None).now_or_never(), None);
        connections.tell_marked(&[7], Told::Close);
        let told = marked.told(Some(Told::Drain)).now_or_never();
        assert_eq!(told, Some(Told::Close));
    }

    #[test]
    fn draining_reaches_those_who_come_later_and_ends_when_all_have() {
        let connections = Connections::new(10, 2);
        let before = connections.open().now_or_never().unwrap();
        connections.drain();
        let after = connections.open().now_or_never().unwrap();
        assert_eq!(before.told(None).now_or_never(), Some(Told::Drain));
        assert_eq!(after.told(None).now_or_never(), Some(Told::Drain));
        assert_eq!(before.told(Some(Told::Drain)).now_or_never(), None);
        assert!(connections.ended().now_or_never().is_none());
        connections.close();
        assert_eq!(
            before.told(Some(Told::Drain)).now_or_never(),
            Some(Told::Close)
        );
        drop((before, after));
        assert!(connections.ended().now_or_never().is_some());
    }
}
