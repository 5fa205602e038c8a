//! `spec.rotation`: what is wrong is named by field and value, with what would be right.

#![cfg(feature = "manifests")]

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_discovery::manifests::{
    DrainPolicy, MeshConfig, Resource, Rotation, RotationPhase, parse,
};

const MESH: &str = "\
apiVersion: mesh-rs.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  leafLifetime: 1m
  rotation:
    anchorLifetime: 10m
    anchorMargin: 7m
    issuerLifetime: 9m
    issuerMargin: 6m
    jitter: 10s
    phaseBudget: 30s
    trustHold: 5s
    reissueBatch: 20
    reissueSpread: 5s
    drain: cut
    consumerLease: 90s
    freeze:
      - {days: [fri, sat], from: '18:00', to: '06:00'}
      - {fromDate: '2026-12-20', toDate: '2027-01-05'}
    pauseIn: [retirement, trustConverged, retirement]
";

fn config(text: &str) -> MeshConfig {
    let (resources, errors) = parse("f.yaml", text);
    assert_eq!(errors, []);
    match &resources[..] {
        [Resource::MeshConfig(config)] => config.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_right_is_taken() {
    let rotation = config(MESH).rotation;
    assert_eq!(rotation.anchor_lifetime, Duration::from_mins(10));
    assert_eq!(rotation.anchor_margin, Duration::from_mins(7));
    assert_eq!(rotation.issuer_lifetime, Duration::from_mins(9));
    assert_eq!(rotation.issuer_margin, Duration::from_mins(6));
    assert_eq!(rotation.jitter, Duration::from_secs(10));
    assert_eq!(rotation.phase_budget, Duration::from_secs(30));
    assert_eq!(rotation.trust_hold, Duration::from_secs(5));
    assert_eq!(rotation.reissue_batch, 20);
    assert_eq!(rotation.reissue_spread, Duration::from_secs(5));
    assert_eq!(rotation.drain, DrainPolicy::Cut);
    assert_eq!(rotation.consumer_lease, Duration::from_secs(90));
    let phases = [RotationPhase::TrustConverged, RotationPhase::Retirement];
    assert_eq!(rotation.pause_in, BTreeSet::from(phases));
}

#[test]
fn without_a_word_it_follows_from_the_life_of_a_leaf() {
    for (lifetime, seconds) in [("10s", 10), ("24h", 86_400), ("8760h", 31_536_000)] {
        let text = format!(
            "{}spec: {{leafLifetime: {lifetime}}}\n",
            MESH.split_once("spec").unwrap().0
        );
        let expected = Rotation::of_leaves(Duration::from_secs(seconds));
        assert_eq!(config(&text).rotation, expected, "{lifetime}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (from, to, expected) in [
        (
            "anchorLifetime: 10m",
            "anchorLifetime: soon",
            "f.yaml:7:21: spec.rotation.anchorLifetime: \"soon\" is no duration: must be as 10m, 24h or 1h30m",
        ),
        (
            "anchorLifetime: 10m",
            "anchorLife: 10m",
            "f.yaml:7:5: spec.rotation.anchorLife: unknown field",
        ),
        (
            "anchorMargin: 7m",
            "anchorMargin: 3m",
            "f.yaml:8:19: spec.rotation.anchorMargin: 3m is too short: must be at least 5m30s, the phaseBudget of 30s for each of 9 phases and a leafLifetime",
        ),
        (
            "issuerLifetime: 9m",
            "issuerLifetime: 6m10s",
            "f.yaml:9:21: spec.rotation.issuerLifetime: 6m10s is too short: must be more than issuerMargin and jitter, 6m and 10s, or a change begins at once",
        ),
        (
            "issuerLifetime: 9m",
            "issuerLifetime: 11m",
            "f.yaml:9:21: spec.rotation.issuerLifetime: 11m is more than the anchorLifetime of 10m: an issuer ends with its anchor",
        ),
        (
            "    anchorMargin: 7m\n",
            "",
            "f.yaml:7:5: spec.rotation.anchorMargin: 3m20s is too short: must be at least 5m30s, the phaseBudget of 30s for each of 9 phases and a leafLifetime",
        ),
        (
            "phaseBudget: 30s",
            "phaseBudget: 1s",
            "f.yaml:12:18: spec.rotation.phaseBudget: 1s is out of range: must be 5s to 8760h",
        ),
        (
            "trustHold: 5s",
            "trustHold: 31s",
            "f.yaml:13:16: spec.rotation.trustHold: 31s is too long: must be at most the phaseBudget of 30s",
        ),
        (
            "reissueBatch: 20",
            "reissueBatch: 0",
            "f.yaml:14:19: spec.rotation.reissueBatch: 0 is out of range: must be 1 to 100000",
        ),
        (
            "reissueSpread: 5s",
            "reissueSpread: 2m",
            "f.yaml:15:20: spec.rotation.reissueSpread: 2m is too long: must be at most the leafLifetime of 1m",
        ),
        (
            "drain: cut",
            "drain: kill",
            "f.yaml:16:12: spec.rotation.drain: unknown policy \"kill\": must be wait or cut",
        ),
        (
            "consumerLease: 90s",
            "consumerLease: 59s",
            "f.yaml:17:20: spec.rotation.consumerLease: 59s is too short: must be at least the leafLifetime of 1m, or who is quarantined has a certificate that is good",
        ),
        (
            "[retirement, trustConverged, retirement]",
            "[retirement, 'trust converged']",
            "f.yaml:21:27: spec.rotation.pauseIn[1]: unknown phase \"trust converged\": must be one of preflight, distribute, trustConverged, canarySigning, issue, leafConverged, drain, canaryRetirement, retirement",
        ),
        (
            "[fri, sat]",
            "[fri, Sat]",
            "f.yaml:19:16: spec.rotation.freeze[0].days: unknown day \"Sat\": must be one of mon, tue, wed, thu, fri, sat, sun",
        ),
        (
            "from: '18:00'",
            "from: '6pm'",
            "f.yaml:19:34: spec.rotation.freeze[0].from: \"6pm\" is no time of a day: must be 00:00 to 24:00, in UTC",
        ),
        (
            "toDate: '2027-01-05'",
            "toDate: '2027-02-30'",
            "f.yaml:20:42: spec.rotation.freeze[1].toDate: \"2027-02-30\" is no date: must be as 2027-01-31",
        ),
        (
            "toDate: '2027-01-05'",
            "toDate: '2026-12-19'",
            "f.yaml:20:42: spec.rotation.freeze[1].toDate: is before fromDate: must be the same day or a later one",
        ),
        (
            "{fromDate: '2026-12-20', toDate: '2027-01-05'}",
            "{}",
            "f.yaml:20:9: spec.rotation.freeze[1]: says nothing: must have days, from and to, or fromDate and toDate; as it is, nothing would ever begin",
        ),
    ] {
        assert!(MESH.contains(from), "{from:?}");
        let (resources, errors) = parse("f.yaml", &MESH.replacen(from, to, 1));
        assert!(resources.is_empty(), "{to:?} was taken");
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, [expected], "{from:?} -> {to:?}");
    }
}
