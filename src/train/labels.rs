//! Cleaned labels: the class that a run has made of each candidate set, with its confidence.

use std::path::Path;

use anyhow::Result;

use super::checkpoint::Checkpoint;
use crate::data::recipe::TrainingData;
use crate::usage;

/// What a run has made of one candidate set.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanedLabel {
    /// The candidate with the largest confidence, the first of equal ones.
    pub label: u8,
    /// Its confidence, 0 to 1.
    pub confidence: f32,
    /// The candidates, ascending.
    pub candidates: Vec<u8>,
    /// The true class, where it is known.
    pub truth: Option<u8>,
}

/// The cleaned labels of all training samples, `[N]`, from the confidence rows of the checkpoint at `path`.
///
/// # Errors
/// A usage error if the checkpoint has no confidence rows, or those of other data.
pub fn cleaned(checkpoint: &Checkpoint, path: &Path, data: &TrainingData) -> Result<Vec<CleanedLabel>> {
    let shown = path.display();
    let (shape, rows) = checkpoint.confidence().map_err(|error| usage!("{shown}: {error}"))?;
    let (samples, classes) = (data.train.len(), data.classes.len());
    if shape != [samples, classes] {
        return Err(usage!(
            "{shown}: its confidence rows are {shape:?}, but the training set is [{samples}, {classes}]"
        ));
    }
    let sets = data.candidates.rows.chunks_exact(classes);
    let rows = rows.chunks_exact(classes).zip(sets).zip(&data.train.labels);
    Ok(rows.map(|((row, set), &truth)| of_row(row, set, truth)).collect())
}

fn of_row(row: &[f32], set: &[u8], truth: Option<u8>) -> CleanedLabel {
    let candidates: Vec<u8> =
        (0u8..=255).zip(set).filter(|(_, is)| **is != 0).map(|(class, _)| class).collect();
    let mut label = candidates.first().copied().unwrap_or(0);
    for &class in &candidates {
        if row[usize::from(class)] > row[usize::from(label)] {
            label = class;
        }
    }
    CleanedLabel { label, confidence: row[usize::from(label)], candidates, truth }
}

/// What can be said of cleaned labels as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Samples.
    pub samples: usize,
    /// Samples with more than one candidate.
    pub ambiguous: usize,
    /// Mean confidence of the labels.
    pub confidence: f64,
    /// Share of the labels that are true among those whose true class is known, percent.
    pub accuracy: Option<f64>,
}

impl Summary {
    /// Of `labels`, at least one.
    pub fn of(labels: &[CleanedLabel]) -> Self {
        let known: Vec<bool> = labels.iter().filter_map(|label| Some(label.truth? == label.label)).collect();
        let right = known.iter().filter(|&&right| right).count();
        let sum: f64 = labels.iter().map(|label| f64::from(label.confidence)).sum();
        Self {
            samples: labels.len(),
            ambiguous: labels.iter().filter(|label| label.candidates.len() > 1).count(),
            confidence: sum / labels.len() as f64,
            accuracy: super::metrics::percent(right as f64, known.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weight outside of the set, as LW gives it, makes no label.
    #[test]
    fn a_label_is_a_candidate() {
        let label = of_row(&[0.9, 0.3, 0.3, 0.4], &[0, 1, 1, 0], Some(2));
        let expected = CleanedLabel { label: 1, confidence: 0.3, candidates: vec![1, 2], truth: Some(2) };
        assert_eq!(label, expected);
        let sure = of_row(&[0.0, 0.0, 1.0, 0.0], &[0, 0, 1, 0], None);
        let summary = Summary::of(&[label, sure]);
        assert_eq!((summary.ambiguous, summary.accuracy), (1, Some(0.0)));
        assert!((summary.confidence - 0.65).abs() < 1e-6);
    }
}
