//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::Section;
use crate::peers::{Kind, MeshWanted, Wanted};

/// Measure proxies side by side.
#[derive(Debug, Parser)]
#[command(
    name = "mesh-bench",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Exit codes:  0 all well, 1 something is wrong (said on stderr), 2 not understood"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The same work through each proxy that is found, side by side
    Compare(Box<Compare>),
    /// Rate limits and slow endpoints: how much of what could be answered is answered 200
    Limits(Box<Limits>),
    /// Mixed load for a while, with endpoints that come and go and certificates that are renewed
    Soak(Soak),
    /// The application behind the proxies, until it is killed
    #[command(hide = true)]
    Backend(Backend),
    /// A load, as JSON tells; it says how it went as JSON
    #[command(hide = true)]
    Load {
        /// The plan
        plan: String,
    },
}

/// `mesh-bench compare`.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Less of everything, in under three minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub(crate) only: Vec<Section>,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    pub(crate) peers: Vec<Kind>,
    /// How often each figure is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// How long each round counts, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Write compare.json and compare.md into this folder too
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Add the parts measured now to what is in that folder, of the same code and machine
    #[arg(long, requires = "out")]
    pub(crate) add: bool,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
}

/// `mesh-bench soak`.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) minutes: u64,
    /// How long, in seconds, in place of minutes
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(5..=600_000))]
    pub(crate) seconds: Option<u64>,
    /// Write soak.md, and soak-memory.csv with all that was seen of memory, into this folder too
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) wanted: MeshWanted,
}

impl Soak {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be between 0.1 and 600".into()),
    }
}

/// `mesh-bench limits`.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// What chooses an endpoint for each request
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "WAY",
        default_value = "embedded,proxy,tower,envoy"
    )]
    pub(crate) through: Vec<Through>,
    /// Only scenarios whose names have one of these in them
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub(crate) only: Vec<String>,
    /// How long each runs, in seconds; those with changes and several clients take 60 or 90
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub(crate) seconds: u64,
    /// How the endpoints count
    #[arg(long, value_enum, default_value_t)]
    pub(crate) limiter: Limiter,
    /// mesh-proxy; the one beside this program if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy: Option<PathBuf>,
    /// mesh-controller; likewise
    #[arg(long, value_name = "FILE")]
    pub(crate) controller: Option<PathBuf>,
    /// The program mesh; likewise
    #[arg(long, value_name = "FILE")]
    pub(crate) cli: Option<PathBuf>,
    /// Envoy
    #[arg(long, value_name = "FILE")]
    pub(crate) envoy: Option<PathBuf>,
}

/// What chooses an endpoint for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Through {
    /// This project's balancer in a hyper client
    Embedded,
    /// mesh-proxy, told PenaltyPeakEwma with published defaults, and a unified breaker
    Proxy,
    /// tower's Peak EWMA over two choices in a hyper client
    Tower,
    /// Envoy's least request
    Envoy,
    /// Envoy's round robin
    EnvoyRoundRobin,
}

/// How an endpoint counts what it admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Limiter {
    /// A token bucket that holds what comes in within a second
    #[default]
    Bucket,
    /// So many in each second, counted anew
    Window,
}

/// `mesh-bench backend`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Backend {
    /// The port for HTTP/1, HTTP/2 and gRPC
    #[arg(long)]
    pub(crate) http: u16,
    /// The port for bytes
    #[arg(long)]
    pub(crate) tcp: u16,
}
