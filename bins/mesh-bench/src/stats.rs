//! What repeated measurements say: median, spread, percentiles, fairness.

use serde::{Deserialize, Serialize};

/// The middle of several rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle value; the mean of the two middle ones of an even number.
    pub median: f64,
    /// Half of what lies between the smallest and the largest value; `None` of a single one.
    pub spread: Option<f64>,
}

impl Summary {
    /// Of `rounds`; `None` if there are none, or one is not a number.
    #[must_use]
    pub fn of(rounds: &[f64]) -> Option<Self> {
        if rounds.is_empty() || rounds.iter().any(|value| value.is_nan()) {
            return None;
        }
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            spread: (rounds.len() > 1).then(|| (last - first) / 2.0),
        })
    }
}

/// The value that `part` (0 to 1) of `sorted` do not exceed: the nearest rank, always one of the values. `None` if
/// there are none.
#[must_use]
pub fn percentile(sorted: &[u32], part: f64) -> Option<u32> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank is between 0 and the number of values"
    )]
    let rank = (part.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Jain's index of fairness: 1 if all shares are equal, `1/n` if one of `n` has everything. `None` if there are no shares, or
/// all are nothing. (R. Jain, D. Chiu, W. Hawe: A quantitative measure of fairness, DEC TR-301, 1984.)
#[must_use]
pub fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    #[allow(clippy::cast_precision_loss, reason = "a number of shares is small")]
    let count = shares.len() as f64;
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_half_the_range() {
        let summary = Summary::of(&[9.0, 1.0, 4.0]).unwrap();
        assert_eq!((summary.median, summary.spread), (4.0, Some(4.0)));
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.spread), (2.5, Some(1.5)));
        let one = Summary::of(&[7.0]).unwrap();
        assert_eq!((one.median, one.spread), (7.0, None));
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let values: Vec<u32> = (1..=1000).collect();
        assert_eq!(percentile(&values, 0.5), Some(500));
        assert_eq!(percentile(&values, 0.99), Some(990));
        assert_eq!(percentile(&values, 0.999), Some(999));
        assert_eq!(percentile(&values, 1.0), Some(1000));
        assert_eq!(percentile(&values, 0.0), Some(1));
        assert_eq!(percentile(&[3], 0.999), Some(3));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn one_slow_answer_in_a_hundred_is_not_in_the_99th_but_in_the_999th() {
        let mut values = vec![1; 99];
        values.push(50);
        assert_eq!(percentile(&values, 0.99), Some(1));
        assert_eq!(percentile(&values, 0.999), Some(50));
    }

    #[test]
    fn fairness_goes_from_one_to_a_share_of_one() {
        assert_eq!(jain(&[5.0, 5.0, 5.0]), Some(1.0));
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[]), None);
        assert!(jain(&[3.0, 1.0]).unwrap() < 1.0);
    }
}
