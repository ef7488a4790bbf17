//! The files of the folder for people to look at. The run needs none of them, so a problem with one is said
//! and does not end it.

use anyhow::Result;

use super::RunFolder;
use crate::error::one_line;
use crate::train::metrics::EpochMetrics;
use crate::train::observed::{Observed, ObservedFiles, TrackedSamples, events};

/// Their names.
pub(super) const NAMES: [&str; 5] =
    ["report.html", "metrics.csv", "samples.jsonl", "confusion.json", events::NAME];

impl RunFolder {
    /// Makes the files ready for a run of which `done` epochs are done, and of which `tracked` samples are
    /// followed.
    pub fn observe(&mut self, done: usize, tracked: &TrackedSamples) {
        let mut lines = super::metrics(&self.path);
        lines.retain(|metrics| metrics.epoch < done);
        let begun = ObservedFiles::begin(&self.path, done, &lines, tracked);
        self.observed = self.said(begun);
        if done > 0 {
            self.write_report();
        }
    }

    /// Adds what no other file holds of an epoch, before its checkpoint.
    pub(super) fn add_observed(&self, observed: &Observed) {
        if let Some(files) = self.files() {
            self.said(files.add(observed));
        }
    }

    /// Adds an epoch to what follows from its results, and writes the report.
    pub(super) fn add_results(&mut self, metrics: &EpochMetrics) {
        if let Some(files) = self.files() {
            self.said(files.follow(metrics));
            self.write_report();
        }
    }

    /// Writes the report as the folder is now.
    pub fn write_report(&mut self) {
        if self.files().is_some() {
            let written = self.observed.as_mut().map_or(Ok(()), ObservedFiles::report);
            self.said(written);
        }
    }

    /// The files, unless the folder was moved: nothing is written into one that was made in its place.
    fn files(&self) -> Option<&ObservedFiles> {
        self.observed.as_ref().filter(|_| self.check_place().is_ok())
    }

    fn said<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.say(&format!("not written, and the run goes on: {}", one_line(&error))))
            .ok()
    }
}
