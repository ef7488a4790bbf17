//! Candidate sets, the ambiguous labels of the training samples (SPEC 3). They are drawn from the same random
//! stream as the subset, after it.

use anyhow::{Result, ensure};

use crate::random::numpy::NumpyLegacy;

/// How much likelier a class of the true class's superclass is to be a candidate in the NU data sets.
pub const NON_UNIFORM_RATIO: f64 = 8.0;

/// One candidate set for each sample, as rows of zeros and ones. The true class of a sample is always in its
/// set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateSets {
    /// K.
    pub classes: usize,
    /// 1 where the class is a candidate, `[N, K]` row-major.
    pub rows: Vec<u8>,
}

impl CandidateSets {
    /// Every wrong class is a candidate with probability `q`; the mean set size is 1 + q(K - 1).
    pub fn uniform(labels: &[u8], classes: usize, q: f64, rng: &mut NumpyLegacy) -> Self {
        Self::draw(labels, classes, rng, |_, _| q)
    }

    /// Classes of the true class's superclass with probability 8q (certain from 1 on), others with `q`.
    /// `superclass_of` has one entry for each class, `[K]`.
    pub fn non_uniform(labels: &[u8], superclass_of: &[u8], q: f64, rng: &mut NumpyLegacy) -> Self {
        Self::draw(labels, superclass_of.len(), rng, |truth, class| {
            if superclass_of[truth] == superclass_of[class] { NON_UNIFORM_RATIO * q } else { q }
        })
    }

    /// Classes of the true class's superclass with probability `q`, others never.
    pub fn hierarchical(labels: &[u8], superclass_of: &[u8], q: f64, rng: &mut NumpyLegacy) -> Self {
        Self::draw(labels, superclass_of.len(), rng, |truth, class| {
            if superclass_of[truth] == superclass_of[class] { q } else { 0.0 }
        })
    }

    /// One draw for each sample and class, row by row. The true class has a draw too, although it is not
    /// used.
    fn draw(
        labels: &[u8],
        classes: usize,
        rng: &mut NumpyLegacy,
        probability: impl Fn(usize, usize) -> f64,
    ) -> Self {
        let mut rows = Vec::with_capacity(labels.len() * classes);
        for &label in labels {
            let truth = usize::from(label);
            for class in 0..classes {
                let drawn = rng.double();
                rows.push(u8::from(class == truth || drawn < probability(truth, class)));
            }
        }
        Self { classes, rows }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rows.len() / self.classes.max(1)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The set of sample `i`, `[K]` of zeros and ones.
    pub fn row(&self, i: usize) -> &[u8] {
        &self.rows[i * self.classes..(i + 1) * self.classes]
    }

    /// Number of candidates of each sample, `[N]`.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.chunks_exact(self.classes.max(1)).map(|row| row.iter().map(|&bit| usize::from(bit)).sum())
    }

    /// Number of sets that contain each class, `[K]`.
    pub fn frequencies(&self) -> Vec<usize> {
        let mut frequencies = vec![0; self.classes];
        for row in self.rows.chunks_exact(self.classes.max(1)) {
            frequencies.iter_mut().zip(row).for_each(|(sum, &bit)| *sum += usize::from(bit));
        }
        frequencies
    }

    /// The properties that all users of candidate sets rely on: one row for each label, only zeros and ones,
    /// with the true class in the set.
    pub fn check(&self, labels: &[u8]) -> Result<()> {
        ensure!(
            self.rows.len() == labels.len() * self.classes,
            "{} candidate sets of {} classes do not fit {} labels",
            self.len(),
            self.classes,
            labels.len()
        );
        for (sample, (row, &label)) in self.rows.chunks_exact(self.classes.max(1)).zip(labels).enumerate() {
            ensure!(
                row.iter().all(|&bit| bit <= 1),
                "candidate set {sample} holds a value other than 0 and 1"
            );
            ensure!(
                row.get(usize::from(label)) == Some(&1),
                "candidate set {sample} lacks its true class {label}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_finds_each_fault() {
        let sets = |rows: &[u8]| CandidateSets { classes: 2, rows: rows.to_vec() };
        assert!(sets(&[1, 0, 1, 1]).check(&[0, 1]).is_ok());
        assert!(sets(&[1, 0, 1, 0]).check(&[0, 1]).unwrap_err().to_string().contains("set 1 lacks"));
        assert!(sets(&[2, 0]).check(&[0]).is_err());
        assert!(sets(&[1, 0]).check(&[0, 1]).is_err());
        assert!(sets(&[1, 0]).check(&[7]).is_err());
    }
}
