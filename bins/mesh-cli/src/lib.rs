//! The `mesh` command: runs a whole mesh of real processes from a folder of manifests, and looks into it.
//!
//! A library only so that it can be tested; the program is [`run`].
//!
//! ```
//! // `mesh --version`, as a program would say it.
//! let code = mesh_cli::run(["mesh", "--version"].map(Into::into));
//! assert_eq!(code, std::process::ExitCode::SUCCESS);
//! ```
//!
//! Map: `up` plans, starts and follows a mesh; `process` runs what it starts and lets nothing outlive it; `traffic` loads
//! it; `demo` holds the quickstart's services; `check` and `token` ask a running controller through `admin`; `stock_proxy` is what a
//! linkerd2-proxy is started with; `args` says
//! what can be asked; `output` and `duration` how answers look.

mod admin;
mod args;
mod check;
mod data;
mod demo;
mod duration;
mod error;
mod output;
mod probe;
mod process;
mod stock_proxy;
mod token;
mod traffic;
mod trust;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
pub use crate::error::Error;

/// Runs one command line, program name first, and says how it ended: 0 all well, 1 something is wrong (said in one
/// line on standard error), 2 the command line was not understood.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            // Nothing can be done about a closed terminal.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mesh", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        // One thread: a few events a second. Load runs on a thread of its own.
        command => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?
            .block_on(async {
                match command {
                    Command::Up(options) => up::run(options).await,
                    Command::Check(options) => check::run(options).await,
                    Command::Token(options) => token::run(options).await,
                    Command::Trust(options) => trust::run(options).await,
                    Command::Demo { service } => demo::run(&service).await,
                    Command::Run { command } => process::wrapper::run(command).await,
                    Command::Completions { .. } => Ok(ExitCode::SUCCESS),
                }
            }),
    }
}
