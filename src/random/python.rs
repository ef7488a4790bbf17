//! Python's `random` module, whose stream shuffles the class counts of the NU data sets (docs/spec.md,
//! section 2).

use rand::SeedableRng;
use rand_mt::Mt as MersenneTwister;

use super::numpy::unit_from_words;

/// The stream of `random.seed(seed)`.
#[derive(Clone, Debug)]
pub struct PythonRandom {
    words: MersenneTwister,
}

impl PythonRandom {
    /// The start of the stream: key-array initialisation from the seed's 32-bit words, least significant
    /// first.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let words = if high == 0 {
            MersenneTwister::new_with_key([low])
        } else {
            MersenneTwister::new_with_key([low, high])
        };
        Self { words }
    }

    fn word(&mut self) -> u32 {
        self.words.next_u32()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn random(&mut self) -> f64 {
        unit_from_words(self.word(), self.word())
    }

    /// Uniform integer in 0..`bound` (`bound` > 0): the high bits of a word, as many as `bound` has, until
    /// they are below it.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "there is no integer below 0");
        let unused_bits = bound.leading_zeros();
        loop {
            let word = self.word() >> unused_bits;
            if word < bound {
                return word;
            }
        }
    }

    /// Shuffles in place. Fewer than 2^32 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let bound = u32::try_from(i + 1).expect("fewer than 2^32 items are shuffled");
            items.swap(i, self.below(bound) as usize);
        }
    }
}

generator!(PythonRandom);

/// The seed is that of [`PythonRandom::new`], least significant byte first.
impl SeedableRng for PythonRandom {
    type Seed = [u8; 8];

    fn from_seed(seed: Self::Seed) -> Self {
        Self::new(u64::from_le_bytes(seed))
    }

    /// As `random.seed(seed)` in Python.
    fn seed_from_u64(seed: u64) -> Self {
        Self::new(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python's stream for seed 123, and the reference's class counts shuffled with it.
    #[test]
    fn stated_vectors() {
        assert_eq!(PythonRandom::new(123).random(), 0.052_363_598_850_944_326);
        let mut counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50];
        PythonRandom::new(123).shuffle(&mut counts);
        assert_eq!(counts, [83, 139, 387, 50, 1796, 1077, 232, 2997, 645, 5000]);
    }

    /// A seed above 32 bits has two key words, so it differs from its low word alone.
    #[test]
    fn long_seeds_use_their_high_word() {
        assert_ne!(PythonRandom::new(1 << 32 | 7).random(), PythonRandom::new(7).random());
    }
}
