//! Random numbers: a counter-based stream ([`philox`]) and the two streams from which the reference draws its
//! data ([`numpy`], [`python`]).
//!
//! All three are generators of the crate `rand` ([`rand::Rng`], [`rand::SeedableRng`]), so they work with its
//! distributions. Runs use only the streams' own methods: their bits are part of what a seed means, whereas
//! `rand` may change its algorithms between versions.

/// Implements `rand`'s generator trait for a stream whose method `word` returns the next 32 bits.
macro_rules! generator {
    ($stream:ty) => {
        impl rand::TryRng for $stream {
            type Error = std::convert::Infallible;

            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Ok(self.word())
            }

            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                rand::rand_core::utils::next_u64_via_u32(self)
            }

            fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
                rand::rand_core::utils::fill_bytes_via_next_word(bytes, || Ok(self.word()))
            }
        }
    };
}

pub mod numpy;
pub mod philox;
pub mod python;

#[cfg(test)]
mod tests {
    use rand::distr::{Distribution, Uniform};
    use rand::seq::SliceRandom;
    use rand::{Rng, RngExt, SeedableRng};

    use super::numpy::NumpyLegacy;
    use super::philox::{Purpose, Stream};
    use super::python::PythonRandom;

    /// Words, double words and bytes come from the same stream, and `rand`'s methods draw from it.
    fn is_one_stream(generator: impl Rng + Clone) {
        let words: Vec<u32> = std::iter::repeat_with({
            let mut generator = generator.clone();
            move || generator.next_u32()
        })
        .take(64)
        .collect();
        let mut longer = generator.clone();
        for pair in words[..8].chunks_exact(2) {
            assert_eq!(longer.next_u64(), u64::from(pair[1]) << 32 | u64::from(pair[0]));
        }
        let mut bytes = [0; 7];
        generator.clone().fill_bytes(&mut bytes);
        assert_eq!(bytes[..], [words[0].to_le_bytes(), words[1].to_le_bytes()].concat()[..7]);

        let mut drawing = generator.clone();
        let mut order: Vec<u32> = (0..50).collect();
        order.shuffle(&mut drawing);
        assert!(!order.is_sorted());
        let die = Uniform::new_inclusive(1, 6).unwrap();
        assert!((0..100).all(|_| (1..=6).contains(&die.sample(&mut drawing))));
        let mean = (0..4000).map(|_| drawing.random::<f64>()).sum::<f64>() / 4000.0;
        // Five standard deviations of the mean of 4,000 uniform numbers.
        assert!((mean - 0.5).abs() < 5.0 * (1.0f64 / 12.0 / 4000.0).sqrt(), "{mean}");
    }

    #[test]
    fn all_are_generators_of_rand() {
        is_one_stream(Stream::new(1, Purpose::Shuffle, 2, 3, 4));
        is_one_stream(NumpyLegacy::new(5));
        is_one_stream(PythonRandom::new(6));
    }

    #[test]
    fn seeds_are_those_of_the_streams() {
        assert_eq!(NumpyLegacy::from_seed(7u32.to_le_bytes()).next_u32(), NumpyLegacy::new(7).next_u32());
        let seed = 1 << 40 | 8;
        assert_eq!(PythonRandom::seed_from_u64(seed).next_u64(), PythonRandom::new(seed).next_u64());
        let mut stream = Stream::new(1 << 33 | 9, Purpose::Mixup, 2, 3, 4);
        let mut seed = [0; 24];
        for (word, bytes) in
            [9u32, 2, 0, 3, 2, (Purpose::Mixup as u32) << 24 | 4].iter().zip(seed.chunks_exact_mut(4))
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(Stream::from_seed(seed).next_u64(), stream.next_u64());
    }
}
