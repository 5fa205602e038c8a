//! Memory at rest and with idle connections.

use std::time::Duration;

use super::sections::rss_mib;
use super::{Effort, Figure, Metric, Section};
use crate::error::Error;
use crate::load::{Plan, Work};
use crate::peers::{Certificates, Found, Kind, Running};
use crate::stage::Ground;

/// How long until what is not needed has gone back to the system. mesh-proxy's connections give up what they hold after two to three
/// seconds, its allocator up to six seconds later.
const SETTLING: Duration = Duration::from_secs(10);

/// Measures it, each peer started anew so that nothing was there before. All wait together, as none has anything to do.
///
/// # Errors
/// If a peer fails.
pub(super) async fn memory(
    ground: &Ground,
    found: &[Found],
    certificates: &Certificates,
    effort: &Effort,
) -> Result<Vec<Figure>, Error> {
    let mut figures: Vec<Figure> = Vec::new();
    for round in 0..effort.few_rounds {
        eprintln!("memory, round {}", round + 1);
        let mut running = Vec::new();
        for peer in found.iter().filter(|peer| peer.kind() != Kind::None) {
            running.push(Running::start(peer, ground, certificates).await?);
        }
        let mut note = |peer: &Running, metric, value| {
            Figure::note(
                &mut figures,
                Section::Memory,
                "memory",
                peer.kind,
                metric,
                value,
            );
        };
        tokio::time::sleep(SETTLING).await;
        let mut rest = Vec::new();
        for peer in &running {
            let (client, server) = (rss_mib(peer.client_usage()?), rss_mib(peer.server_usage()?));
            note(peer, Metric::ClientRssMib, client);
            note(peer, Metric::ServerRssMib, server);
            rest.push(client);
        }
        for (connections, metric) in [
            (1_000, Metric::KibPerConnection1000),
            (10_000, Metric::KibPerConnection10000),
        ] {
            if !effort.idle.contains(&connections) {
                continue;
            }
            let mut loads = Vec::new();
            for peer in &running {
                let mut load = ground.load(&idle(peer, connections))?;
                load.counting().await?;
                loads.push(load);
            }
            tokio::time::sleep(SETTLING).await;
            for (peer, rest) in running.iter().zip(&rest) {
                let held = rss_mib(peer.client_usage()?) - rest;
                note(peer, metric, held * 1024.0 / f64::from(connections));
            }
            drop(loads);
            if effort.idle.iter().any(|more| *more > connections) {
                tokio::time::sleep(SETTLING).await;
            }
        }
    }
    Ok(figures)
}

/// Connections that are used once.
fn idle(peer: &Running, connections: u32) -> Plan {
    Plan {
        target: peer.http1,
        work: Work::Http1,
        size: 128,
        connections,
        warm_up: Duration::ZERO,
        time: Duration::ZERO,
        rate: None,
        idle: true,
    }
}
