//! Clusters: what each one publishes, who signs in it, and what it may have signed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, IssuerId};
use crate::time::UnixTime;

/// A cluster, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cluster {
    /// When its controller was last heard.
    pub heard: UnixTime,
    /// When it last listed all consumers it has.
    pub inventoried: Option<UnixTime>,
    /// The bundle it is known to give to everybody.
    pub published: Generation,
    /// When it was first known to give out the bundle of a retirement without a tainted anchor: what read its roots by then may have
    /// read that anchor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<UnixTime>,
    /// The bundle it is known to give to canaries.
    pub published_to_canaries: Option<Generation>,
    /// Since when it is known to serve something that nobody published.
    pub drifted: Option<UnixTime>,
    /// The issuer that is to sign.
    pub signer: IssuerId,
    /// The issuer that is known to sign; none after a restore from a backup, until that is confirmed.
    pub signing: Option<IssuerId>,
    /// What each issuer may have signed here.
    pub ledger: BTreeMap<IssuerId, Ledger>,
    /// Since which bundle's publication its session ticket keys are new.
    pub tickets: Generation,
}

/// What an issuer may have signed in a cluster: every leaf it released ends by [`outstanding`](Self::outstanding).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// The latest end of a leaf that was entered.
    pub entered: UnixTime,
    /// Until when the signer may sign without asking; none once it has given the lease back.
    pub lease_until: Option<UnixTime>,
}

impl Ledger {
    /// The latest end of a leaf that this issuer may have released, were it to use its lease to the last second.
    #[must_use]
    pub fn outstanding(&self, leaf_life: Duration) -> UnixTime {
        let lease = self.lease_until.map(|until| until.after(leaf_life));
        self.entered.max(lease.unwrap_or_default())
    }
}

impl Cluster {
    /// A cluster that publishes a bundle and signs with an issuer.
    #[must_use]
    pub fn new(published: Generation, signer: IssuerId, now: UnixTime) -> Self {
        Self {
            heard: now,
            inventoried: None,
            published,
            cleared: None,
            published_to_canaries: None,
            drifted: None,
            signer,
            signing: Some(signer),
            ledger: BTreeMap::new(),
            tickets: Generation(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_as_used_until_it_is_given_back() {
        let mut ledger = Ledger {
            entered: UnixTime(120),
            lease_until: Some(UnixTime(100)),
        };
        assert_eq!(ledger.outstanding(Duration::from_secs(50)), UnixTime(150));
        ledger.lease_until = None;
        assert_eq!(ledger.outstanding(Duration::from_secs(50)), UnixTime(120));
    }
}
