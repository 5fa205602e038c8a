//! When a change begins by itself.

use std::time::Duration;

use mesh_trust_rotation::{ClusterId, Kind, Rotation, UnixTime};

use super::{Root, system};
use crate::mesh::Settings;

/// The next change that begins by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// What is replaced.
    pub(crate) kind: Kind,
    /// From when on.
    pub(crate) at: UnixTime,
    /// From then on no freeze holds it back: what it replaces would end before the change could.
    latest: UnixTime,
}

/// What begins next while nothing changes. An anchor takes its issuer with it, so one that is due goes before an issuer that was due
/// earlier: below an anchor that has ended there is no issuer to be made.
pub(crate) fn next(
    rotation: &Rotation,
    cluster: &ClusterId,
    settings: &Settings,
    root: Root,
    now: UnixTime,
) -> Option<Next> {
    let schedule = &settings.rotation;
    if root == Root::Outside {
        return None;
    }
    let anchor = rotation.anchors().get(&rotation.active().anchor)?;
    let issuer = rotation.active().issuers.get(cluster)?;
    let issuer = rotation.issuers().get(issuer)?;
    let next = |kind, not_before: UnixTime, not_after: UnixTime, (life, margin), key: &[u8; 32]| {
        let made = not_before.after(mesh_tls::ca::BACKDATE);
        // The schedule may have been made shorter since.
        let end = not_after.min(made.after(life));
        let latest = not_after.before(schedule.needed(settings.leaf_lifetime));
        let at = end.before(margin).before(part(schedule.jitter, key));
        Next {
            kind,
            // Who put the key away wants no other to be made here, unless nobody comes in time.
            at: if root == Root::Here { at } else { latest },
            latest,
        }
    };
    let anchor = next(
        Kind::Anchor,
        anchor.not_before,
        anchor.not_after,
        (schedule.anchor_lifetime, schedule.anchor_margin),
        anchor.id.as_bytes(),
    );
    let issuer = next(
        Kind::Issuer,
        issuer.not_before,
        issuer.not_after,
        (schedule.issuer_lifetime, schedule.issuer_margin),
        issuer.id.as_bytes(),
    );
    Some(if anchor.at <= issuer.at.max(now) {
        anchor
    } else {
        issuer
    })
}

/// When another issuer has to be there at the latest: one that comes later may come too late for somebody.
pub(crate) fn needed_by(
    rotation: &Rotation,
    cluster: &ClusterId,
    settings: &Settings,
) -> Option<UnixTime> {
    let anchor = rotation.anchors().get(&rotation.active().anchor)?;
    let issuer = rotation.active().issuers.get(cluster)?;
    let issuer = rotation.issuers().get(issuer)?;
    let end = issuer.not_after.min(anchor.not_after);
    Some(end.before(settings.rotation.needed(settings.leaf_lifetime)))
}

impl Next {
    /// Whether it is to begin now.
    pub(crate) fn is_due(&self, now: UnixTime, settings: &Settings) -> bool {
        now >= self.at && !self.is_frozen(now, settings)
    }

    /// Whether a freeze holds it back now, or would.
    pub(crate) fn is_frozen(&self, now: UnixTime, settings: &Settings) -> bool {
        now < self.latest && settings.rotation.freeze.covers(system(now))
    }

    /// Whether it can wait until then.
    pub(crate) fn can_wait(&self, until: UnixTime) -> bool {
        until < self.latest
    }
}

/// A part of `whole` that is as random as the key that it is for, and the same for everybody who knows the key.
fn part(whole: Duration, key: &[u8; 32]) -> Duration {
    let random = u64::from_be_bytes([
        key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
    ]);
    let seconds = (u128::from(whole.as_secs()) * u128::from(random)) >> 64;
    // Less than `whole`, which is that many seconds at most.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_spread_over_the_whole_and_never_more() {
        let whole = Duration::from_mins(10);
        assert_eq!(part(whole, &[0; 32]), Duration::ZERO);
        assert_eq!(part(whole, &[0x80; 32]), Duration::from_secs(301));
        assert_eq!(part(whole, &[0xff; 32]), Duration::from_secs(599));
    }
}
