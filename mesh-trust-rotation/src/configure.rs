//! Other settings while the machine runs.
//!
//! Gates are computed afresh, by the settings of the moment, so most settings may change at any time. Leaves that are out live
//! as long as they were made to, whatever lives become.

use crate::error::Refusal;
use crate::guard::Guard;
use crate::phase::Mode;
use crate::rotation::Rotation;
use crate::settings::Settings;
use crate::time::UnixTime;

impl Rotation {
    /// Takes other settings, unless something underway relies on those there are.
    pub(crate) fn configure(&mut self, now: UnixTime, settings: &Settings) -> Result<(), Refusal> {
        if *settings == self.settings {
            return Ok(());
        }
        if let Err((name, expected)) = settings.agree() {
            return Err(Refusal::UnfitSetting { name, expected });
        }
        if let Some((name, reason)) = self.in_use(now, settings) {
            return Err(Refusal::SettingInUse { name, reason });
        }
        if settings.leaf_life != self.settings.leaf_life && self.guards(Guard::LivesAsMade) {
            let (was, to) = (self.settings.leaf_life, settings.leaf_life);
            let ledgers = self.clusters.values_mut();
            for ledger in ledgers.flat_map(|cluster| cluster.ledger.values_mut()) {
                let over = ledger.lease_until.is_none_or(|until| until <= now);
                // Until its lease ends, a signer goes on with the life that it knows of.
                if over || to < was {
                    ledger.entered = ledger.outstanding(was);
                }
                if over {
                    ledger.lease_until = None;
                }
            }
        }
        self.settings = settings.clone();
        if self.restoring.is_some() {
            // The backup's may have been older than those that leaves were made by.
            self.assume_leaves(now);
        }
        Ok(())
    }

    /// The first setting that cannot become what it is to be, and why.
    fn in_use(&self, now: UnixTime, to: &Settings) -> Option<(&'static str, &'static str)> {
        let is = &self.settings;
        let emergency = |change: &crate::Change| change.mode == Mode::Emergency;
        if to.skew != is.skew && (self.change.is_some() || self.restoring.is_some()) {
            return Some((
                "skew",
                "gates were passed by it; let the change or the restore end",
            ));
        }
        let calm = to.emergency_quorum == is.emergency_quorum
            && to.emergency_deadline == is.emergency_deadline;
        if !calm && self.change.as_ref().is_some_and(emergency) {
            return Some(if to.emergency_quorum == is.emergency_quorum {
                ("emergency_deadline", "it is not for an emergency to choose")
            } else {
                ("emergency_quorum", "it is not for an emergency to choose")
            });
        }
        let carries = |change: &crate::Change| !change.bridged.is_empty();
        if !to.bridges && is.bridges && self.change.as_ref().is_some_and(carries) {
            return Some(("bridges", "stragglers are being carried by one"));
        }
        let leaves_end = self
            .clusters
            .values()
            .flat_map(|cluster| cluster.ledger.values())
            .map(|ledger| {
                if to.leaf_life < is.leaf_life {
                    ledger.outstanding(is.leaf_life)
                } else {
                    ledger.entered
                }
            })
            .max();
        if to.consumer_lease < is.consumer_lease
            && leaves_end.is_some_and(|end| end > now.after(to.consumer_lease))
        {
            return Some((
                "consumer_lease",
                "there are leaves that live longer than that",
            ));
        }
        None
    }
}
