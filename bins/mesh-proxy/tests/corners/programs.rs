//! Programs that are not ours, as servers and clients.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::controller::soon;

/// Whether these programs are there; says so if not. With `MESH_TEST_REQUIRE=1` that is a failure.
#[allow(clippy::print_stdout, reason = "for who reads the test's output")]
pub fn found(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| match program.strip_prefix("python:") {
            Some(module) => !imports(module),
            None => path(program).is_none(),
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    let strict = std::env::var("MESH_TEST_REQUIRE").is_ok_and(|value| value == "1");
    assert!(!strict, "needs {missing:?}: run scripts/setup-tests");
    println!("SKIPPED: needs {missing:?}: run scripts/setup-tests");
    false
}

fn imports(module: &str) -> bool {
    let mut python = Command::new(python());
    python.args(["-c", &format!("import {module}")]);
    python.stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

fn path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// The Python with the modules that `scripts/setup-tests` installs.
pub fn python() -> PathBuf {
    if let Some(chosen) = std::env::var_os("MESH_TEST_PYTHON") {
        return chosen.into();
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or(home);
    match cache.map(|cache| cache.join("mesh-rs/venv/bin/python")) {
        Some(python) if python.is_file() => python,
        _ => "python3".into(),
    }
}

/// A running program, killed when the test ends.
#[derive(Debug)]
pub struct Program {
    child: Child,
    lines: UnboundedReceiver<String>,
    folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(program: impl AsRef<Path>, arguments: &[&str], folder: TempDir) -> Self {
        let mut child = Command::new(program.as_ref())
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (line, lines) = unbounded_channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for said in out.lines().map_while(Result::ok) {
                let _ = line.send(said);
            }
        });
        Self {
            child,
            lines,
            folder,
        }
    }

    /// The next line that it says.
    pub async fn line(&mut self) -> String {
        soon("a line", self.lines.recv()).await.unwrap()
    }

    /// What one of its files holds.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

async fn listening(address: SocketAddr) {
    soon("a listener", async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// An nginx whose `http` block holds this; `ROOT` stands for a folder with `files`.
pub async fn nginx(address: SocketAddr, http: &str, files: &[(&str, &str)]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log stderr error;\nevents {{}}\nhttp {{\n\
         access_log {root}/access; default_type text/plain; client_body_temp_path {root}/body;\n\
         proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi;\n\
         scgi_temp_path {root}/scgi;\n{}\n}}\n",
        http.replace("ROOT", &root.to_string())
    );
    std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let file = format!("{root}/nginx.conf");
    let program = path("nginx").unwrap();
    let nginx = Program::start(program, &["-c", &file, "-e", "stderr"], folder);
    listening(address).await;
    nginx
}

/// A HAProxy with these sections after the defaults.
pub async fn haproxy(address: SocketAddr, sections: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "global\n maxconn 100\ndefaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 2s\n\
         timeout tunnel 10s\n{sections}\n"
    );
    std::fs::write(folder.path().join("haproxy.cfg"), config).unwrap();
    let program = path("haproxy").unwrap();
    let haproxy = Program::start(program, &["-q", "-db", "-f", "haproxy.cfg"], folder);
    listening(address).await;
    haproxy
}

/// Python's own HTTP server, which speaks HTTP/1.0, with these files.
pub async fn python_http(address: SocketAddr, files: &[(&str, &str)]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let arguments = ["-u", "-m", "http.server", "--bind", &ip, &port];
    let server = Program::start(python(), &arguments, folder);
    listening(address).await;
    server
}

/// A Python program that listens on the address it is told.
pub async fn python_module(program: &str, address: SocketAddr) -> Program {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let arguments = ["-u", "-c", program, &ip, &port];
    let server = Program::start(python(), &arguments, tempfile::tempdir().unwrap());
    listening(address).await;
    server
}

/// A Python program of this folder.
pub fn python_file(file: &str, arguments: &[&str]) -> Program {
    let file = format!("{}/tests/corners/{file}", env!("CARGO_MANIFEST_DIR"));
    let all = [&["-u", &file], arguments].concat();
    Program::start(python(), &all, tempfile::tempdir().unwrap())
}

/// What curl saw.
#[derive(Debug)]
pub struct Curled {
    pub status: u16,
    /// Of the last answer, in lower case.
    pub head: String,
    pub body: String,
    /// What of the request's body it sent.
    pub uploaded: u64,
    /// How many connections it made.
    pub connections: u32,
}

/// Runs curl.
pub async fn curl(arguments: &[&str]) -> Curled {
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "15"])
        .args([
            "--write-out",
            "%{http_code} %{size_upload} %{num_connects}\n",
        ])
        .arg("--dump-header")
        .arg(file("head"))
        .args(arguments)
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let urls = arguments
        .iter()
        .filter(|argument| argument.starts_with("http://"));
    for _ in urls {
        curl.arg("--output").arg(file("body"));
    }
    let output = tokio::task::spawn_blocking(move || curl.output().unwrap())
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    let said = String::from_utf8(output.stdout).unwrap();
    let last = said.lines().last().unwrap();
    let numbers: Vec<u64> = last.split(' ').map(|n| n.parse().unwrap()).collect();
    let connections = said
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u32>());
    let mut body = Vec::new();
    if let Ok(mut file) = std::fs::File::open(file("body")) {
        file.read_to_end(&mut body).unwrap();
    }
    let heads = std::fs::read_to_string(file("head")).unwrap();
    let head = heads.trim_end().rsplit("\r\n\r\n").next().unwrap();
    Curled {
        status: u16::try_from(numbers[0]).unwrap(),
        head: head.to_ascii_lowercase(),
        body: String::from_utf8(body).unwrap(),
        uploaded: numbers[1],
        connections: connections.map(Result::unwrap).sum(),
    }
}
