//! What more connections, and more endpoints, make of the cost of a request and of memory.
//!
//! The rate is the same for all of them, so that it is they who make the difference.

use std::net::SocketAddr;
use std::time::Duration;

use super::sections::{Carried, carry, rss_mib};
use super::{Effort, Figure, Metric, Section};
use crate::error::Error;
use crate::load::{Plan, Work};
use crate::peers::{Certificates, Found, Kind, Running, start_mesh};
use crate::stage::Ground;

/// Requests a second.
const RATE: u32 = 1_000;
/// How long they count: each of 10,000 connections has its turn.
const TIME: Duration = Duration::from_secs(10);
/// How many clients there are where it is the endpoints that grow.
const CLIENTS: u32 = 32;
/// How long requests are made as fast as they are answered before, for each endpoint: those that are used are to be connected to, by
/// both proxies.
const WARM_UP: Duration = Duration::from_millis(4);

/// Measures both, each time with peers started anew, so that nothing was there before.
///
/// # Errors
/// If a peer fails, or anything that was asked of it does.
pub(super) async fn growth(
    ground: &Ground,
    found: &[Found],
    certificates: &Certificates,
    effort: &Effort,
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for _ in 0..effort.few_rounds {
        for count in &effort.growth {
            for peer in found.iter().filter(|peer| peer.kind() != Kind::None) {
                let work = connections(*count);
                eprintln!("{work}, {}", peer.kind().name());
                let running = Running::start(peer, ground, certificates).await?;
                let plan = plan(running.http1, *count, TIME, Some(RATE));
                let carried = carry(ground, &running, &plan, work.clone()).await?;
                note(&mut figures, &work, running.kind, &carried);
            }
        }
        for count in &effort.growth {
            for peer in found {
                let Found::Mesh(programs) = peer else {
                    continue;
                };
                eprintln!("{}", endpoints(*count));
                let running = start_mesh(ground, programs, *count).await?;
                through_endpoints(&mut figures, ground, &running, *count).await?;
            }
        }
    }
    Ok(figures)
}

async fn through_endpoints(
    figures: &mut Vec<Figure>,
    ground: &Ground,
    running: &Running,
    count: u32,
) -> Result<(), Error> {
    let (known, used) = (known(count), endpoints(count));
    let rss = rss_mib(running.client_usage()?);
    let metric = Metric::ClientRssMib;
    Figure::note(figures, Section::Growth, &known, running.kind, metric, rss);
    let warm_up = plan(running.http1, CLIENTS, TIME / 10 + WARM_UP * count, None);
    carry(ground, running, &warm_up, used.clone()).await?;
    let plan = plan(running.http1, CLIENTS, TIME, Some(RATE));
    let carried = carry(ground, running, &plan, used.clone()).await?;
    note(figures, &used, running.kind, &carried);
    Ok(())
}

fn note(figures: &mut Vec<Figure>, work: &str, peer: Kind, carried: &Carried) {
    #[allow(clippy::cast_precision_loss, reason = "requests of some seconds")]
    let requests = carried.outcome.done as f64;
    let [client, server] = carried.rss_mib;
    for (metric, value) in [
        (
            Metric::CpuMicrosPerRequest,
            carried.proxies.as_secs_f64() * 1e6 / requests,
        ),
        (Metric::ClientRssMib, client),
        (Metric::ServerRssMib, server),
    ] {
        Figure::note(figures, Section::Growth, work, peer, metric, value);
    }
}

fn plan(target: SocketAddr, connections: u32, time: Duration, rate: Option<u32>) -> Plan {
    Plan {
        target,
        work: Work::Http1,
        size: 128,
        connections,
        warm_up: Duration::from_secs(1),
        time,
        rate,
        idle: false,
    }
}

/// As tables say it.
pub(crate) fn connections(count: u32) -> String {
    format!("{} connection{}", thousands(count), plural(count))
}

/// As tables say it.
pub(crate) fn endpoints(count: u32) -> String {
    format!("{} endpoint{}, called", thousands(count), plural(count))
}

/// As tables say it.
pub(crate) fn known(count: u32) -> String {
    format!("{} endpoint{}, known", thousands(count), plural(count))
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn thousands(count: u32) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{},{:03}", count / 1_000, count % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_do() {
        assert_eq!(connections(1), "1 connection");
        assert_eq!(known(100), "100 endpoints, known");
        assert_eq!(endpoints(10_000), "10,000 endpoints, called");
    }
}
