//! Tests in a network namespace of their own, in which they may redirect and drop what they like.

use std::process::{Command, Stdio};

use crate::programs::found;

const WITHIN: &str = "CORNERS_WITHIN_NAMESPACE";

/// Runs the test of this name in a namespace of its own, where it comes here once more and does `within`. Without root or
/// the programs it takes, it says SKIPPED.
#[allow(clippy::print_stdout, reason = "for who reads the test's output")]
pub fn alone(test: &str, within: impl Future<Output = ()>) {
    if std::env::var_os(WITHIN).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(within);
    }
    if !found(&["unshare", "nft", "ip"]) {
        return;
    }
    let user = Command::new("id").arg("-u").output().unwrap();
    if user.stdout != b"0\n" {
        let strict = std::env::var("MESH_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(!strict, "needs root");
        println!("SKIPPED: needs root");
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(WITHIN, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test} in a namespace");
}

/// Runs a program that has to succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
