//! A test run that was killed leaves namespaces behind; the next one removes them, and no one else's.

use std::process::Command;

use e2e::{Network, require};

/// More than the kernel's largest process id, so no process has it.
const NOBODY: u32 = 99_999_999;

#[test]
fn namespaces_of_the_dead_are_removed() {
    if !require(&[]) {
        return;
    }
    let dead = format!("mesh-e2e-{NOBODY}-0-server");
    // Process 1 lives as long as the machine.
    let alive = "mesh-e2e-1-0-server";
    for name in [dead.as_str(), alive] {
        assert!(
            Command::new("ip")
                .args(["netns", "add", name])
                .status()
                .expect("ip runs")
                .success()
        );
    }
    let network = Network::new();
    let left = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .expect("ip runs")
        .stdout;
    let left = String::from_utf8_lossy(&left).into_owned();
    drop(network);
    assert!(
        Command::new("ip")
            .args(["netns", "del", alive])
            .status()
            .expect("ip runs")
            .success()
    );
    assert!(!left.contains(&dead), "{left}");
    assert!(left.contains(alive), "{left}");
}
