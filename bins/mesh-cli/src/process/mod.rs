//! Running what a mesh is made of, so that nothing outlives it.
//!
//! Each process runs under a wrapper ([`wrapper`]) that leads a process group and holds a pipe to this process. Closing the
//! pipe, which the kernel does however this process ends, takes the group down. Being a group of its own also keeps the
//! terminal's Ctrl-C away from it, so that draining happens in order.

mod backoff;
mod tail;
pub(crate) mod wrapper;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin};

pub(crate) use backoff::Backoff;
pub(crate) use tail::{Lines, Tail};

use crate::Error;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// What it is called in messages, for example `web-1` or `web-1's proxy`.
    pub(crate) name: String,
    /// The command and its arguments; never empty.
    pub(crate) command: Vec<OsString>,
    /// Set on top of what is inherited.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether it is one of the mesh's own programs, whose settings are not to be inherited.
    pub(crate) isolated: bool,
    /// Where it runs.
    pub(crate) folder: PathBuf,
}

/// A running process group. Dropping it kills it; [`Process::stop`] lets it finish first.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    tail: Tail,
    /// The pipe whose end ends the group.
    _lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts `launch`. Each line it prints goes to `lines` as well.
    ///
    /// # Errors
    /// When this program cannot be started again as the wrapper. A command that cannot be started ends with 127 and
    /// says why as its last line.
    pub(crate) fn start(launch: &Launch, lines: Option<Lines>) -> Result<Self, Error> {
        let failed = |source| Error::Start {
            name: launch.name.clone(),
            source,
        };
        let mut command = tokio::process::Command::new(this_program().map_err(failed)?);
        command.arg("__run").arg("--").args(&launch.command);
        if launch.isolated {
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(|name| {
                    name.starts_with("LINKERD2_PROXY_") || name.starts_with("MESH_")
                }) {
                    command.env_remove(name);
                }
            }
            // What it prints is read line by line, never by a terminal.
            command.env("NO_COLOR", "1");
        }
        command
            .env("PATH", path_with_own_folder())
            .envs(&launch.env)
            .current_dir(&launch.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let tail = Tail::default();
        if let Some(stdout) = child.stdout.take() {
            tail.follow(stdout, &launch.name, lines.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            tail.follow(stderr, &launch.name, lines);
        }
        let lifeline = child.stdin.take();
        Ok(Self {
            child,
            group,
            tail,
            _lifeline: lifeline,
        })
    }

    /// Waits for the process to end. Can be dropped and called again.
    pub(crate) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        // What it printed last is still in the pipe.
        self.tail.settle().await;
        self.signal(Signal::KILL);
        self.group = None;
        describe(status)
    }

    /// Asks the process to end, waits for `grace`, then kills it. Returns whether it ended by itself.
    pub(crate) async fn stop(mut self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.ended()).await.is_ok() {
            return true;
        }
        self.signal(Signal::KILL);
        // A killed process that does not end is stuck in the kernel; there is nothing more to be done.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ended()).await;
        false
    }

    /// The last lines it printed.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails only when the group is gone already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// This very program, even if another was built in its place since it was started.
fn this_program() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        Ok(running.to_path_buf())
    } else {
        std::env::current_exe()
    }
}

/// The folder of the mesh's own programs comes first, so that manifests can name `mesh`.
fn path_with_own_folder() -> OsString {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_path_buf()));
    let folders = own.into_iter().chain(std::env::split_paths(&inherited));
    // A folder with a colon in its name cannot be in PATH.
    std::env::join_paths(folders).unwrap_or(inherited)
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) => "ended".to_owned(),
            (Some(code), _) if code > 128 => format!("was killed by signal {}", code - 128),
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("cannot be waited for: {error}"),
    }
}
