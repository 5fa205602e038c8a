use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_tls::Identity;

use super::gcra::Gcra;

/// A limit of the same size for each identity. Looked up once for a connection, so a lock does.
#[derive(Debug)]
pub(super) struct Identities {
    limit: NonZeroU32,
    anonymous: Arc<Gcra>,
    /// Of those that there is no room for.
    rest: Arc<Gcra>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    limits: HashMap<Identity, Arc<Gcra>>,
    /// How many there were when it was last looked for some to forget, and when.
    pruned: Option<(usize, Instant)>,
}

impl Identities {
    /// The most identities that are kept apart.
    pub(super) const MAX: usize = 16_384;

    pub(super) fn new(limit: NonZeroU32) -> Self {
        Self {
            limit,
            anonymous: Arc::new(Gcra::new(limit)),
            rest: Arc::new(Gcra::new(limit)),
            known: Mutex::default(),
        }
    }

    /// How many are kept apart.
    pub(super) fn len(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.limits.len()
    }

    /// The limit of `identity`; all clients without one share one.
    pub(super) fn of(&self, identity: Option<&Identity>, now: Instant) -> Arc<Gcra> {
        let Some(identity) = identity else {
            return Arc::clone(&self.anonymous);
        };
        // Nothing panics while it is held.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = known.limits.get(identity) {
            return Arc::clone(limit);
        }
        known.make_room(now);
        if known.limits.len() >= Self::MAX {
            return Arc::clone(&self.rest);
        }
        let limit = Arc::new(Gcra::new(self.limit));
        known.limits.insert(identity.clone(), Arc::clone(&limit));
        limit
    }
}

impl Known {
    /// Forgets those that no connection has and that are as good as new, when there are twice as many as were left the last
    /// time. When there is no room at all, once in a while.
    fn make_room(&mut self, now: Instant) {
        let full = self.limits.len() >= Identities::MAX;
        let due = match self.pruned {
            None => self.limits.len() >= FIRST_PRUNING,
            Some((_, at)) if full => now.saturating_duration_since(at) >= PRUNING_PAUSE,
            Some((left, _)) => self.limits.len() >= (2 * left).max(FIRST_PRUNING),
        };
        if due {
            // The map has one; whoever else has one got it under the lock, and so nobody can get one now.
            let kept = |limit: &Arc<Gcra>| Arc::strong_count(limit) > 1 || !limit.is_idle(now);
            self.limits.retain(|_, limit| kept(limit));
            self.pruned = Some((self.limits.len(), now));
        }
    }
}

const FIRST_PRUNING: usize = 64;
const PRUNING_PAUSE: Duration = Duration::from_secs(1);
