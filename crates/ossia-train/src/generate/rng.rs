//! A tiny generator of random numbers (splitmix64) and a stable hash (FNV-1a), so that a sample depends on its seed and
//! place only: not on a library's version, not on what was drawn before.

/// Splitmix64: one addition and one mixing for each number.
#[derive(Debug, Clone)]
pub(super) struct Rng {
    state: u64,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// A stream of its own for every list of numbers.
    pub fn new(parts: &[u64]) -> Self {
        let state =
            parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| mix(state ^ mix(*part)).wrapping_add(1));
        Self { state }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `n`. The bias of the remainder is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// The place of one weight, with a likelihood in proportion to it.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.below(weights.iter().sum::<u32>() as usize) as u32;
        let chosen = weights.iter().position(|&weight| {
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        });
        chosen.unwrap_or(0)
    }

    /// Brings the list into a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// `n` different entries of the list, in random order.
    pub fn some<T: Copy>(&mut self, list: &[T], n: usize) -> Vec<T> {
        let mut all = list.to_vec();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }

    /// A number of exactly `digits` digits; zero is one of those with one digit.
    pub fn with_digits(&mut self, digits: u32) -> u64 {
        let low = if digits == 1 { 0 } else { 10_u64.pow(digits - 1) };
        self.between(low, 10_u64.pow(digits) - 1)
    }
}

/// FNV-1a, then mixed so that every bit depends on every byte.
pub(super) fn hash(text: &str) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::{Rng, hash};

    #[test]
    fn numbers_are_the_same_everywhere() {
        assert_eq!(Rng { state: 0 }.next(), 0xe220_a839_7b1d_cdaf, "the published first number of seed 0");
        assert_eq!(hash("add 48 274"), hash("add 48 274"));
        assert_ne!(Rng::new(&[1, 2]).next(), Rng::new(&[2, 1]).next());
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut rng = Rng::new(&[7]);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            assert!((5..=9).contains(&rng.between(5, 9)));
            assert!((100..=999).contains(&rng.with_digits(3)));
            counts[rng.weighted(&[1, 0, 2])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
        let mut some = rng.some(&[1, 2, 3, 4, 5], 5);
        some.sort();
        assert_eq!(some, [1, 2, 3, 4, 5]);
    }
}
