//! A program on a host: started as a user of its own, its output kept, ended when dropped.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The user that applications and clients run as; a redirect catches what it sends.
pub const APP_USER: u32 = 2000;
/// The user that proxies run as; a redirect lets what it sends pass.
pub const PROXY_USER: u32 = 2140;
/// How long [`Process`] waits for something to become true before it gives up: generous, because the machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

const LINES_KEPT: usize = 2_000;
const LINE_BYTES_KEPT: usize = 8 * 1024;
const POLL: Duration = Duration::from_millis(10);

/// A program that is about to run on a host. Made by [`Host::spawn`](crate::Host::spawn).
#[derive(Debug)]
pub struct Spawn {
    namespace: String,
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    user: u32,
}

impl Spawn {
    pub(crate) fn new(namespace: &str, role: &str, program: &Path) -> Self {
        let file = program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy();
        Self {
            namespace: namespace.to_owned(),
            name: format!("{file}@{role}"),
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            user: APP_USER,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Lives by that clock, if there is one.
    #[must_use]
    pub(crate) fn by(mut self, clock: Option<&Clock>) -> Self {
        for (name, value) in clock.map(Clock::environment).into_iter().flatten() {
            self = self.env(name, value);
        }
        self
    }

    /// The working folder; the test's own if not set.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// The user and group id it runs as; [`APP_USER`] if not set. Any user reads and writes every file all the same
    /// (`CAP_DAC_OVERRIDE`), so that a checkout only root can enter still works.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// Starts it. It is killed with the thread that started it, so start what must live on from the test's own thread.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(self) -> Process {
        // Both `ip netns exec` and `setpriv` replace themselves, so the child's id is the program's.
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.namespace,
            "setpriv",
            "--pdeathsig",
            "KILL",
        ]);
        if self.user != 0 {
            let capabilities = "+dac_override,+dac_read_search";
            let user = self.user.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            keep(&output, stdout, true);
        }
        if let Some(stderr) = child.stderr.take() {
            keep(&output, stderr, false);
        }
        Process {
            child,
            name: self.name,
            output,
            status: None,
        }
    }
}

/// A running program. Dropped, it is killed; if the test is failing then, its last output goes to standard error.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    output: Arc<Output>,
    status: Option<ExitStatus>,
}

impl Process {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program's host listens on `port` on any address, and gives up after [`PATIENCE`].
    ///
    /// # Panics
    /// If nothing listens in time, or the program ends first.
    pub fn wait_listening(&mut self, port: u16) {
        self.wait_until(&format!("port {port} is listened on"), |process| {
            process.listens(port)
        });
    }

    /// Waits until a line of its output contains `part`, and gives that line.
    ///
    /// # Panics
    /// If there is none in time, or the program ends without.
    pub fn wait_line(&mut self, part: &str) -> String {
        let mut found = None;
        self.wait_until(&format!("it prints {part:?}"), |process| {
            found = process
                .output
                .lines()
                .iter()
                .find(|line| line.text.contains(part))
                .map(|line| line.text.clone());
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// Waits until `done` answers yes, looking again every few milliseconds; `what` names it in the message.
    ///
    /// # Panics
    /// If it does not in time, or the program ends first.
    pub fn wait_until(&mut self, what: &str, done: impl FnMut(&mut Self) -> bool) {
        self.wait_within(PATIENCE, what, done);
    }

    /// As [`Process::wait_until`], with another limit than [`PATIENCE`].
    ///
    /// # Panics
    /// As [`Process::wait_until`].
    pub fn wait_within(
        &mut self,
        limit: Duration,
        what: &str,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            if let Some(status) = self.ended() {
                // What it printed at the very end may be what is waited for.
                self.output.wait_closed();
                if done(self) {
                    return;
                }
                panic!(
                    "{} ended ({status}) before {what}\n{}",
                    self.name,
                    self.tail()
                );
            }
            assert!(
                Instant::now() < deadline,
                "{}: not in {limit:?}: {what}\n{}",
                self.name,
                self.tail()
            );
            std::thread::sleep(POLL);
        }
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for its end, at most `limit`.
    ///
    /// # Panics
    /// If it still runs then.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                self.output.wait_closed();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} still runs after {limit:?}\n{}",
                self.name,
                self.tail()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end, at most [`PATIENCE`], and gives what it printed on standard output.
    ///
    /// # Panics
    /// If it still runs then, or ends with anything but success.
    pub fn success(&mut self) -> String {
        let status = self.wait(PATIENCE);
        assert!(status.success(), "{}: {status}\n{}", self.name, self.tail());
        self.stdout()
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }

    /// Sends a signal by its name, such as `INT`. Nothing happens if the program has ended.
    pub fn signal(&mut self, name: &str) {
        if self.ended().is_none() {
            let _ = Command::new("kill")
                .args([&format!("-{name}"), &self.id().to_string()])
                .output();
        }
    }

    /// What is kept of its standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        let mut text = String::new();
        for line in self.output.lines().iter().filter(|line| line.stdout) {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }

    /// The lines of all its output that are kept and contain `part`.
    #[must_use]
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        let lines = self.output.lines();
        let found = lines.iter().filter(|line| line.text.contains(part));
        found.map(|line| line.text.clone()).collect()
    }

    /// The last line of its standard output, if there is one.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        self.output
            .lines()
            .iter()
            .rev()
            .find(|line| line.stdout)
            .map(|line| line.text.clone())
    }

    /// The last lines of all its output, for a message.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.output.lines();
        let mut text = format!("--- last output of {}\n", self.name);
        for line in lines.iter().skip(lines.len().saturating_sub(60)) {
            let _ = writeln!(text, "    {}", line.text);
        }
        text
    }

    /// Whether the program's namespace has a listening TCP socket on `port`, as `/proc/PID/net/tcp` shows it.
    fn listens(&self, port: u16) -> bool {
        let wanted = format!(":{port:04X}");
        ["tcp", "tcp6"].iter().any(|table| {
            let table = std::fs::read_to_string(format!("/proc/{}/net/{table}", self.id()))
                .unwrap_or_default();
            table.lines().skip(1).any(|line| {
                let mut columns = line.split_whitespace().skip(1);
                let local = columns.next().unwrap_or_default();
                let state = columns.nth(1).unwrap_or_default();
                local.ends_with(&wanted) && state == "0A"
            })
        })
    }
}

impl Drop for Process {
    #[allow(
        clippy::print_stderr,
        reason = "a failing test shows what its programs said"
    )]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

#[derive(Debug)]
struct Line {
    text: String,
    stdout: bool,
}

/// The last lines a program printed, bounded.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<VecDeque<Line>>,
    open: Mutex<usize>,
    closed: Condvar,
}

impl Output {
    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Line) {
        let mut lines = self.lines();
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn opened(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.closed.notify_all();
    }

    /// Waits until both pipes are at their end, briefly: a grandchild may hold them open.
    fn wait_closed(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let _unused = self
            .closed
            .wait_timeout_while(open, Duration::from_secs(2), |open| *open > 0);
    }
}

fn keep(output: &Arc<Output>, pipe: impl Read + Send + 'static, stdout: bool) {
    output.opened();
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_KEPT)]);
            output.push(Line {
                text: text.trim_end().to_owned(),
                stdout,
            });
            line.clear();
        }
        output.close();
    });
}
