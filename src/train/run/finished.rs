//! A finished epoch on its way to the folder's thread, with the state after it where that is to be kept.
//!
//! Reading the state back and putting it into its tensors takes as long as dozens of steps of a fast GPU. Where the
//! device works beside the host, it keeps a copy, and the state is read back from that once steps of the next epoch are
//! under way. An epoch whose state turns out to have exploded is not written, as if that had been
//! seen at once.

use anyhow::Result;

use super::{NO_BEST, Run};
use crate::train::checkpoint::{Checkpoint, Progress};
use crate::train::engine::Snapshot;
use crate::train::metrics::{EpochMetrics, EpochTimes};
use crate::train::observed::Observed;
use crate::train::run_folder::FinishedEpoch;
use crate::train::tensor_file::TensorFile;

/// A finished epoch of whose state the device has a copy.
pub(super) struct KeptEpoch {
    epoch: FinishedEpoch,
    progress: Progress,
    state: Snapshot,
}

impl Run<'_> {
    /// Takes a finished epoch, to be written now or, where the device keeps a copy of the state after it, by
    /// [`Run::hand_over`].
    pub(super) fn record(&mut self, metrics: EpochMetrics, times: EpochTimes) -> Result<()> {
        let epoch = metrics.epoch;
        self.has_advanced = true;
        if self.training.at(epoch).epoch == 0 {
            // What an earlier stage reached is not the run's result.
            (self.progress.best_top1, self.progress.best_epoch) = (NO_BEST, epoch);
        }
        self.progress =
            Progress { epochs_done: epoch + 1, steps_done: 0, seconds: 0.0, ..self.progress.clone() };
        let top1 = metrics.test.as_ref().map(|test| test.top1);
        // Without test images the last is taken for the best.
        let is_best = match top1 {
            Some(top1) => top1 > self.progress.best_top1,
            None => self.is_last(epoch) && self.data.test.is_none(),
        };
        if let (true, Some(top1)) = (is_best, top1) {
            (self.progress.best_top1, self.progress.best_epoch) = (top1, epoch);
        }
        let epochs_to_best = self.epochs_to_best();
        let rows = self.tracked.rows(epoch, &self.training.engine.store, &mut *self.device)?;
        let observed = Observed { samples: Some(rows), confusion: self.confusion.take() };
        let epoch = FinishedEpoch { metrics, times, observed, checkpoint: None, is_best, epochs_to_best };
        if !is_best && !self.is_due(epoch.metrics.epoch) {
            return self.writer.write(epoch);
        }
        match self.training.engine.take_snapshot(&mut *self.device)? {
            Some(state) => {
                self.kept = Some(KeptEpoch { epoch, progress: self.progress.clone(), state });
                Ok(())
            }
            None => {
                let checkpoint = self.collect()?;
                self.write(epoch, checkpoint)
            }
        }
    }

    /// Reads back the state after the epoch before, if that is still to be done, and has the epoch written.
    ///
    /// # Errors
    /// If that state has exploded, or the epoch before it could not be written; if the device fails.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        let Some(KeptEpoch { epoch, progress, state }) = self.kept.take() else { return Ok(()) };
        let mut file = TensorFile::default();
        self.training.engine.export_snapshot(state, &mut file, &mut *self.device)?;
        let checkpoint = Checkpoint::of_state(file, progress, &self.config, &self.fingerprint)?;
        self.write(epoch, checkpoint)
    }

    /// Hands an epoch over to be written with the state after it.
    fn write(&mut self, epoch: FinishedEpoch, checkpoint: Checkpoint) -> Result<()> {
        let number = epoch.metrics.epoch;
        if let Some(sign) = checkpoint.first_exploded() {
            return Err(self.diverged(number, &sign));
        }
        if !self.has_empty_rows
            && let Some(found) = checkpoint.empty_rows()
        {
            self.has_empty_rows = true;
            self.writer.log().say(&format!("epoch {number}: {found}"));
        }
        self.writer.write(FinishedEpoch { checkpoint: Some(checkpoint), ..epoch })
    }
}
