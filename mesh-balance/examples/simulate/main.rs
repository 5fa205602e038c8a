//! Balancers against each other in virtual time: `cargo run --release -p mesh-balance --example simulate`
//!
//! Every run with the same seed prints the same. Arguments: a part of a scenario's name, to run only those; `--seed N`;
//! `--limiters` for limits that are counted in other ways; `--seconds` to print what was served in each second.
#![allow(
    clippy::print_stdout,
    missing_debug_implementations,
    unreachable_pub,
    missing_docs,
    reason = "a program that prints"
)]

mod engine;
mod ours;
mod peers;
mod random;
mod scenarios;
mod server;

use engine::{Balancer, Report, Scenario, run};
use mesh_balance::ConsecutiveFailures;
use mesh_balance::core::{PoolBuilder, RateLimits, Zones};
use ours::Ours;
use peers::{LeastRequest, PublishedPenalty, RoundRobin, TowerPeakEwma};

fn main() -> Result<(), String> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let all = if arguments.limiters {
        scenarios::limiters()
    } else {
        scenarios::all()
    };
    println!(
        "| scenario | balancer | goodput | p50 ms | p99 ms | p999 ms | refused (429) | shed | failed | cross-zone | Jain |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for scenario in &all {
        if !scenario.name.contains(&arguments.only) {
            continue;
        }
        for (name, make) in BALANCERS {
            if !name.contains(&arguments.balancer) {
                continue;
            }
            let report = run(scenario, &make, arguments.seed);
            print(scenario, name, &report, &arguments);
        }
    }
    Ok(())
}

type Make = fn(std::time::Instant, u8, u64) -> Box<dyn Balancer>;

const BALANCERS: [(&str, Make); 5] = [
    ("round robin", |_, _, _| Box::new(RoundRobin::default())),
    ("least request", |_, _, _| Box::new(LeastRequest::default())),
    ("tower Peak EWMA", |origin, _, seed| {
        Box::new(TowerPeakEwma::new(origin, seed))
    }),
    ("published penalty", |_, _, _| {
        Box::new(PublishedPenalty::default())
    }),
    ("ours", |origin, zone, _| {
        Box::new(Ours::new(origin, settings(zone)))
    }),
];

/// All that this crate offers, at its defaults.
fn settings(zone: u8) -> PoolBuilder {
    PoolBuilder::default()
        .rate_limits(RateLimits::default())
        .breaker(ConsecutiveFailures::default())
        .zones(Zones::new(zone.to_string()))
}

fn print(scenario: &Scenario, balancer: &str, report: &Report, arguments: &Arguments) {
    let share = |count: u64, of: u64| count as f64 / of.max(1) as f64;
    let zones = scenario
        .servers
        .iter()
        .any(|spec| spec.zone != scenario.servers[0].zone);
    let cross_zone = if zones {
        format!("{:.4}", share(report.cross_zone, report.sent))
    } else {
        "-".into()
    };
    let jain = if scenario.clients.len() > 1 {
        format!("{:.3}", report.jain())
    } else {
        "-".into()
    };
    println!(
        "| {} | {balancer} | {:.4} | {:.1} | {:.1} | {:.1} | {:.4} | {:.4} | {:.4} | {cross_zone} | {jain} |",
        scenario.name,
        report.goodput(),
        report.latency_ms(0.5),
        report.latency_ms(0.99),
        report.latency_ms(0.999),
        share(report.refused, report.offered),
        share(report.shed, report.offered),
        share(report.failed, report.offered),
    );
    if arguments.seconds {
        println!("  sent by endpoint: {:?}", report.by_server);
        println!("  served by client: {:?}", report.by_client);
        println!("  served by second: {:?}", report.by_second);
    }
}

#[derive(Debug)]
struct Arguments {
    only: String,
    balancer: String,
    seed: u64,
    limiters: bool,
    seconds: bool,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            only: String::new(),
            balancer: String::new(),
            seed: 1,
            limiters: false,
            seconds: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--limiters" => parsed.limiters = true,
                "--seconds" => parsed.seconds = true,
                "--seed" => {
                    let seed = arguments.next().unwrap_or_default();
                    parsed.seed = seed
                        .parse()
                        .map_err(|error| format!("--seed {seed:?}: {error}"))?;
                }
                "--balancer" => parsed.balancer = arguments.next().unwrap_or_default(),
                other if other.starts_with("--") => {
                    return Err(format!(
                        "{other}: only --seed N, --balancer NAME, --limiters and --seconds are known"
                    ));
                }
                only => parsed.only = only.into(),
            }
        }
        Ok(parsed)
    }
}
