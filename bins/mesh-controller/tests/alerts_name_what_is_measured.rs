//! The alert rules of docs/alerts are right, and what they name is what a controller says of itself.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use support::Controller;

fn alerts(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/alerts")
        .join(name)
}

/// None where promtool is not installed: the test is skipped, and says so.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    let command = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        let why = "promtool is not installed (scripts/setup-tests)";
        assert!(std::env::var_os("MESH_TEST_REQUIRE").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Some(child.wait_with_output().unwrap())
}

fn assert_right(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
}

#[test]
fn rules_fire_when_they_should_and_only_then() {
    let (rules, tests) = (alerts("trust.yaml"), alerts("trust-test.yaml"));
    let Some(checked) = promtool(&["check", "rules", rules.to_str().unwrap()], "") else {
        return;
    };
    assert_right(&checked);
    assert_right(&promtool(&["test", "rules", tests.to_str().unwrap()], "").unwrap());
}

#[tokio::test]
async fn every_metric_that_is_named_is_there() {
    let controller = Controller::start(&[], &[]).await;
    let (status, metrics) = controller.get("/metrics").await;
    assert_eq!(status, 200);
    let metrics = metrics.replace("{}", "");
    let rules = std::fs::read_to_string(alerts("trust.yaml")).unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<&str> = words
        .filter(|word| word.starts_with("controller_"))
        .collect();
    assert!(named.len() >= 8, "{named:?}");
    for name in named {
        assert!(
            metrics.contains(&format!("# TYPE {name} gauge")),
            "{name}: {metrics}"
        );
    }
    for line in [
        "controller_trust_leads 1",
        "controller_trust_phase{phase=\"idle\"} 1",
        "controller_trust_consumers{ready=\"true\"} 1",
        "controller_trust_generation 1",
        "controller_trust_consumers_by_generation{class=\"control_plane\",generation=\"1\"} 1",
        "controller_trust_quarantined 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Ten years and one, by default.
    let value = |family: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(family))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let issuer = value("controller_trust_issuer_expiry_timestamp_seconds{");
    let anchor = value("controller_trust_anchor_expiry_timestamp_seconds{");
    let days = (anchor - issuer) / 86_400.0;
    assert!(
        (9.0 * 365.0 - 1.0..9.0 * 365.0 + 1.0).contains(&days),
        "{days}"
    );
    let next = value("controller_trust_next_change_timestamp_seconds");
    assert!(next < issuer, "the issuer is renewed before it ends");
    if let Some(checked) = promtool(&["check", "metrics"], &metrics) {
        let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
        let ours = complaints
            .lines()
            .filter(|line| line.contains("controller_trust"));
        assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
    }
}
