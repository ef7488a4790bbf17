//! How far a run of the grid is, from what lies in its folder.

use std::path::Path;

use anyhow::Result;

use super::{Run, comparable, told};
use crate::pll::method::StageEpoch;
use crate::settings::{Settings, differences};
use crate::train::choice::{epochs, stages};
use crate::train::run_folder;
use crate::usage;

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is nothing yet.
    Missing,
    /// Begun and left, after so many whole epochs.
    Begun { epochs: usize },
    /// A process is running it.
    Running { epochs: usize },
    /// It failed, and has not been tried again.
    Failed { reason: String },
    /// All epochs are done. Test top-1 in percent: the best of any evaluated epoch, and the last one's.
    Complete { best: f64, last: f64 },
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
            "{}: is no run's folder, for it has no config.toml; move it away or choose another --exp-dir",
            folder.display()
        ));
    }
    Ok(None)
}

impl State {
    /// The state of a run, from its folder. Nothing is written.
    ///
    /// # Errors
    /// A usage error if the folder is of a run with other settings, or of no run.
    pub fn of(run: &Run) -> Result<State> {
        let folder = run.folder();
        let Some(there) = config(&folder)? else {
            return Ok(if run_folder::is_running(&folder) {
                State::Running { epochs: 0 }
            } else {
                State::Missing
            });
        };
        let differing = differences(&comparable(&there), &comparable(&run.settings))?;
        if !differing.is_empty() {
            return Err(usage!(
                "{}: was run with other settings ({}); give the same settings or another --exp-dir",
                folder.display(),
                told(&differing)
            ));
        }
        let mut metrics = run_folder::metrics(&folder);
        // A line of an epoch that the run does not have is none of its results.
        metrics.retain(|line| line.epoch < epochs(&there));
        let done = metrics.last().map_or(0, |last| last.epoch.saturating_add(1));
        if let Some(last) =
            metrics.last().and_then(|last| last.test.as_ref()).filter(|_| done >= epochs(&there))
        {
            // What an earlier stage reached is not the run's result.
            let stages = stages(&there);
            let is_of_last = |epoch: usize| StageEpoch::of(&stages, epoch).stage + 1 == stages.len();
            let trained = metrics.iter().filter(|line| is_of_last(line.epoch));
            let best = trained.filter_map(|epoch| Some(epoch.test.as_ref()?.top1)).fold(last.top1, f64::max);
            if metrics.len() == done {
                return Ok(State::Complete { best, last: last.top1 });
            }
            // A line that is missing, or cannot be read, may be the best one's.
            return Ok(match run_folder::progress(&folder).filter(|progress| progress.epochs_done == done) {
                Some(progress) => State::Complete { best: progress.best_top1.max(best), last: last.top1 },
                None => {
                    State::Failed { reason: "its metrics.jsonl lacks epochs; move the folder away".into() }
                }
            });
        }
        Ok(if run_folder::is_running(&folder) {
            State::Running { epochs: done }
        } else if let Some(reason) = run_folder::failure(&folder) {
            State::Failed { reason }
        } else {
            State::Begun { epochs: done }
        })
    }

    /// The states of `runs`.
    ///
    /// # Errors
    /// As [`State::of`].
    pub fn of_all(runs: &[Run]) -> Result<Vec<State>> {
        runs.iter().map(State::of).collect()
    }
}
