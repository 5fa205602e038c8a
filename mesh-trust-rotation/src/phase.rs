//! The phases of a change and their order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a change is. A phase is left when its gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Is everything there that will be needed? Left when issuers are verified and every cluster has listed its consumers.
    Preflight,
    /// Everybody is given both anchors. Left when everybody trusts the new one.
    Distribute,
    /// Everybody trusts the new anchor. Left when that has held for a while.
    TrustConverged,
    /// Canaries get leaves from the new issuer. Left when they have run with them for a while.
    CanarySigning,
    /// Cluster after cluster signs with the new issuer. Left when all do.
    Issue,
    /// Everybody gets a leaf from the new issuer. Left when everybody serves one.
    LeafConverged,
    /// What the old anchor verified is let go. Left when no leaf, ticket or connection depends on it.
    Drain,
    /// Canaries are given the new anchor only. Left when they have run with it for a while.
    CanaryRetirement,
    /// Everybody is given the new anchor only. Left when everybody uses just that.
    Retirement,
}

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The anchor, and the issuers with it.
    Anchor,
    /// The issuers, under the same anchor.
    Issuer,
}

/// How a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As planned.
    Normal,
    /// Back to where it began, by the same gates.
    Reverting,
    /// Away from a key in other hands: no canaries, no waiting for leaves to end.
    Emergency,
}

impl Phase {
    /// The phase after this one; none after the last.
    #[must_use]
    pub fn next(self, kind: Kind, mode: Mode) -> Option<Self> {
        let order = order(kind, mode);
        // A phase that this kind and mode have not is left for the first one that comes later in the full order.
        order.iter().copied().find(|phase| *phase > self)
    }

    /// How many phases remain, this one included.
    #[must_use]
    pub fn remaining(self, kind: Kind, mode: Mode) -> u32 {
        let mut count = 1;
        let mut phase = self;
        while let Some(next) = phase.next(kind, mode) {
            count += 1;
            phase = next;
        }
        count
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preflight => "preflight",
            Self::Distribute => "distribute",
            Self::TrustConverged => "trust converged",
            Self::CanarySigning => "canary signing",
            Self::Issue => "issue",
            Self::LeafConverged => "leaf converged",
            Self::Drain => "drain",
            Self::CanaryRetirement => "canary retirement",
            Self::Retirement => "retirement",
        })
    }
}

fn order(kind: Kind, mode: Mode) -> &'static [Phase] {
    use Phase::{
        CanaryRetirement, CanarySigning, Distribute, Drain, Issue, LeafConverged, Preflight,
        Retirement, TrustConverged,
    };
    match (kind, mode) {
        (Kind::Anchor, Mode::Normal) => &[
            Preflight,
            Distribute,
            TrustConverged,
            CanarySigning,
            Issue,
            LeafConverged,
            Drain,
            CanaryRetirement,
            Retirement,
        ],
        (Kind::Anchor, Mode::Reverting | Mode::Emergency) => &[
            Preflight,
            Distribute,
            Issue,
            LeafConverged,
            Drain,
            Retirement,
        ],
        (Kind::Issuer, Mode::Normal) => &[
            Preflight,
            TrustConverged,
            CanarySigning,
            Issue,
            LeafConverged,
            Drain,
        ],
        (Kind::Issuer, Mode::Reverting | Mode::Emergency) => {
            &[Preflight, TrustConverged, Issue, LeafConverged, Drain]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_a_mode_has_not_leads_to_the_next_one_it_has() {
        assert_eq!(
            Phase::CanarySigning.next(Kind::Anchor, Mode::Emergency),
            Some(Phase::Issue)
        );
        assert_eq!(Phase::Drain.next(Kind::Issuer, Mode::Normal), None);
        assert_eq!(Phase::Preflight.remaining(Kind::Anchor, Mode::Normal), 9);
        assert_eq!(Phase::Retirement.remaining(Kind::Anchor, Mode::Normal), 1);
    }
}
