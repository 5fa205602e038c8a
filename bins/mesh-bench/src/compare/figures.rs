//! What was measured, as values.

use serde::{Deserialize, Serialize};

use super::Section;
use crate::peers::Kind;
use crate::stats::Summary;

/// One quantity of one peer at one kind of work, in each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The part of the comparison.
    pub(crate) section: Section,
    /// The work.
    pub(crate) work: String,
    /// Who did it.
    pub(crate) peer: Kind,
    /// What was measured.
    pub(crate) metric: Metric,
    /// Its value in each round.
    pub(crate) rounds: Vec<f64>,
}

impl Figure {
    /// Adds a round's value to the figure of this quantity, which is made with the first.
    pub(super) fn note(
        figures: &mut Vec<Self>,
        section: Section,
        work: &str,
        peer: Kind,
        metric: Metric,
        value: f64,
    ) {
        let same = |figure: &&mut Self| {
            (figure.section, figure.peer, figure.metric) == (section, peer, metric)
                && figure.work == work
        };
        match figures.iter_mut().find(same) {
            Some(figure) => figure.rounds.push(value),
            None => figures.push(Self {
                section,
                work: work.to_owned(),
                peer,
                metric,
                rounds: vec![value],
            }),
        }
    }

    /// The middle of the rounds.
    pub(crate) fn summary(&self) -> Option<Summary> {
        Summary::of(&self.rounds)
    }
}

/// What was measured, with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Microseconds on a processor for each request, both proxies.
    CpuMicrosPerRequest,
    /// Requests a second.
    RequestsPerSecond,
    /// How much of the time the proxies were on a processor, both together; 1 is one core.
    ProxiesBusy,
    /// The same of the load and the application together.
    LoadBusy,
    /// How much of the time that cores had work the hypervisor had for others; of 1.
    Stolen,
    /// Half of all requests took no longer, in microseconds.
    P50Micros,
    /// 99% took no longer.
    P99Micros,
    /// 99.9% took no longer.
    P999Micros,
    /// 99% of all requests began no later than this after their time, in microseconds; part of their latency.
    LateMicros,
    /// Memory of the proxy beside the client when it has carried a few requests, in MiB.
    ClientRssMib,
    /// The same of the proxy beside the server.
    ServerRssMib,
    /// Memory of the proxy beside the client with 1,000 idle connections, less that at rest, in KiB for each.
    KibPerConnection1000,
    /// The same with 10,000.
    KibPerConnection10000,
    /// New connections a second, each with a handshake between the proxies.
    ConnectionsPerSecond,
    /// New connections for each second on a processor, both proxies.
    ConnectionsPerCpuSecond,
    /// Seconds on a processor for each GB (10^9 bytes), both proxies.
    CpuSecondsPerGb,
    /// Gbit a second.
    GbitPerSecond,
}
