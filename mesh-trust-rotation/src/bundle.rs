//! Bundles: sets of anchors, published under generations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{AnchorId, Digest, Generation};

/// Who is given a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everybody.
    All,
    /// Canaries only.
    Canaries,
}

/// A set of anchors that was published.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bundle {
    /// The anchors; never empty.
    pub anchors: BTreeSet<AnchorId>,
    /// The digest of the set; unknown until it is composed.
    pub digest: Option<Digest>,
}

/// The bundles of late: what a generation and digest that a consumer reports stand for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bundles {
    /// The highest generation given out so far; the next one is higher.
    highest: Generation,
    /// What everybody is given.
    current: Generation,
    /// What canaries are given instead.
    canary: Option<Generation>,
    known: BTreeMap<Generation, Bundle>,
}

impl Bundles {
    /// The most bundles that are remembered. A consumer that reports an older one is not believed.
    pub const REMEMBERED: usize = 64;

    /// The first bundle of a mesh that has one already.
    pub(crate) fn new(generation: Generation, digest: Digest, anchors: BTreeSet<AnchorId>) -> Self {
        let bundle = Bundle {
            anchors,
            digest: Some(digest),
        };
        Self {
            highest: generation,
            current: generation,
            canary: None,
            known: BTreeMap::from([(generation, bundle)]),
        }
    }

    /// What everybody is given.
    #[must_use]
    pub fn current(&self) -> Generation {
        self.current
    }

    /// What canaries are given, if it is not what everybody is.
    #[must_use]
    pub fn canary(&self) -> Option<Generation> {
        self.canary
    }

    /// The highest generation given out.
    #[must_use]
    pub fn highest(&self) -> Generation {
        self.highest
    }

    /// The bundle of a generation, if it is remembered.
    #[must_use]
    pub fn known(&self, generation: Generation) -> Option<&Bundle> {
        self.known.get(&generation)
    }

    /// The anchors that everybody is given.
    pub(crate) fn current_anchors(&self) -> &BTreeSet<AnchorId> {
        static NONE: BTreeSet<AnchorId> = BTreeSet::new();
        self.known
            .get(&self.current)
            .map_or(&NONE, |bundle| &bundle.anchors)
    }

    /// Gives these anchors to everybody, under a new generation unless everybody is given them already.
    pub(crate) fn publish(&mut self, anchors: BTreeSet<AnchorId>) {
        if self.canary.is_none() && *self.current_anchors() == anchors {
            return;
        }
        let canary = self.canary.take();
        if let Some(generation) = canary
            && self
                .known
                .get(&generation)
                .is_some_and(|bundle| bundle.anchors == anchors)
        {
            self.current = generation;
            return;
        }
        self.current = self.add(anchors);
    }

    /// Gives these anchors to everybody under a new generation, whatever is given now.
    pub(crate) fn republish(&mut self, anchors: BTreeSet<AnchorId>) {
        self.canary = None;
        self.current = self.add(anchors);
    }

    /// Gives these anchors to canaries.
    pub(crate) fn publish_to_canaries(&mut self, anchors: BTreeSet<AnchorId>) {
        self.canary = Some(self.add(anchors));
    }

    /// Takes the digest of a generation; false if it has another one.
    pub(crate) fn confirm(&mut self, generation: Generation, digest: Digest) -> bool {
        let Some(bundle) = self.known.get_mut(&generation) else {
            return false;
        };
        *bundle.digest.get_or_insert(digest) == digest
    }

    /// Learns that a generation was given out that is not remembered.
    pub(crate) fn learn(&mut self, generation: Generation) {
        self.highest = self.highest.max(generation);
    }

    fn add(&mut self, anchors: BTreeSet<AnchorId>) -> Generation {
        self.highest = self.highest.next();
        let bundle = Bundle {
            anchors,
            digest: None,
        };
        self.known.insert(self.highest, bundle);
        while self.known.len() > Self::REMEMBERED {
            self.known.pop_first();
        }
        self.highest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn anchors(number: u8) -> BTreeSet<AnchorId> {
        BTreeSet::from([AnchorId::new([number; 32])])
    }

    fn bundles() -> Bundles {
        Bundles::new(Generation(1), Digest::new([1; 32]), anchors(1))
    }

    #[test]
    fn a_generation_is_given_out_for_one_set_of_anchors() {
        let mut bundles = bundles();
        bundles.publish(anchors(1));
        assert_eq!(bundles.current(), Generation(1));
        bundles.publish(anchors(2));
        assert_eq!(bundles.current(), Generation(2));
        bundles.republish(anchors(2));
        assert_eq!(bundles.current(), Generation(3));
        bundles.learn(Generation(9));
        bundles.learn(Generation(4));
        bundles.publish(anchors(1));
        assert_eq!(bundles.current(), Generation(10));
        assert_eq!(bundles.highest(), Generation(10));
    }

    #[test]
    fn what_canaries_had_is_given_to_everybody_or_taken_back() {
        let mut bundles = bundles();
        bundles.publish_to_canaries(anchors(2));
        assert_eq!(bundles.canary(), Some(Generation(2)));
        assert_eq!(bundles.current(), Generation(1));
        let mut back = bundles.clone();
        bundles.publish(anchors(2));
        assert_eq!((bundles.current(), bundles.canary()), (Generation(2), None));
        // Canaries take nothing older: it is given out anew.
        back.publish(anchors(1));
        assert_eq!((back.current(), back.canary()), (Generation(3), None));
        assert_eq!(*back.current_anchors(), anchors(1));
    }

    #[test]
    fn the_first_digest_of_a_generation_stays() {
        let mut bundles = bundles();
        bundles.publish(anchors(2));
        let (one, other) = (Digest::new([2; 32]), Digest::new([3; 32]));
        assert!(bundles.confirm(Generation(2), one));
        assert!(!bundles.confirm(Generation(2), other));
        assert!(bundles.confirm(Generation(2), one));
        assert!(!bundles.confirm(Generation(7), one));
    }

    #[test]
    fn as_many_are_remembered_as_is_said() {
        let mut bundles = bundles();
        for _ in 0..Bundles::REMEMBERED - 1 {
            bundles.republish(anchors(1));
        }
        assert!(bundles.known(Generation(1)).is_some());
        bundles.republish(anchors(1));
        assert!(bundles.known(Generation(1)).is_none());
        assert!(bundles.known(Generation(2)).is_some());
    }
}
