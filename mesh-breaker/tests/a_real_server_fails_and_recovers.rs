//! A breaker in front of a real nginx, which answers, then fails, then is gone, then answers again.
//!
//! Says SKIPPED without nginx, or fails where `MESH_TEST_REQUIRE=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use http::{HeaderMap, StatusCode};
use mesh_breaker::layer::{BreakerLayer, Error};
use mesh_breaker::{
    AtHeaders, Classify, ConsecutiveFailures, ExponentialBackoff, FailureKind, HttpClassifier,
    Outcome, State, Transition,
};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
async fn it_is_left_alone_while_it_fails_and_used_as_soon_as_it_is_back() {
    let Some(program) = nginx() else { return };
    let mut server = Server::start(program);
    let address = server.address;
    let transitions = Arc::new(Mutex::new(Vec::new()));
    let seen = transitions.clone();
    let layer = BreakerLayer::new(policy(), outcome)
        .on_transition(move |transition| seen.lock().unwrap().push(transition));
    let service = layer.layer(service_fn(move |()| get(address)));
    let call = || service.clone().oneshot(());
    server.answers().await;

    for _ in 0..5 {
        assert_eq!(call().await.unwrap(), StatusCode::OK);
    }
    let before = server.asked();
    server.fail(true);
    for _ in 0..3 {
        assert_eq!(call().await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(service.state(), State::Open);
    assert!(matches!(call().await, Err(Error::Rejected(_))));
    assert_eq!(server.asked(), before + 3, "what is rejected is not sent");

    // It is gone: the probe finds nobody.
    server.stop();
    let refused = until(|| async { matches!(call().await, Err(Error::Inner(_))) }).await;
    assert!(refused, "a probe was sent");
    assert_eq!(service.state(), State::Open);
    let failed_probes = |transitions: &[Transition]| {
        let reopened = |seen: &&Transition| matches!(seen, Transition::Reopened { .. });
        transitions.iter().filter(reopened).count()
    };
    assert!(failed_probes(&transitions.lock().unwrap()) >= 1);

    server.fail(false);
    server.run();
    server.answers().await;
    let before = server.asked();
    assert!(
        until(|| async { call().await.is_ok() }).await,
        "a probe is answered"
    );
    assert_eq!(service.state(), State::Closed);
    assert_eq!(server.asked(), before + 1, "one probe was enough");
    for _ in 0..5 {
        assert_eq!(call().await.unwrap(), StatusCode::OK);
    }
    let transitions = transitions.lock().unwrap();
    assert!(matches!(
        transitions.first(),
        Some(Transition::Opened { .. })
    ));
    assert_eq!(transitions.last(), Some(&Transition::Closed));
}

/// Three failures open it, for half a second to a second.
fn policy() -> ConsecutiveFailures {
    let half = Duration::from_millis(500);
    let backoff = ExponentialBackoff::new(half, 2 * half, 0.0).unwrap();
    ConsecutiveFailures::new(3, backoff).unwrap()
}

fn outcome(result: &Result<StatusCode, std::io::Error>) -> Outcome {
    let Ok(status) = result else {
        return Outcome::Failure(FailureKind::Connect);
    };
    let fields = HeaderMap::new();
    match HttpClassifier::default().at_headers(*status, &fields, SystemTime::now()) {
        AtHeaders::Decided(outcome) => outcome,
        AtHeaders::AwaitEnd => Outcome::Success,
    }
}

/// The status of one request on a connection of its own.
async fn get(address: SocketAddr) -> Result<StatusCode, std::io::Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = answer
        .get(9..12)
        .and_then(|digits| StatusCode::from_bytes(digits).ok());
    status.ok_or_else(|| std::io::Error::other("no status"))
}

/// Asks again until it is so, for ten seconds.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        if is_so().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

struct Server {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    running: Option<Child>,
}

impl Server {
    fn start(program: PathBuf) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            program,
            folder: tempfile::tempdir().unwrap(),
            address: free.local_addr().unwrap(),
            running: None,
        };
        drop(free);
        let folder = server.folder.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n  access_log {folder}/asked;\n  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n  \
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n  \
             server {{ listen {};\n    location / {{ if (-f {folder}/failing) {{ return 503; }} return 200 ok; }}\n  }}\n}}\n",
            server.address
        );
        fs::write(server.folder.path().join("nginx.conf"), config).unwrap();
        server.run();
        server
    }

    fn run(&mut self) {
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.path().join("nginx.conf"))
            .arg("-p")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(child.unwrap());
    }

    async fn answers(&self) {
        let address = self.address;
        assert!(
            until(|| async move { get(address).await.is_ok() }).await,
            "nginx answers"
        );
    }

    fn fail(&self, fails: bool) {
        let told = self.folder.path().join("failing");
        if fails {
            fs::write(told, "").unwrap();
        } else {
            fs::remove_file(told).unwrap();
        }
    }

    /// How many requests it has seen.
    fn asked(&self) -> usize {
        let log = fs::read_to_string(self.folder.path().join("asked"));
        log.unwrap_or_default().lines().count()
    }

    /// Ends it as an administrator would, workers included.
    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let told = Command::new(&self.program)
                .args(["-s", "stop", "-c"])
                .arg(self.folder.path().join("nginx.conf"))
                .arg("-p")
                .arg(self.folder.path())
                .stderr(Stdio::null())
                .status();
            if !told.is_ok_and(|status| status.success()) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nginx"))
        .find(|path| path.is_file());
    if found.is_none() {
        let strict = std::env::var("MESH_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(!strict, "needs nginx: run scripts/setup-tests");
        println!("SKIPPED: needs nginx: run scripts/setup-tests");
    }
    found
}
