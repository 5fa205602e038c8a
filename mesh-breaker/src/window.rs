//! Outcomes over the latest time, in ten parts of it that are forgotten one by one.

use crate::sync::{AtomicU64, Ordering};

/// The latest outcomes, as a success rate needs them. Many threads may record at once; a part of it that runs full is halved,
/// which keeps its ratio.
#[derive(Debug, Default)]
pub struct Window {
    /// Each: 20 bits of failures, 20 bits of requests, 24 bits of the number of the part of time that they belong to.
    parts: [AtomicU64; PARTS as usize],
}

/// What a window shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) requests: u32,
    pub(crate) failures: u32,
}

impl Window {
    /// Counts an outcome in this part of time, and says what the window shows then.
    pub(crate) fn record(&self, part: u64, failed: bool) -> Seen {
        let word = &self.parts[(part % PARTS) as usize];
        let add = |word| Some(Part::of(word, part).with(failed).word());
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.seen(part)
    }

    /// What the window shows in this part of time.
    pub(crate) fn seen(&self, part: u64) -> Seen {
        let mut seen = Seen {
            requests: 0,
            failures: 0,
        };
        for word in &self.parts {
            let found = Part::unpack(word.load(Ordering::Acquire));
            if (part & MAX_NUMBER).wrapping_sub(found.number) & MAX_NUMBER < PARTS {
                seen.requests += found.requests;
                seen.failures += found.failures;
            }
        }
        seen
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for word in &self.parts {
            word.store(0, Ordering::Release);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    number: u64,
    requests: u32,
    failures: u32,
}

impl Part {
    /// What the word holds of this part of time: nothing, if it belongs to an earlier one.
    fn of(word: u64, number: u64) -> Self {
        let found = Self::unpack(word);
        let number = number & MAX_NUMBER;
        if found.number == number {
            found
        } else {
            Self {
                number,
                requests: 0,
                failures: 0,
            }
        }
    }

    fn with(mut self, failed: bool) -> Self {
        if self.requests == MAX_COUNT {
            self.requests /= 2;
            self.failures /= 2;
        }
        self.requests += 1;
        self.failures += u32::from(failed);
        self
    }

    fn word(self) -> u64 {
        u64::from(self.failures) | u64::from(self.requests) << 20 | self.number << 40
    }

    fn unpack(word: u64) -> Self {
        Self {
            failures: word as u32 & MAX_COUNT,
            requests: (word >> 20) as u32 & MAX_COUNT,
            number: word >> 40,
        }
    }
}

/// Into how many parts a window is divided.
pub(crate) const PARTS: u64 = 10;
const MAX_COUNT: u32 = (1 << 20) - 1;
const MAX_NUMBER: u64 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list of everything that was recorded.
        #[test]
        fn what_is_older_than_the_window_is_forgotten(steps in proptest::collection::vec((0..30_u64, any::<bool>()), 1..200)) {
            let window = Window::default();
            let mut all: Vec<(u64, bool)> = Vec::new();
            let mut part = MAX_NUMBER - 20;
            for (later, failed) in steps {
                part += later / 10;
                all.push((part, failed));
                let within = |recorded: &&(u64, bool)| recorded.0 + PARTS > part;
                let expected = Seen {
                    requests: all.iter().filter(within).count() as u32,
                    failures: all.iter().filter(within).filter(|(_, failed)| *failed).count() as u32,
                };
                prop_assert_eq!(window.record(part, failed), expected);
            }
        }
    }

    #[test]
    fn a_full_part_keeps_its_ratio() {
        let part = Part {
            number: 3,
            requests: MAX_COUNT,
            failures: MAX_COUNT - 1,
        };
        let next = part.with(true);
        assert!(next.requests < MAX_COUNT && next.failures >= next.requests - 1);
        assert_eq!(Part::unpack(next.word()), next);
    }
}
