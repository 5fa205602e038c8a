use crate::Error;

/// Which of several backends a request goes to.
#[derive(Clone, Debug, Default)]
pub enum Distribution<B> {
    /// No backend: the request fails.
    #[default]
    Empty,
    /// The first that is available, in order.
    FirstAvailable(Vec<B>),
    /// One at random, by weight.
    RandomAvailable(Weighted<B>),
}

/// Backends with their weights.
#[derive(Clone, Debug)]
pub struct Weighted<B> {
    // Each entry with a weight above zero, and the sum of them, which fits.
    entries: Vec<(B, u32)>,
    total: u64,
}

impl<B> Distribution<B> {
    /// The backend for one request. `random` is a uniformly random word; the same word gives the same backend.
    ///
    /// `None` when there is no backend.
    pub fn pick(&self, random: u64) -> Option<&B> {
        match self {
            Self::Empty => None,
            Self::FirstAvailable(backends) => backends.first(),
            Self::RandomAvailable(weighted) => weighted.at(scale(random, weighted.total), |_| true),
        }
    }

    /// As [`pick`](Self::pick), among the backends that are `available`: the shares of the others go to these in proportion.
    ///
    /// `None` when none is available.
    pub fn pick_available(&self, random: u64, mut available: impl FnMut(&B) -> bool) -> Option<&B> {
        match self {
            Self::Empty => None,
            Self::FirstAvailable(backends) => backends.iter().find(|backend| available(backend)),
            Self::RandomAvailable(weighted) => {
                let point = scale(random, weighted.total);
                // Nearly always all are available; then one pass is enough.
                let hit = weighted.at(point, |_| true)?;
                let sum: u64 = weighted
                    .entries
                    .iter()
                    .filter(|(backend, _)| available(backend))
                    .map(|(_, weight)| u64::from(*weight))
                    .sum();
                if sum == weighted.total {
                    return Some(hit);
                }
                weighted.at(scale(random, sum), available)
            }
        }
    }

    /// Every backend that a request may go to, in order.
    pub fn backends(&self) -> impl Iterator<Item = &B> {
        let (plain, weighted) = match self {
            Self::Empty => (&[][..], &[][..]),
            Self::FirstAvailable(backends) => (&backends[..], &[][..]),
            Self::RandomAvailable(weighted) => (&[][..], &weighted.entries[..]),
        };
        plain
            .iter()
            .chain(weighted.iter().map(|(backend, _)| backend))
    }

    /// True when there is no backend.
    pub fn is_empty(&self) -> bool {
        self.backends().next().is_none()
    }

    /// The same distribution over other handles.
    pub fn map<C>(&self, mut map: impl FnMut(&B) -> C) -> Distribution<C> {
        match self {
            Self::Empty => Distribution::Empty,
            Self::FirstAvailable(backends) => {
                Distribution::FirstAvailable(backends.iter().map(map).collect())
            }
            Self::RandomAvailable(weighted) => Distribution::RandomAvailable(Weighted {
                entries: weighted
                    .entries
                    .iter()
                    .map(|(backend, weight)| (map(backend), *weight))
                    .collect(),
                total: weighted.total,
            }),
        }
    }
}

impl<B> Weighted<B> {
    /// The most backends one distribution holds.
    pub const MAX_BACKENDS: usize = 1024;

    /// A choice among `entries`. An entry of weight zero is never chosen and is left out.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] above [`MAX_BACKENDS`](Self::MAX_BACKENDS).
    pub fn new(entries: impl IntoIterator<Item = (B, u32)>) -> Result<Self, Error> {
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .collect();
        if entries.len() > Self::MAX_BACKENDS {
            return Err(Error::TooMany {
                what: "backends of a distribution",
                given: entries.len(),
                max: Self::MAX_BACKENDS,
            });
        }
        let total = entries.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Ok(Self { entries, total })
    }

    /// The backends with their weights.
    pub fn entries(&self) -> &[(B, u32)] {
        &self.entries
    }

    /// The included backend whose share of the line of weights holds `point`.
    fn at(&self, mut point: u64, mut included: impl FnMut(&B) -> bool) -> Option<&B> {
        for (backend, weight) in &self.entries {
            if !included(backend) {
                continue;
            }
            let weight = u64::from(*weight);
            if point < weight {
                return Some(backend);
            }
            point -= weight;
        }
        None
    }
}

/// A uniform word scaled to `0..total`: the high half of their product (Lemire 2019, without the rejection step, whose
/// bias is below `total / 2^64`).
fn scale(random: u64, total: u64) -> u64 {
    let product = u128::from(random) * u128::from(total);
    // The high half of a product of two 64-bit words fits in 64 bits.
    (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(weights: &[u32]) -> Distribution<usize> {
        let entries = weights.iter().copied().enumerate();
        Distribution::RandomAvailable(Weighted::new(entries).unwrap())
    }

    #[test]
    fn a_backend_without_weight_gets_nothing() {
        let distribution = weighted(&[0, 1, 0]);
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(distribution.pick(random), Some(&1));
        }
        assert_eq!(weighted(&[0, 0]).pick(7), None);
        assert!(weighted(&[0]).is_empty());
    }

    #[test]
    fn the_ends_of_the_line_belong_to_the_first_and_the_last() {
        let distribution = weighted(&[u32::MAX, u32::MAX, u32::MAX]);
        assert_eq!(distribution.pick(0), Some(&0));
        assert_eq!(distribution.pick(u64::MAX), Some(&2));
    }

    #[test]
    fn first_available_keeps_its_order() {
        let distribution = Distribution::FirstAvailable(vec!["a", "b"]);
        assert_eq!(distribution.pick(99), Some(&"a"));
        assert_eq!(distribution.pick_available(99, |b| *b != "a"), Some(&"b"));
        assert_eq!(distribution.pick_available(99, |_| false), None);
    }

    #[test]
    fn an_availability_that_changes_midway_is_no_panic() {
        let mut calls = 0;
        let flapping = |_: &usize| {
            calls += 1;
            calls % 2 == 0
        };
        weighted(&[1, 2, 3]).pick_available(u64::MAX, flapping);
    }
}
