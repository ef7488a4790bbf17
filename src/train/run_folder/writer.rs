//! Writing finished epochs beside the training of the next one.
//!
//! A checkpoint takes a few tenths of a second to check, write and flush, as long as an epoch on a fast GPU.
//! So a finished epoch is handed over as a value, a snapshot of the state included, and one thread does
//! everything that the folder gets of it, in the order that the folder's promises rest on. One epoch is being
//! written, and one at most waits behind it, so that a checkpoint may take as long as two epochs. A kill therefore
//! loses the epoch under way and at most the two before.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use anyhow::{Result, anyhow};

use super::{RunFolder, RunLog};
use crate::train::checkpoint::Checkpoint;
use crate::train::metrics::{EpochMetrics, EpochTimes};
use crate::train::observed::Observed;

/// A finished epoch on its way into the folder.
pub struct FinishedEpoch {
    /// Its line of results.
    pub metrics: EpochMetrics,
    /// Its line of wall times.
    pub times: EpochTimes,
    /// What is seen of it besides.
    pub observed: Observed,
    /// The state after it, where that is to be kept.
    pub checkpoint: Option<Checkpoint>,
    /// Whether it is the best epoch so far.
    pub is_best: bool,
    /// How many epochs end with the best one so far; `None` where there is none yet.
    pub epochs_to_best: Option<usize>,
}

/// A run folder, or the thread that is writing into it.
enum State {
    Idle(Box<RunFolder>),
    /// Another process has the folder.
    Elsewhere,
    Writing(JoinHandle<(Box<RunFolder>, Result<()>)>),
    /// Only while one becomes the other.
    Between,
}

/// The run folder of a run under way.
pub struct Writer {
    path: PathBuf,
    log: RunLog,
    state: State,
    /// Handed over, and not begun yet.
    next: Option<FinishedEpoch>,
}

impl Writer {
    /// Takes a folder over.
    pub fn new(folder: RunFolder) -> Self {
        Self {
            path: folder.path().into(),
            log: folder.log(),
            state: State::Idle(Box::new(folder)),
            next: None,
        }
    }

    /// For a process that has not the folder, which is at `path`: nothing is written.
    pub fn elsewhere(path: PathBuf) -> Self {
        Self { path, log: RunLog::elsewhere(), state: State::Elsewhere, next: None }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's log.
    pub fn log(&self) -> &RunLog {
        &self.log
    }

    /// Has an epoch written, after those before. Waits only where two are not written yet.
    ///
    /// # Errors
    /// A failed run where an epoch before could not be written: this one is dropped then, as if the run had
    /// ended before it.
    pub fn write(&mut self, epoch: FinishedEpoch) -> Result<()> {
        self.check()?;
        if self.next.is_some() {
            self.join()?;
        }
        match &self.state {
            State::Writing(_) => self.next = Some(epoch),
            _ => self.start(epoch)?,
        }
        Ok(())
    }

    fn start(&mut self, epoch: FinishedEpoch) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Between) {
            State::Idle(mut folder) => {
                let work = move || {
                    let result = folder.record(epoch);
                    (folder, result)
                };
                let spawned = Builder::new().name("run folder".into()).spawn(work);
                State::Writing(spawned.map_err(|error| anyhow!("cannot start a thread: {error}"))?)
            }
            other => other,
        };
        Ok(())
    }

    /// Waits for the epoch that is being written, and starts with the next.
    fn join(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Writing(thread) => {
                let (folder, result) = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                self.state = State::Idle(folder);
                let next = self.next.take();
                result?;
                next.map_or(Ok(()), |next| self.start(next))
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    /// Fails as soon as the epoch that is being written has failed; does not wait.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub fn check(&mut self) -> Result<()> {
        match &self.state {
            State::Writing(thread) if thread.is_finished() => self.join(),
            _ => Ok(()),
        }
    }

    /// Waits until everything handed over is on the disk.
    ///
    /// # Errors
    /// A failed run where it could not be written.
    pub fn wait(&mut self) -> Result<()> {
        while matches!(self.state, State::Writing(_)) {
            self.join()?;
        }
        Ok(())
    }

    /// The folder, as [`Writer::folder`]; `None` where another process has it.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub fn here(&mut self) -> Result<Option<&mut RunFolder>> {
        match self.state {
            State::Elsewhere => Ok(None),
            _ => self.folder().map(Some),
        }
    }

    /// The folder, everything handed over being on the disk.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub fn folder(&mut self) -> Result<&mut RunFolder> {
        self.wait()?;
        match &mut self.state {
            State::Idle(folder) => Ok(folder),
            State::Elsewhere => Err(anyhow!("another process has the run folder")),
            _ => Err(anyhow!("the run folder was lost with the thread that wrote into it")),
        }
    }
}

impl Drop for Writer {
    /// A run that ends early leaves whole files.
    fn drop(&mut self) {
        // Where a thread has panicked, so has the run that joins it; here it must not.
        while let State::Writing(thread) = std::mem::replace(&mut self.state, State::Between) {
            let Ok((folder, Ok(()))) = thread.join() else { return };
            self.state = State::Idle(folder);
            let started = self.next.take().map(|next| self.start(next));
            if !matches!(started, Some(Ok(()))) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::run_folder::metrics;

    fn epoch(epoch: usize) -> FinishedEpoch {
        let metrics = EpochMetrics {
            epoch,
            learning_rate: 0.1,
            loss: 1.0,
            train_accuracy: None,
            chosen: None,
            steps_left_out: None,
            mean_max_confidence: 0.5,
            label_accuracy: None,
            prior_distance: None,
            class_prior: None,
            test: None,
        };
        let times = EpochTimes {
            epoch,
            seconds: 1.0,
            training_seconds: None,
            evaluation_seconds: None,
            images_per_second: 1.0,
        };
        let observed = Observed { samples: None, confusion: None };
        FinishedEpoch { metrics, times, observed, checkpoint: None, is_best: false, epochs_to_best: None }
    }

    fn writer(folder: &Path) -> Writer {
        let mut folder = RunFolder::create(folder, Some("run"), "", ("", None)).unwrap();
        folder.begin(0, None).unwrap();
        Writer::new(folder)
    }

    /// All are written, in their order, also those that wait when the writer goes.
    #[test]
    fn epochs_wait_for_each_other() {
        let scratch = tempfile::tempdir().unwrap();
        let mut writer = writer(scratch.path());
        (0..5).for_each(|number| writer.write(epoch(number)).unwrap());
        drop(writer);
        let written: Vec<usize> =
            metrics(&scratch.path().join("run")).iter().map(|line| line.epoch).collect();
        assert_eq!(written, [0, 1, 2, 3, 4]);
    }

    /// Behind one that cannot be written nothing is, and its error comes with one of the next calls.
    #[test]
    fn nothing_is_written_behind_a_failure() {
        let scratch = tempfile::tempdir().unwrap();
        let mut writer = writer(scratch.path());
        let moved = scratch.path().join("moved");
        std::fs::rename(scratch.path().join("run"), &moved).unwrap();
        let result = (0..2).try_for_each(|number| writer.write(epoch(number))).and_then(|()| writer.wait());
        assert!(result.is_err());
        writer.wait().unwrap();
        assert!(writer.next.is_none());
        assert!(metrics(&moved).is_empty());
    }
}
