//! What is asked of each way, and what is made of the answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::client::{self, Tally};
use super::server::Server;
use super::through::{Way, ways};
use crate::args::{Limits, Through};
use crate::error::Error;
use crate::stats::{jain, percentile};

/// One table row for each way.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    name: String,
    servers: Vec<Endpoint>,
    /// When each begins, and its requests a second.
    clients: Vec<(u64, f64)>,
    seconds: u64,
    /// New limits of the last endpoint, from these seconds on.
    moves: Vec<(u64, f64)>,
    /// The stretches that count.
    counted: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Endpoint {
    limit: Option<f64>,
    latency: Duration,
}

/// Above the rows.
pub(super) const HEADER: &str = "| scenario | through | answered 200 | settled | perfect | p50 ms | p99 ms | \
    refused by an endpoint | turned away before | failed | Jain | the last client |\n|---|---|---|---|---|---|---|---|---|---|---|---|";

/// Those that are asked for.
pub(super) fn all(arguments: &Limits) -> Vec<Scenario> {
    let limits = LIMITS.map(|limit| Endpoint {
        limit: Some(limit),
        latency: Duration::from_millis(2),
    });
    let plain =
        |name: String, servers: Vec<Endpoint>, rate: f64, seconds: u64, from: u64| Scenario {
            name,
            servers,
            clients: vec![(0, rate)],
            seconds,
            moves: Vec::new(),
            counted: vec![(from, seconds)],
        };
    let seconds = arguments.seconds;
    let mut scenarios: Vec<_> = [900.0, 980.0, 1300.0]
        .map(|rate| {
            plain(
                format!("limits, {rate} rps"),
                limits.to_vec(),
                rate,
                seconds,
                0,
            )
        })
        .into();
    scenarios.push(Scenario {
        moves: vec![(20, 100.0), (40, 700.0)],
        // From five seconds after each move on.
        counted: vec![(5, 20), (25, 40), (45, 60)],
        ..plain("limit 700, 100, 700".into(), limits.to_vec(), 900.0, 60, 0)
    });
    let ten = Scenario {
        clients: vec![(0, 130.0); 10],
        ..plain(
            "ten clients, 130 rps each".into(),
            limits.to_vec(),
            0.0,
            60,
            30,
        )
    };
    let mut late = Scenario {
        name: "one of ten joins late".into(),
        seconds: 90,
        counted: vec![(60, 90)],
        ..ten.clone()
    };
    late.clients[9].0 = 30;
    scenarios.extend([ten, late]);
    for slow in [0, 1, 4] {
        let endpoint = |number| Endpoint {
            limit: None,
            latency: Duration::from_millis(if number < slow { 50 } else { 5 }),
        };
        let name = format!("{slow} of ten at 10x latency");
        let servers = (0..10).map(endpoint).collect();
        scenarios.push(plain(name, servers, 1000.0, seconds.max(10), 5));
        let without = (slow..10).map(endpoint).collect();
        if slow > 0 {
            let name = format!("{} of {0}, without the slow", 10 - slow);
            scenarios.push(plain(name, without, 1000.0, seconds.max(10), 5));
        }
    }
    scenarios.retain(|scenario| {
        arguments.only.is_empty()
            || arguments
                .only
                .iter()
                .any(|part| scenario.name.contains(part))
    });
    scenarios
}

/// Runs one, and says how it went as a row of the table.
pub(super) fn run(
    scenario: &Scenario,
    through: Through,
    arguments: &Limits,
) -> Result<Option<String>, Error> {
    if scenario.clients.len() > 1 && !matches!(through, Through::Embedded | Through::Proxy) {
        return Ok(None);
    }
    // The endpoints have a thread of their own, as they would have a machine.
    let servers = runtime()?;
    let clients = runtime()?;
    let started = servers.block_on(async {
        let mut started = Vec::new();
        for endpoint in &scenario.servers {
            let limiter = arguments.limiter;
            started.push(Server::start(endpoint.limit, limiter, endpoint.latency).await?);
        }
        Ok::<_, Error>(started)
    })?;
    let (begin, begun) = oneshot::channel::<Instant>();
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (moved, moves) = (started.clone(), scenario.moves.clone());
    let serving = std::thread::spawn(move || {
        servers.block_on(async move {
            let Ok(began) = begun.await else { return };
            tokio::time::sleep_until(began.into()).await;
            moved.iter().for_each(|server| server.begin());
            for (second, limit) in moves {
                let at = began + Duration::from_secs(second);
                tokio::time::sleep_until(at.into()).await;
                if let Some(server) = moved.last() {
                    server.limit(limit);
                }
            }
            // Either way it is over.
            let _ = (&mut stopped).await;
        });
    });
    let tallies = clients.block_on(tallies(scenario, through, &started, arguments, begin));
    // The endpoints' thread ends whether or not this is heard.
    let _ = stop.send(());
    let _ = serving.join();
    Ok(Some(row(scenario, through, &tallies?, &started)))
}

async fn tallies(
    scenario: &Scenario,
    through: Through,
    servers: &[Arc<Server>],
    arguments: &Limits,
    begin: oneshot::Sender<Instant>,
) -> Result<Vec<Tally>, Error> {
    let ways: Vec<Way> = ways(through, scenario.clients.len(), servers, arguments).await?;
    let began = Instant::now() + LEAD;
    // Without endpoints every request fails, and that is told.
    let _ = begin.send(began);
    let until = Duration::from_secs(scenario.seconds);
    let mut running = Vec::new();
    for (number, (way, (from, rate))) in ways.iter().zip(&scenario.clients).enumerate() {
        running.push(tokio::spawn(client::run(
            way.sender.clone(),
            began,
            (Duration::from_secs(*from), until),
            *rate,
            number as u64 + 1,
        )));
    }
    let mut tallies = Vec::new();
    for client in running {
        // A task that panicked has said so.
        tallies.extend(client.await.ok());
    }
    Ok(tallies)
}

fn row(
    scenario: &Scenario,
    through: Through,
    tallies: &[Tally],
    servers: &[Arc<Server>],
) -> String {
    let counts = |second: usize| {
        let counted = |(from, until): &(u64, u64)| (*from..*until).contains(&(second as u64));
        scenario.counted.iter().any(counted)
    };
    let sum = |counts_of: &[u64]| -> u64 {
        let counted = counts_of
            .iter()
            .enumerate()
            .filter(|(second, _)| counts(*second));
        counted.map(|(_, count)| *count).sum()
    };
    let offered: u64 = tallies.iter().map(|tally| sum(&tally.offered)).sum();
    let served: Vec<f64> = tallies
        .iter()
        .map(|tally| sum(&tally.served) as f64)
        .collect();
    let total: f64 = served.iter().sum();
    let mut latencies: Vec<u32> = tallies
        .iter()
        .flat_map(|tally| &tally.latencies)
        .filter(|(sent, _)| counts(sent.as_secs() as usize))
        .map(|(_, micros)| *micros)
        .collect();
    latencies.sort_unstable();
    let ms = |part: f64| {
        percentile(&latencies, part).map_or("-".to_owned(), |micros| {
            format!("{:.1}", f64::from(micros) / 1000.0)
        })
    };
    let of = |count: f64| count / offered.max(1) as f64;
    let mut by_second = vec![0; scenario.seconds as usize];
    let mut served_by_second = by_second.clone();
    for tally in tallies {
        for (sum, count) in by_second.iter_mut().zip(&tally.offered) {
            *sum += count;
        }
        for (sum, count) in served_by_second.iter_mut().zip(&tally.served) {
            *sum += count;
        }
    }
    let settled = |counts_of: &[u64]| -> u64 {
        let late = counts_of.iter().enumerate().skip(SETTLED);
        late.filter(|(second, _)| counts(*second))
            .map(|(_, count)| *count)
            .sum()
    };
    let settled = settled(&served_by_second) as f64 / settled(&by_second).max(1) as f64;
    let refused: u64 = servers
        .iter()
        .map(|server| server.refused.load(std::sync::atomic::Ordering::Relaxed))
        .sum();
    let everything: u64 = by_second.iter().sum();
    let limited: u64 = tallies.iter().map(|tally| tally.limited + tally.shed).sum();
    // What no endpoint has refused, a proxy or the balancer has.
    let before = limited.saturating_sub(refused);
    let failed: u64 = tallies.iter().map(|tally| tally.failed).sum();
    let (fairness, last) = if served.len() > 1 {
        let last =
            served.last().copied().unwrap_or_default() * served.len() as f64 / total.max(1.0);
        (
            jain(&served).map_or("-".to_owned(), |jain| format!("{jain:.3}")),
            format!("{last:.2} of its share"),
        )
    } else {
        ("-".to_owned(), "-".to_owned())
    };
    if let Some(failure) = tallies.iter().find_map(|tally| tally.failure.as_ref()) {
        eprintln!(
            "{}, {}: {failed} failed: {failure}",
            scenario.name,
            through.name()
        );
    }
    format!(
        "| {} | {} | {:.4} | {settled:.4} | {:.4} | {} | {} | {:.4} | {:.4} | {failed} | {fairness} | {last} |",
        scenario.name,
        through.name(),
        of(total),
        of(perfect(scenario, &by_second)),
        ms(0.5),
        ms(0.99),
        refused as f64 / everything.max(1) as f64,
        before as f64 / everything.max(1) as f64,
    )
}

/// How many of the requests that count could be answered 200: what was sent, or what is admitted if that is less.
fn perfect(scenario: &Scenario, offered: &[u64]) -> f64 {
    let admitted = |second: u64| -> f64 {
        let moved = scenario.moves.iter().rev().find(|(at, _)| *at <= second);
        let limit = |(number, server): (usize, &Endpoint)| match moved {
            Some((_, limit)) if number + 1 == scenario.servers.len() => *limit,
            _ => server.limit.unwrap_or(f64::INFINITY),
        };
        scenario.servers.iter().enumerate().map(limit).sum()
    };
    let stretch = |(from, until): &(u64, u64)| {
        let sent: u64 = (*from..*until)
            .filter_map(|second| offered.get(second as usize))
            .sum();
        (sent as f64).min((*from..*until).map(admitted).sum())
    };
    scenario.counted.iter().map(stretch).sum()
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("no runtime"))
}

const LIMITS: [f64; 3] = [100.0, 200.0, 700.0];
/// From this second on everything has settled.
const SETTLED: usize = 5;
/// Until the first request.
const LEAD: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_perfect_follows_the_limits() {
        let endpoint = |limit| Endpoint {
            limit: Some(limit),
            latency: Duration::ZERO,
        };
        let scenario = Scenario {
            name: String::new(),
            servers: vec![endpoint(100.0), endpoint(700.0)],
            clients: Vec::new(),
            seconds: 6,
            moves: vec![(4, 100.0)],
            counted: vec![(0, 3), (5, 6)],
        };
        let offered = [600, 600, 1000, 9000, 9000, 900];
        assert_eq!(perfect(&scenario, &offered), 2200.0 + 200.0);
        assert_eq!(perfect(&scenario, &[900, 900, 900]), 2400.0);
    }
}
