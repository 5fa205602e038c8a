//! How long things last, from what the manifests say.

use std::time::Duration;

use mesh_trust_rotation::Settings as Pace;

use super::keys::Lifetimes;
use crate::mesh::Settings;

/// What the machine goes by. Everything follows from how long a leaf lives, so that a mesh of short leaves is quick.
pub(super) fn pace(settings: &Settings) -> Pace {
    let leaf = settings.leaf_lifetime;
    let mut pace = Pace::default();
    pace.leaf_life = leaf;
    pace.skew = (leaf / 12).clamp(Duration::from_secs(2), Duration::from_mins(1));
    pace.backdate = mesh_tls::ca::BACKDATE;
    // Twice a leaf's life: who was silent for so long has nothing valid for as long as it had.
    pace.consumer_lease = leaf.saturating_mul(2).max(Duration::from_mins(10));
    // It is given back as soon as it is not needed; after a crash it counts as used to its end.
    pace.signing_lease = (leaf / 2).clamp(Duration::from_secs(5), Duration::from_mins(10));
    pace.soak = (leaf / 4).min(Duration::from_mins(10));
    pace.phase_budget = leaf
        .saturating_mul(2)
        .clamp(Duration::from_mins(10), Duration::from_hours(48));
    pace.reissue_jitter = (leaf / 10).min(Duration::from_secs(30));
    pace
}

impl Lifetimes {
    /// How long before the end of an anchor another one is to be there.
    pub(super) fn anchor_margin(self) -> Duration {
        self.anchor / 3
    }

    /// How long before the end of an issuer another one is to be there.
    pub(super) fn issuer_margin(self) -> Duration {
        self.issuer / 3
    }
}

const DAY: Duration = Duration::from_hours(24);
const ANCHOR_LIFE: Duration = DAY.saturating_mul(3650);
const ISSUER_LIFE: Duration = DAY.saturating_mul(365);

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            anchor: ANCHOR_LIFE,
            issuer: ISSUER_LIFE,
        }
    }
}
