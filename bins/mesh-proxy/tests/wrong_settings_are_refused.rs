//! A wrong file, variable or flag is refused with what is wrong, where, and what would be right; flags go over variables
//! over the file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::process::{Command, Output};

use mesh_proxy::config::Config;

const GOOD: &str = r#"
identity.name = "web.default.serviceaccount.identity.linkerd.cluster.local"
identity.trust_anchors_file = "anchors.pem"
identity.token_file = "token"
control.address = "127.0.0.1:8086"
"#;

fn refused(lines: &str) -> String {
    Config::from_toml(&format!("{GOOD}{lines}"))
        .unwrap_err()
        .to_string()
}

#[test]
fn each_mistake_is_named_with_its_place() {
    for (lines, said) in [
        (
            "limits.wrokers = 1",
            vec!["line 6", "column 8", "wrokers", "workers"],
        ),
        ("limit.workers = 1", vec!["line 6", "limit", "limits"]),
        (
            "limits.workers = \"two\"",
            vec!["line 6", "column 18", "whole number", "two"],
        ),
        (
            "limits.drain_timeout = 30",
            vec!["line 6", "column 24", "expected a string", "30"],
        ),
        (
            "limits.drain_timeout = \"30\"",
            vec!["line 6", "500ms, 10s or 5m"],
        ),
        (
            "limits.drain_timeout = \"5m\"",
            vec!["limits.drain_timeout", "at most 120s"],
        ),
        (
            "limits.max_header_bytes = 10",
            vec!["limits.max_header_bytes", "10"],
        ),
        (
            "control.backoff_min = \"1m\"",
            vec!["control.backoff_max", "at least control.backoff_min"],
        ),
        (
            "inbound.default_policy = \"open\"",
            vec!["line 6", "all-authenticated", "open"],
        ),
        (
            "inbound.networks = [\"10/8\"]",
            vec!["line 6", "10.0.0.0/8", "10/8"],
        ),
        (
            "inbound.ports = [{ listen = \"127.0.0.1:1\" }]",
            vec!["line 6", "app is missing"],
        ),
        (
            "outbound.services = [{ listen = \"127.0.0.1:1\", authority = \"web\" }]",
            vec!["line 6", "with a port"],
        ),
        (
            "admin.listen = \"localhost\"",
            vec!["line 6", "127.0.0.1:4191"],
        ),
        (
            "outbound.listen = \"127.0.0.1:4140\"\noutbound.http_proxy = \"127.0.0.1:4140\"",
            vec!["outbound.listen", "outbound.http_proxy", "127.0.0.1:4140"],
        ),
        ("identity.trust_anchors = \"x\"", vec!["line 6", "PEM"]),
    ] {
        let message = refused(lines);
        for part in said {
            assert!(
                message.contains(part),
                "{lines}: {part:?} is not in: {message}"
            );
        }
    }
}

#[test]
fn what_must_be_given_is_asked_for() {
    for (line, key) in [
        (1, "identity.name"),
        (2, "identity.trust_anchors_file"),
        (3, "identity.token_file"),
        (4, "control.address"),
    ] {
        let text: Vec<_> = GOOD
            .lines()
            .enumerate()
            .filter(|(n, _)| *n != line)
            .map(|(_, text)| text)
            .collect();
        let message = Config::from_toml(&text.join("\n")).unwrap_err().to_string();
        assert!(message.contains(key), "{key}: {message}");
    }
    let remote = GOOD.replace("127.0.0.1:8086", "10.0.0.1:8086");
    let message = Config::from_toml(&remote).unwrap_err().to_string();
    assert!(
        message.contains("control.name") && message.contains("loopback"),
        "{message}"
    );
    assert!(Config::from_toml(&format!("{remote}control.name = \"controller.mesh\"")).is_ok());
}

#[test]
fn a_good_file_is_read_whole() {
    let config = Config::from_toml(&format!(
        r#"{GOOD}
        [inbound]
        ports = [{{ listen = "127.77.0.2:14143", app = "127.77.0.2:8080" }}]
        [outbound]
        services = [{{ listen = "127.77.0.2:15001", authority = "Web.default:80" }}]
        [admin]
        listen = "127.77.0.2:4191"
        "#
    ))
    .unwrap();
    assert_eq!(config.inbound.ports[0].app.port(), 8080);
    assert_eq!(config.outbound.services[0].authority, "web.default:80");
    assert_eq!(config.limits.drain_timeout.as_secs(), 30);
    let json = config.to_json();
    assert_eq!(json["admin"]["listen"], "127.77.0.2:4191");
    assert_eq!(
        json["outbound"]["services"][0]["authority"],
        "web.default:80"
    );
    assert_eq!(json["limits"]["header_read_timeout"], "30s");
}

fn check(file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut toml = tempfile::NamedTempFile::new().unwrap();
    toml.write_all(file.as_bytes()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(["--check", "--config"])
        .arg(toml.path())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn flags_go_over_variables_over_the_file() {
    let bad_file = format!("{GOOD}limits.drain_timeout = \"10m\"");
    assert_eq!(check(GOOD, &[], &[]).status.code(), Some(0));
    assert_eq!(check(&bad_file, &[], &[]).status.code(), Some(2));
    let good = ("MESH_PROXY_LIMITS_DRAIN_TIMEOUT", "10s");
    let bad = ("MESH_PROXY_LIMITS_DRAIN_TIMEOUT", "20m");
    assert_eq!(check(&bad_file, &[], &[good]).status.code(), Some(0));
    assert_eq!(check(GOOD, &[], &[bad]).status.code(), Some(2));
    assert_eq!(
        check(&bad_file, &["--limits-drain-timeout", "10s"], &[bad])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        check(GOOD, &["--limits-drain-timeout", "30m"], &[good])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        check(GOOD, &["--limits-drain", "1s"], &[]).status.code(),
        Some(2)
    );
}

#[test]
fn help_names_every_key() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for default in [
        "Default: 127.0.0.1:4191",
        "Default: all-authenticated",
        "Default: 30s",
        "Default: 10000",
    ] {
        assert!(help.contains(default), "{default}");
    }
    let json = Config::from_toml(GOOD).unwrap().to_json();
    for (table, keys) in json.as_object().unwrap() {
        for key in keys.as_object().unwrap().keys() {
            let flag = format!("--{table}-{}", key.replace('_', "-"));
            let variable = format!("MESH_PROXY_{}_{}", table.to_uppercase(), key.to_uppercase());
            assert!(help.contains(&format!("{flag} ")), "{flag}");
            assert!(help.contains(&variable), "{variable}");
        }
    }
}
