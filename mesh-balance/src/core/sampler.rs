/// Draws an index with a chance proportional to its weight, in constant time.
///
/// Unequal weights use the alias method (Walker 1974, table built as by Vose 1991).
#[derive(Debug)]
pub(crate) enum Sampler {
    Uniform,
    Alias(Box<[Column]>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Below this the column itself is drawn, otherwise its alias.
    threshold: u32,
    alias: u32,
}

impl Sampler {
    /// For these weights, all above zero.
    pub(crate) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let len = weights.len();
        let total: u64 = weights.clone().map(u64::from).sum();
        let first = weights.clone().next();
        if weights.clone().all(|weight| Some(weight) == first) {
            return Self::Uniform;
        }
        let unit = len as f64 / total as f64;
        let mut share: Vec<f64> = weights.map(|weight| f64::from(weight) * unit).collect();
        let mut columns: Vec<Column> = (0..len)
            .map(|index| Column {
                threshold: u32::MAX,
                alias: index as u32,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..len).partition(|index| share[*index] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            columns[less] = Column {
                threshold: (share[less] * TWO_POW_32) as u32,
                alias: more as u32,
            };
            share[more] -= 1.0 - share[less];
            if share[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self::Alias(columns.into())
    }

    /// An index below `len`, which is the number of weights and above zero.
    pub(crate) fn draw(&self, len: usize, random: u64) -> usize {
        let index = (((random >> 32) * len as u64) >> 32) as usize;
        match self {
            Self::Uniform => index,
            Self::Alias(columns) => {
                let column = columns[index];
                if random as u32 <= column.threshold {
                    index
                } else {
                    column.alias as usize
                }
            }
        }
    }
}

/// A stream of random words from one (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words(pub(crate) u64);

impl Words {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

const TWO_POW_32: f64 = 4_294_967_296.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn draws_follow_the_weights(weights in proptest::collection::vec(1..1000_u32, 1..20), seed: u64) {
            const DRAWS: u32 = 40_000;
            let sampler = Sampler::new(weights.iter().copied());
            let mut words = Words(seed);
            let mut drawn = vec![0_u32; weights.len()];
            for _ in 0..DRAWS {
                drawn[sampler.draw(weights.len(), words.next())] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (drawn, weight) in drawn.iter().zip(&weights) {
                let (is, should) = (f64::from(*drawn) / f64::from(DRAWS), f64::from(*weight) / f64::from(total));
                prop_assert!((is - should).abs() < 0.02, "{} instead of {}", is, should);
            }
        }
    }

    #[test]
    fn extreme_weights_stay_in_range() {
        let weights = [1, u32::MAX, u32::MAX, 1, 7];
        let sampler = Sampler::new(weights.iter().copied());
        for random in [0, u64::MAX, 1 << 63, u64::from(u32::MAX)] {
            assert!(sampler.draw(weights.len(), random) < weights.len());
        }
    }
}
