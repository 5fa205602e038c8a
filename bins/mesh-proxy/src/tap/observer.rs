//! Those who observe, and the queue to each of them.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use futures_util::Stream;
use http::Request;
use linkerd2_proxy_api::tap::observe_request::extract;
use linkerd2_proxy_api::tap::tap_event::http::{Event, StreamId};
use linkerd2_proxy_api::tap::{ObserveRequest, TapEvent};
use mesh_metrics::TapHandle;
use tokio::sync::mpsc;
use tonic::Status;

use super::event::{self, Parts, Subject};
use super::matching::{Invalid, Match};
use super::tapped::Tapped;

/// The most observers at once: each request is matched against each of them.
pub(super) const MAX_OBSERVERS: usize = 16;
/// Events that wait for an observer.
const MAX_QUEUED: usize = 256;
/// Bytes of the headers of those events, save the last one.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// All who observe.
#[derive(Debug)]
pub(crate) struct Taps {
    /// How many there are: all that is looked at while there is none.
    open: AtomicUsize,
    observers: ArcSwap<Vec<Arc<Observer>>>,
    /// Held while `observers` is replaced.
    replacing: Mutex<()>,
    /// Tells the requests of this process from those of another.
    base: u32,
    /// The number of the next request that is observed.
    next: AtomicU64,
    metrics: TapHandle,
}

/// One who observes, for the data path.
#[derive(Debug)]
pub(super) struct Observer {
    matching: Match,
    with_headers: bool,
    /// How many more requests it wants to see.
    wanted: AtomicU32,
    events: mpsc::Sender<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    metrics: TapHandle,
}

/// An event that waits for its observer, and the bytes it counts for.
#[derive(Debug)]
struct Queued {
    event: TapEvent,
    bytes: usize,
}

/// The events for one observer. It ends when as many requests as it wanted have ended.
#[derive(Debug)]
pub(crate) struct Events {
    events: mpsc::Receiver<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    taps: Arc<Taps>,
    observer: Weak<Observer>,
}

impl Taps {
    pub(crate) fn new(base: u32, metrics: TapHandle) -> Self {
        Self {
            open: AtomicUsize::new(0),
            observers: ArcSwap::default(),
            replacing: Mutex::new(()),
            base,
            next: AtomicU64::new(0),
            metrics,
        }
    }

    /// A request begins. `Some` when somebody observes it; `subject` is asked for only when somebody observes at all.
    #[inline]
    pub(crate) fn begin<'a, B>(
        &self,
        request: &Request<B>,
        subject: impl FnOnce() -> Subject<'a>,
    ) -> Option<Box<Tapped>> {
        if self.open.load(Relaxed) == 0 {
            return None;
        }
        self.take(request, subject())
    }

    #[cold]
    fn take<B>(&self, request: &Request<B>, subject: Subject<'_>) -> Option<Box<Tapped>> {
        let parts = Parts::new(request, subject);
        let observers = self.observers.load();
        let mut takers: Vec<Arc<Observer>> = Vec::new();
        let mut satisfied = false;
        let seen = parts.seen(request);
        for observer in observers
            .iter()
            .filter(|observer| observer.matching.matches(&seen))
        {
            match observer.want() {
                Want::Yes { last } => {
                    satisfied |= last;
                    takers.push(observer.clone());
                }
                Want::NoRoom => self.metrics.dropped(),
                Want::No => {}
            }
        }
        if satisfied {
            self.retain(Observer::wants_more);
        }
        if takers.is_empty() {
            return None;
        }
        let id = StreamId {
            base: self.base,
            stream: self.next.fetch_add(1, Relaxed),
        };
        let base = parts.base();
        for observer in &takers {
            observer.tell(&base, |headers| parts.request_init(request, id, headers));
        }
        Some(Box::new(Tapped::new(takers, base, id)))
    }

    /// Takes in who asks so; `None` when there are too many already.
    ///
    /// # Errors
    /// When the request means nothing.
    pub(super) fn observe(
        self: &Arc<Self>,
        request: &ObserveRequest,
    ) -> Result<Option<Events>, Invalid> {
        if request.limit == 0 {
            return Err(Invalid::new("limit", "0, expected at least 1"));
        }
        let (sender, events) = mpsc::channel(MAX_QUEUED);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let observer = Arc::new(Observer {
            matching: Match::read(request.r#match.as_ref())?,
            with_headers: extracts_headers(request),
            wanted: AtomicU32::new(request.limit),
            events: sender,
            queued_bytes: queued_bytes.clone(),
            metrics: self.metrics.clone(),
        });
        let weak = Arc::downgrade(&observer);
        let entered = self.replace(|observers| {
            let room = observers.len() < MAX_OBSERVERS;
            if room {
                observers.push(observer);
            }
            room
        });
        Ok(entered.then(|| {
            self.metrics.observer_came();
            Events {
                events,
                queued_bytes,
                taps: self.clone(),
                observer: weak,
            }
        }))
    }

    fn retain(&self, stays: impl Fn(&Observer) -> bool) {
        self.replace(|observers| observers.retain(|observer| stays(observer)));
    }

    fn replace<T>(&self, change: impl FnOnce(&mut Vec<Arc<Observer>>) -> T) -> T {
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut observers = Vec::clone(&self.observers.load());
        let changed = change(&mut observers);
        let open = observers.len();
        self.observers.store(Arc::new(observers));
        self.open.store(open, Relaxed);
        changed
    }
}

/// Whether an observer takes one more request.
enum Want {
    /// It does, as its last one or not.
    Yes { last: bool },
    /// It would, but does not keep up.
    NoRoom,
    /// It has seen enough.
    No,
}

impl Observer {
    fn want(&self) -> Want {
        if !self.has_room() {
            return if self.wants_more() {
                Want::NoRoom
            } else {
                Want::No
            };
        }
        let wanted = self
            .wanted
            .fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1));
        match wanted {
            Ok(wanted) => Want::Yes { last: wanted == 1 },
            Err(_) => Want::No,
        }
    }

    fn wants_more(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    fn has_room(&self) -> bool {
        self.events.capacity() > 0 && self.queued_bytes.load(Relaxed) < MAX_QUEUED_BYTES
    }

    /// Queues the event that `make` gives, told whether headers are wanted. An event that finds no room is dropped.
    pub(super) fn tell(&self, base: &TapEvent, make: impl FnOnce(bool) -> Event) {
        if self.queued_bytes.load(Relaxed) >= MAX_QUEUED_BYTES {
            return self.metrics.dropped();
        }
        match self.events.try_reserve() {
            Ok(place) => {
                let event = make(self.with_headers);
                let bytes = header_bytes(&event);
                self.queued_bytes.fetch_add(bytes, Relaxed);
                let event = event::of(base, event);
                place.send(Queued { event, bytes });
                self.metrics.queued();
            }
            Err(mpsc::error::TrySendError::Full(())) => self.metrics.dropped(),
            // Nobody is there to miss it.
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
    }
}

impl Stream for Events {
    type Item = Result<TapEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let queued = ready!(self.events.poll_recv(cx));
        Poll::Ready(queued.map(|Queued { event, bytes }| {
            self.queued_bytes.fetch_sub(bytes, Relaxed);
            Ok(event)
        }))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let gone = self.observer.as_ptr();
        self.taps.retain(|observer| !std::ptr::eq(observer, gone));
        self.taps.metrics.observer_left();
    }
}

fn extracts_headers(request: &ObserveRequest) -> bool {
    let Some(extract::Extract::Http(http)) = request
        .extract
        .as_ref()
        .and_then(|extract| extract.extract.as_ref())
    else {
        return false;
    };
    matches!(http.extract, Some(extract::http::Extract::Headers(_)))
}

/// What an event holds beyond the little that each has.
fn header_bytes(event: &Event) -> usize {
    let (headers, head) = match event {
        Event::RequestInit(init) => (&init.headers, init.path.len() + init.authority.len()),
        Event::ResponseInit(init) => (&init.headers, 0),
        Event::ResponseEnd(end) => (&end.trailers, 0),
    };
    let headers = headers.iter().flat_map(|headers| &headers.headers);
    head + headers
        .map(|header| header.name.len() + header.value.len())
        .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt};
    use linkerd2_proxy_api::tap::observe_request::{Match, r#match};
    use linkerd2_proxy_api::tap::tap_event::ProxyDirection;
    use std::net::SocketAddr;

    fn taps() -> Arc<Taps> {
        let metrics = mesh_metrics::Metrics::proxy("test");
        Arc::new(Taps::new(7, metrics.families.tap.handle()))
    }

    fn all(limit: u32) -> ObserveRequest {
        let all = r#match::Match::All(r#match::Seq::default());
        ObserveRequest {
            limit,
            r#match: Some(Match { r#match: Some(all) }),
            extract: None,
        }
    }

    fn begin(taps: &Taps, path: &str) -> Option<Box<Tapped>> {
        let here = SocketAddr::from(([127, 0, 0, 1], 80));
        let subject = Subject {
            direction: ProxyDirection::Inbound,
            source: here,
            source_labels: Vec::new(),
            destination: here,
            destination_labels: Vec::new(),
            route_labels: Vec::new(),
        };
        taps.begin(&Request::get(path).body(()).unwrap(), || subject)
    }

    /// How many events are there to be read; and whether the stream has ended.
    fn read(events: &mut Events) -> (usize, bool) {
        let mut read = 0;
        loop {
            match events.next().now_or_never() {
                Some(Some(event)) => read += usize::from(event.is_ok()),
                Some(None) => return (read, true),
                None => return (read, false),
            }
        }
    }

    #[test]
    fn while_nobody_observes_nothing_is_asked_for() {
        let taps = taps();
        let request = Request::new(());
        let nobody = || unreachable!("nobody observes");
        assert!(taps.begin(&request, nobody).is_none());
        drop(taps.observe(&all(1)).unwrap().unwrap());
        assert!(taps.begin(&request, nobody).is_none());
        let mut events = taps.observe(&all(1)).unwrap().unwrap();
        drop(begin(&taps, "/"));
        // As it has seen all that it wanted.
        assert!(taps.begin(&request, nobody).is_none());
        assert_eq!(read(&mut events), (2, true));
    }

    #[test]
    fn a_stream_ends_when_what_it_saw_has_ended() {
        let taps = taps();
        let mut two = taps.observe(&all(2)).unwrap().unwrap();
        let mut more = taps.observe(&all(9)).unwrap().unwrap();
        let [first, second, third] = ["/1", "/2", "/3"].map(|path| begin(&taps, path).unwrap());
        assert_eq!((read(&mut two), read(&mut more)), ((2, false), (3, false)));
        drop((first, third));
        assert_eq!((read(&mut two), read(&mut more)), ((1, false), (2, false)));
        drop(second);
        assert_eq!((read(&mut two), read(&mut more)), ((1, true), (1, false)));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_does_not_count() {
        let taps = taps();
        let mut events = taps.observe(&all(u32::MAX)).unwrap().unwrap();
        let taken = std::iter::repeat_with(|| begin(&taps, "/"))
            .take(2 * MAX_QUEUED)
            .flatten()
            .count();
        // Each that is taken takes two places, for its beginning and for its end.
        assert_eq!(taken, MAX_QUEUED / 2);
        assert_eq!(read(&mut events), (MAX_QUEUED, false));
        assert!(begin(&taps, "/").is_some());

        drop(events);
        let mut events = taps.observe(&all(u32::MAX)).unwrap().unwrap();
        let long = format!("/{}", "x".repeat(MAX_QUEUED_BYTES / 32));
        let taken = std::iter::repeat_with(|| begin(&taps, &long))
            .take(MAX_QUEUED)
            .flatten()
            .count();
        assert!(taken <= 33, "{taken}");
        assert!(!read(&mut events).1);
        assert!(begin(&taps, &long).is_some());
    }
}
