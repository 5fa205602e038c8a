//! The same work through mesh-proxy and each of its peers that is found, measured side by side.
//!
//! A library only so that it can be tested; the program is [`run`].
//!
//! ```
//! use mesh_bench::stats::Summary;
//!
//! // Rounds of one measurement: the middle, and half of what lies between the extremes.
//! let rounds = [21.4, 20.9, 22.3];
//! let summary = Summary::of(&rounds).expect("some rounds");
//! assert_eq!(summary.median, 21.4);
//! assert!(summary.spread.is_some_and(|spread| (spread - 0.7).abs() < 1e-9));
//! ```
//!
//! Map: `backend` is the application behind the proxies; `load` is who asks; `limits` is about rate limits and slow endpoints; `args` says what can be asked; `stats` is what repeated measurements say.

mod args;
mod backend;
mod compare;
mod error;
mod limits;
mod load;
mod peers;
mod report;
mod soak;
mod stage;
pub mod stats;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser;

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
    match execute(&cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: &Command) -> Result<ExitCode, Error> {
    match command {
        Command::Compare(arguments) => {
            return on_one_thread(until_interrupted(compare::compare(arguments)));
        }
        Command::Soak(arguments) => {
            return on_one_thread(until_interrupted(soak::soak(arguments)));
        }
        Command::Load { plan } => {
            let plan = serde_json::from_str(plan).map_err(|source| Error::Json {
                what: "the plan of a load".into(),
                source,
            })?;
            on_one_thread(load::make(plan))?;
        }
        Command::Limits(arguments) => limits::run(arguments)?,
        Command::Backend(arguments) => on_one_thread(backend::serve(*arguments))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "this is what was asked for")]
fn say(text: &str) {
    println!("{text}");
}

/// Ctrl-C ends it, as a termination does: what it holds is dropped, so that everything it started ends.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(Error::io("cannot listen for signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
        _ = hang_up.recv() => Err(Error::Interrupted),
    }
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("no runtime"))?;
    runtime.block_on(work)
}
