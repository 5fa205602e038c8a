//! Whose clock is off, by what was reported. It is kept past the streams: certificates end and are refused by clocks, so that
//! who has a wrong one is soon heard of no more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mesh_trust_rotation::{Rotation, WorkloadId};

/// By how many seconds the clocks that are off are ahead of this controller's; behind, if negative.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    off: Mutex<HashMap<WorkloadId, i64>>,
}

/// This controller's own clock, where it must be that one which is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnClock {
    /// By how many seconds it is ahead of those of most; behind, if negative.
    pub(crate) ahead: i64,
    /// How many say so.
    pub(crate) by: usize,
    /// Of how many.
    pub(crate) of: usize,
}

impl Clocks {
    /// Keeps what a report said: nothing where it is too little to count. True if that is news.
    pub(super) fn note(&self, id: &WorkloadId, ahead: Option<i64>, rotation: &Rotation) -> bool {
        let mut off = self.lock();
        let Some(ahead) = ahead else {
            return off.remove(id).is_some();
        };
        if off.len() > 2 * rotation.consumers().len().max(FEW) {
            off.retain(|id, _| rotation.consumers().contains_key(id));
        }
        off.insert(id.clone(), ahead).is_none()
    }

    /// By how much one is ahead, if that matters.
    pub(super) fn ahead(&self, id: &WorkloadId) -> Option<i64> {
        self.lock().get(id).copied()
    }

    /// How many of those that there are have a clock that is off.
    pub(super) fn count(&self, rotation: &Rotation) -> usize {
        let known = |id: &&WorkloadId| rotation.consumers().contains_key(*id);
        self.lock().keys().filter(known).count()
    }

    /// Where most clocks are off the same way, it is this controller's that is wrong.
    pub(super) fn own(&self, rotation: &Rotation) -> Option<OwnClock> {
        let of = rotation.consumers().len();
        let off = self.lock();
        let known = off
            .iter()
            .filter(|(id, _)| rotation.consumers().contains_key(id));
        let (mut ahead, mut behind): (Vec<i64>, Vec<i64>) =
            known.map(|(_, ahead)| *ahead).partition(|ahead| *ahead > 0);
        let most = if ahead.len() > behind.len() {
            &mut ahead
        } else {
            &mut behind
        };
        let by = most.len();
        if by < 2 || by * 2 <= of {
            return None;
        }
        let (_, median, _) = most.select_nth_unstable(by / 2);
        Some(OwnClock {
            ahead: median.saturating_neg(),
            by,
            of,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadId, i64>> {
        self.off.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many that nobody knows are no burden.
const FEW: usize = 64;
