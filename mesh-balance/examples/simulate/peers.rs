//! What ours is compared with.

use crate::engine::Balancer;
use crate::random::Random;
use futures_util::stream::{Stream, poll_fn};
use mesh_balance::core::Outcome;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::peak_ewma::Handle;
use tower::load::{PeakEwma, TrackCompletion};
use tower::{Service, util::rng::Rng};

/// One after the other.
#[derive(Debug, Default)]
pub struct RoundRobin {
    present: Vec<usize>,
    next: usize,
}

impl Balancer for RoundRobin {
    fn discover(&mut self, _now: Instant, present: &[(usize, u8)]) {
        self.present = present.iter().map(|(server, _)| *server).collect();
    }

    fn pick(&mut self, _request: usize, _now: Instant, _random: u64) -> Option<usize> {
        self.next += 1;
        let index = self.next % self.present.len().max(1);
        self.present.get(index).copied()
    }

    fn finish(&mut self, _request: usize, _now: Instant, _outcome: Outcome) {}
}

/// Of two at random, the one with fewer requests in flight.
#[derive(Debug, Default)]
pub struct LeastRequest {
    present: Vec<usize>,
    in_flight: HashMap<usize, u32>,
    sent_to: HashMap<usize, usize>,
}

impl Balancer for LeastRequest {
    fn discover(&mut self, _now: Instant, present: &[(usize, u8)]) {
        self.present = present.iter().map(|(server, _)| *server).collect();
    }

    fn pick(&mut self, request: usize, _now: Instant, random: u64) -> Option<usize> {
        let (first, second) = two(&self.present, random)?;
        let load = |server| self.in_flight.get(&server).copied().unwrap_or(0);
        let server = if load(second) < load(first) {
            second
        } else {
            first
        };
        *self.in_flight.entry(server).or_default() += 1;
        self.sent_to.insert(request, server);
        Some(server)
    }

    fn finish(&mut self, request: usize, _now: Instant, _outcome: Outcome) {
        if let Some(server) = self.sent_to.remove(&request) {
            *self.in_flight.entry(server).or_default() -= 1;
        }
    }
}

/// The published semantics of a load biaser: Peak EWMA over two choices whose estimate is raised to a penalty by failures
/// and refusals, and by hints to their length; from there it decays. Modelled from a description, not from the code.
#[derive(Debug, Default)]
pub struct PublishedPenalty {
    present: Vec<usize>,
    estimates: HashMap<usize, Decaying>,
    sent: HashMap<usize, (usize, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Decaying {
    seconds: f64,
    at: Instant,
    pending: u32,
}

impl Decaying {
    /// A higher sample replaces the estimate, a lower one blends in; reading blends zero in.
    fn blend(&mut self, sample: f64, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let rest = (-since / DECAY.as_secs_f64()).exp();
        self.seconds = if sample > self.seconds {
            sample
        } else {
            self.seconds * rest + sample * (1.0 - rest)
        };
        self.at = now;
    }
}

impl PublishedPenalty {
    fn load(&mut self, server: usize, now: Instant) -> f64 {
        let estimate = self.estimate(server, now);
        estimate.blend(0.0, now);
        estimate.seconds * f64::from(estimate.pending + 1)
    }

    fn estimate(&mut self, server: usize, now: Instant) -> &mut Decaying {
        self.estimates.entry(server).or_insert(Decaying {
            seconds: DEFAULT_RTT.as_secs_f64(),
            at: now,
            pending: 0,
        })
    }
}

impl Balancer for PublishedPenalty {
    fn discover(&mut self, _now: Instant, present: &[(usize, u8)]) {
        self.present = present.iter().map(|(server, _)| *server).collect();
        let present = &self.present;
        self.estimates.retain(|server, _| present.contains(server));
    }

    fn pick(&mut self, request: usize, now: Instant, random: u64) -> Option<usize> {
        let (first, second) = two(&self.present, random)?;
        let server = if self.load(second, now) < self.load(first, now) {
            second
        } else {
            first
        };
        self.estimate(server, now).pending += 1;
        self.sent.insert(request, (server, now));
        Some(server)
    }

    fn finish(&mut self, request: usize, now: Instant, outcome: Outcome) {
        let Some((server, began)) = self.sent.remove(&request) else {
            return;
        };
        let Some(estimate) = self.estimates.get_mut(&server) else {
            return;
        };
        estimate.pending = estimate.pending.saturating_sub(1);
        let rtt = now.saturating_duration_since(began);
        let sample = match outcome {
            Outcome::Success | Outcome::Cancelled => rtt,
            _ => outcome
                .retry_after()
                .unwrap_or_default()
                .clamp(PENALTY, MAX_RETRY_AFTER),
        };
        estimate.blend(sample.as_secs_f64(), now);
    }
}

/// tower's `p2c::Balance` over its `PeakEwma`, through their public interface and on tokio's paused clock.
pub struct TowerPeakEwma {
    clock: tokio::runtime::Runtime,
    last: Instant,
    changes: Rc<RefCell<VecDeque<Change<usize, Tracked>>>>,
    balance: Balance<Discovered, ()>,
    present: Vec<usize>,
    under_way: HashMap<usize, Handle>,
}

type Tracked = PeakEwma<Numbered, Keep>;
type Discovered = Pin<Box<dyn Stream<Item = Result<Change<usize, Tracked>, Infallible>>>>;

impl TowerPeakEwma {
    pub fn new(origin: Instant, seed: u64) -> Self {
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let changes = Rc::new(RefCell::new(VecDeque::new()));
        let found = changes.clone();
        let next = poll_fn(move |_| match found.borrow_mut().pop_front() {
            Some(change) => Poll::Ready(Some(Ok(change))),
            None => Poll::Pending,
        });
        Self {
            clock,
            last: origin,
            changes,
            balance: Balance::from_rng(Box::pin(next), Seeded(Random(seed))),
            present: Vec::new(),
            under_way: HashMap::new(),
        }
    }

    fn advance(&mut self, now: Instant) {
        let by = now.saturating_duration_since(self.last);
        self.last = now;
        self.clock.block_on(tokio::time::advance(by));
    }
}

impl Balancer for TowerPeakEwma {
    fn discover(&mut self, now: Instant, present: &[(usize, u8)]) {
        self.advance(now);
        let _guard = self.clock.enter();
        let mut changes = self.changes.borrow_mut();
        let present: Vec<usize> = present.iter().map(|(server, _)| *server).collect();
        for gone in self
            .present
            .iter()
            .filter(|server| !present.contains(server))
        {
            changes.push_back(Change::Remove(*gone));
        }
        for new in present
            .iter()
            .filter(|server| !self.present.contains(server))
        {
            let decay = DECAY.as_nanos() as f64;
            let tracked = PeakEwma::new(Numbered(*new), DEFAULT_RTT, decay, Keep);
            changes.push_back(Change::Insert(*new, tracked));
        }
        self.present = present;
    }

    fn pick(&mut self, request: usize, now: Instant, _random: u64) -> Option<usize> {
        self.advance(now);
        let _guard = self.clock.enter();
        let mut context = Context::from_waker(Waker::noop());
        match self.balance.poll_ready(&mut context) {
            Poll::Ready(Ok(())) => {}
            _ => return None,
        }
        let mut call = std::pin::pin!(self.balance.call(()));
        match call.as_mut().poll(&mut context) {
            Poll::Ready(Ok((server, handle))) => {
                self.under_way.insert(request, handle);
                Some(server)
            }
            _ => None,
        }
    }

    fn finish(&mut self, request: usize, now: Instant, _outcome: Outcome) {
        self.advance(now);
        let _guard = self.clock.enter();
        self.under_way.remove(&request);
    }
}

/// Answers at once with its number: the simulation decides when the request ends.
#[derive(Debug, Clone)]
struct Numbered(usize);

impl Service<()> for Numbered {
    type Response = usize;
    type Error = Infallible;
    type Future = Ready<Result<usize, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

/// Keeps the guard of a request until the simulation ends it.
#[derive(Debug, Clone, Copy)]
struct Keep;

impl TrackCompletion<Handle, usize> for Keep {
    type Output = (usize, Handle);

    fn track_completion(&self, handle: Handle, value: usize) -> Self::Output {
        (value, handle)
    }
}

#[derive(Debug)]
struct Seeded(Random);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.word()
    }
}

/// Two different ones, or the only one twice.
fn two(present: &[usize], random: u64) -> Option<(usize, usize)> {
    let mut random = Random(random);
    let first = random.index(present.len().max(1));
    let step = 1 + random.index(present.len().saturating_sub(1).max(1));
    let second = (first + step) % present.len().max(1);
    Some((*present.get(first)?, *present.get(second)?))
}

const DEFAULT_RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);
const PENALTY: Duration = Duration::from_secs(5);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
