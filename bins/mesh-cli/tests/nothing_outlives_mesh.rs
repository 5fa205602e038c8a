//! Whatever is run under `mesh` ends with it, even when `mesh` has no chance to end it.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn wrapped(script: &str) -> Child {
    use std::os::unix::process::CommandExt;
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["__run", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Waits for the end of a process that is not a child of this one.
fn gone(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let state =
            std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        // Nobody may be there to wait for it: a zombie has ended.
        if state.is_empty()
            || state
                .rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('Z'))
        {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn closing_the_pipe_ends_the_command_and_its_children() {
    // The command ignores SIGTERM, and so does its child.
    let mut child = wrapped("trap '' TERM; sh -c 'sleep 600' & echo $$ $!; wait");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pids: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{line}");
    assert!(Path::new("/proc").join(pids[0]).exists());

    // What the kernel does when `mesh up` is killed.
    drop(child.stdin.take());

    child.wait().unwrap();
    for pid in pids {
        assert!(gone(pid), "{pid} lives on");
    }
}

#[test]
fn a_command_ends_as_it_would_without_mesh() {
    let code = |script| {
        let mut child = wrapped(script);
        // Waiting would close it.
        let _open = child.stdin.take();
        child.wait().unwrap().code()
    };
    assert_eq!(code("exit 0"), Some(0));
    assert_eq!(code("exit 42"), Some(42));
    assert_eq!(code("kill -9 $$"), Some(128 + 9));
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["__run", "--", "/not/there"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("cannot start /not/there: No such file"),
        "{said}"
    );
}
