//! `spec.rotation` of a `MeshConfig`: when trust anchors and issuers are replaced by themselves, and how.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::{
    checks::{Checks, duration},
    freeze::{Freeze, WindowSpec, read_freeze},
};

/// When anchors and issuers are replaced by themselves, and how careful such a change is. What a manifest does not say follows
/// from how long a leaf lives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// How long a trust anchor is in use; default ten years.
    pub anchor_lifetime: Duration,
    /// How long before its end the change to another anchor begins; default a third of its life.
    pub anchor_margin: Duration,
    /// How long an issuer is in use; default a year, or longer if leaves live for more than a few weeks.
    pub issuer_lifetime: Duration,
    /// How long before its end the change to another issuer begins; default a third of its life.
    pub issuer_margin: Duration,
    /// A change begins up to this much earlier, so that many meshes do not change at once; default none.
    pub jitter: Duration,
    /// What each phase may take: a phase begins only if there is as much time for each that remains. Default: twice the life of
    /// a leaf, at least 10 minutes and at most 48 hours.
    pub phase_budget: Duration,
    /// How long everybody must have trusted a new anchor before anything is signed with it; default none.
    pub trust_hold: Duration,
    /// How long a workload that is not heard from is waited for before it is quarantined. Default: twice the life of a leaf, at
    /// least 10 minutes.
    pub consumer_lease: Duration,
    /// How many workloads are asked at once for another certificate; default 50.
    pub reissue_batch: usize,
    /// Over how long each of these requests is spread; default a tenth of a leaf's life, at most 30 s.
    pub reissue_spread: Duration,
    /// What becomes of connections that were verified under an anchor that goes.
    pub drain: DrainPolicy,
    /// Workloads that go first, `namespace/name`: they get leaves of the new issuer before others, and the new anchor only.
    pub canaries: Vec<String>,
    /// How many of a hundred workloads go first beside those, others each time; default none.
    pub canary_percent: u8,
    /// How long they do before others follow; default a quarter of a leaf's life, at most 10 minutes.
    pub soak: Option<Duration>,
    /// Phases in which a change stands still until an operator has it resume; default none.
    pub pause_in: BTreeSet<RotationPhase>,
    /// Whether cross-certificates are made with each change of the anchor, so that who does not trust the new one yet can be
    /// carried for a while; default no.
    pub bridges: bool,
    /// When no change begins by itself.
    pub freeze: Freeze,
}

/// What a change of trust goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they are told of in docs/trust.md")]
pub enum RotationPhase {
    Preflight,
    Distribute,
    TrustConverged,
    CanarySigning,
    Issue,
    LeafConverged,
    Drain,
    CanaryRetirement,
    Retirement,
}

impl RotationPhase {
    /// As manifests have them.
    const NAMES: [(&'static str, Self); 9] = [
        ("preflight", Self::Preflight),
        ("distribute", Self::Distribute),
        ("trustConverged", Self::TrustConverged),
        ("canarySigning", Self::CanarySigning),
        ("issue", Self::Issue),
        ("leafConverged", Self::LeafConverged),
        ("drain", Self::Drain),
        ("canaryRetirement", Self::CanaryRetirement),
        ("retirement", Self::Retirement),
    ];
}

/// What becomes of connections that were verified under an anchor that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DrainPolicy {
    /// They hold the change up, by name, until they have ended. The default.
    #[default]
    Wait,
    /// They are closed, announced and counted.
    Cut,
}

impl Rotation {
    /// The defaults in a mesh whose leaves live for so long.
    pub fn of_leaves(leaf_lifetime: Duration) -> Self {
        let phase_budget = leaf_lifetime
            .saturating_mul(2)
            .clamp(Duration::from_mins(10), Duration::from_hours(48));
        let needed = needed(phase_budget, leaf_lifetime);
        let issuer_lifetime = YEAR.max(needed * 3);
        Self {
            anchor_lifetime: YEAR * 10,
            anchor_margin: YEAR * 10 / 3,
            issuer_lifetime,
            issuer_margin: issuer_lifetime / 3,
            jitter: Duration::ZERO,
            phase_budget,
            trust_hold: Duration::ZERO,
            consumer_lease: leaf_lifetime.saturating_mul(2).max(Duration::from_mins(10)),
            reissue_batch: 50,
            reissue_spread: (leaf_lifetime / 10).min(Duration::from_secs(30)),
            drain: DrainPolicy::Wait,
            canaries: Vec::new(),
            canary_percent: 0,
            soak: None,
            pause_in: BTreeSet::new(),
            bridges: false,
            freeze: Freeze::default(),
        }
    }

    /// What a change needs at least before what it replaces ends: a budget for each of its phases, and the life of a leaf.
    pub fn needed(&self, leaf_lifetime: Duration) -> Duration {
        needed(self.phase_budget, leaf_lifetime)
    }
}

fn needed(phase_budget: Duration, leaf_lifetime: Duration) -> Duration {
    phase_budget
        .saturating_mul(PHASES)
        .saturating_add(leaf_lifetime)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RotationSpec {
    anchor_lifetime: Option<String>,
    anchor_margin: Option<String>,
    issuer_lifetime: Option<String>,
    issuer_margin: Option<String>,
    jitter: Option<String>,
    phase_budget: Option<String>,
    trust_hold: Option<String>,
    consumer_lease: Option<String>,
    reissue_batch: Option<i64>,
    reissue_spread: Option<String>,
    drain: Option<String>,
    #[serde(default)]
    canaries: Vec<String>,
    canary_percent: Option<i64>,
    soak: Option<String>,
    #[serde(default)]
    pause_in: Vec<String>,
    #[serde(default)]
    bridges: bool,
    #[serde(default)]
    freeze: Vec<WindowSpec>,
}

/// Checks a schedule, also one that is all defaults: leaves may live too long for it.
pub(super) fn read_rotation(
    mut spec: RotationSpec,
    leaf: Duration,
    checks: &mut Checks<'_>,
) -> Rotation {
    let mut rotation = Rotation::of_leaves(leaf);
    let faults = checks.faults.len();
    read(
        &mut rotation.phase_budget,
        "phaseBudget",
        spec.phase_budget.take(),
        checks,
    );
    if !BUDGETS.contains(&rotation.phase_budget) {
        let reason = format!(
            "{} is out of range: must be 5s to 8760h",
            show(rotation.phase_budget)
        );
        checks.fault(field("phaseBudget"), reason);
    }
    // What is said of the budget moves what follows from it.
    rotation.issuer_lifetime = YEAR.max(rotation.needed(leaf).saturating_mul(3));
    read(
        &mut rotation.anchor_lifetime,
        "anchorLifetime",
        spec.anchor_lifetime.take(),
        checks,
    );
    rotation.issuer_lifetime = rotation.issuer_lifetime.min(rotation.anchor_lifetime);
    read(
        &mut rotation.issuer_lifetime,
        "issuerLifetime",
        spec.issuer_lifetime.take(),
        checks,
    );
    rotation.anchor_margin = rotation.anchor_lifetime / 3;
    rotation.issuer_margin = rotation.issuer_lifetime / 3;
    read(
        &mut rotation.anchor_margin,
        "anchorMargin",
        spec.anchor_margin.take(),
        checks,
    );
    read(
        &mut rotation.issuer_margin,
        "issuerMargin",
        spec.issuer_margin.take(),
        checks,
    );
    read(&mut rotation.jitter, "jitter", spec.jitter.take(), checks);
    read(
        &mut rotation.trust_hold,
        "trustHold",
        spec.trust_hold.take(),
        checks,
    );
    read(
        &mut rotation.consumer_lease,
        "consumerLease",
        spec.consumer_lease.take(),
        checks,
    );
    read(
        &mut rotation.reissue_spread,
        "reissueSpread",
        spec.reissue_spread.take(),
        checks,
    );
    if let Some(batch) = spec.reissue_batch {
        match usize::try_from(batch) {
            Ok(batch @ 1..=MAX_BATCH) => rotation.reissue_batch = batch,
            _ => checks.fault(
                field("reissueBatch"),
                format!("{batch} is out of range: must be 1 to {MAX_BATCH}"),
            ),
        }
    }
    match spec.drain.as_deref() {
        None | Some("wait") => {}
        Some("cut") => rotation.drain = DrainPolicy::Cut,
        Some(word) => checks.fault(
            field("drain"),
            format!("unknown policy {word:?}: must be wait or cut"),
        ),
    }
    read_canaries(&mut rotation, &spec, checks);
    read_pauses(&mut rotation, &spec, checks);
    rotation.bridges = spec.bridges;
    rotation.freeze = read_freeze(&spec.freeze, checks);
    if checks.faults.len() == faults {
        agree(&rotation, leaf, checks);
    }
    rotation
}

fn read_canaries(rotation: &mut Rotation, spec: &RotationSpec, checks: &mut Checks<'_>) {
    for (index, name) in spec.canaries.iter().enumerate() {
        let parts: Vec<&str> = name.split('/').collect();
        if !matches!(parts.as_slice(), [namespace, name] if !namespace.is_empty() && !name.is_empty())
        {
            let reason = format!("{name:?} is no workload: must be namespace/name");
            checks.fault(field(&format!("canaries[{index}]")), reason);
        }
    }
    rotation.canaries.clone_from(&spec.canaries);
    if let Some(percent) = spec.canary_percent {
        match u8::try_from(percent) {
            Ok(percent @ 0..=50) => rotation.canary_percent = percent,
            _ => {
                let reason = format!("{percent} is out of range: must be 0 to 50");
                checks.fault(field("canaryPercent"), reason);
            }
        }
    }
    if spec.soak.is_some() {
        let mut soak = Duration::ZERO;
        read(&mut soak, "soak", spec.soak.clone(), checks);
        if soak > rotation.phase_budget {
            let reason = format!(
                "{} is too long: must be at most the phaseBudget of {}",
                show(soak),
                show(rotation.phase_budget)
            );
            checks.fault(field("soak"), reason);
        }
        rotation.soak = Some(soak);
    }
}

fn read_pauses(rotation: &mut Rotation, spec: &RotationSpec, checks: &mut Checks<'_>) {
    let all = RotationPhase::NAMES;
    for (index, word) in spec.pause_in.iter().enumerate() {
        match all.iter().find(|(name, _)| name == word) {
            Some((_, phase)) => {
                rotation.pause_in.insert(*phase);
            }
            None => {
                let names = all.map(|(name, _)| name).join(", ");
                let reason = format!("unknown phase {word:?}: must be one of {names}");
                checks.fault(field(&format!("pauseIn[{index}]")), reason);
            }
        }
    }
}

/// What contradicts itself would come out only when something is about to end.
fn agree(rotation: &Rotation, leaf: Duration, checks: &mut Checks<'_>) {
    let needed = rotation.needed(leaf);
    let ranges = [
        ("anchor", rotation.anchor_lifetime, rotation.anchor_margin),
        ("issuer", rotation.issuer_lifetime, rotation.issuer_margin),
    ];
    for (what, lifetime, margin) in ranges {
        if margin < needed {
            let reason = format!(
                "{} is too short: must be at least {}, the phaseBudget of {} for each of {PHASES} phases and a leafLifetime",
                show(margin),
                show(needed),
                show(rotation.phase_budget),
            );
            checks.fault(field(&format!("{what}Margin")), reason);
        } else if margin.saturating_add(rotation.jitter) >= lifetime {
            let reason = format!(
                "{} is too short: must be more than {what}Margin and jitter, {} and {}, or a change begins at once",
                show(lifetime),
                show(margin),
                show(rotation.jitter),
            );
            checks.fault(field(&format!("{what}Lifetime")), reason);
        } else if lifetime > LIFETIME_MAX {
            let reason = format!("{} is out of range: must be at most 99999h", show(lifetime));
            checks.fault(field(&format!("{what}Lifetime")), reason);
        }
    }
    if rotation.issuer_lifetime > rotation.anchor_lifetime {
        let reason = format!(
            "{} is more than the anchorLifetime of {}: an issuer ends with its anchor",
            show(rotation.issuer_lifetime),
            show(rotation.anchor_lifetime)
        );
        checks.fault(field("issuerLifetime"), reason);
    }
    if rotation.consumer_lease < leaf {
        let reason = format!(
            "{} is too short: must be at least the leafLifetime of {}, or who is quarantined has a certificate that is good",
            show(rotation.consumer_lease),
            show(leaf)
        );
        checks.fault(field("consumerLease"), reason);
    }
    for (name, value, most, of) in [
        (
            "trustHold",
            rotation.trust_hold,
            rotation.phase_budget,
            "phaseBudget",
        ),
        (
            "reissueSpread",
            rotation.reissue_spread,
            leaf,
            "leafLifetime",
        ),
    ] {
        if value > most {
            let reason = format!(
                "{} is too long: must be at most the {of} of {}",
                show(value),
                show(most)
            );
            checks.fault(field(name), reason);
        }
    }
}

fn read(into: &mut Duration, name: &str, text: Option<String>, checks: &mut Checks<'_>) {
    let Some(text) = text else { return };
    match duration(&text) {
        Some(value) => *into = value,
        None => checks.fault(
            field(name),
            format!("{text:?} is no duration: must be as 10m, 24h or 1h30m"),
        ),
    }
}

fn field(name: &str) -> String {
    format!("spec.rotation.{name}")
}

/// As manifests write it.
fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = String::new();
    for (unit, length) in [("h", 3600), ("m", 60), ("s", 1)] {
        let number = match unit {
            "h" => seconds / 3600,
            _ => seconds / length % 60,
        };
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

const YEAR: Duration = Duration::from_hours(24 * 365);
const LIFETIME_MAX: Duration = Duration::from_hours(99_999);
const BUDGETS: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=YEAR;
const MAX_BATCH: usize = 100_000;
/// As many as a change of an anchor goes through; one of an issuer has fewer.
const PHASES: u32 = RotationPhase::NAMES.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_however_long_leaves_live() {
        for seconds in [10, 60, 3600, 86_400, 30 * 86_400, 365 * 86_400] {
            let leaf = Duration::from_secs(seconds);
            let rotation = Rotation::of_leaves(leaf);
            assert!(rotation.issuer_margin >= rotation.needed(leaf), "{seconds}");
            assert!(rotation.anchor_margin >= rotation.needed(leaf), "{seconds}");
            assert!(rotation.issuer_lifetime <= rotation.anchor_lifetime);
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["10m", "24h", "1h30m", "1h2m3s", "0s"] {
            assert_eq!(show(duration(text).unwrap()), text);
        }
    }
}
