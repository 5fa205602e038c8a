//! Each backend gets its share of the requests, to within two percent of all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use mesh_policy::{Distribution, Weighted};
use proptest::prelude::*;

/// Words spread evenly over all words, in a scrambled order: a low-discrepancy sequence (golden ratio).
fn words(count: u64, start: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| start.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn shares(count: usize, mut pick: impl FnMut(u64) -> Option<usize>, start: u64) -> Vec<f64> {
    const DRAWS: u64 = 20_000;
    let mut hits = vec![0_u32; count];
    for word in words(DRAWS, start) {
        if let Some(index) = pick(word) {
            hits[index] += 1;
        }
    }
    hits.into_iter()
        .map(|n| f64::from(n) / DRAWS as f64)
        .collect()
}

fn expected(weights: &[u32], included: impl Fn(usize) -> bool) -> Vec<f64> {
    let weight = |index: usize| {
        if included(index) {
            f64::from(weights[index])
        } else {
            0.0
        }
    };
    let total: f64 = (0..weights.len()).map(weight).sum();
    (0..weights.len())
        .map(|index| {
            if total > 0.0 {
                weight(index) / total
            } else {
                0.0
            }
        })
        .collect()
}

fn distribution(weights: &[u32]) -> Distribution<usize> {
    Distribution::RandomAvailable(Weighted::new(weights.iter().copied().enumerate()).unwrap())
}

proptest! {
    #[test]
    fn among_all(weights in prop::collection::vec(0..=u32::MAX, 1..12), start: u64) {
        let distribution = distribution(&weights);
        let given = shares(weights.len(), |word| distribution.pick(word).copied(), start);
        for (given, expected) in given.iter().zip(expected(&weights, |_| true)) {
            prop_assert!((given - expected).abs() < 0.02, "{given} for {expected}");
        }
    }

    #[test]
    fn among_those_available(
        backends in prop::collection::vec((0..1000_u32, any::<bool>()), 1..12),
        start: u64,
    ) {
        let weights: Vec<u32> = backends.iter().map(|(weight, _)| *weight).collect();
        let available = |index: usize| backends[index].1;
        let distribution = distribution(&weights);
        let pick = |word| distribution.pick_available(word, |index| available(*index)).copied();
        let given = shares(weights.len(), pick, start);
        for (given, expected) in given.iter().zip(expected(&weights, available)) {
            prop_assert!((given - expected).abs() < 0.02, "{given} for {expected}");
        }
    }

    #[test]
    fn some_backend_is_picked_if_any_can_be(
        backends in prop::collection::vec((0..3_u32, any::<bool>()), 0..6),
        word: u64,
    ) {
        let weights: Vec<u32> = backends.iter().map(|(weight, _)| *weight).collect();
        let distribution = distribution(&weights);
        let picked = distribution.pick_available(word, |index| backends[*index].1);
        let possible = backends.iter().any(|(weight, available)| *weight > 0 && *available);
        prop_assert_eq!(picked.is_some(), possible);
        if let Some(index) = picked {
            prop_assert!(backends[*index].1 && backends[*index].0 > 0);
        }
    }
}
