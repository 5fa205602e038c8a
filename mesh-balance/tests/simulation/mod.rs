//! Virtual time: open-loop arrivals, endpoints that answer after a latency of their own.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test uses a part"
)]

use mesh_balance::core::{Outcome, Pick, Picker};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What an endpoint does with a request that arrives at a time since the start.
pub type Behaviour = dyn Fn(usize, Duration) -> (Duration, Outcome);

pub struct Simulation {
    pub origin: Instant,
    pub now: Duration,
    pub random: Random,
    /// Requests that each endpoint (a pool of plain numbers) has received.
    pub received: Vec<u64>,
    pub most_in_flight: Vec<u64>,
    in_flight: Vec<u64>,
    underway: BinaryHeap<Reverse<(Duration, u64)>>,
    picks: std::collections::HashMap<u64, (Pick<usize>, Outcome)>,
    next: u64,
}

impl Simulation {
    pub fn new(origin: Instant, endpoints: usize, seed: u64) -> Self {
        Self {
            origin,
            now: Duration::ZERO,
            random: Random(seed),
            received: vec![0; endpoints],
            most_in_flight: vec![0; endpoints],
            in_flight: vec![0; endpoints],
            underway: BinaryHeap::new(),
            picks: std::collections::HashMap::new(),
            next: 0,
        }
    }

    /// Poisson arrivals at `rate` a second for `time`.
    pub fn run(
        &mut self,
        picker: &Picker<usize>,
        rate: f64,
        time: Duration,
        behaviour: &Behaviour,
    ) {
        let end = self.now + time;
        loop {
            let gap = -(1.0 - self.random.unit()).ln() / rate;
            let arrival = self.now + Duration::from_secs_f64(gap);
            self.complete_until(arrival.min(end));
            if arrival >= end {
                self.now = end;
                return;
            }
            self.now = arrival;
            let now = self.origin + self.now;
            let Ok(pick) = picker.pick(now, self.random.word(), &[]) else {
                continue;
            };
            let index = *pick;
            self.received[index] += 1;
            self.in_flight[index] += 1;
            self.most_in_flight[index] = self.most_in_flight[index].max(self.in_flight[index]);
            let (latency, outcome) = behaviour(index, self.now);
            self.picks.insert(self.next, (pick, outcome));
            self.underway.push(Reverse((self.now + latency, self.next)));
            self.next += 1;
        }
    }

    /// Forgets the counts, not what the pool has learned.
    pub fn recount(&mut self) {
        self.received.fill(0);
        self.most_in_flight.fill(0);
    }

    pub fn share(&self, index: usize) -> f64 {
        self.received[index] as f64 / self.received.iter().sum::<u64>() as f64
    }

    fn complete_until(&mut self, time: Duration) {
        while let Some(Reverse((at, id))) = self.underway.peek().copied() {
            if at > time {
                return;
            }
            self.underway.pop();
            let (pick, outcome) = self.picks.remove(&id).expect("each request completes once");
            self.in_flight[*pick] -= 1;
            pick.finish(self.origin + at, outcome);
        }
    }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
