//! Keeping to a part of a very large set.

use super::words::Words;
use crate::sync::{AtomicU32, Ordering};
use std::num::NonZeroU32;

/// Keeps requests to a part of a large set while that part can take them, as each endpoint that is used costs a connection, and
/// one that is used rarely costs a cold one.
///
/// The part is a run of the set that begins at a random place, so that many callers with apertures of their own use all endpoints
/// evenly. It opens where the one that takes a request has two or more in flight already, or where nobody in it will do, and
/// closes slowly while they are idle: it comes to hold about as many endpoints as there are requests in flight. Shares follow the
/// weights as far as so many endpoints can. Sets of up to `least` endpoints are used whole.
///
/// ```
/// use mesh_balance::core::{Aperture, Change, PoolBuilder};
/// use std::{collections::HashSet, time::Instant};
///
/// let now = Instant::now();
/// let mut pool = PoolBuilder::default().aperture(Aperture::new(100, 0x5eed)).build(now);
/// pool.apply((0..10_000).map(|i| Change::insert(i, i, 1)));
/// let picker = pool.picker();
/// let used: HashSet<i32> = (0..50_000).map(|word| *picker.pick(now, word, &[]).expect("endpoints")).collect();
/// assert!(used.len() <= 100, "one request after the other");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aperture {
    least: NonZeroU32,
    place: u64,
}

impl Aperture {
    /// Of `least` endpoints when nothing is asked of them; 0 counts as 1. `random` is any random word, another one for each caller:
    /// it decides where the part begins.
    #[must_use]
    pub fn new(least: u32, random: u64) -> Self {
        Self {
            least: NonZeroU32::new(least).unwrap_or(NonZeroU32::MIN),
            place: random,
        }
    }
}

/// How far it is open. What several threads change at once may lose one of the changes.
#[derive(Debug)]
pub(crate) struct Opening {
    least: u32,
    /// Where it begins, as a part of 2^32.
    start: u32,
    width: AtomicU32,
}

impl Opening {
    pub(crate) fn new(aperture: Aperture) -> Self {
        let least = aperture.least.get();
        Self {
            least,
            start: (Words(aperture.place).next() >> 32) as u32,
            width: AtomicU32::new(least),
        }
    }

    /// What a snapshot of so many endpoints keeps for [`window`](Self::window): the part of 2^32 that one of them is, or 0 where
    /// all are used.
    pub(crate) fn unit(&self, len: usize) -> u32 {
        if len <= self.least as usize {
            return 0;
        }
        // Below 2^32, as more than one is in it.
        ((1_u64 << 32) / len as u64) as u32
    }

    /// How many endpoints are used, where there are more than that.
    pub(crate) fn width(&self) -> u32 {
        self.width.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn window(&self, unit: u32) -> Window {
        Window {
            start: self.start,
            share: unit.saturating_mul(self.width()),
        }
    }

    /// A request goes to an endpoint that had so many in flight.
    #[inline]
    pub(crate) fn felt(&self, in_flight: u32, len: usize, words: &mut Words) {
        let width = self.width();
        if in_flight >= BUSY {
            self.set(width + step(width), len);
        } else if in_flight == 0 && width > self.least && words.next().is_multiple_of(CLOSING) {
            self.set(width - step(width), len);
        }
    }

    /// Nobody in it will do.
    pub(crate) fn nobody(&self, len: usize) {
        self.set(self.width().saturating_mul(2), len);
    }

    fn set(&self, width: u32, len: usize) {
        let most = u32::try_from(len).unwrap_or(u32::MAX).max(self.least);
        let width = width.clamp(self.least, most);
        self.width.store(width, Ordering::Relaxed);
    }
}

/// A part of a list, to be drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    start: u32,
    /// As parts of 2^32; the largest is all.
    share: u32,
}

impl Window {
    pub(crate) const WHOLE: Self = Self {
        start: 0,
        share: u32::MAX,
    };

    /// Of a list of this length the first place and how many there are from it on, beyond the end at the beginning.
    #[inline]
    pub(crate) fn of(self, len: usize) -> (usize, usize) {
        if self.share == u32::MAX {
            return (0, len);
        }
        let part = |share: u32| ((u64::from(share) * len as u64) >> 32) as usize;
        (part(self.start), (part(self.share) + 1).max(FEW.min(len)))
    }
}

/// Requests in flight at an endpoint that takes another one.
const BUSY: u32 = 2;
/// One idle pick of so many closes by a step, so that busy picks, which open by one each, are about a hundredth.
const CLOSING: u64 = 64;
/// Of a class of weights so many are used at the least: there has to be a choice where one class has most of the weight.
const FEW: usize = 8;

/// A two hundred and fifty-sixth, so that a burst is met in some hundred requests however wide it is.
fn step(width: u32) -> u32 {
    1 + width / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_window_is_a_part_of_the_list(start: u32, share: u32, len in 1..100_000_usize) {
            let (first, open) = Window { start, share }.of(len);
            prop_assert!(first < len);
            prop_assert!((1..=len).contains(&open));
        }

        #[test]
        fn a_width_is_met(least in 1..1_000_u32, more in 1..1_000_000_usize, place: u64) {
            let opening = Opening::new(Aperture::new(least, place));
            let len = least as usize + more;
            let (_, open) = opening.window(opening.unit(len)).of(len);
            let width = (least as usize).max(FEW.min(len));
            prop_assert!(open <= width + 1 && open + 1 + len / 1_000_000 >= width.min(least as usize), "{} of {}", open, width);
        }
    }

    #[test]
    fn small_sets_are_used_whole() {
        let opening = Opening::new(Aperture::new(100, 1));
        assert_eq!(opening.unit(100), 0);
        assert_ne!(opening.unit(101), 0);
        assert_eq!(Window::WHOLE.of(100), (0, 100));
    }

    #[test]
    fn it_never_leaves_its_bounds() {
        let opening = Opening::new(Aperture::new(0, 1));
        let mut words = Words(1);
        for _ in 0..10_000 {
            opening.felt(BUSY, 1_000, &mut words);
        }
        assert_eq!(opening.width(), 1_000);
        opening.nobody(1_000);
        assert_eq!(opening.width(), 1_000);
        for _ in 0..1_000_000 {
            opening.felt(0, 1_000, &mut words);
        }
        assert_eq!(opening.width(), 1);
    }
}
