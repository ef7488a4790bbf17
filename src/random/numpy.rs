//! NumPy's legacy generator (`numpy.random.seed` and friends), from which the reference draws its subsets,
//! candidate sets and mixup weights (docs/spec.md, sections 2 and 3). Bit-exact, so subsets and candidate
//! sets equal the reference's.

use rand::SeedableRng;
use rand_mt::Mt as MersenneTwister;

/// The stream of `numpy.random.RandomState(seed)`.
#[derive(Clone, Debug)]
pub struct NumpyLegacy {
    words: MersenneTwister,
    /// The second normal deviate of a polar pair, until it is returned.
    cached_gauss: Option<f64>,
}

impl NumpyLegacy {
    /// The start of the stream for an integer seed.
    pub fn new(seed: u32) -> Self {
        Self { words: MersenneTwister::new(seed), cached_gauss: None }
    }

    fn word(&mut self) -> u32 {
        self.words.next_u32()
    }

    /// Uniform in [0, 1), 53 bits from two words, high part first.
    pub fn double(&mut self) -> f64 {
        unit_from_words(self.word(), self.word())
    }

    /// Uniform integer in 0..=`max`, by rejection below the next power of two; `max` = 0 draws nothing.
    pub fn bounded(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let word = self.word() & mask;
            if word <= max {
                return word;
            }
        }
    }

    /// Shuffles in place, as `numpy.random.shuffle` does an array of one dimension. At most 2^32 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let max = u32::try_from(i).expect("fewer than 2^32 items are shuffled");
            items.swap(i, self.bounded(max) as usize);
        }
    }

    /// Standard normal, by Marsaglia's polar method; every second call returns the other deviate of the pair.
    pub fn gauss(&mut self) -> f64 {
        if let Some(second) = self.cached_gauss.take() {
            return second;
        }
        loop {
            let x1 = 2.0 * self.double() - 1.0;
            let x2 = 2.0 * self.double() - 1.0;
            let radius = x1 * x1 + x2 * x2;
            if radius > 0.0 && radius < 1.0 {
                let factor = (-2.0 * radius.ln() / radius).sqrt();
                self.cached_gauss = Some(factor * x1);
                return factor * x2;
            }
        }
    }

    /// Gamma deviate of scale 1 (Marsaglia and Tsang, "A simple method for generating gamma variables",
    /// 2000). `shape` must be above 1: NumPy uses another method for smaller shapes, which nothing here
    /// needs.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        assert!(shape > 1.0, "gamma deviates are defined here for a shape above 1, not {shape}");
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let (x, v) = loop {
                let x = self.gauss();
                let v = 1.0 + c * x;
                if v > 0.0 {
                    break (x, v * v * v);
                }
            };
            let u = self.double();
            if u < 1.0 - 0.0331 * (x * x) * (x * x) || u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    /// Beta deviate from two gamma deviates; `a` and `b` must be above 1 (the reference's mixup draws Beta(4,
    /// 4)).
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let first = self.gamma(a);
        let second = self.gamma(b);
        first / (first + second)
    }
}

generator!(NumpyLegacy);

/// The seed is that of [`NumpyLegacy::new`], least significant byte first.
impl SeedableRng for NumpyLegacy {
    type Seed = [u8; 4];

    fn from_seed(seed: Self::Seed) -> Self {
        Self::new(u32::from_le_bytes(seed))
    }
}

/// The 53-bit double that NumPy and Python build from two 32-bit words: 27 high bits of the first, 26 of the
/// second.
pub(super) fn unit_from_words(first: u32, second: u32) -> f64 {
    (f64::from(first >> 5) * 67_108_864.0 + f64::from(second >> 6)) / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// The first numbers of NumPy's stream for seed 0.
    #[test]
    fn stated_vectors() {
        let mut stream = NumpyLegacy::new(0);
        let words: Vec<u32> = (0..4).map(|_| stream.next_u32()).collect();
        assert_eq!(words, [2_357_136_044, 2_546_248_239, 3_071_714_933, 3_626_093_760]);
        let mut stream = NumpyLegacy::new(0);
        assert_eq!([stream.double(), stream.double()], [0.548_813_503_927_324_8, 0.715_189_366_372_419_5]);
        let mut stream = NumpyLegacy::new(0);
        let mut order: Vec<u16> = (0..1000).collect();
        stream.shuffle(&mut order);
        assert_eq!(order[..6], [993, 859, 298, 553, 672, 971]);
    }

    #[test]
    fn bounded_zero_draws_nothing() {
        let (mut a, mut b) = (NumpyLegacy::new(5), NumpyLegacy::new(5));
        assert_eq!(a.bounded(0), 0);
        assert_eq!(a.next_u32(), b.next_u32());
    }

    #[test]
    fn bounded_reaches_the_whole_range() {
        let mut stream = NumpyLegacy::new(1);
        let seen: std::collections::BTreeSet<u32> = (0..500).map(|_| stream.bounded(6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        stream.bounded(u32::MAX);
    }
}
