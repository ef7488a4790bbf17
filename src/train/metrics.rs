//! What an epoch is summed up in: a line of metrics.jsonl, a row on the terminal, the final table.

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
    /// Weak-view accuracy on the training batches, over the samples whose true label is known; `None` where none is.
    pub train_accuracy: Option<f64>,
    /// Mean over the training samples of the largest confidence (MMC).
    pub mean_max_confidence: f64,
    /// Accuracy of the labels that disambiguation chose: argmax of each confidence row; over the samples as above.
    pub label_accuracy: Option<f64>,
    /// Total-variation distance between the estimated and the true class prior; only where one is estimated and all true labels
    /// are known.
    pub prior_distance: Option<f64>,
    /// The estimated class prior; without test images, as the last step used it.
    pub class_prior: Option<Vec<f64>>,
    /// Test metrics, in the epochs that are evaluated, where there are test images.
    pub test: Option<TestMetrics>,
    /// Wall-clock seconds of training and evaluation.
    pub seconds: f64,
    /// Views through the network a second of training (two a sample).
    pub images_per_second: f64,
}

/// Heads the rows of [`EpochMetrics::row`].
pub const HEADER: &str = "epoch      lr     loss  train   top-1   top-5    many  medium     few    MMC  labels  prior TV  images/s";

/// A percentage or, where it cannot be known, a dash.
fn cell(value: Option<f64>, width: usize, decimals: usize) -> String {
    match value {
        Some(value) => format!(" {value:>width$.decimals$}"),
        None => format!(" {:>width$}", "-"),
    }
}

/// The share of `part` in `whole` in percent; `None` of nothing.
pub fn percent(part: f64, whole: usize) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part / whole as f64)
}

impl EpochMetrics {
    /// One aligned line; a dash stands for what cannot be known.
    pub fn row(&self) -> String {
        let mut line = format!("{:>5} {:>7.5} {:>8.4}", self.epoch, self.learning_rate, self.loss);
        line.push_str(&cell(self.train_accuracy, 6, 2));
        let test = self.test.as_ref();
        let (top1, top5) = (test.map(|test| test.top1), test.and_then(|test| test.top5));
        let groups = [
            test.and_then(|test| test.many),
            test.and_then(|test| test.medium),
            test.and_then(|test| test.few),
        ];
        for value in [top1, top5].into_iter().chain(groups) {
            line.push_str(&cell(value, 7, 2));
        }
        line.push_str(&cell(Some(self.mean_max_confidence), 6, 4));
        line.push_str(&cell(self.label_accuracy, 7, 2));
        line.push_str(&cell(self.prior_distance, 9, 4));
        line.push_str(&cell(Some(self.images_per_second), 9, 0));
        line
    }
}

/// The table that ends a run; a dash stands for what cannot be known.
pub fn final_table(last: &EpochMetrics, best_top1: f64, best_epoch: usize) -> String {
    let percentage = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} %"));
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(test) = &last.test {
        rows.push(("test accuracy, top-1", percentage(Some(test.top1))));
        rows.push(("test accuracy, top-5", percentage(test.top5)));
        rows.push(("  many-shot classes", percentage(test.many)));
        rows.push(("  medium-shot classes", percentage(test.medium)));
        rows.push(("  few-shot classes", percentage(test.few)));
        rows.push(("best top-1", format!("{best_top1:.2} % (epoch {best_epoch})")));
    }
    rows.push(("mean max confidence (MMC)", format!("{:.4}", last.mean_max_confidence)));
    rows.push(("accuracy of disambiguated labels", percentage(last.label_accuracy)));
    let distance = match (last.prior_distance, &last.class_prior) {
        (Some(distance), _) => format!("{distance:.4}"),
        (None, Some(_)) => "-".into(),
        (None, None) => "none estimated".into(),
    };
    rows.push(("class prior, estimated to true (TV)", distance));
    let widest = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let rule = format!("+{}+{}+\n", "-".repeat(38), "-".repeat(widest + 2));
    let lines = rows.iter().map(|(name, value)| format!("| {name:<36} | {value:>widest$} |\n"));
    format!("{rule}{}{rule}", lines.collect::<String>())
}
