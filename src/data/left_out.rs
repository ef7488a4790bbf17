//! What training leaves out of a data set: how many samples, and why. Nothing is left out without such a
//! line.

use std::fmt;

/// Begins the lines of a log that say what a run leaves out.
pub const PREFIX: &str = "left out: ";

/// The training images that [`LeftOut`] counts.
pub const TRAINING_IMAGES: &str = "training images";
/// The test images that [`LeftOut`] counts.
pub const TEST_IMAGES: &str = "test images";

/// Samples that exist and are not used, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Samples left out, at least 1.
    pub count: usize,
    /// All samples, including those left out.
    pub of: usize,
    /// What they are, in the plural.
    pub what: &'static str,
    /// The reason and, if there is one, the setting that keeps them.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}: {}", self.count, self.of, self.what, self.why)
    }
}

/// What each epoch leaves out if `samples` do not fill batches of `batch`: all steps have the same size, so
/// the last samples in the epoch's order, others in each epoch, are not used.
pub fn incomplete_batch(samples: usize, batch: usize) -> Option<LeftOut> {
    let count = samples % batch;
    (count > 0).then(|| LeftOut {
        count,
        of: samples,
        what: "training samples per epoch",
        why: format!(
            "they do not fill a batch of {batch}; the order is drawn anew, so each epoch leaves out others"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fill_a_batch_is_left_out() {
        assert_eq!(incomplete_batch(128, 64), None);
        let line = incomplete_batch(130, 64).unwrap().to_string();
        assert!(
            line.starts_with("2 of 130 training samples per epoch: they do not fill a batch of 64"),
            "{line}"
        );
    }
}
