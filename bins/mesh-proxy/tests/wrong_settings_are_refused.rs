//! A wrong file, variable or flag is refused with what is wrong, where, and what would be right; flags go over variables
//! over the file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::process::{Command, Output};

use mesh_proxy::config::{Config, Issuer};

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
            "inbound.keepalive = \"32768s\"",
            vec!["inbound.keepalive", "32768s", "1s to 32767s"],
        ),
        (
            "inbound.connect_keepalive = \"10h\"",
            vec!["inbound.connect_keepalive", "1s to 32767s"],
        ),
        (
            "outbound.keepalive = \"500ms\"",
            vec!["outbound.keepalive", "1s to 32767s"],
        ),
        (
            "outbound.connect_keepalive = \"32768s\"",
            vec!["outbound.connect_keepalive", "1s to 32767s"],
        ),
        (
            "inbound.user_timeout = \"2147484s\"",
            vec!["inbound.user_timeout", "1s to 2147483s"],
        ),
        (
            "outbound.connect_user_timeout = \"25d\"",
            vec!["outbound.connect_user_timeout", "1s to 2147483s"],
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
fn the_variables_of_linkerd2_proxy_go_between() {
    let (stock, own) = (
        "LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT",
        "MESH_PROXY_INBOUND_DETECT_TIMEOUT",
    );
    let bad_file = format!("{GOOD}inbound.detect_timeout = \"0s\"");
    let code = |file: &str, variables: &[(&str, &str)]| check(file, &[], variables).status.code();
    assert_eq!(code(&bad_file, &[]), Some(2));
    assert_eq!(code(&bad_file, &[(stock, "1s")]), Some(0));
    assert_eq!(code(GOOD, &[(stock, "0")]), Some(2));
    assert_eq!(code(GOOD, &[(stock, "0"), (own, "1s")]), Some(0));
    assert_eq!(code(GOOD, &[(stock, "1s"), (own, "0s")]), Some(2));
    let wrong = check(GOOD, &[], &[(stock, "soon")]);
    assert_eq!(wrong.status.code(), Some(2));
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        message.contains(stock) && message.contains("\"soon\""),
        "{message}"
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (lines, said) in [
        (
            "identity.workload_api = \"/run/agent.sock\"",
            vec!["identity.workload_api", "neither identity.token_file"],
        ),
        (
            "identity.refresh_min = \"2h\"\nidentity.refresh_max = \"1h\"",
            vec!["identity.refresh_max", "at least"],
        ),
        (
            "identity.server_name = \"spiffe://mesh.example/web\"",
            vec!["identity.server_name", "DNS name"],
        ),
        (
            "control.policy_address = \"policy.example:8090\"",
            vec!["control.policy_name", "policy.example:8090"],
        ),
        (
            "inbound.watch_ports = [\"1000-1498\", 80, 81]",
            vec![
                "inbound.watch_ports",
                "501 ports",
                "half of control.max_ports",
            ],
        ),
        (
            "control.policy_name = \"a b\"",
            vec!["control.policy_name", "DNS name"],
        ),
    ] {
        let message = refused(lines);
        for part in said {
            assert!(
                message.contains(part),
                "{lines}: {part:?} is not in: {message}"
            );
        }
    }
    let spiffe = "identity.name = \"web.example\"\nidentity.trust_anchors_file = \"a\"\nidentity.workload_api = \"/run/a\"\ncontrol.address = \"127.0.0.1:1\"";
    let message = Config::from_toml(spiffe).unwrap_err().to_string();
    assert!(message.contains("SPIFFE URI"), "{message}");
    let spiffe = spiffe.replace("web.example", "spiffe://mesh.example/web");
    let config = Config::from_toml(&spiffe).unwrap();
    assert!(matches!(config.issuer, Issuer::WorkloadApi(_)));

    // All TLS that is redirected would be taken for the mesh's, the application's own too.
    let redirected = format!("{spiffe}\ninbound.listen = [\"0.0.0.0:4143\"]");
    let message = Config::from_toml(&redirected).unwrap_err().to_string();
    assert!(message.contains("identity.server_name"), "{message}");
    let named = format!("{redirected}\nidentity.server_name = \"web-1.shop\"");
    assert!(Config::from_toml(&named).is_ok());
}

#[test]
fn each_service_may_be_somewhere_else() {
    let config = Config::from_toml(&format!(
        "{GOOD}control.name = \"all.mesh\"\ncontrol.policy_address = \"policy.example.:8090\"\ncontrol.identity_name = \"identity.mesh\""
    ))
    .unwrap();
    let controllers = config.controllers;
    let Issuer::Controller { controller, .. } = config.issuer else {
        panic!("{:?}", config.issuer)
    };
    let shown = |controller: &mesh_proxy::config::Controller| {
        let name = controller.name.as_ref().map(ToString::to_string);
        (controller.address.to_string(), name.unwrap_or_default())
    };
    assert_eq!(
        shown(&controllers.destination),
        ("127.0.0.1:8086".into(), "all.mesh".into())
    );
    assert_eq!(
        shown(&controllers.policy),
        ("policy.example.:8090".into(), "all.mesh".into())
    );
    assert_eq!(
        shown(&controller),
        ("127.0.0.1:8086".into(), "identity.mesh".into())
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
    let tables = json.as_object().unwrap().iter();
    // What another proxy's variables came to is no setting.
    for (table, keys) in tables.filter(|(table, _)| *table != "linkerd2_proxy") {
        for key in keys.as_object().unwrap().keys() {
            let flag = format!("--{table}-{}", key.replace('_', "-"));
            let variable = format!("MESH_PROXY_{}_{}", table.to_uppercase(), key.to_uppercase());
            assert!(help.contains(&format!("{flag} ")), "{flag}");
            assert!(help.contains(&variable), "{variable}");
        }
    }
}
