//! Measuring one part after the other, with peers that run.

use std::time::Duration;

use super::plan::Case;
use super::{Effort, Figure, Metric, Section};
use crate::error::Error;
use crate::load::{Outcome, Plan};
use crate::peers::{Kind, Running};
use crate::stage::{Ground, Load, Machine, Usage};

/// Measures a part with peers that run: each round goes through all of them, so that a machine that slows down slows all. Of rounds that
/// others on the same hardware disturbed, more are made, and those count that were disturbed least: it is chosen by what was stolen, never
/// by what came out.
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
        let rounds_of = |peer: &Running| effort.rounds(&case, peer.kind) as usize;
        let wanted = running.iter().map(rounds_of).max().unwrap_or(0);
        // What tells how far the load goes is measured once.
        let (often, once): (Vec<&Running>, Vec<&Running>) =
            running.iter().partition(|peer| rounds_of(peer) == wanted);
        let first = round(section, ground, &once, case, effort).await?;
        let mut rounds: Vec<Round> = Vec::new();
        while wants_another(&rounds, wanted, effort.most_rounds(wanted)) {
            rounds.push(round(section, ground, &often, case, effort).await?);
        }
        let mut counted = least_disturbed(rounds, wanted);
        counted.push(first);
        for peer in running.iter().map(|peer| peer.kind) {
            let all = counted.iter().flatten();
            let of_peer = all.filter(|(kind, _)| *kind == peer);
            let samples: Vec<&Sample> = of_peer.map(|(_, sample)| sample).collect();
            let Some(sample) = samples.first() else {
                continue;
            };
            for (metric, _) in *sample {
                let values = samples.iter().copied().flatten();
                let values = values.filter(|(one, _)| one == metric);
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

/// The values of one round of one peer: the same metrics in every round.
type Sample = Vec<(Metric, f64)>;
/// One round of all peers.
type Round = Vec<(Kind, Sample)>;

/// Above this share of the time that there was work a round counts as disturbed: a hypervisor that takes that much for others has
/// also had them empty the caches.
const DISTURBED: f64 = 0.05;

/// How much of that time others had, in the peer's measurement that they disturbed most.
fn stolen(round: &Round) -> f64 {
    let all = round.iter().flat_map(|(_, sample)| sample);
    let stolen = all.filter(|(metric, _)| *metric == Metric::Stolen);
    stolen.map(|(_, value)| *value).fold(0.0, f64::max)
}

/// Whether there are too few rounds that were left alone, and more may be made.
fn wants_another(rounds: &[Round], wanted: usize, most: usize) -> bool {
    let alone = rounds.iter().filter(|round| stolen(round) <= DISTURBED);
    alone.count() < wanted && rounds.len() < most
}

/// So many of the rounds, in the order in which they were made.
fn least_disturbed(mut rounds: Vec<Round>, wanted: usize) -> Vec<Round> {
    let mut all: Vec<f64> = rounds.iter().map(stolen).collect();
    all.sort_by(f64::total_cmp);
    if let Some(most) = wanted.checked_sub(1).and_then(|last| all.get(last)) {
        rounds.retain(|round| stolen(round) <= *most);
        rounds.truncate(wanted);
    }
    rounds
}

/// One round of so many peers; who does not carry such work is not in it.
async fn round(
    section: Section,
    ground: &Ground,
    peers: &[&Running],
    case: Case,
    effort: &Effort,
) -> Result<Round, Error> {
    let mut round = Round::new();
    for peer in peers {
        if let Some(sample) = sample(section, ground, peer, case, effort).await? {
            round.push((peer.kind, sample));
        }
    }
    Ok(round)
}

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
    /// How much of the time that there was work others on the same hardware had, of 1.
    stolen: f64,
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
    let machine = Machine::now()?;
    let outcome = load.over(plan).await?;
    let after = busy(ground, peer, &load)?;
    let stolen = Machine::now()?.stolen_since(machine);
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
        stolen,
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
        (Metric::Stolen, carried.stolen),
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
    fn rounds_that_others_disturbed_are_made_again_and_the_quietest_count() {
        let round = |stolen, value| {
            let sample = |stolen| vec![(Metric::P50Micros, value), (Metric::Stolen, stolen)];
            vec![(Kind::Mesh, sample(stolen)), (Kind::Envoy, sample(0.0))]
        };
        let values =
            |rounds: &[Round]| -> Vec<f64> { rounds.iter().map(|round| round[0].1[0].1).collect() };
        assert!(wants_another(&[], 2, 6));
        let quiet = vec![round(0.01, 1.0), round(0.05, 2.0)];
        assert!(!wants_another(&quiet, 2, 6));
        let mut rounds = vec![round(0.2, 9.0), round(0.01, 1.0), round(0.3, 8.0)];
        assert!(wants_another(&rounds, 2, 6));
        rounds.push(round(0.02, 2.0));
        assert!(!wants_another(&rounds, 2, 6));
        assert_eq!(values(&least_disturbed(rounds, 2)), [1.0, 2.0]);
        let busy = vec![round(0.5, 1.0); 6];
        assert!(!wants_another(&busy, 2, 6), "it ends");
        assert_eq!(least_disturbed(busy, 2).len(), 2);
    }

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
            stolen: 0.0,
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
