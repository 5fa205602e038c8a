//! Virtual time: clients send to servers through their balancers, and every event happens in order.

use crate::random::Random;
use crate::server::{Server, Spec};
use mesh_balance::core::{FailureKind, Outcome};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What chooses an endpoint for each request of one client.
pub trait Balancer {
    /// These endpoints (by number, with their zones) are the whole set now.
    fn discover(&mut self, now: Instant, present: &[(usize, u8)]);

    /// Where the request of this number goes; `None` if it is refused here. `random` is a random word.
    fn pick(&mut self, request: usize, now: Instant, random: u64) -> Option<usize>;

    /// What it came to.
    fn finish(&mut self, request: usize, now: Instant, outcome: Outcome);
}

/// Makes the balancer of a client in a zone.
pub type Make<'a> = dyn Fn(Instant, u8, u64) -> Box<dyn Balancer> + 'a;

/// A client: open loop, with random (Poisson) arrivals.
#[derive(Debug, Clone)]
pub struct Client {
    pub zone: u8,
    /// Requests a second, from these times on.
    pub rates: Vec<(Duration, f64)>,
    /// How often a request that was not served is sent again, at once.
    pub retries: u32,
}

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub servers: Vec<Spec>,
    pub clients: Vec<Client>,
    pub duration: Duration,
    /// What happens before is not counted.
    pub measure_from: Duration,
    /// Neither is what happens for so long after these times.
    pub unmeasured: Vec<(Duration, Duration)>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests of clients.
    pub offered: u64,
    /// Those that were served.
    pub served: u64,
    /// Sent to an endpoint, retries included.
    pub sent: u64,
    /// Refused by an endpoint: 429.
    pub refused: u64,
    /// Refused by the balancer.
    pub shed: u64,
    /// Failed: no connection, or no answer in time.
    pub failed: u64,
    /// Sent to another zone.
    pub cross_zone: u64,
    /// Served, by client.
    pub by_client: Vec<u64>,
    /// Sent, by endpoint.
    pub by_server: Vec<u64>,
    /// Served in each second from the start on, measured or not.
    pub by_second: Vec<u64>,
    /// Offered in each second from the start on.
    pub offered_by_second: Vec<u64>,
    /// Of what was served, in microseconds, ascending.
    latencies: Vec<u32>,
}

impl Report {
    /// The share of the offered requests that were served.
    pub fn goodput(&self) -> f64 {
        self.served as f64 / self.offered.max(1) as f64
    }

    /// A quantile of the latency of what was served, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.latencies
            .get(index)
            .map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }

    /// Jain's fairness index of what the clients were served: 1 when all had the same, 1/n when one had everything.
    pub fn jain(&self) -> f64 {
        let sum: f64 = self.by_client.iter().map(|served| *served as f64).sum();
        let squares: f64 = self
            .by_client
            .iter()
            .map(|served| (*served as f64).powi(2))
            .sum();
        sum * sum / (self.by_client.len() as f64 * squares)
    }
}

/// Runs a scenario with a balancer for each client.
pub fn run(scenario: &Scenario, make: &Make<'_>, seed: u64) -> Report {
    let mut world = World::new(scenario, make, seed);
    world.run();
    world.report.latencies.sort_unstable();
    world.report
}

struct World<'a> {
    scenario: &'a Scenario,
    origin: Instant,
    now: Duration,
    servers: Vec<Server>,
    balancers: Vec<Box<dyn Balancer>>,
    arrivals: Random,
    service: Random,
    picking: Random,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    requests: Vec<Request>,
    free: Vec<usize>,
    report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Discovery may know another set.
    Discovered,
    /// The next request of a client.
    Arrival(usize),
    /// A request is answered.
    Answered(usize),
}

#[derive(Debug, Clone, Copy)]
struct Request {
    client: usize,
    began: Duration,
    measured: bool,
    retries_left: u32,
    outcome: Outcome,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, make: &Make<'_>, seed: u64) -> Self {
        let origin = Instant::now();
        let seconds = scenario.duration.as_secs() as usize + 1;
        let balancer =
            |(index, client): (usize, &Client)| make(origin, client.zone, seed ^ index as u64);
        let mut world = Self {
            scenario,
            origin,
            now: Duration::ZERO,
            servers: scenario.servers.iter().cloned().map(Server::new).collect(),
            balancers: scenario.clients.iter().enumerate().map(balancer).collect(),
            arrivals: Random(seed),
            service: Random(seed ^ 0x5e17),
            picking: Random(seed ^ 0x91c4),
            events: BinaryHeap::new(),
            sequence: 0,
            requests: Vec::new(),
            free: Vec::new(),
            report: Report {
                by_client: vec![0; scenario.clients.len()],
                by_server: vec![0; scenario.servers.len()],
                by_second: vec![0; seconds],
                offered_by_second: vec![0; seconds],
                ..Report::default()
            },
        };
        world.schedule(Duration::ZERO, Event::Discovered);
        for spec in &scenario.servers {
            for (from, until) in &spec.absent {
                world.schedule(*from, Event::Discovered);
                world.schedule(*until, Event::Discovered);
            }
        }
        for (index, client) in scenario.clients.iter().enumerate() {
            let begin = client.rates[0].0;
            world.schedule(begin, Event::Arrival(index));
        }
        world
    }

    fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Discovered => self.discovered(),
                Event::Arrival(client) => self.arrival(client),
                Event::Answered(request) => self.answered(request),
            }
        }
    }

    fn discovered(&mut self) {
        let present: Vec<(usize, u8)> = self
            .scenario
            .servers
            .iter()
            .enumerate()
            .filter(|(_, spec)| spec.present(self.now))
            .map(|(index, spec)| (index, spec.zone))
            .collect();
        for balancer in &mut self.balancers {
            balancer.discover(self.origin + self.now, &present);
        }
    }

    fn arrival(&mut self, client: usize) {
        let spec = &self.scenario.clients[client];
        let rate = spec
            .rates
            .iter()
            .rev()
            .find(|(from, _)| *from <= self.now)
            .map_or(0.0, |(_, rate)| *rate);
        let gap = self.arrivals.exponential(Duration::from_secs(1));
        let next = self.now + gap.div_f64(rate.max(1e-3));
        if next < self.scenario.duration {
            self.schedule(next, Event::Arrival(client));
        }
        let unmeasured =
            |(from, length): &(Duration, Duration)| (*from..*from + *length).contains(&self.now);
        let measured = self.now >= self.scenario.measure_from
            && !self.scenario.unmeasured.iter().any(unmeasured);
        let request = Request {
            client,
            began: self.now,
            measured,
            retries_left: spec.retries,
            outcome: Outcome::Cancelled,
        };
        self.report.offered += u64::from(measured);
        self.report.offered_by_second[self.now.as_secs() as usize] += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.requests.push(request);
            self.requests.len() - 1
        });
        self.requests[index] = request;
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        let request = self.requests[index];
        let random = self.picking.word();
        let now = self.origin + self.now;
        let count = u64::from(request.measured);
        let Some(server) = self.balancers[request.client].pick(index, now, random) else {
            self.report.shed += count;
            self.free.push(index);
            return;
        };
        let zone = self.scenario.clients[request.client].zone;
        let crosses = self.servers[server].spec.zone != zone;
        self.report.sent += count;
        self.report.by_server[server] += count;
        self.report.cross_zone += count * u64::from(crosses);
        let (mut latency, mut outcome) = self.servers[server].serve(self.now, &mut self.service);
        latency += if crosses { FAR } else { NEAR };
        if latency > TIMEOUT {
            (latency, outcome) = (TIMEOUT, Outcome::Failure(FailureKind::Timeout));
        }
        self.requests[index].outcome = outcome;
        self.schedule(self.now + latency, Event::Answered(index));
    }

    fn answered(&mut self, index: usize) {
        let request = self.requests[index];
        let now = self.origin + self.now;
        self.balancers[request.client].finish(index, now, request.outcome);
        let count = u64::from(request.measured);
        match request.outcome {
            Outcome::Success => {
                self.report.served += count;
                self.report.by_client[request.client] += count;
                let second = request.began.as_secs() as usize;
                self.report.by_second[second] += 1;
                if request.measured {
                    let latency = self.now - request.began;
                    self.report.latencies.push(latency.as_micros() as u32);
                }
                self.free.push(index);
                return;
            }
            Outcome::RateLimited { .. } => self.report.refused += count,
            _ => self.report.failed += count,
        }
        if request.retries_left > 0 {
            self.requests[index].retries_left -= 1;
            self.send(index);
        } else {
            self.free.push(index);
        }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

/// To an endpoint of the same zone and back.
const NEAR: Duration = Duration::from_micros(500);
/// To another zone and back.
const FAR: Duration = Duration::from_micros(2_500);
/// Clients give up then.
const TIMEOUT: Duration = Duration::from_secs(1);
