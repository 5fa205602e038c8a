//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::duration;

/// Run a whole mesh on this machine, and look into it.
#[derive(Debug, Parser)]
#[command(
    name = "mesh",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Start here:  mesh up --traffic\n\n\
                  Exit codes:  0 all well, 1 something is wrong (said on stderr), 2 not understood"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the mesh that a folder of manifests describes, until Ctrl-C
    Up(Up),
    /// Say what is wrong, and what to do about it
    Check(Check),
    /// Make, list and revoke the tokens that workloads join with
    Token(Token),
    /// See and replace the roots of trust, while everything goes on
    Trust(Trust),
    /// Print a completion script, for example: mesh completions bash > ~/.local/share/bash-completion/completions/mesh
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// One of the quickstart's services
    #[command(hide = true)]
    Demo {
        #[command(subcommand)]
        service: Demo,
    },
    /// Run a command that ends when this process's standard input does
    #[command(name = "__run", hide = true)]
    Run {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// `mesh up`.
#[derive(Debug, Args)]
#[command(after_help = "\
What a workload's command finds in its environment:
  HOST, PORT, PORT_<NAME>     where to listen: its address, its first port, each port by name
  MESH_<SERVICE>_ADDR         host:port on which its proxy takes calls to a service's first port
  MESH_<SERVICE>_<PORT>_ADDR  the same for each port by name, when a service has several
  MESH_<SERVICE>__<NAMESPACE>_ADDR  the same for a service of another namespace
  HTTP_PROXY                  its proxy, for clients that call services by name
  MESH_WORKLOAD, MESH_NAMESPACE, MESH_ZONE, MESH_IDENTITY")]
pub(crate) struct Up {
    /// Folder of manifests; without one, a quickstart of three services
    pub(crate) folder: Option<PathBuf>,
    /// Keep state (certificate authority, tokens) in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Call every service through the mesh all the while, and show how it goes
    #[arg(long)]
    pub(crate) traffic: bool,
    /// Calls per second to each service
    #[arg(long, value_name = "N", default_value_t = 100, requires = "traffic", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Stop after this long, for example 10s, and exit with 1 if anything failed
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Print what the workloads print
    #[arg(long)]
    pub(crate) logs: bool,
}

/// `mesh check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Check the manifests in this folder and nothing else
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: Data,
}

/// `mesh token`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: Option<TokenAction>,
    #[command(flatten)]
    pub(crate) stock_proxy: StockProxy,
}

/// What a linkerd2-proxy is started with.
#[derive(Debug, Args)]
pub(crate) struct StockProxy {
    /// Write what a stock linkerd2-proxy is started with into this folder, which must be new or empty, and print its variables
    #[arg(
        long = "stock-proxy",
        value_name = "DIR",
        required = true,
        requires = "workload"
    )]
    pub(crate) folder: Option<PathBuf>,
    /// The workload it stands before, as in the manifests: name, or namespace/name
    #[arg(long, value_name = "WORKLOAD")]
    pub(crate) workload: Option<String>,
    /// How long its token can be used, for example 7d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) lifetime: Option<Duration>,
    /// Where it finds the controller, host:port [default: the controller's own address]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) controller: Option<String>,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Print a new token; it cannot be had again
    Create {
        /// The identity it proves, for example web.default.serviceaccount.identity.linkerd.cluster.local
        #[arg(long)]
        identity: String,
        /// How long it can be used, for example 1h or 7d [default: 24h]
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        lifetime: Option<Duration>,
        /// Where its holder finds the controller, host:port [default: the controller's own address]
        #[arg(long, value_name = "ADDRESS")]
        controller: Option<String>,
        #[command(flatten)]
        data: Data,
    },
    /// Print every token that can still be used, without its secret
    List {
        #[command(flatten)]
        data: Data,
    },
    /// Make a token useless from now on
    Revoke {
        /// As `mesh token list` prints it
        id: String,
        #[command(flatten)]
        data: Data,
    },
}

/// `mesh trust`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Trust {
    #[command(subcommand)]
    pub(crate) action: TrustAction,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The controller's data folder [default: that of the `mesh up` which is running]
    #[arg(long, global = true, value_name = "DIR", env = "MESH_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustAction {
    /// How trust stands: the change underway, its gates, and who stands in the way
    Status {
        /// Go on showing it, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// What a change to a new anchor would go through, if it began now
    Plan {
        /// Of a change that replaces the issuer only
        #[arg(long)]
        issuer_only: bool,
    },
    /// Replace the trust anchor and the issuer
    Rotate {
        /// Replace the issuer only, below the same anchor
        #[arg(long)]
        issuer_only: bool,
        /// Return once it has begun, not when it has ended
        #[arg(long)]
        no_wait: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Have the change stand still
    Pause,
    /// Have it go on
    Resume,
    /// Go back to where the change began
    Abort {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// The key of an anchor is in other hands: nothing is signed with it any more
    Taint {
        /// The beginning of its name, as `mesh trust status` prints it
        anchor: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// In an emergency, leave behind exactly those workloads that block
    LeaveBehind {
        /// As `mesh trust status` prints them
        #[arg(required = true)]
        workloads: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Say that the controller's store was restored from a backup, so that it learns what was done since from those who have it
    Restored {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Declare that a workload is gone for good, so that nothing waits for it
    Left {
        /// As `mesh trust status` prints it
        workload: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Who did what, when and on what grounds
    Audit {
        /// Check that no entry was changed, left out or added
        #[arg(long)]
        verify: bool,
        /// Without the entries before this one: other controllers of the mesh wrote them, into their own data folders
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u64,
    },
    /// Say what is wrong with certificates that are to become anchor and issuer
    Lint {
        /// The new anchor, PEM [default: the anchor in use]
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
        /// The new issuer, PEM
        #[arg(long, value_name = "FILE")]
        issuer: PathBuf,
    },
    /// Write the anchor in use and its private key into a new folder
    ExportRoot {
        /// The folder
        folder: PathBuf,
    },
    /// Remove the private key of the anchor in use from the controller, once it was exported
    RemoveRoot {
        /// The folder that it was exported into: that it is there is looked at
        folder: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write a request for the certificate of another issuer, to be signed where the anchor's key is
    IssuerRequest {
        /// The file to write
        file: PathBuf,
        /// Another one than that which is out
        #[arg(long)]
        anew: bool,
    },
    /// Sign such a request, with an exported anchor. No controller is asked
    SignIssuer {
        /// The folder that the anchor was exported into
        #[arg(long, value_name = "FOLDER")]
        root: PathBuf,
        /// The request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// The certificate to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How long it is good for
        #[arg(long, value_name = "TIME", default_value = "8760h", value_parser = duration::parse)]
        lifetime: Duration,
    },
    /// Change to an anchor or issuer that was made elsewhere; or take the key of the anchor in use back
    Import {
        /// An anchor, PEM [default: the anchor in use]
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
        /// Its private key, if it is to be with the controller
        #[arg(long, value_name = "FILE", requires = "anchor")]
        anchor_key: Option<PathBuf>,
        /// An issuer below it, PEM [default: one is made with the anchor's key]
        #[arg(long, value_name = "FILE")]
        issuer: Option<PathBuf>,
        /// Its private key [default: that of the request which is out]
        #[arg(long, value_name = "FILE", requires = "issuer")]
        issuer_key: Option<PathBuf>,
        /// Return once it has begun, not when it has ended
        #[arg(long)]
        no_wait: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Have cross-certificates carry workloads that do not trust the new anchor yet (`spec.rotation.bridges`)
    Carry {
        /// As `mesh trust status` prints them
        #[arg(required = true)]
        workloads: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which mesh is meant.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// The controller's data folder [default: that of the `mesh up` which is running]
    #[arg(long, value_name = "DIR", env = "MESH_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Demo {
    /// HTTP: greets, with the help of the other two
    Web,
    /// gRPC: says hello
    Greeter,
    /// TCP: says what it hears
    Echo,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_rate_without_traffic_is_refused() {
        assert!(Cli::try_parse_from(["mesh", "up", "--rate", "5"]).is_err());
        assert!(Cli::try_parse_from(["mesh", "up", "--traffic", "--rate", "0"]).is_err());
        assert!(Cli::try_parse_from(["mesh", "up", "--traffic", "--rate", "5"]).is_ok());
    }

    #[test]
    fn a_wrapped_command_keeps_its_own_flags() {
        let cli = Cli::try_parse_from(["mesh", "__run", "--", "sh", "-c", "exit 3"]).unwrap();
        let Command::Run { command } = cli.command else {
            panic!("expected __run");
        };
        assert_eq!(command, ["sh", "-c", "exit 3"]);
    }
}
