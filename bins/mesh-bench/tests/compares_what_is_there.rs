//! The comparison runs to its end with the peers that there are, says who is missing, and leaves nothing behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Requirement, built, require};
use rustix::process::{Pid, Signal, kill_process};

const NEEDS: [Requirement; 5] = [
    Requirement::Built("mesh-proxy"),
    Requirement::Built("mesh-controller"),
    Requirement::Built("mesh"),
    Requirement::Program("haproxy"),
    Requirement::Program("taskset"),
];

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-bench"));
    command.args(["compare", "--seconds", "0.3", "--rounds", "1", "--quick"]);
    let proxy = built("mesh-proxy");
    let programs = proxy.parent().expect("a program is in a folder");
    command.arg("--programs").arg(programs);
    command.arg("--mesh-proxy").arg(&proxy);
    command
}

/// The namespaces of the process.
fn namespaces(process: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("mesh-bench-{process}-")))
        .collect()
}

#[test]
fn to_the_end() {
    if !require(&NEEDS) {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = bench();
    command.args(["--peers", "none,mesh,haproxy,floor"]);
    command.args(["--only", "http1,unary,latency,connections"]);
    let child = command
        .arg("--out")
        .arg(out.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let output = child.wait_with_output().unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("skipped: floor is not there"), "{errors}");
    assert!(
        said.contains("| no proxy | mesh-proxy | HAProxy |"),
        "{said}"
    );
    assert!(
        said.contains("CPU per HTTP/1 request, of HAProxy's"),
        "{said}"
    );
    let tables = std::fs::read_to_string(out.path().join("compare.md")).unwrap();
    assert_eq!(said.trim_end(), tables.trim_end());
    let json = std::fs::read(out.path().join("compare.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for figure in json["figures"].as_array().unwrap() {
        let rounds = figure["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 1, "{figure}");
    }
    assert_eq!(namespaces(process), [""; 0]);
}

#[test]
fn until_it_is_interrupted() {
    if !require(&NEEDS) {
        return;
    }
    let mut child = bench()
        .args(["--peers", "none,mesh,haproxy"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let deadline = Instant::now() + Duration::from_secs(30);
    while namespaces(process).len() < 2 {
        assert!(Instant::now() < deadline, "no namespaces");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    // In the middle of starting: programs run that it has to end.
    let pid = Pid::from_raw(process.cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("interrupted"), "{errors}");
    assert_eq!(namespaces(process), [""; 0]);
}
