//! The confusion matrix of a test.

use serde::{Deserialize, Serialize};

/// How many test images of each class were taken for each class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// The epoch that was evaluated, from 0.
    pub epoch: usize,
    /// Names of the classes, `[K]`.
    pub classes: Vec<String>,
    /// `[K][K]`: a row for each true class, a column for each predicted one.
    pub counts: Vec<Vec<u32>>,
}

impl Confusion {
    /// Of logits `[N,K]` and labels `[N]`. A row predicts the first of its largest logits, as in the metrics.
    pub fn of(epoch: usize, classes: &[String], logits: &[f32], labels: &[u8]) -> Self {
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        for (row, &label) in logits.chunks_exact(classes.len()).zip(labels) {
            let mut predicted = 0;
            for (class, logit) in row.iter().enumerate() {
                if *logit > row[predicted] {
                    predicted = class;
                }
            }
            counts[usize::from(label)][predicted] += 1;
        }
        Self { epoch, classes: classes.to_vec(), counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::evaluate::metrics;

    /// The diagonal gives the accuracies that the metrics have.
    #[test]
    fn the_diagonal_is_what_is_right() {
        let logits = [3.0, 1.0, 3.0, 0.0, 2.0, 1.0, 0.0, 0.0, 5.0, 1.0, 0.0, 0.0];
        let labels = [0, 1, 2, 1];
        let classes = ["a", "b", "c"].map(String::from);
        let confusion = Confusion::of(4, &classes, &logits, &labels);
        assert_eq!(confusion.counts, [[1, 0, 0], [1, 1, 0], [0, 0, 1]]);
        let accuracies = metrics(&logits, &labels, 3, None).per_class;
        for (class, row) in confusion.counts.iter().enumerate() {
            let of_class: u32 = row.iter().sum();
            assert_eq!(accuracies[class], Some(100.0 * f64::from(row[class]) / f64::from(of_class)));
        }
    }
}
