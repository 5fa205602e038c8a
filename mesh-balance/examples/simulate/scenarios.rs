//! What is simulated.

use crate::engine::{Client, Scenario};
use crate::server::{Limiter, Spec};
use std::time::Duration;

/// All of them, in the order of the table.
pub fn all() -> Vec<Scenario> {
    let bucket = Limiter::Bucket(secs(1));
    vec![
        named("healthy", alike(10), client(1000.0), 60),
        slow("one of ten slow", 1),
        slow("four of ten slow", 4),
        limits("limits, 900 rps", 900.0, bucket),
        limits("limits, 980 rps", 980.0, bucket),
        limits("limits, 1300 rps", 1300.0, bucket),
        empty_limits("empty buckets, 900 rps", 900.0),
        empty_limits("empty buckets, 980 rps", 980.0),
        empty_limits("empty buckets, 1300 rps", 1300.0),
        limit_moves(),
        known_limit_moves(),
        ten_clients(),
        late_client(),
        zones_at_rest(),
        zone_lost(),
        rolling_restart(),
        pauses(),
        unequal_capacity(),
        retry_storm(),
    ]
}

/// Limits of 100, 200 and 700 requests a second, counted in different ways.
pub fn limiters() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (limiter, names) in [
        (
            Limiter::Bucket(ms(200)),
            [
                "bucket of 0.2 s, 900 rps",
                "bucket of 0.2 s, 980 rps",
                "bucket of 0.2 s, 1300 rps",
            ],
        ),
        (
            Limiter::Bucket(ms(50)),
            [
                "bucket of 0.05 s, 900 rps",
                "bucket of 0.05 s, 980 rps",
                "bucket of 0.05 s, 1300 rps",
            ],
        ),
        (
            Limiter::Window(secs(1)),
            [
                "window of 1 s, 900 rps",
                "window of 1 s, 980 rps",
                "window of 1 s, 1300 rps",
            ],
        ),
    ] {
        for (name, rate) in names.into_iter().zip([900.0, 980.0, 1300.0]) {
            scenarios.push(limits(name, rate, limiter));
        }
    }
    scenarios
}

/// Three endpoints that admit 100, 200 and 700 requests a second, from a cold start.
pub fn limits(name: &'static str, rate: f64, limiter: Limiter) -> Scenario {
    let servers = limited(limiter);
    Scenario {
        measure_from: Duration::ZERO,
        ..named(name, servers, client(rate), 60)
    }
}

/// The same for 15 s where nothing had been saved up: no more than the limits is ever admitted.
pub fn empty_limits(name: &'static str, rate: f64) -> Scenario {
    let mut scenario = limits(name, rate, Limiter::Bucket(secs(1)));
    scenario
        .servers
        .iter_mut()
        .for_each(|server| server.empty = true);
    scenario.duration = secs(15);
    scenario
}

/// The third endpoint's limit goes from 700 to 100 and back. Five seconds after each move are not counted.
pub fn limit_moves() -> Scenario {
    let mut servers = limited(Limiter::Bucket(secs(1)));
    servers[2].limits = vec![(secs(0), 700.0), (secs(20), 100.0), (secs(40), 700.0)];
    Scenario {
        unmeasured: vec![(secs(20), secs(5)), (secs(40), secs(5))],
        measure_from: secs(5),
        ..named("limit 700, 100, 700", servers, client(900.0), 60)
    }
}

/// The same where all limits are known, as there was more than they admit at first.
pub fn known_limit_moves() -> Scenario {
    let mut scenario = limit_moves();
    scenario.name = "known limit 700, 100, 700";
    scenario.clients[0].rates = vec![(secs(0), 1300.0), (secs(5), 900.0)];
    scenario
}

/// Ten clients that know nothing of each other.
pub fn ten_clients() -> Scenario {
    let servers = limited(Limiter::Bucket(secs(1)));
    Scenario {
        measure_from: secs(30),
        ..named(
            "ten clients, 130 rps each",
            servers,
            vec![client(130.0)[0].clone(); 10],
            60,
        )
    }
}

/// Nine clients, and a tenth after 30 s; counted from 30 s after that.
pub fn late_client() -> Scenario {
    let mut scenario = ten_clients();
    scenario.name = "one of ten joins late";
    scenario.clients[9].rates = vec![(secs(30), 130.0)];
    scenario.measure_from = secs(60);
    scenario.duration = secs(90);
    scenario
}

/// Three zones, and a client that is well served by its own.
pub fn zones_at_rest() -> Scenario {
    named("three zones at rest", zones(), client(800.0), 60)
}

/// The client's zone refuses connections for 20 s; discovery notices after 5 s.
pub fn zone_lost() -> Scenario {
    let mut servers = zones();
    for server in &mut servers[..4] {
        server.down = vec![(secs(20), secs(40))];
        server.absent = vec![(secs(25), secs(40))];
    }
    named("a zone lost for 20 s", servers, client(800.0), 60)
}

/// Some of ten endpoints take ten times as long.
pub fn slow(name: &'static str, slow: usize) -> Scenario {
    let mut servers = alike(10);
    for server in &mut servers[..slow] {
        server.slow = vec![(secs(0), secs(1000), 10.0)];
    }
    named(name, servers, client(1000.0), 60)
}

/// Each endpoint in turn stops for 5 s and comes back three times as slow for 5 s; discovery is 200 ms late.
fn rolling_restart() -> Scenario {
    let mut servers = alike(10);
    for (index, server) in servers.iter_mut().enumerate() {
        let stop = ms(5_000 * index as u64 + 7_000);
        server.down = vec![(stop, stop + secs(5))];
        server.absent = vec![(stop + ms(200), stop + secs(5))];
        server.slow = vec![(stop + secs(5), stop + secs(10), 3.0)];
    }
    named("rolling restart", servers, client(1000.0), 60)
}

/// Each endpoint stands still for 300 ms every 10 s, one after the other.
fn pauses() -> Scenario {
    let mut servers = alike(10);
    for (index, server) in servers.iter_mut().enumerate() {
        let starts = (0..7).map(|round| ms(round * 10_000 + index as u64 * 1_000));
        server.paused = starts.map(|start| (start, start + ms(300))).collect();
    }
    named("pauses of 300 ms", servers, client(1000.0), 60)
}

/// From 2 to 32 workers, loaded to four fifths.
fn unequal_capacity() -> Scenario {
    let workers = |workers| Spec {
        workers,
        ..Spec::default()
    };
    let servers = [2, 4, 8, 16, 32].map(workers).to_vec();
    named("unequal capacity", servers, client(9_920.0), 30)
}

/// Two of five endpoints fail for 10 s, and clients try four times.
fn retry_storm() -> Scenario {
    let mut servers = vec![
        Spec {
            workers: 2,
            ..Spec::default()
        };
        5
    ];
    for server in &mut servers[..2] {
        server.down = vec![(secs(20), secs(30))];
    }
    let mut clients = client(1_150.0);
    clients[0].retries = 3;
    named("retry storm", servers, clients, 60)
}

fn limited(limiter: Limiter) -> Vec<Spec> {
    let server = |limit| Spec {
        limits: vec![(Duration::ZERO, limit)],
        limiter,
        ..Spec::default()
    };
    [100.0, 200.0, 700.0].map(server).to_vec()
}

fn zones() -> Vec<Spec> {
    let server = |index: usize| Spec {
        zone: (index / 4) as u8,
        ..Spec::default()
    };
    (0..12).map(server).collect()
}

fn alike(servers: usize) -> Vec<Spec> {
    vec![Spec::default(); servers]
}

fn client(rate: f64) -> Vec<Client> {
    vec![Client {
        zone: 0,
        rates: vec![(Duration::ZERO, rate)],
        retries: 0,
    }]
}

fn named(name: &'static str, servers: Vec<Spec>, clients: Vec<Client>, seconds: u64) -> Scenario {
    Scenario {
        name,
        servers,
        clients,
        duration: secs(seconds),
        measure_from: secs(5),
        unmeasured: Vec::new(),
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
