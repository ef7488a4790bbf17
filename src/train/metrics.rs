//! The results of an epoch: a line of metrics.jsonl, one of times.jsonl, a row on the terminal, the final
//! table.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::evaluate::TestMetrics;

/// The results of one epoch, which the settings decide to the bit. Accuracies are in percent, priors and
/// confidences in 0..=1. Lines of earlier versions also hold the fields of [`EpochTimes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 0.
    pub epoch: usize,
    /// Learning rate of all its steps.
    pub learning_rate: f64,
    /// Mean training loss of its steps.
    pub loss: f64,
    /// Accuracy of the weak view's logits in the training batches, over the samples whose true label is
    /// known; `None` where no label is known.
    pub train_accuracy: Option<f64>,
    /// The share of the samples of its steps that the method chose as reliable, in 0..=1; the line has it for
    /// methods that choose (SoLar) alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<f64>,
    /// Steps of the stage so far that were left out since a gradient did not fit f16; lines of runs with a loss
    /// scale alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_left_out: Option<u64>,
    /// Mean over the training samples of the largest confidence (MMC).
    pub mean_max_confidence: f64,
    /// Label accuracy: how often the argmax of a confidence row is the true label, over the samples whose
    /// true label is known.
    pub label_accuracy: Option<f64>,
    /// Total-variation distance between the estimated and the true class prior, if there is an estimate
    /// and all true labels are known.
    pub prior_distance: Option<f64>,
    /// The class-prior estimate; without test images, as the last step used it.
    pub class_prior: Option<Vec<f64>>,
    /// Test metrics, in epochs that are evaluated, if there are test images.
    pub test: Option<TestMetrics>,
}

/// The duration of one epoch, which differs from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochTimes {
    /// From 0.
    pub epoch: usize,
    /// Wall-clock seconds of training and evaluation.
    pub seconds: f64,
    /// Of these, the seconds of the training steps; lines of earlier versions lack it.
    #[serde(default)]
    pub training_seconds: Option<f64>,
    /// The seconds of the pass over the test images.
    #[serde(default)]
    pub evaluation_seconds: Option<f64>,
    /// Views through the network per second of training, two for each sample.
    pub images_per_second: f64,
}

/// The heading of the rows of [`EpochMetrics::row`].
pub const HEADER: &str = "epoch      lr     loss  train   top-1   top-5    many  medium     few    MMC  labels  prior TV  \
                          images/s";

/// A number, or a dash where it cannot be known.
fn cell(value: Option<f64>, width: usize, decimals: usize) -> String {
    match value {
        Some(value) => format!(" {value:>width$.decimals$}"),
        None => format!(" {:>width$}", "-"),
    }
}

/// The share of `part` in `whole` in percent; `None` if `whole` is 0.
pub fn percent(part: f64, whole: usize) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part / whole as f64)
}

impl EpochMetrics {
    /// The line of metrics.jsonl; reading it gives the same numbers.
    ///
    /// # Errors
    /// An error for a number that JSON cannot represent: infinity or NaN.
    pub fn line(&self) -> Result<String> {
        let line = serde_json::to_string(self)?;
        if serde_json::from_str::<Self>(&line).ok().as_ref() != Some(self) {
            bail!("epoch {}: a result is not finite: training has diverged; lower --lr ({line})", self.epoch);
        }
        Ok(line + "\n")
    }

    /// A row for the terminal, aligned with [`HEADER`]; a dash stands for a value that cannot be known.
    pub fn row(&self, times: &EpochTimes) -> String {
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
        line.push_str(&cell(Some(times.images_per_second), 9, 0));
        line
    }
}

/// The table at the end of a run; a dash stands for a value that cannot be known. `best` is top-1 and epoch
/// in words.
pub fn final_table(last: &EpochMetrics, best: &str) -> String {
    let percentage = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} %"));
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(test) = &last.test {
        rows.push(("test accuracy, top-1", percentage(Some(test.top1))));
        rows.push(("test accuracy, top-5", percentage(test.top5)));
        rows.push(("  many-shot classes", percentage(test.many)));
        rows.push(("  medium-shot classes", percentage(test.medium)));
        rows.push(("  few-shot classes", percentage(test.few)));
        rows.push(("best top-1", best.to_string()));
    }
    rows.push(("mean max confidence (MMC)", format!("{:.4}", last.mean_max_confidence)));
    rows.push(("accuracy of disambiguated labels", percentage(last.label_accuracy)));
    let distance = match (last.prior_distance, &last.class_prior) {
        (Some(distance), _) => format!("{distance:.4}"),
        (None, Some(_)) => "-".into(),
        (None, None) => "none estimated".into(),
    };
    rows.push(("class prior, estimated to true (TV)", distance));
    if let Some(steps) = last.steps_left_out {
        rows.push(("steps left out (gradients over f16)", steps.to_string()));
    }
    let widest = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let rule = format!("+{}+{}+\n", "-".repeat(38), "-".repeat(widest + 2));
    let lines = rows.iter().map(|(name, value)| format!("| {name:<36} | {value:>widest$} |\n"));
    format!("{rule}{}{rule}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example(loss: f64, top1: f64, prior: Vec<f64>) -> EpochMetrics {
        let (many, medium, few) = (Some(top1 / 3.0), None, Some(0.1 + 0.2));
        let per_class = prior.iter().map(|&share| Some(share)).chain([None]).collect();
        EpochMetrics {
            epoch: 3,
            learning_rate: 0.1 / 3.0,
            loss,
            train_accuracy: None,
            chosen: Some(top1 / 100.0),
            steps_left_out: Some(2),
            mean_max_confidence: loss / 7.0,
            label_accuracy: Some(top1),
            prior_distance: None,
            class_prior: Some(prior.clone()),
            test: Some(TestMetrics { top1, top5: Some(top1), many, medium, few, per_class }),
        }
    }

    proptest! {
        /// The scores of a resumed run are those that were written, to the bit: a tie stays a tie.
        #[test]
        fn numbers_survive_writing_and_reading(
            loss in any::<f64>().prop_filter("finite", |x| x.is_finite()),
            hits in 0u32..=1000,
            of in 1u32..=1000,
            prior in proptest::collection::vec(0.0..1.0, 0..4),
        ) {
            let top1 = 100.0 * f64::from(hits) / f64::from(of);
            let metrics = example(loss, top1, prior);
            let line = metrics.line().unwrap();
            let read: EpochMetrics = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read, &metrics);
            prop_assert_eq!(read.loss.to_bits(), loss.to_bits());
            prop_assert_eq!(read.line().unwrap(), line);
        }
    }

    #[test]
    fn lines_of_earlier_versions_are_read() {
        let metrics = example(1.0, 50.0, vec![0.5, 0.5]);
        let line = metrics.line().unwrap().replace("}}\n", "},\"seconds\":1.5,\"images_per_second\":7.0}");
        assert_eq!(serde_json::from_str::<EpochMetrics>(&line).unwrap(), metrics);
    }

    /// A method that chooses no samples has no such number, rather than 0 or null; nor has a run without a loss
    /// scale steps that it could leave out.
    #[test]
    fn numbers_that_a_run_cannot_have_are_left_out() {
        let with = example(1.0, 50.0, vec![0.5, 0.5]);
        assert!(with.line().unwrap().contains("\"chosen\":0.5,\"steps_left_out\":2,"));
        let without = EpochMetrics { chosen: None, steps_left_out: None, ..with };
        let line = without.line().unwrap();
        assert!(!line.contains("chosen") && !line.contains("left_out"), "{line}");
        assert_eq!(serde_json::from_str::<EpochMetrics>(&line).unwrap(), without);
    }

    #[test]
    fn what_json_cannot_hold_is_no_line() {
        for loss in [f64::NAN, f64::INFINITY] {
            let error = example(loss, 1.0, vec![]).line().unwrap_err().to_string();
            assert!(error.contains("epoch 3") && error.contains("not finite"), "{error}");
        }
        // In an optional place it would read back as something that is not known.
        assert!(example(1.0, f64::NAN, vec![]).line().is_err());
    }
}
