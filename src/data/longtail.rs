//! The long-tailed subset of a balanced set (SPEC 2): how many samples of each class are kept, and which.

use crate::random::numpy::NumpyLegacy;
use crate::random::python::PythonRandom;

crate::declare_words! {
    /// How the class counts fall from the most to the least frequent class (SPEC 2), with K classes, n_max
    /// samples of the most frequent one and mu = n_min / n_max.
    pub enum ImbalanceType {
        /// Exponentially from class to class: n_k = n_max * mu^(k/(K-1)).
        Exp = "exp",
        /// In one step: the first K/2 classes keep n_max samples, the others n_max * mu.
        Step = "step",
        /// Not at all: no class loses samples.
        None = "none",
    }
}

/// Number of samples of each class, `[classes]`: f64 arithmetic, truncated to integers as in the reference.
///
/// `n_max` is the size of the most frequent class and `imb_factor` mu = n_min / n_max. `reverse` makes class
/// 0 the rarest; in the reference it works for `exp` only, here for `step` too.
pub fn class_counts(
    imbalance: ImbalanceType,
    n_max: usize,
    classes: usize,
    imb_factor: f64,
    reverse: bool,
) -> Vec<usize> {
    let most = n_max as f64;
    let count = |class: usize| match imbalance {
        ImbalanceType::None => n_max,
        ImbalanceType::Step if class < classes / 2 => n_max,
        ImbalanceType::Step => (most * imb_factor) as usize,
        ImbalanceType::Exp if classes == 1 => n_max,
        ImbalanceType::Exp => (most * imb_factor.powf(class as f64 / (classes - 1) as f64)) as usize,
    };
    (0..classes).map(|class| count(if reverse { classes - 1 - class } else { class })).collect()
}

/// Shuffles the class counts among the classes, as for the NU data sets: with Python's `random`, seeded by
/// the run's seed.
pub fn shuffle_counts(counts: &mut [usize], seed: u64) {
    PythonRandom::new(seed).shuffle(counts);
}

/// Draws the subset: positions of the balanced set, class after class, `[sum of counts]`.
///
/// All positions of a class are shuffled although only the first `counts[class]` are kept, so the random
/// stream afterwards does not depend on the counts. `counts[class]` is at most the number of labels of that
/// class.
pub fn draw_subset(labels: &[u8], counts: &[usize], rng: &mut NumpyLegacy) -> Vec<i32> {
    let mut positions: Vec<Vec<i32>> = vec![Vec::new(); counts.len()];
    for (position, &label) in (0i32..).zip(labels) {
        positions[usize::from(label)].push(position);
    }
    let mut subset = Vec::with_capacity(counts.iter().sum());
    for (members, &count) in positions.iter_mut().zip(counts) {
        rng.shuffle(members);
        subset.extend_from_slice(&members[..count]);
    }
    subset
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of SPEC 2.
    #[test]
    fn stated_counts() {
        let total = |n_max, classes, mu| {
            class_counts(ImbalanceType::Exp, n_max, classes, mu, false).iter().sum::<usize>()
        };
        assert_eq!(total(5000, 10, 0.01), 12_406);
        assert_eq!(total(5000, 10, 0.02), 13_996);
        assert_eq!(total(500, 100, 0.01), 10_847);
        assert_eq!(total(500, 100, 0.02), 12_608);
        assert_eq!(class_counts(ImbalanceType::Step, 10, 5, 0.1, false), [10, 10, 1, 1, 1]);
        assert_eq!(class_counts(ImbalanceType::Step, 10, 5, 0.1, true), [1, 1, 1, 10, 10]);
        assert_eq!(class_counts(ImbalanceType::Exp, 10, 1, 0.1, false), [10]);
    }
}
