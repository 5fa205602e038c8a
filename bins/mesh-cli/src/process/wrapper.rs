//! `mesh __run`: runs one command and ends with it, or ends it when standard input ends.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;

/// How long the command may take to end once whoever started it is gone.
const GRACE: Duration = Duration::from_secs(2);

/// Runs `command` in this process's group, which this process leads.
pub(crate) async fn run(command: Vec<OsString>) -> Result<ExitCode, Error> {
    // Signals are sent to the whole group: the command acts on them, and this process waits for it. A handler, unlike
    // ignoring, is not inherited by the command.
    let _terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let _interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let mut child = match tokio::process::Command::new(&program)
        .args(words)
        .stdin(Stdio::null())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {}: {error}", program.display());
            return Ok(ExitCode::from(127));
        }
    };
    tokio::select! {
        status = child.wait() => {
            let status = status.map_err(Error::Runtime)?;
            // As a shell says it: 128 and the signal.
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            // The reader of standard input blocks a thread of the runtime until exit.
            std::process::exit(code);
        }
        () = parent_gone() => {
            let group = getpid();
            let _ = kill_process_group(group, Signal::TERM);
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
            // Takes this process with it.
            let _ = kill_process_group(group, Signal::KILL);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn parent_gone() {
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 16];
    while matches!(stdin.read(&mut nothing).await, Ok(1..)) {}
}
