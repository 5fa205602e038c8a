//! A program on a host: its output kept in a file, its costs read from `/proc`, ended when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::time::Instant;

use crate::error::Error;

/// How long is waited for a program to become ready: generous, because machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A program that is about to run on a host. Made by [`Host::spawn`](super::Host::spawn).
#[derive(Debug)]
pub(crate) struct Spawn {
    namespace: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    cores: Option<String>,
    user: Option<u32>,
}

impl Spawn {
    pub(super) fn new(namespace: &str, program: PathBuf) -> Self {
        Self {
            namespace: namespace.to_owned(),
            program,
            arguments: Vec::new(),
            cores: None,
            user: None,
        }
    }

    /// More arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// The processor cores it may use.
    pub(crate) fn cores(mut self, cores: Option<&String>) -> Self {
        self.cores = cores.cloned();
        self
    }

    /// The user it runs as, by number; root if not set. It reads and writes every file all the same.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Starts it, with what it says going to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(self, log: &Path) -> Result<Child, Error> {
        self.launch(log, false)
    }

    /// Starts it, with its standard output to be read as lines, the rest going to `log`, and a standard input that ends when it
    /// is [released](Child::success).
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start_talking(self, log: &Path) -> Result<Child, Error> {
        self.launch(log, true)
    }

    fn launch(self, log: &Path, talking: bool) -> Result<Child, Error> {
        let name = self
            .program
            .file_name()
            .unwrap_or(self.program.as_os_str())
            .to_string_lossy()
            .into_owned();
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(Error::file(log))?;
        let copy = file.try_clone().map_err(Error::file(log))?;
        // Each of these replaces itself by the next, so the child's id is the program's.
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        if let Some(user) = self.user {
            let capabilities = "+dac_override,+dac_read_search";
            let user = user.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        }
        command.arg("--");
        if let Some(cores) = &self.cores {
            command.args(["taskset", "--cpu-list", cores]);
        }
        command.arg(&self.program).args(&self.arguments);
        command.stderr(file);
        if talking {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(copy);
        }
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| Error::Program {
            program: name.clone(),
            source,
        })?;
        Ok(Child {
            name,
            log: log.to_owned(),
            pid: child.id().unwrap_or_default(),
            lines: child.stdout.take().map(|out| BufReader::new(out).lines()),
            child,
        })
    }
}

/// A program that runs. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    pid: u32,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    child: tokio::process::Child,
}

impl Child {
    /// What it has cost so far.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid);
            std::fs::read_to_string(&path).map_err(Error::file(path))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        Usage::parse(&stat, &status).ok_or_else(|| self.ended("it has ended".into()))
    }

    /// The next line that it says on its standard output.
    ///
    /// # Errors
    /// If it ends, or says nothing for `limit`.
    pub(crate) async fn line(&mut self, limit: Duration) -> Result<String, Error> {
        let Some(lines) = &mut self.lines else {
            return Err(self.ended("its output is not read".into()));
        };
        match tokio::time::timeout(limit, lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => {
                let status = self.child.wait().await;
                Err(self.ended(
                    status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                ))
            }
            Ok(Err(error)) => Err(self.ended(error.to_string())),
            Err(_) => Err(self.late(&format!("{} says something", self.name), limit)),
        }
    }

    /// Waits until `done`; `what` says what for.
    ///
    /// # Errors
    /// If it ends, or that takes longer than [`PATIENCE`].
    pub(crate) async fn until(
        &mut self,
        what: &str,
        mut done: impl AsyncFnMut() -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while !done().await {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(self.late(what, PATIENCE));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends its standard input and waits until it has ended by itself.
    ///
    /// # Errors
    /// If it fails, or that takes longer than [`PATIENCE`].
    pub(crate) async fn success(&mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(status.to_string())),
            Ok(Err(error)) => Err(self.ended(error.to_string())),
            Err(_) => Err(self.late(&format!("{} ends", self.name), PATIENCE)),
        }
    }

    fn ended(&self, status: String) -> Error {
        Error::Ended {
            program: self.name.clone(),
            status,
            said: self.tail(),
        }
    }

    fn late(&self, what: &str, limit: Duration) -> Error {
        Error::NotInTime {
            what: what.to_owned(),
            limit,
            said: format!("\n{}", self.tail()),
        }
    }

    /// The last lines of what it said.
    fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Child {
    /// Ends it and waits until it has: whoever is started next may want its ports and files.
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        for _ in 0..200 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a process has cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Time on a processor, its own and the kernel's for it.
    pub(crate) cpu: Duration,
    /// Memory that is its own and there, in KiB.
    pub(crate) rss_kib: u64,
}

impl Usage {
    /// From `/proc/PID/stat` and `/proc/PID/status` (proc(5)).
    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The command's name may hold spaces and parentheses; the fields after it do not.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(Self {
            cpu: Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()),
            rss_kib: rss.split_whitespace().next()?.parse().ok()?,
        })
    }
}

/// Runs a short program to its end and gives what it printed.
///
/// # Errors
/// If it cannot run or fails.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output();
    let program = || format!("{command:?}");
    let output = output.map_err(|source| Error::Program {
        program: program(),
        source,
    })?;
    if !output.status.success() {
        return Err(Error::Ended {
            program: program(),
            status: output.status.to_string(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_moves_no_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        let usage = Usage::parse(stat, "VmHWM:\t9 kB\nVmRSS:\t  2048 kB\n").unwrap();
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(usage.cpu, Duration::from_millis(200_000 / ticks));
        assert_eq!(usage.rss_kib, 2048);
        // A process that has ended has no memory.
        assert_eq!(Usage::parse(stat, "State:\tZ\n"), None);
    }
}
