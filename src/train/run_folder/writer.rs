//! Writing finished epochs beside the training of the next one.
//!
//! A checkpoint takes a few tenths of a second to check, write and flush, as long as an epoch on a fast GPU.
//! So a finished epoch is handed over as a value, a snapshot of the state included, and one thread does
//! everything that the folder gets of it, in the order that the folder's promises rest on. At most one epoch
//! is being written: the next waits for it. A kill therefore loses the epoch under way and at most the one
//! whose files were being written.

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
}

impl Writer {
    /// Takes a folder over.
    pub fn new(folder: RunFolder) -> Self {
        Self { path: folder.path().into(), log: folder.log(), state: State::Idle(Box::new(folder)) }
    }

    /// For a process that has not the folder, which is at `path`: nothing is written.
    pub fn elsewhere(path: PathBuf) -> Self {
        Self { path, log: RunLog::elsewhere(), state: State::Elsewhere }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's log.
    pub fn log(&self) -> &RunLog {
        &self.log
    }

    /// Starts writing an epoch, as soon as the one before is written.
    ///
    /// # Errors
    /// A failed run where the epoch before could not be written: this one is dropped then, as if the run had
    /// ended before it.
    pub fn write(&mut self, epoch: FinishedEpoch) -> Result<()> {
        self.wait()?;
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

    /// Fails as soon as the epoch that is being written has failed; does not wait.
    ///
    /// # Errors
    /// As [`Writer::wait`].
    pub fn check(&mut self) -> Result<()> {
        match &self.state {
            State::Writing(thread) if thread.is_finished() => self.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until everything handed over is on the disk.
    ///
    /// # Errors
    /// A failed run where it could not be written.
    pub fn wait(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Writing(thread) => {
                let (folder, result) = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                self.state = State::Idle(folder);
                result
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
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
        if let State::Writing(thread) = std::mem::replace(&mut self.state, State::Between) {
            let _ = thread.join();
        }
    }
}
