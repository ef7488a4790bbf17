//! How far a run of the grid is, as its folder shows.

use std::path::Path;

use anyhow::Result;

use super::{GridRun, comparable, in_words};
use crate::pll::method::StageEpoch;
use crate::settings::{Settings, differences};
use crate::train::choice::{epochs, stages};
use crate::train::run_folder;
use crate::usage;

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub enum RunState {
    /// It has not begun.
    Missing,
    /// It was begun, and no process is running it now.
    Begun {
        /// Whole epochs done.
        epochs: usize,
    },
    /// A process is running it.
    Running {
        /// Whole epochs done.
        epochs: usize,
    },
    /// It failed, and has not been tried again.
    Failed {
        /// The error, on one line.
        reason: String,
    },
    /// All epochs are done.
    Complete {
        /// The best test top-1 of the evaluated epochs, in percent.
        best: f64,
        /// The test top-1 of the last epoch, in percent.
        last: f64,
    },
}

/// The settings of the run in `folder`; `None` if there is no run.
///
/// # Errors
/// A usage error if the folder holds something else, or settings that cannot be read.
pub fn config(folder: &Path) -> Result<Option<Settings>> {
    let path = folder.join("config.toml");
    if path.exists() {
        return run_folder::settings_of(&path).map(Some);
    }
    if folder.exists() && !run_folder::is_unused(folder) {
        return Err(usage!(
            "{}: not the folder of a run, since it has no config.toml; move it away or choose another --exp-dir",
            folder.display()
        ));
    }
    Ok(None)
}

impl RunState {
    /// The state of a run, read from its folder without changing it.
    ///
    /// # Errors
    /// A usage error if the folder holds a run with other settings, or something else.
    pub fn of(run: &GridRun) -> Result<RunState> {
        let folder = run.folder();
        let Some(settings) = config(&folder)? else {
            return Ok(if run_folder::is_running(&folder) {
                RunState::Running { epochs: 0 }
            } else {
                RunState::Missing
            });
        };
        let differing = differences(&comparable(&settings), &comparable(&run.settings))?;
        if !differing.is_empty() {
            return Err(usage!(
                "{}: was run with other settings ({}); give the same settings or another --exp-dir",
                folder.display(),
                in_words(&differing)
            ));
        }
        let mut metrics = run_folder::metrics(&folder);
        // Lines beyond the run's last epoch are not its results.
        metrics.retain(|line| line.epoch < epochs(&settings));
        let done = metrics.last().map_or(0, |last| last.epoch.saturating_add(1));
        if let Some(last) =
            metrics.last().and_then(|last| last.test.as_ref()).filter(|_| done >= epochs(&settings))
        {
            // Only the last stage counts: earlier ones train another network.
            let stages = stages(&settings);
            let is_of_last = |epoch: usize| StageEpoch::of(&stages, epoch).stage + 1 == stages.len();
            let trained = metrics.iter().filter(|line| is_of_last(line.epoch));
            let best = trained.filter_map(|epoch| Some(epoch.test.as_ref()?.top1)).fold(last.top1, f64::max);
            if metrics.len() == done {
                return Ok(RunState::Complete { best, last: last.top1 });
            }
            // The best epoch's line may be one that is missing or unreadable; the checkpoint knows its
            // result.
            return Ok(match run_folder::progress(&folder).filter(|progress| progress.epochs_done == done) {
                Some(progress) => RunState::Complete { best: progress.best_top1.max(best), last: last.top1 },
                None => {
                    RunState::Failed { reason: "its metrics.jsonl lacks epochs; move the folder away".into() }
                }
            });
        }
        Ok(if run_folder::is_running(&folder) {
            RunState::Running { epochs: done }
        } else if let Some(reason) = run_folder::failure(&folder) {
            RunState::Failed { reason }
        } else {
            RunState::Begun { epochs: done }
        })
    }

    /// The states of `runs`.
    ///
    /// # Errors
    /// As [`RunState::of`].
    pub fn of_all(runs: &[GridRun]) -> Result<Vec<RunState>> {
        runs.iter().map(RunState::of).collect()
    }
}
