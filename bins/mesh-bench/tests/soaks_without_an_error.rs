//! A short soak passes: mixed load, endpoints that come and go, leaves that are renewed; no error. Of memory it says nothing.

use std::process::Command;

use e2e::{Requirement, built, require};

#[test]
fn for_a_moment() {
    let needs = [
        Requirement::Built("mesh-proxy"),
        Requirement::Built("mesh-controller"),
        Requirement::Built("mesh"),
        Requirement::Program("curl"),
    ];
    if !require(&needs) {
        return;
    }
    let proxy = built("mesh-proxy");
    let programs = proxy.parent().expect("a program is in a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-bench"))
        .args(["soak", "--seconds", "20", "--mesh-proxy"])
        .arg(&proxy)
        .arg("--programs")
        .arg(programs)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("\nPassed.\n"), "{said}");
}
