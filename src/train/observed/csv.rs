//! metrics.csv: the results of every epoch as a table, for spreadsheets and data frames.

use crate::train::metrics::EpochMetrics;

/// The columns. What classes have each is in metrics.jsonl.
const COLUMNS: [&str; 12] = [
    "epoch",
    "learning_rate",
    "loss",
    "train_accuracy",
    "mean_max_confidence",
    "label_accuracy",
    "prior_distance",
    "top1",
    "top5",
    "many",
    "medium",
    "few",
];

/// The first line.
pub fn header() -> String {
    COLUMNS.join(",") + "\n"
}

/// The line of an epoch: numbers as in metrics.jsonl, empty where one is not known.
pub fn row(metrics: &EpochMetrics) -> String {
    let test = metrics.test.as_ref();
    let values = [
        Some(metrics.learning_rate),
        Some(metrics.loss),
        metrics.train_accuracy,
        Some(metrics.mean_max_confidence),
        metrics.label_accuracy,
        metrics.prior_distance,
        test.map(|test| test.top1),
        test.and_then(|test| test.top5),
        test.and_then(|test| test.many),
        test.and_then(|test| test.medium),
        test.and_then(|test| test.few),
    ];
    let cells = values.map(|value| value.map(|value| value.to_string()).unwrap_or_default());
    format!("{},{}\n", metrics.epoch, cells.join(","))
}
