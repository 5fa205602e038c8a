//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::compare::Section;
use crate::peers::{Kind, Wanted};

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

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be between 0.1 and 600".into()),
    }
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
