//! The program itself, run beside the test.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its own part of it"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use mesh_tls::ca::{Anchor, Authority};

use crate::controller::{DEADLINE, soon};

pub const NAME: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";
pub const HOUR: Duration = Duration::from_secs(3600);

/// A running proxy, killed when the test ends.
#[derive(Debug)]
pub struct Proxy {
    pub process: Child,
    pub admin: SocketAddr,
    pub folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts it with flags.
    pub fn start(controller: SocketAddr, anchors: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).display().to_string()
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
        command
            .args(["--identity-name", NAME])
            .args([
                "--identity-trust-anchors-file",
                &file("anchors.pem", anchors),
            ])
            .args(["--identity-token-file", &file("token", "the-secret-token")])
            .args(["--control-address", &controller.to_string()])
            .args(["--limits-workers", "2"])
            .args(more);
        let admin = free_address();
        command.args(["--admin-listen", &admin.to_string()]);
        Self::spawn(command.env_clear(), admin, folder)
    }

    /// Starts it with the variables of linkerd2-proxy, without their prefix, and nothing else.
    pub fn stand_in(variables: &[(&str, &str)], folder: tempfile::TempDir) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
        let admin = free_address();
        command.env_clear();
        for (name, value) in variables {
            command.env(format!("LINKERD2_PROXY_{name}"), value);
        }
        command.env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", admin.to_string());
        Self::spawn(&mut command, admin, folder)
    }

    fn spawn(command: &mut Command, admin: SocketAddr, folder: tempfile::TempDir) -> Self {
        Self {
            process: command.stderr(Stdio::piped()).spawn().unwrap(),
            admin,
            folder,
        }
    }

    /// Status and body of a GET; `None` while nobody listens.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        exchange(
            self.admin,
            &format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"),
        )
    }

    /// Asks until the answer is so.
    pub async fn until(&self, path: &str, so: impl Fn(u16, &str) -> bool) -> String {
        soon(path, async {
            loop {
                if let Some((status, body)) = self.get(path)
                    && so(status, &body)
                {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

pub fn exchange(address: SocketAddr, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub fn authority() -> Authority {
    let now = SystemTime::now();
    let anchor = Anchor::generate("test", 24 * HOUR, now).unwrap();
    let issuer = anchor.issuer("issuer", 24 * HOUR, now).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

pub fn issue(authority: &Authority, request: &CertifyRequest) -> CertifyResponse {
    let identity = request.identity.parse().unwrap();
    let csr = &request.certificate_signing_request;
    let leaf = authority
        .issue(csr, &identity, HOUR, SystemTime::now())
        .unwrap();
    CertifyResponse {
        leaf_certificate: leaf.leaf().to_vec(),
        intermediate_certificates: leaf
            .intermediates()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        valid_until: None,
    }
}
