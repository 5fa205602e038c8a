use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::*;
use crate::config::Issuer;

const ANCHORS: &str = "-----BEGIN CERTIFICATE-----";

/// What linkerd2-proxy does not start without.
const REQUIRED: &[(&str, &str)] = &[
    ("DESTINATION_SVC_ADDR", "localhost.:8086"),
    ("POLICY_SVC_ADDR", "localhost.:8090"),
    ("POLICY_WORKLOAD", "{\"ns\":\"test\",\"pod\":\"p\"}"),
    ("IDENTITY_SVC_ADDR", "127.0.0.1:8080"),
    (
        "IDENTITY_LOCAL_NAME",
        "web.test.serviceaccount.identity.linkerd.cluster.local",
    ),
    ("IDENTITY_TRUST_ANCHORS", ANCHORS),
    ("IDENTITY_DIR", "/identity"),
    ("IDENTITY_TOKEN_FILE", "/token"),
];

/// The configuration that `REQUIRED` makes with these over it. An empty value unsets.
fn configure(variables: &[(&str, &str)]) -> Result<Config, Error> {
    let overridden = |name: &str| variables.iter().any(|(over, _)| *over == name);
    let kept = REQUIRED.iter().filter(|(name, _)| !overridden(name));
    let all = kept.chain(variables).filter(|(_, value)| *value != UNSET);
    let all = all.map(|(name, value)| (format!("{PREFIX}{name}").into(), value.into()));
    Environment::read(all)?.configure(Layers::default(), Layers::default())
}

const UNSET: &str = "\0";

fn shown(variables: &[(&str, &str)]) -> Json {
    configure(variables).unwrap().to_json()
}

type Variables = &'static [(&'static str, &'static str)];
/// A variable, a value of it, the other variables that it needs, and what it makes of its key.
type Effect = (&'static str, &'static str, Variables, Json);

fn effects() -> Vec<Effect> {
    let far = &[
        ("DESTINATION_SVC_ADDR", "dst.example:1"),
        ("POLICY_SVC_ADDR", "pol.example:1"),
        ("IDENTITY_SVC_ADDR", "id.example:1"),
        ("DESTINATION_SVC_NAME", "a"),
        ("POLICY_SVC_NAME", "b"),
        ("IDENTITY_SVC_NAME", "c"),
    ];
    let by_id = &[
        ("IDENTITY_LOCAL_NAME", UNSET),
        ("IDENTITY_SERVER_ID", "spiffe://mesh.example/web"),
        ("IDENTITY_SERVER_NAME", "web.example"),
    ];
    let no_cores = &[("CORES", "1")];
    vec![
        ("DESTINATION_SVC_NAME", "dst.mesh", far, json!("dst.mesh")),
        ("DESTINATION_SVC_ADDR", "[::1]:1", &[], json!("[::1]:1")),
        (
            "DESTINATION_CONTEXT",
            "{\"ns\":\"test\"}",
            &[],
            json!("{\"ns\":\"test\"}"),
        ),
        (
            "DESTINATION_PROFILE_NETWORKS",
            "10.0.0.0/8,fd00::/8",
            &[],
            json!(["10.0.0.0/8", "fd00::/8"]),
        ),
        ("DESTINATION_PROFILE_SUFFIXES", ".", &[], json!(["."])),
        ("POLICY_SVC_NAME", "pol.mesh", far, json!("pol.mesh")),
        ("POLICY_SVC_ADDR", "127.0.0.9:1", &[], json!("127.0.0.9:1")),
        ("POLICY_WORKLOAD", "ns:pod", &[], json!("ns:pod")),
        (
            "POLICY_CLUSTER_NETWORKS",
            "10.0.0.0/8",
            &[],
            json!(["10.0.0.0/8"]),
        ),
        ("IDENTITY_SVC_NAME", "id.mesh", far, json!("id.mesh")),
        (
            "IDENTITY_SVC_ADDR",
            "localhost.:1",
            &[],
            json!("localhost.:1"),
        ),
        (
            "IDENTITY_SERVER_ID",
            "spiffe://mesh.example/db",
            by_id,
            json!("spiffe://mesh.example/db"),
        ),
        (
            "IDENTITY_SERVER_NAME",
            "db.example",
            by_id,
            json!("db.example"),
        ),
        (
            "IDENTITY_LOCAL_NAME",
            "db.example",
            by_id,
            json!("db.example"),
        ),
        (
            "IDENTITY_TRUST_ANCHORS",
            "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----",
            &[],
            json!("2 certificates"),
        ),
        ("IDENTITY_DIR", "/id", &[], json!("/id")),
        (
            "IDENTITY_TOKEN_FILE",
            "/var/token",
            &[],
            json!("/var/token"),
        ),
        ("IDENTITY_MIN_REFRESH", "20s", &[], json!("20s")),
        ("IDENTITY_MAX_REFRESH", "2d", &[], json!("172800s")),
        (
            "IDENTITY_SPIRE_SOCKET",
            "unix:///run/a",
            by_id,
            json!("/run/a"),
        ),
        (
            "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS",
            "/run/b",
            by_id,
            json!("/run/b"),
        ),
        (
            "INBOUND_LISTEN_ADDR",
            "0.0.0.0:1",
            &[],
            json!(["0.0.0.0:1"]),
        ),
        (
            "INBOUND_IPS",
            "10.0.0.1,fd00::1",
            &[],
            json!(["10.0.0.1", "fd00::1"]),
        ),
        ("INBOUND_PORTS", "80,443-445", &[], json!([80, "443-445"])),
        ("INBOUND_DEFAULT_POLICY", "deny", &[], json!("deny")),
        (
            "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
            "25, 3306",
            &[],
            json!([25, 3306]),
        ),
        ("INBOUND_PORTS_REQUIRE_IDENTITY", "1-2", &[], json!(["1-2"])),
        ("INBOUND_PORTS_REQUIRE_TLS", "3", &[], json!([3])),
        ("INBOUND_DETECT_TIMEOUT", "3s", &[], json!("3s")),
        ("INBOUND_CONNECT_TIMEOUT", "100ms", &[], json!("100ms")),
        (
            "OUTBOUND_LISTEN_ADDR",
            "127.0.0.1:1",
            &[],
            json!(["127.0.0.1:1"]),
        ),
        (
            "OUTBOUND_LISTEN_ADDRS",
            "127.0.0.1:1,[::1]:1",
            &[("OUTBOUND_LISTEN_ADDR", "127.0.0.1:9")],
            json!(["127.0.0.1:1", "[::1]:1"]),
        ),
        ("OUTBOUND_DETECT_TIMEOUT", "4s", &[], json!("4s")),
        ("OUTBOUND_CONNECT_TIMEOUT", "5s", &[], json!("5s")),
        ("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "0", &[], json!("0s")),
        ("INBOUND_ACCEPT_KEEPALIVE", "11s", &[], json!("11s")),
        ("INBOUND_ACCEPT_USER_TIMEOUT", "12s", &[], json!("12s")),
        ("INBOUND_CONNECT_KEEPALIVE", "13000ms", &[], json!("13s")),
        ("INBOUND_CONNECT_USER_TIMEOUT", "14s", &[], json!("14s")),
        ("INBOUND_DISCOVERY_IDLE_TIMEOUT", "15s", &[], json!("15s")),
        ("INBOUND_TCP_LISTEN_BACKLOG", "100000", &[], json!(65_535)),
        ("OUTBOUND_ACCEPT_KEEPALIVE", "11s", &[], json!("11s")),
        ("OUTBOUND_ACCEPT_USER_TIMEOUT", "12s", &[], json!("12s")),
        ("OUTBOUND_CONNECT_KEEPALIVE", "13000ms", &[], json!("13s")),
        ("OUTBOUND_CONNECT_USER_TIMEOUT", "14s", &[], json!("14s")),
        ("OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "15s", &[], json!("15s")),
        ("OUTBOUND_TCP_LISTEN_BACKLOG", "100000", &[], json!(65_535)),
        (
            "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
            "16s",
            &[],
            json!("16s"),
        ),
        (
            "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
            "17s",
            &[],
            json!("17s"),
        ),
        (
            "INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
            "18",
            &[],
            json!(18),
        ),
        (
            "INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS",
            "19",
            &[],
            json!(19),
        ),
        (
            "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL",
            "16s",
            &[],
            json!("16s"),
        ),
        (
            "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT",
            "17s",
            &[],
            json!("17s"),
        ),
        (
            "OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
            "18",
            &[],
            json!(18),
        ),
        (
            "OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS",
            "19",
            &[],
            json!(19),
        ),
        (
            "CONTROL_LISTEN_ADDR",
            "127.0.0.1:4199",
            &[("TAP_SVC_NAME", "tap.example")],
            json!("127.0.0.1:4199"),
        ),
        ("TAP_SVC_NAME", "tap.example", &[], json!(["tap.example"])),
        ("SHUTDOWN_ENDPOINT_ENABLED", "true", &[], json!(true)),
        ("ADMIN_LISTEN_ADDR", "0.0.0.0:1", &[], json!("0.0.0.0:1")),
        ("LOG", "warn,linkerd=debug", &[], json!("warn,mesh=debug")),
        ("LOG_FORMAT", "JSON", &[], json!("json")),
        ("CORES", "2", &[], json!(2)),
        ("CORES_MIN", "2", no_cores, json!(2)),
        ("CORES_MAX", "2", &[], json!(2)),
        ("CORES_MAX_RATIO", "1.0", &[], json!(2)),
        ("SHUTDOWN_GRACE_PERIOD", "10s", &[], json!("10s")),
    ]
}

#[test]
fn each_variable_sets_its_key() {
    let mut untested: BTreeSet<_> = HONOURED.iter().map(|variable| variable.name).collect();
    // Refused rather than taken: see below.
    untested.remove("IDENTITY_DISABLED");
    for (name, value, others, expected) in effects() {
        let variable = HONOURED.iter().find(|variable| variable.name == name);
        let key = variable
            .unwrap_or_else(|| panic!("{name} is not honoured"))
            .key;
        let (table, key) = key.split_once('.').unwrap();
        let others: Vec<_> = others
            .iter()
            .copied()
            .filter(|(other, _)| *other != name)
            .collect();
        let with = [&others[..], &[(name, value)]].concat();
        let without = [&others[..], &[(name, UNSET)]].concat();
        let shown = shown(&with);
        let mut expected = expected;
        if table == "limits" && key == "workers" {
            let cores = std::thread::available_parallelism().unwrap().get();
            expected = json!(if name == "CORES_MAX_RATIO" {
                cores
            } else {
                2.min(cores)
            });
        }
        assert_eq!(shown[table][key], expected, "{name}");
        // Some are required: then it is the lack that is told.
        if let Ok(without) = configure(&without)
            && key != "workers"
        {
            assert_ne!(
                without.to_json()[table][key],
                expected,
                "{name} makes a difference"
            );
        }
        untested.remove(name);
    }
    assert!(untested.is_empty(), "no test for {untested:?}");
}

#[test]
fn the_proxy_it_stands_in_for_has_its_own_defaults() {
    let json = shown(&[]);
    assert_eq!(json["inbound"]["listen"], json!(["0.0.0.0:4143"]));
    assert_eq!(json["outbound"]["listen"], json!(["127.0.0.1:4140"]));
    assert_eq!(json["inbound"]["default_policy"], "all-unauthenticated");
    assert_eq!(json["limits"]["workers"], 1);
    assert_eq!(json["limits"]["drain_timeout"], "120s");
    assert_eq!(json["control"]["profile_networks"], json!([]));
    // Without its variables nothing of that holds, and a single one makes no stand-in.
    let log = [("LINKERD2_PROXY_LOG".into(), "debug".into())];
    let environment = Environment::read(log).unwrap();
    let defaults = format!("{:?}", environment.defaults);
    assert_eq!(defaults, format!("{:?}", Layers::default()));
}

#[test]
fn names_count_away_from_loopback_only() {
    let local = configure(&[
        ("DESTINATION_SVC_NAME", "dst.mesh"),
        ("POLICY_SVC_NAME", "pol.mesh"),
    ])
    .unwrap();
    assert_eq!(local.controllers.destination.name, None);
    assert_eq!(local.controllers.policy.name, None);
    let far = [("POLICY_SVC_ADDR", "pol.example.:8090")];
    let error = configure(&far).unwrap_err().to_string();
    for part in [
        "pol.example.:8090",
        "not a loopback address",
        "LINKERD2_PROXY_POLICY_SVC_NAME",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let named = configure(&[far[0], ("POLICY_SVC_NAME", "pol.mesh")]).unwrap();
    let controllers = named.controllers;
    assert_eq!(controllers.policy.name.unwrap().as_str(), "pol.mesh");
    assert_eq!(controllers.destination.name, None);
}

#[test]
fn requests_are_observed_by_somebody_or_not_at_all() {
    let alone = shown(&[("CONTROL_LISTEN_ADDR", "127.0.0.1:4199")]);
    assert_eq!(alone["tap"]["listen"], Json::Null);
    let by_default = shown(&[("TAP_SVC_NAME", "tap.example")]);
    assert_eq!(by_default["tap"]["listen"], "0.0.0.0:4190");
}

#[test]
fn a_workload_api_goes_over_the_controller() {
    let config = configure(&[
        ("IDENTITY_LOCAL_NAME", UNSET),
        ("IDENTITY_SERVER_ID", "spiffe://mesh.example/web"),
        ("IDENTITY_SERVER_NAME", "web.example"),
        (
            "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS",
            "unix:///run/agent.sock",
        ),
        ("IDENTITY_SVC_ADDR", UNSET),
    ])
    .unwrap();
    assert!(matches!(config.issuer, Issuer::WorkloadApi(_)));
    assert_eq!(config.identity.token_file, None);
    assert!(config.name.is_spiffe());
}

#[test]
fn a_wrong_value_is_shown_with_what_would_be_right() {
    let long = "x".repeat(10_000);
    for (name, value, right) in [
        ("DESTINATION_SVC_ADDR", "nowhere", "controller.example:8086"),
        (
            "INBOUND_LISTEN_ADDR",
            "localhost:4143",
            "IP address with a port",
        ),
        ("INBOUND_DEFAULT_POLICY", "open", "all-unauthenticated"),
        ("INBOUND_DETECT_TIMEOUT", "10", "500ms, 10s or 5m"),
        ("INBOUND_PORTS", "80-79", "9000-9010"),
        ("INBOUND_IPS", "10.0.0.0/8", "10.0.0.1"),
        ("IDENTITY_TRUST_ANCHORS", "", "PEM"),
        ("IDENTITY_TRUST_ANCHORS", &long, "PEM"),
        ("IDENTITY_DISABLED", "true", "has an identity"),
        ("CORES_MAX_RATIO", "2", "up to 1"),
        ("POLICY_CLUSTER_NETWORKS", "10/8", "10.0.0.0/8"),
    ] {
        let error = configure(&[(name, value)]).unwrap_err().to_string();
        let shown: String = value.chars().take(20).collect();
        for part in [&format!("{PREFIX}{name}"), &shown, right] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn what_is_missing_is_named_as_the_variable() {
    for (name, _) in REQUIRED {
        // One of the two that show that the program stands in for linkerd2-proxy is there in each case.
        let error = configure(&[(name, UNSET)]);
        if *name == "IDENTITY_DIR" {
            assert!(error.is_ok(), "a key is made");
            continue;
        }
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("{PREFIX}{name}")),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_makes_no_difference_is_told() {
    let config = configure(&[
        ("TRACE_COLLECTOR_SVC_ADDR", "collector:4317"),
        ("CONTROL_STREAM_LIFETIME", ""),
        ("FRESHLY_INVENTED", "1"),
    ])
    .unwrap();
    let expected = json!({
        "not_honoured": ["LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR"],
        "overridden": [],
        "unknown": ["LINKERD2_PROXY_FRESHLY_INVENTED"],
    });
    assert_eq!(config.to_json()["linkerd2_proxy"], expected);
}

#[test]
fn what_others_go_over_is_told() {
    let far = ("IDENTITY_SVC_ADDR", "id.example:1");
    let agent = ("IDENTITY_SPIRE_SOCKET", "unix:///run/a");
    let by_id = [
        agent,
        ("IDENTITY_LOCAL_NAME", UNSET),
        ("IDENTITY_SERVER_ID", "spiffe://mesh.example/web"),
        ("IDENTITY_SERVER_NAME", "web.example"),
    ];
    let cases: &[(&[_], &[&str])] = &[
        (
            &[
                ("TAP_SVC_NAME", "tap.example"),
                ("CORES_MAX", "2"),
                ("CORES", "1"),
            ],
            &[],
        ),
        (&[far, ("IDENTITY_SVC_NAME", "id.mesh")], &[]),
        (
            &[
                ("DESTINATION_SVC_NAME", "a"),
                ("IDENTITY_SVC_NAME", "b"),
                ("POLICY_SVC_NAME", "c"),
            ],
            &[
                "DESTINATION_SVC_NAME",
                "IDENTITY_SVC_NAME",
                "POLICY_SVC_NAME",
            ],
        ),
        (
            &[("CONTROL_LISTEN_ADDR", "127.0.0.1:1")],
            &["CONTROL_LISTEN_ADDR"],
        ),
        (
            &[
                ("IDENTITY_SERVER_ID", "spiffe://mesh.example/web"),
                ("IDENTITY_SERVER_NAME", "web.example"),
            ],
            &["IDENTITY_SERVER_ID", "IDENTITY_SERVER_NAME"],
        ),
        (
            &[
                by_id[0],
                by_id[1],
                by_id[2],
                by_id[3],
                far,
                ("IDENTITY_SVC_NAME", "id.mesh"),
                ("IDENTITY_MIN_REFRESH", "20s"),
                ("IDENTITY_MAX_REFRESH", "2d"),
            ],
            &[
                "IDENTITY_DIR",
                "IDENTITY_MAX_REFRESH",
                "IDENTITY_MIN_REFRESH",
                "IDENTITY_SVC_ADDR",
                "IDENTITY_SVC_NAME",
                "IDENTITY_TOKEN_FILE",
            ],
        ),
        (
            &[
                ("OUTBOUND_LISTEN_ADDR", "127.0.0.1:1"),
                ("OUTBOUND_LISTEN_ADDRS", "127.0.0.1:2"),
                ("CORES", "1"),
                ("CORES_MIN", "2"),
            ],
            &["CORES", "OUTBOUND_LISTEN_ADDR"],
        ),
    ];
    for (variables, overridden) in cases {
        let named: Vec<_> = (overridden.iter())
            .map(|name| format!("{PREFIX}{name}"))
            .collect();
        assert_eq!(configure(variables).unwrap().unheeded.overridden, named);
    }
}

#[test]
fn each_variable_is_listed_once() {
    let known = HONOURED.iter().map(|variable| variable.name);
    let all: Vec<_> = known
        .chain(NOT_HONOURED.iter().map(|(name, _)| *name))
        .collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    for (_, why) in NOT_HONOURED {
        if let Some(other) = why.strip_prefix("as ") {
            assert!(
                NOT_HONOURED.iter().any(|(name, _)| *name == other),
                "{other}"
            );
        }
    }
}
