//! Measuring one part after the other, with peers that run.

use std::time::Duration;

use super::plan::Case;
use super::{Effort, Figure, Metric, Section};
use crate::error::Error;
use crate::load::{Outcome, Plan};
use crate::peers::{Kind, Running};
use crate::stage::{Ground, Load, Usage};

/// Measures a part with peers that run: each round goes through all of them, so that a machine that slows down slows all.
///
/// # Errors
/// If a peer fails, or anything that was asked of it does.
pub(crate) async fn measure(
    section: Section,
    ground: &Ground,
    running: &[Running],
    effort: &Effort,
) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for case in effort.cases(section) {
        eprintln!("{}", case.describe());
        let mut rounds: Vec<(Kind, Vec<Sample>)> = Vec::new();
        let rounds_of = |peer: &&Running| effort.rounds(&case, peer.kind);
        for round in 0..running
            .iter()
            .map(|peer| rounds_of(&peer))
            .max()
            .unwrap_or(0)
        {
            for peer in running.iter().filter(|peer| round < rounds_of(peer)) {
                let Some(sample) = sample(section, ground, peer, case, effort).await? else {
                    continue;
                };
                match rounds.iter_mut().find(|(kind, _)| *kind == peer.kind) {
                    Some((_, samples)) => samples.push(sample),
                    None => rounds.push((peer.kind, vec![sample])),
                }
            }
        }
        for (peer, samples) in rounds {
            for (metric, _) in &samples[0] {
                let values = samples.iter().flatten().filter(|(one, _)| one == metric);
                figures.push(Figure {
                    section,
                    work: case.describe(),
                    peer,
                    metric: *metric,
                    rounds: values.map(|(_, value)| *value).collect(),
                });
            }
        }
    }
    Ok(figures)
}

/// The values of one round: the same metrics in every round.
type Sample = Vec<(Metric, f64)>;

/// One round of one peer; `None` if it does not carry such work.
async fn sample(
    section: Section,
    ground: &Ground,
    peer: &Running,
    case: Case,
    effort: &Effort,
) -> Result<Option<Sample>, Error> {
    let Some(target) = peer.target(case.work) else {
        return Ok(None);
    };
    let latency = section == Section::Latency;
    let plan = Plan {
        target,
        work: case.work,
        size: case.size,
        connections: case.connections,
        warm_up: WARM_UP,
        time: if latency {
            effort.latency_time
        } else {
            effort.time
        },
        rate: case.rate,
        idle: false,
    };
    let what = format!("{} through {}", case.describe(), peer.kind.name());
    let carried = carry(ground, peer, &plan, what).await?;
    Ok(Some(values(section, &carried)))
}

/// What was carried, and what it took.
pub(super) struct Carried {
    pub(super) outcome: Outcome,
    /// The time on a processor of the proxies.
    pub(super) proxies: Duration,
    /// The same of the load and the application.
    load: Duration,
    /// Memory of the proxies beside the client and the server at the end, in MiB.
    pub(super) rss_mib: [f64; 2],
}

/// Makes a load through a peer; `work` is what errors call it.
///
/// # Errors
/// If anything that was asked failed, or nothing was answered.
pub(super) async fn carry(
    ground: &Ground,
    peer: &Running,
    plan: &Plan,
    work: String,
) -> Result<Carried, Error> {
    let mut load = ground.load(plan)?;
    load.counting().await?;
    let before = busy(ground, peer, &load)?;
    let outcome = load.over(plan).await?;
    let after = busy(ground, peer, &load)?;
    let rss_mib = [rss_mib(peer.client_usage()?), rss_mib(peer.server_usage()?)];
    load.release().await?;
    if outcome.failures > 0 || (outcome.done == 0 && outcome.bytes == 0) {
        return Err(Error::LoadFailed {
            work,
            failures: outcome.failures,
            attempts: outcome.done + outcome.failures,
            first: if outcome.failures > 0 {
                outcome.first_failure
            } else {
                "nothing was answered at all".into()
            },
        });
    }
    Ok(Carried {
        outcome,
        proxies: after.0.saturating_sub(before.0),
        load: after.1.saturating_sub(before.1),
        rss_mib,
    })
}

/// Nothing without a proxy.
#[allow(clippy::cast_precision_loss, reason = "KiB of processes")]
pub(super) fn rss_mib(usage: Option<Usage>) -> f64 {
    usage.map_or(0.0, |usage| usage.rss_kib as f64 / 1024.0)
}

/// The time on a processor of the proxies, and of the load and the application, so far.
fn busy(ground: &Ground, peer: &Running, load: &Load) -> Result<(Duration, Duration), Error> {
    let others = load.process().usage()?.cpu + ground.backend().usage()?.cpu;
    Ok((peer.cpu()?, others))
}

/// How long before a round counts.
const WARM_UP: Duration = Duration::from_millis(300);

#[allow(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn values(section: Section, carried: &Carried) -> Sample {
    let outcome = &carried.outcome;
    let (proxies, load) = (carried.proxies.as_secs_f64(), carried.load.as_secs_f64());
    let (done, seconds) = (outcome.done as f64, outcome.seconds);
    let busy = [
        (Metric::ProxiesBusy, proxies / seconds),
        (Metric::LoadBusy, load / seconds),
    ];
    let mut values = match section {
        Section::Latency => {
            let [p50, p99, p999] = outcome.latency_micros.map(f64::from);
            vec![
                (Metric::P50Micros, p50),
                (Metric::P99Micros, p99),
                (Metric::P999Micros, p999),
                (Metric::LateMicros, outcome.late_micros.into()),
            ]
        }
        Section::Connections => vec![
            (Metric::ConnectionsPerCpuSecond, done / proxies),
            (Metric::ConnectionsPerSecond, done / seconds),
        ],
        Section::Tcp => {
            let gb = outcome.bytes as f64 / 1e9;
            vec![
                (Metric::CpuSecondsPerGb, proxies / gb),
                (Metric::GbitPerSecond, gb * 8.0 / seconds),
            ]
        }
        _ => vec![
            (Metric::CpuMicrosPerRequest, proxies * 1e6 / done),
            (Metric::RequestsPerSecond, done / seconds),
        ],
    };
    values.extend(busy);
    // Without a proxy there is nothing to divide by, and JSON has no word for it.
    values.retain(|(_, value)| value.is_finite());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_nothing_has_no_share_of_it() {
        let carried = |proxies| Carried {
            outcome: Outcome {
                seconds: 2.0,
                done: 10,
                bytes: 1_000_000_000,
                ..Outcome::default()
            },
            proxies,
            load: Duration::ZERO,
            rss_mib: [0.0; 2],
        };
        for section in Section::ALL {
            let free = values(section, &carried(Duration::ZERO));
            assert!(free.iter().all(|(_, value)| value.is_finite()), "{free:?}");
        }
        let paid = values(Section::Connections, &carried(Duration::from_secs(2)));
        assert!(
            paid.contains(&(Metric::ConnectionsPerCpuSecond, 5.0)),
            "{paid:?}"
        );
        assert!(
            paid.contains(&(Metric::ConnectionsPerSecond, 5.0)),
            "{paid:?}"
        );
    }
}
