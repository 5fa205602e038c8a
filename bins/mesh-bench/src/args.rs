//! What can be said on the command line.

use clap::{Args, Parser, Subcommand};

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
    /// The application behind the proxies, until it is killed
    #[command(hide = true)]
    Backend(Backend),
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
