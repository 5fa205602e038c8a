//! `mesh up` runs a whole mesh of real processes, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod running;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use running::{Up, get, manifests, mesh, nothing_left, processes_with, said, turn};

#[test]
fn every_call_of_every_protocol_succeeds() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(21), tempfile::tempdir().unwrap());
    let (manifests, data) = (folder.path().to_str().unwrap(), data.path().join("mesh"));

    let began = Instant::now();
    let output = mesh(&[
        "up",
        manifests,
        "--data",
        data.to_str().unwrap(),
        "--traffic",
        "--rate",
        "20",
        "--for",
        "4s",
    ])
    .output()
    .unwrap();
    let text = said(&output);

    assert!(output.status.success(), "{text}");
    assert!(began.elapsed() < Duration::from_secs(45), "{text}");
    for (service, protocol) in [("echo", "tcp"), ("greeter", "grpc"), ("web", "http")] {
        let row = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|cells| cells.starts_with(&[service, protocol]))
            .unwrap_or_else(|| panic!("no row for {service} in\n{text}"));
        let [attempts, failures, resets] = [2, 3, 4].map(|cell| row[cell].parse::<u64>().unwrap());
        assert!(attempts >= 20 && failures == 0 && resets == 0, "{text}");
    }
    assert!(
        text.contains("web.default.serviceaccount.identity.linkerd.cluster.local"),
        "{text}"
    );
    // It kept its state, and nothing runs on.
    assert!(data.is_dir());
    nothing_left(21, &data);
}

#[test]
fn changes_are_followed_and_a_check_finds_what_is_wrong() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(22), tempfile::tempdir().unwrap());
    let (manifests, data_path) = (
        folder.path().to_str().unwrap(),
        data.path().to_str().unwrap(),
    );
    let mut up = Up::start(&["up", manifests, "--data", data_path]);
    up.expect("mesh is ready");

    let check = || mesh(&["check", "--data", data_path]).output().unwrap();
    let found = check();
    assert!(found.status.success(), "{}", said(&found));

    let more = folder.path().join("more.yaml");
    let workload = "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
                    metadata: {name: web-3, namespace: default, labels: {app: web}}\nspec:\n  serviceAccount: web\n  \
                    addresses: [127.77.22.9]\n  ports: [{name: http, port: 8080, meshPort: 14143, protocol: http}]\n  \
                    run: {command: [mesh, demo, web]}\n";
    std::fs::write(&more, workload).unwrap();
    up.expect("web-3 is ready");

    // By name, through the proxy of whoever sits at this machine; the table says where it is.
    let call = up
        .seen
        .iter()
        .find_map(|line| line.split("curl http://").nth(1))
        .unwrap()
        .to_owned();
    let client: std::net::SocketAddr = call.split('/').next().unwrap().parse().unwrap();
    let answer = get(
        (client.ip(), 15_000),
        "http://web.default.svc.cluster.local/hello",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("greeter   hello, web-"),
        "{answer}"
    );

    // The command of one workload only.
    std::fs::write(
        &more,
        workload.replace(
            "[mesh, demo, web]",
            "[sh, -c, echo cannot find the shop; exit 3]",
        ),
    )
    .unwrap();
    up.expect("web-3 exited with 3; starting it again");
    up.expect("| cannot find the shop");
    let found = check();
    assert!(!found.status.success());
    assert!(
        said(&found).contains("web-3's proxy does not listen"),
        "{}",
        said(&found)
    );

    std::fs::write(&more, "kind: Nonsense\n").unwrap();
    up.expect("more.yaml:1");
    let found = check();
    assert!(said(&found).contains("more.yaml:1"), "{}", said(&found));

    std::fs::remove_file(&more).unwrap();
    up.expect("web-3 is gone");
    assert!(
        !up.seen.iter().any(|line| line.contains("web-1 is ready")),
        "untouched workloads were started anew"
    );

    let token = [
        "--identity",
        "shop.default.serviceaccount.identity.linkerd.cluster.local",
    ];
    let made = mesh(&["token", "create", "--data", data_path])
        .args(token)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let listed = mesh(&["token", "list", "--data", data_path])
        .output()
        .unwrap();
    let row = said(&listed)
        .lines()
        .find(|line| line.contains(token[1]))
        .unwrap_or_default()
        .to_owned();
    let id = row.split_whitespace().next().unwrap_or_default();
    let revoked = mesh(&["token", "revoke", "--data", data_path, "--", id])
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{}", said(&revoked));
    let listed = mesh(&["token", "list", "--data", data_path])
        .output()
        .unwrap();
    assert!(!said(&listed).contains(token[1]), "{}", said(&listed));

    up.signal("-INT");
    up.expect("stopped");
    assert!(up.child.wait().unwrap().success());
    nothing_left(22, data.path());
}

#[test]
fn nothing_is_left_when_it_is_killed() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(23), tempfile::tempdir().unwrap());
    let mut up = Up::start(&[
        "up",
        folder.path().to_str().unwrap(),
        "--data",
        data.path().to_str().unwrap(),
    ]);
    up.expect("mesh is ready");
    assert!(!processes_with(data.path()).is_empty());

    up.signal("-KILL");

    up.child.wait().unwrap();
    nothing_left(23, data.path());
}

#[test]
fn a_controller_that_is_killed_is_started_again_where_it_was() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(24), tempfile::tempdir().unwrap());
    let mut up = Up::start(&[
        "up",
        folder.path().to_str().unwrap(),
        "--data",
        data.path().to_str().unwrap(),
    ]);
    up.expect("mesh is ready");
    let controller = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(data.path().join("controller.json")).unwrap())
            .unwrap()
    };
    let before = controller();

    let killed = Command::new("kill")
        .args(["-KILL", &before["pid"].to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    up.expect("the controller was killed by signal 9; starting it again");
    up.expect("the controller is ready");

    let after = controller();
    assert_eq!(before["grpc"], after["grpc"]);
    assert_ne!(before["pid"], after["pid"]);
    up.signal("-TERM");
    up.expect("stopped");
    nothing_left(24, data.path());
}

#[test]
fn a_workload_that_fails_is_named_with_what_it_printed_and_fails_the_run() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(26), tempfile::tempdir().unwrap());
    let echo = folder.path().join("echo.yaml");
    let text = std::fs::read_to_string(&echo).unwrap();
    std::fs::write(
        &echo,
        text.replace(
            "[mesh, demo, echo]",
            "[sh, -c, echo no disk left >&2; exit 7]",
        ),
    )
    .unwrap();

    let arguments = [
        "up",
        folder.path().to_str().unwrap(),
        "--data",
        data.path().to_str().unwrap(),
        "--for",
        "60s",
    ];
    let began = Instant::now();
    let output = mesh(&arguments).output().unwrap();

    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("echo-1 exited with 7; starting it again in 250 ms\n    | no disk left"),
        "{text}"
    );
    assert!(text.contains("1 not ready"), "{text}");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "it should not go on for the whole minute"
    );
    nothing_left(26, data.path());
}

#[test]
fn what_cannot_be_run_is_said_in_a_line_before_anything_is_started() {
    let Some(_turn) = turn() else { return };
    let refused = |arguments: &[&str]| {
        let output = mesh(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        String::from_utf8(output.stderr).unwrap()
    };

    assert!(
        refused(&["up", "/not/there"])
            .contains("give a folder of YAML manifests, or none for the quickstart")
    );

    let empty = tempfile::tempdir().unwrap();
    assert!(
        refused(&["up", empty.path().to_str().unwrap()])
            .contains("no Workload in it has a command to run")
    );

    let folder = manifests(25);
    let path = folder.path().to_str().unwrap();
    let taken = TcpListener::bind("127.77.25.4:9000").unwrap();
    let line = refused(&["up", path]);
    assert!(
        line.contains("127.77.25.4:9000 (greeter-1's port grpc) cannot be listened on"),
        "{line}"
    );
    drop(taken);

    std::fs::write(folder.path().join("wrong.yaml"), "kind: Nonsense\n").unwrap();
    let line = refused(&["up", path]);
    assert!(
        line.contains("wrong.yaml:1") && line.contains("nothing was started"),
        "{line}"
    );

    let mut nowhere = mesh(&["up", path]);
    nowhere
        .env("MESH_BIN_DIR", empty.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut line = String::new();
    nowhere
        .spawn()
        .unwrap()
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut line)
        .unwrap();
    assert!(
        line.contains("`mesh-controller` is not in") && line.contains("cargo build --release"),
        "{line}"
    );
}
