//! What training does not see of a data set: so many of so many, and why. Nothing is left out without such a line.

use std::fmt;

/// Begins the lines of a log that tell what a run leaves out.
pub const PREFIX: &str = "left out: ";

/// What [`LeftOut`] counts of a training set.
pub const TRAINING_IMAGES: &str = "training images";
/// What [`LeftOut`] counts of a test set.
pub const TEST_IMAGES: &str = "test images";

/// Samples that are there and not used, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Samples left out, at least 1.
    pub count: usize,
    /// Samples that are there, those left out among them.
    pub of: usize,
    /// What they are, in the plural.
    pub what: &'static str,
    /// The reason, and what keeps them where something does.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}: {}", self.count, self.of, self.what, self.why)
    }
}

/// What every epoch leaves out where `samples` do not fill batches of `batch`: steps have the same size, so the last ones of the
/// epoch's order, other samples in each epoch, wait for another epoch.
pub fn incomplete_batch(samples: usize, batch: usize) -> Option<LeftOut> {
    let count = samples % batch;
    (count > 0).then(|| LeftOut {
        count,
        of: samples,
        what: "training samples per epoch",
        why: format!(
            "they do not fill a batch of {batch}; the order is drawn anew for each epoch, so these are others each time"
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
