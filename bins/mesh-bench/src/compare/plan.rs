//! What is measured, how often and how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args;
use crate::load::{Work, size_name};

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
    /// How often each case is measured.
    pub(crate) rounds: u32,
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
        let (rounds, seconds, latency, idle) = if arguments.quick {
            (3, 1.0, 3.0, vec![1_000])
        } else {
            (5, 2.0, 5.0, vec![1_000, 10_000])
        };
        let (most, growth) = if arguments.quick {
            (1, vec![1, 1_000])
        } else {
            (3, vec![1, 100, 10_000])
        };
        Self {
            quick: arguments.quick,
            only: arguments.only.clone(),
            rounds: arguments.rounds.unwrap_or(rounds),
            time: Duration::from_secs_f64(arguments.seconds.unwrap_or(seconds)),
            latency_time: Duration::from_secs_f64(arguments.seconds.unwrap_or(latency)),
            few_rounds: arguments.rounds.unwrap_or(3).min(most),
            idle,
            growth,
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
            let usual = case(work, 128, 32);
            if self.quick {
                return vec![usual];
            }
            vec![
                case(work, 128, 1),
                usual,
                case(work, 128, 1_000),
                case(work, 16 << 10, 32),
                case(work, 1 << 20, 32),
            ]
        };
        match section {
            Section::Http1 => {
                let mut cases = http(Work::Http1);
                if !self.quick {
                    cases.insert(3, case(Work::Http1, 128, 10_000));
                }
                cases
            }
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
