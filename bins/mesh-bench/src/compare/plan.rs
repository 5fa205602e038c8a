//! What is measured, how often and how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args;
use crate::load::{Work, size_name};
use crate::peers::Kind;

/// A part of the comparison.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Section {
    /// CPU per request and requests per second, HTTP/1
    Http1,
    /// The same, HTTP/2
    Http2,
    /// The same, calls of gRPC
    Unary,
    /// The same, messages on streams of gRPC
    Streaming,
    /// Latency at a fixed rate
    Latency,
    /// New mTLS connections
    Connections,
    /// Opaque TCP in bulk
    Tcp,
    /// Memory at rest and with idle connections
    Memory,
    /// CPU per request and memory from 1 to 10,000 connections and endpoints; with --quick only if asked for
    Growth,
}

impl Section {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 9] = [
        Self::Http1,
        Self::Http2,
        Self::Unary,
        Self::Streaming,
        Self::Latency,
        Self::Connections,
        Self::Tcp,
        Self::Memory,
        Self::Growth,
    ];
}

/// One row: so many connections doing the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) work: Work,
    pub(crate) size: usize,
    pub(crate) connections: u32,
    /// Requests a second; as fast as they are answered if not set.
    pub(crate) rate: Option<u32>,
}

impl Case {
    /// How many bytes are on their way at a time.
    fn in_flight(&self) -> usize {
        self.size * self.connections as usize
    }

    /// Whether it is one by which mesh-proxy is judged.
    fn is_judged(&self) -> bool {
        let bulk = matches!(self.work, Work::TcpUp | Work::TcpDown);
        bulk || self.work == Work::Connect || (self.size, self.connections) == USUAL
    }

    /// As tables say it.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.work.name().to_owned();
        if !matches!(self.work, Work::TcpUp | Work::TcpDown | Work::Connect) {
            text = format!("{text}, {}", size_name(self.size));
        }
        if let Some(rate) = self.rate {
            text = format!("{text}, {rate} rps");
        }
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{text}, {} connection{plural}", self.connections)
    }
}

/// How thorough it is.
#[derive(Debug, Clone)]
pub(crate) struct Effort {
    quick: bool,
    only: Vec<Section>,
    /// How often the rows are measured by which mesh-proxy is judged.
    judged_rounds: u32,
    /// How often the others are.
    rounds: u32,
    /// How long each round counts.
    pub(crate) time: Duration,
    /// How long a round of latency counts.
    pub(crate) latency_time: Duration,
    /// How often memory and growth are measured: they vary little.
    pub(crate) few_rounds: u32,
    /// Numbers of idle connections.
    pub(crate) idle: Vec<u32>,
    /// Numbers of connections, and of endpoints, that are to cost the same.
    pub(crate) growth: Vec<u32>,
}

impl Effort {
    pub(crate) fn of(arguments: &args::Compare) -> Self {
        let quick = arguments.quick;
        let latency = if quick { 3.0 } else { 5.0 };
        let judged = if quick { 3 } else { 5 };
        Self {
            quick,
            only: arguments.only.clone(),
            judged_rounds: arguments.rounds.unwrap_or(judged),
            rounds: arguments.rounds.unwrap_or(3),
            time: Duration::from_secs_f64(arguments.seconds.unwrap_or(1.0)),
            latency_time: Duration::from_secs_f64(arguments.seconds.unwrap_or(latency)),
            few_rounds: arguments.rounds.unwrap_or(1).min(3),
            idle: if quick {
                vec![1_000]
            } else {
                vec![1_000, 10_000]
            },
            growth: if quick {
                vec![1, 1_000]
            } else {
                vec![1, 100, 10_000]
            },
        }
    }

    /// How often `peer` is measured. What no proxy carries tells how far the load goes; of latency it is what is added to.
    pub(crate) fn rounds(&self, case: &Case, peer: Kind) -> u32 {
        match (peer, case.rate) {
            (Kind::None, None) => 1,
            _ if case.is_judged() => self.judged_rounds,
            _ => self.rounds,
        }
    }

    /// How many rounds are made at most where so many are wanted, if others on the same hardware disturb some. `--quick` is to end
    /// in time.
    pub(crate) fn most_rounds(&self, wanted: usize) -> usize {
        if self.quick {
            wanted
        } else {
            wanted * MOST_ROUNDS
        }
    }

    /// The parts that were asked for; all if none was.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let asked = |section: &Section| match self.only.as_slice() {
            [] => !(self.quick && *section == Section::Growth),
            only => only.contains(section),
        };
        Section::ALL.into_iter().filter(asked).collect()
    }

    /// The rows of a part.
    pub(crate) fn cases(&self, section: Section) -> Vec<Case> {
        let case = |work, size, connections| Case {
            work,
            size,
            connections,
            rate: None,
        };
        let http = |work| {
            if self.quick {
                return vec![case(work, USUAL.0, USUAL.1)];
            }
            let of_size = |size| CONNECTIONS.map(|connections| case(work, size, connections));
            let cases = SIZES.into_iter().flat_map(of_size);
            cases
                .filter(|case| case.in_flight() < MOST_IN_FLIGHT)
                .collect()
        };
        match section {
            Section::Http1 => http(Work::Http1),
            Section::Http2 => http(Work::Http2),
            Section::Unary => http(Work::GrpcUnary),
            Section::Streaming => http(Work::GrpcStream),
            Section::Latency => [Work::Http1, Work::Http2, Work::GrpcUnary]
                .into_iter()
                .take(if self.quick { 1 } else { 3 })
                .map(|work| Case {
                    rate: Some(LATENCY_RATE),
                    ..case(work, 128, 32)
                })
                .collect(),
            Section::Connections => vec![case(Work::Connect, 1, 16)],
            Section::Tcp => {
                let streams = [(Work::TcpUp, 1), (Work::TcpUp, 8), (Work::TcpDown, 1)];
                let streams = streams.into_iter().take(if self.quick { 1 } else { 3 });
                streams.map(|(work, count)| case(work, 0, count)).collect()
            }
            Section::Memory | Section::Growth => Vec::new(),
        }
    }
}

/// The bytes of answers and messages, and how many connections carry them: each with each, save where a GB is on its way, of which a
/// round takes half a minute.
const SIZES: [usize; 3] = [128, 16 << 10, 1 << 20];
const CONNECTIONS: [u32; 3] = [1, 32, 1_000];
const MOST_IN_FLIGHT: usize = 1_000 << 20;
/// The size and the connections of what is judged.
const USUAL: (usize, u32) = (128, 32);

/// How many times as many rounds are made at most.
const MOST_ROUNDS: usize = 2;

/// At what rate latency is measured, in requests a second: what every peer can do on one slow core.
const LATENCY_RATE: u32 = 3_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_says_what_it_is() {
        let case = Case {
            work: Work::Http1,
            size: 16 << 10,
            connections: 1,
            rate: None,
        };
        assert_eq!(case.describe(), "HTTP/1, 16 KiB, 1 connection");
        let case = Case {
            work: Work::Http2,
            size: 128,
            connections: 32,
            rate: Some(3_000),
        };
        assert_eq!(case.describe(), "HTTP/2, 128 B, 3000 rps, 32 connections");
    }
}
