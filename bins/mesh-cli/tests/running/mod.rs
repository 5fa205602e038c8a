//! A mesh of real processes that a test runs.
//!
//! Needs `mesh-controller` and `mesh-proxy` beside `mesh`: `cargo build -p mesh-controller -p mesh-proxy`. Without them
//! the tests say so and are skipped; with `MESH_TEST_REQUIRE=1` they fail.

// Each test file uses what it needs.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub const MESH: &str = env!("CARGO_BIN_EXE_mesh");

/// A whole mesh at a time: they would only slow each other down.
static ONE: Mutex<()> = Mutex::new(());

/// This test's turn, unless it cannot be run here.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    let folder = Path::new(MESH).parent().unwrap();
    for program in ["mesh-controller", "mesh-proxy"] {
        if !folder.join(program).is_file() {
            let required = std::env::var_os("MESH_TEST_REQUIRE").is_some_and(|value| value == "1");
            assert!(!required, "{program} is not built");
            eprintln!("SKIPPED: {program} is not built; run cargo build -p {program}");
            return None;
        }
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The quickstart's manifests on addresses of the test's own, 127.77.`net`.*.
pub fn manifests(net: u8) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    for name in ["mesh.yaml", "web.yaml", "greeter.yaml", "echo.yaml"] {
        let text = std::fs::read_to_string(quickstart.join(name)).unwrap();
        std::fs::write(
            folder.path().join(name),
            text.replace("127.77.0.", &format!("127.77.{net}.")),
        )
        .unwrap();
    }
    folder
}

pub fn mesh(arguments: &[&str]) -> Command {
    let mut command = Command::new(MESH);
    command
        .args(arguments)
        .env_remove("MESH_BIN_DIR")
        .stdin(Stdio::null());
    command
}

/// A `mesh up` that goes on; killed when dropped.
pub struct Up {
    pub child: Child,
    lines: Receiver<String>,
    pub seen: Vec<String>,
}

impl Up {
    pub fn start(arguments: &[&str]) -> Self {
        Self::run(mesh(arguments))
    }

    pub fn run(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text:?} in\n{}", self.seen.join("\n"));
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until nothing listens where the mesh of `net` did, and no process has `data` on its command line.
pub fn nothing_left(net: u8, data: &Path) {
    let deadline = Instant::now() + Duration::from_secs(15);
    let addresses: Vec<_> = [(2, 8080), (2, 14143), (2, 15000), (4, 9000), (5, 7000)]
        .map(|(host, port)| (std::net::Ipv4Addr::new(127, 77, net, host), port))
        .into();
    loop {
        let taken: Vec<_> = addresses
            .iter()
            .filter(|address| TcpListener::bind(*address).is_err())
            .collect();
        let alive = processes_with(data);
        if taken.is_empty() && alive.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "still there: {taken:?} {alive:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn processes_with(data: &Path) -> Vec<String> {
    let data = data.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command_line =
        |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).ok();
    processes
        .filter_map(command_line)
        .filter(|line| line.contains(data))
        .map(|line| line.replace('\0', " "))
        .collect()
}

pub fn get(address: impl std::net::ToSocketAddrs, target: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let host = "web.default.svc.cluster.local";
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
