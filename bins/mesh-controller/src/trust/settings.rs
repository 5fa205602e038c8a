//! How long things last, from what the manifests say.

use std::time::Duration;

use mesh_discovery::manifests::{DrainPolicy, RotationPhase};
use mesh_trust_rotation::{Drain, Phase, Settings as Pace};

use super::keys::Lifetimes;
use crate::mesh::Settings;

/// What the machine goes by. What the manifests do not say follows from how long a leaf lives, so that a mesh of short leaves
/// is quick.
pub(super) fn pace(settings: &Settings) -> Pace {
    let (leaf, rotation) = (settings.leaf_lifetime, &settings.rotation);
    let mut pace = Pace::default();
    pace.leaf_life = leaf;
    pace.skew = (leaf / 12).clamp(Duration::from_secs(2), Duration::from_mins(1));
    pace.backdate = mesh_tls::ca::BACKDATE;
    pace.consumer_lease = rotation.consumer_lease;
    // Who falls silent is named as that long before its lease ends.
    let half = rotation.consumer_lease / 2;
    pace.freshness = half.clamp(Duration::from_secs(5), Duration::from_mins(15));
    // It is given back as soon as it is not needed; after a crash it counts as used to its end.
    pace.signing_lease = (leaf / 2).clamp(Duration::from_secs(5), Duration::from_mins(10));
    let soak = rotation.soak;
    pace.soak = soak.unwrap_or_else(|| (leaf / 4).min(Duration::from_mins(10)));
    pace.pause_in = rotation
        .pause_in
        .iter()
        .map(|named| phase(*named))
        .collect();
    pace.bridges = rotation.bridges;
    pace.phase_budget = rotation.phase_budget;
    pace.trust_hold = rotation.trust_hold;
    pace.reissue_batch = rotation.reissue_batch;
    pace.reissue_jitter = rotation.reissue_spread;
    pace.drain = match rotation.drain {
        DrainPolicy::Cut => Drain::Cut,
        _ => Drain::Wait,
    };
    pace
}

fn phase(named: RotationPhase) -> Phase {
    match named {
        RotationPhase::Preflight => Phase::Preflight,
        RotationPhase::Distribute => Phase::Distribute,
        RotationPhase::TrustConverged => Phase::TrustConverged,
        RotationPhase::CanarySigning => Phase::CanarySigning,
        RotationPhase::Issue => Phase::Issue,
        RotationPhase::LeafConverged => Phase::LeafConverged,
        RotationPhase::Drain => Phase::Drain,
        RotationPhase::CanaryRetirement => Phase::CanaryRetirement,
        RotationPhase::Retirement => Phase::Retirement,
    }
}

/// How often a process reports when nothing changes: several times in a lease, as a report may be lost with its stream.
pub(super) fn report_every(settings: &Settings) -> Duration {
    let lease = settings.rotation.consumer_lease;
    (lease / 5).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

/// How long what is made from now on lives.
pub(super) fn lifetimes(settings: &Settings) -> Lifetimes {
    Lifetimes {
        anchor: settings.rotation.anchor_lifetime,
        issuer: settings.rotation.issuer_lifetime,
    }
}
