//! An endpoint: workers with a queue, a rate limit, and faults at given times.

use crate::random::Random;
use mesh_balance::core::{FailureKind, Outcome};
use std::time::Duration;

/// How an endpoint counts the requests that it admits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limiter {
    /// A token bucket that holds as much as comes in during this time.
    Bucket(Duration),
    /// So many in each window of this length.
    Window(Duration),
}

/// What an endpoint is like, as functions of the time since the start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where it is.
    pub zone: u8,
    /// Requests it serves at once; the others wait.
    pub workers: usize,
    /// Mean time of service: half of it constant, half exponential.
    pub service: Duration,
    /// Requests a second it admits, from these times on.
    pub limits: Vec<(Duration, f64)>,
    /// How it counts them.
    pub limiter: Limiter,
    /// Is its bucket empty at first?
    pub empty: bool,
    /// What it says in Retry-After when it refuses.
    pub retry_after: Option<Duration>,
    /// From, until, and by how much it is slower.
    pub slow: Vec<(Duration, Duration, f64)>,
    /// From and until it refuses connections.
    pub down: Vec<(Duration, Duration)>,
    /// From and until discovery does not know it.
    pub absent: Vec<(Duration, Duration)>,
    /// From and until nothing is served.
    pub paused: Vec<(Duration, Duration)>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            zone: 0,
            workers: 16,
            service: Duration::from_millis(5),
            limits: Vec::new(),
            limiter: Limiter::Bucket(Duration::from_secs(1)),
            empty: false,
            retry_after: Some(Duration::from_secs(1)),
            slow: Vec::new(),
            down: Vec::new(),
            absent: Vec::new(),
            paused: Vec::new(),
        }
    }
}

impl Spec {
    /// What it admits at a time, in requests a second.
    pub fn limit(&self, at: Duration) -> Option<f64> {
        let started = |limit: &&(Duration, f64)| limit.0 <= at;
        self.limits
            .iter()
            .rev()
            .find(started)
            .map(|(_, limit)| *limit)
    }

    /// Does discovery know it?
    pub fn present(&self, at: Duration) -> bool {
        !within(&self.absent, at)
    }
}

/// An endpoint at work.
#[derive(Debug)]
pub struct Server {
    pub spec: Spec,
    /// When each worker has done what is queued for it.
    free_at: Vec<Duration>,
    tokens: f64,
    counted_at: Duration,
    window: u64,
}

impl Server {
    pub fn new(spec: Spec) -> Self {
        Self {
            free_at: vec![Duration::ZERO; spec.workers],
            tokens: if spec.empty { 0.0 } else { f64::INFINITY },
            counted_at: Duration::ZERO,
            window: 0,
            spec,
        }
    }

    /// Takes a request, and says how long until it is answered and what it comes to.
    pub fn serve(&mut self, at: Duration, random: &mut Random) -> (Duration, Outcome) {
        if within(&self.spec.down, at) {
            return (REFUSAL, Outcome::Failure(FailureKind::Connect));
        }
        if !self.admits(at) {
            let retry_after = self.spec.retry_after;
            return (REFUSAL, Outcome::RateLimited { retry_after });
        }
        if let Some(limit) = self.spec.limit(at) {
            debug_assert!(limit > 0.0, "an endpoint without room admits nothing");
            self.tokens -= 1.0;
        }
        let slower = |slow: &&(Duration, Duration, f64)| (slow.0..slow.1).contains(&at);
        let factor = self
            .spec
            .slow
            .iter()
            .find(slower)
            .map_or(1.0, |slow| slow.2);
        let half = self.spec.service.mul_f64(factor / 2.0);
        let service = half + random.exponential(half);
        let (worker, free_at) = self
            .free_at
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, free_at)| *free_at)
            .expect("an endpoint has workers");
        let begin = self.unpaused(free_at.max(at));
        // A pause in the middle of it lengthens it.
        let mut end = begin + service;
        for (from, until) in &self.spec.paused {
            if begin < *from && *from < end {
                end += *until - *from;
            }
        }
        self.free_at[worker] = end;
        (end - at, Outcome::Success)
    }

    /// Would it admit a request?
    pub fn admits(&mut self, at: Duration) -> bool {
        let Some(limit) = self.spec.limit(at) else {
            return true;
        };
        match self.spec.limiter {
            Limiter::Bucket(burst) => {
                let new = (at - self.counted_at).as_secs_f64() * limit;
                self.tokens = (self.tokens + new).min((limit * burst.as_secs_f64()).max(1.0));
            }
            Limiter::Window(length) => {
                let window = (at.as_nanos() / length.as_nanos()) as u64 + 1;
                if std::mem::replace(&mut self.window, window) != window {
                    self.tokens = limit * length.as_secs_f64();
                }
                self.tokens = self.tokens.min(limit * length.as_secs_f64());
            }
        }
        self.counted_at = at;
        self.tokens >= 1.0
    }

    fn unpaused(&self, at: Duration) -> Duration {
        let pause = self
            .spec
            .paused
            .iter()
            .find(|(from, until)| (*from..*until).contains(&at));
        pause.map_or(at, |(_, until)| *until)
    }
}

fn within(intervals: &[(Duration, Duration)], at: Duration) -> bool {
    intervals
        .iter()
        .any(|(from, until)| (*from..*until).contains(&at))
}

/// How long a refusal takes.
const REFUSAL: Duration = Duration::from_micros(300);
