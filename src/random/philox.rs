//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
//! counter-based generator.
//!
//! Every random number of a run is a function of its purpose, (seed, purpose, epoch, sample, view, draw), and
//! of nothing else: neither batch position nor thread nor earlier draws. A resumed run, another batch size or
//! another device therefore sees the same numbers.

use rand::SeedableRng;
use rand::rand_core::utils::read_words;

use super::numpy::unit_from_words;

/// The purpose of a stream of random numbers. The values are part of the format of a run: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; `sample` is the parameter's number in state_dict order.
    Initialisation = 1,
    /// The order of the samples of an epoch.
    Shuffle = 2,
    /// Augmentation parameters of one view of one sample.
    Augmentation = 3,
    /// Mixup weight and permutation of a step.
    Mixup = 4,
    /// The procedural data set.
    Synthetic = 5,
}

/// The key increment of a round and the two multipliers of Philox4x32.
const BUMP: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// Ten rounds of Philox4x32 on one counter block.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(BUMP[0]), key[1].wrapping_add(BUMP[1])];
    }
    counter
}

/// The stream of one (seed, purpose, epoch, sample, view). Its counter words are draw block, sample, epoch,
/// and purpose with view.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The start of the stream. `view` must be below 2^24.
    pub fn new(seed: u64, purpose: Purpose, epoch: u32, sample: u32, view: u32) -> Self {
        let counter = [0, sample, epoch, (purpose as u32) << 24 | (view & 0x00FF_FFFF)];
        Self::at([seed as u32, (seed >> 32) as u32], counter)
    }

    fn at(key: [u32; 2], counter: [u32; 4]) -> Self {
        Self { key, counter, block: [0; 4], used: 4 }
    }

    fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        unit_from_words(self.word(), self.word())
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform integer in 0..bound (`bound` > 0), without bias: rejection below a power of two.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mask = u32::MAX.checked_shr((bound - 1).leading_zeros()).unwrap_or(0);
        loop {
            let word = self.word() & mask;
            if word < bound {
                return word;
            }
        }
    }

    /// Standard normal, by the Box-Muller method.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A uniformly random permutation of 0..n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
        order
    }
}

generator!(Stream);

/// The seed holds key and first counter, six little-endian words.
impl SeedableRng for Stream {
    type Seed = [u8; 24];

    fn from_seed(seed: Self::Seed) -> Self {
        Self::at(read_words(&seed[..8]), read_words(&seed[8..]))
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// The known-answer vectors published with the generator (Random123's kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn below_is_in_range_and_reaches_both_ends() {
        for bound in [1u32, 2, 3, 7, 10, 1000, u32::MAX] {
            let mut stream = Stream::new(1, Purpose::Shuffle, 0, bound, 0);
            assert!((0..1000).all(|_| stream.below(bound) < bound));
        }
        let mut stream = Stream::new(1, Purpose::Shuffle, 0, 0, 0);
        let seen: std::collections::HashSet<u32> = (0..200).map(|_| stream.below(5)).collect();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn streams_differ_in_every_key_word() {
        let first =
            |seed, purpose, epoch, sample, view| Stream::new(seed, purpose, epoch, sample, view).next_u32();
        let base = first(1, Purpose::Augmentation, 2, 3, 0);
        assert_ne!(base, first(2, Purpose::Augmentation, 2, 3, 0));
        assert_ne!(base, first(1 << 32 | 1, Purpose::Augmentation, 2, 3, 0));
        assert_ne!(base, first(1, Purpose::Mixup, 2, 3, 0));
        assert_ne!(base, first(1, Purpose::Augmentation, 3, 3, 0));
        assert_ne!(base, first(1, Purpose::Augmentation, 2, 4, 0));
        assert_ne!(base, first(1, Purpose::Augmentation, 2, 3, 1));
    }
}
