//! What an epoch is summed up in: a line of metrics.jsonl, a row on the terminal, the final table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::evaluate::TestMetrics;

/// One epoch. Accuracies in percent, priors and confidences in 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 0.
    pub epoch: usize,
    pub learning_rate: f64,
    /// Mean training loss of the epoch's steps.
    pub loss: f64,
    /// Weak-view accuracy on the training batches, against the true labels.
    pub train_accuracy: f64,
    /// Mean over the training samples of the largest confidence (MMC).
    pub mean_max_confidence: f64,
    /// Accuracy of the labels that disambiguation chose: argmax of each confidence row.
    pub label_accuracy: f64,
    /// Total-variation distance between the estimated and the true class prior; only where one is estimated.
    pub prior_distance: Option<f64>,
    /// The estimated class prior.
    pub class_prior: Option<Vec<f64>>,
    /// Test metrics, in the epochs that are evaluated.
    pub test: Option<TestMetrics>,
    /// Wall-clock seconds of training and evaluation.
    pub seconds: f64,
    /// Views through the network a second of training (two a sample).
    pub images_per_second: f64,
}

/// Heads the rows of [`EpochMetrics::row`].
pub const HEADER: &str = "epoch      lr     loss  train   top-1   top-5    many  medium     few    MMC  labels  prior TV  images/s";

impl EpochMetrics {
    /// One aligned line.
    pub fn row(&self) -> String {
        let mut line = format!(
            "{:>5} {:>7.5} {:>8.4} {:>6.2}",
            self.epoch, self.learning_rate, self.loss, self.train_accuracy
        );
        match &self.test {
            Some(test) => {
                for value in [test.top1, test.top5, test.many, test.medium, test.few] {
                    let _ = write!(line, " {value:>7.2}");
                }
            }
            None => line.push_str(&format!(" {:>7}", "-").repeat(5)),
        }
        let _ = write!(line, " {:>6.4} {:>7.2}", self.mean_max_confidence, self.label_accuracy);
        match self.prior_distance {
            Some(distance) => _ = write!(line, " {distance:>9.4}"),
            None => _ = write!(line, " {:>9}", "-"),
        }
        let _ = write!(line, " {:>9.0}", self.images_per_second);
        line
    }
}

/// The table that ends a run.
pub fn final_table(last: &EpochMetrics, best_top1: f64, best_epoch: usize) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(test) = &last.test {
        rows.push(("test accuracy, top-1", format!("{:.2} %", test.top1)));
        rows.push(("test accuracy, top-5", format!("{:.2} %", test.top5)));
        rows.push(("  many-shot classes", format!("{:.2} %", test.many)));
        rows.push(("  medium-shot classes", format!("{:.2} %", test.medium)));
        rows.push(("  few-shot classes", format!("{:.2} %", test.few)));
    }
    rows.push(("best top-1", format!("{best_top1:.2} % (epoch {best_epoch})")));
    rows.push(("mean max confidence (MMC)", format!("{:.4}", last.mean_max_confidence)));
    rows.push(("accuracy of disambiguated labels", format!("{:.2} %", last.label_accuracy)));
    let distance = last.prior_distance.map_or("none estimated".into(), |distance| format!("{distance:.4}"));
    rows.push(("class prior, estimated to true (TV)", distance));
    let widest = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let rule = format!("+{}+{}+\n", "-".repeat(38), "-".repeat(widest + 2));
    let lines = rows.iter().map(|(name, value)| format!("| {name:<36} | {value:>widest$} |\n"));
    format!("{rule}{}{rule}", lines.collect::<String>())
}
