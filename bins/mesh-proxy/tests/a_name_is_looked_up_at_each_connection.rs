//! A controller that is given by name is looked up whenever it is connected to, and each of its addresses is tried.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(target_os = "linux")]

mod controller;
mod process;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use controller::DEADLINE;
use process::{NAME, authority, free_address};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tells of each connection to `listener`, and breaks it.
fn connections(listener: TcpListener) -> Receiver<()> {
    let (tell, told) = channel();
    std::thread::spawn(move || while listener.accept().is_ok() && tell.send(()).is_ok() {});
    told
}

/// Whether the file of names can be another one for a process alone.
fn can_replace_names() -> bool {
    let unshare = Command::new("unshare").args(["--mount", "true"]).status();
    unshare.is_ok_and(|status| status.success())
}

#[test]
fn and_each_of_its_addresses_is_tried() {
    if !can_replace_names() {
        assert!(
            std::env::var_os("MESH_TEST_REQUIRE").is_none(),
            "needs root and unshare"
        );
        eprintln!("SKIPPED: needs root and unshare");
        return;
    }
    let first = TcpListener::bind("127.8.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.8.0.2", port)).unwrap();
    let (first, second) = (connections(first), connections(second));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    // At two of the three nobody listens.
    let hosts = ["127.8.0.8", "127.8.0.9", "127.8.0.1"]
        .map(|address| format!("{address} controller.mesh.test\n"))
        .concat();
    let hosts = file("hosts", &hosts);
    let with_names = [
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
    ];
    let _proxy = Running(
        Command::new("unshare")
            .args(with_names)
            .args([&hosts, env!("CARGO_BIN_EXE_mesh-proxy")])
            .args(["--identity-name", NAME])
            .arg(format!(
                "--identity-trust-anchors={}",
                authority().anchor_pem()
            ))
            .args(["--identity-token-file", &file("token", "token")])
            .args(["--control-address", &format!("controller.mesh.test:{port}")])
            .args(["--control-name", "controller.mesh"])
            .args(["--control-backoff-max", "200ms"])
            .args(["--admin-listen", &free_address().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    for _ in 0..2 {
        first.recv_timeout(DEADLINE).unwrap();
    }
    assert!(second.try_recv().is_err());

    file("hosts", "127.8.0.2 controller.mesh.test\n");
    second.recv_timeout(DEADLINE).unwrap();
}
