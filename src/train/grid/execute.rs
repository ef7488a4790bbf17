//! Running what is not complete, one run after another.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::HumanDuration;

use super::{Grid, GridRun, RunState};
use crate::collective::World;
use crate::error::{exit_code, one_line, stopped};
use crate::train::choice::epochs;
use crate::train::run;
use crate::train::stop::Stop;

/// Prints a line; the runs go on if the terminal is closed.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Epochs that a run still has to do.
fn remaining(run: &GridRun, state: &RunState) -> usize {
    match state {
        RunState::Complete { .. } | RunState::Running { .. } => 0,
        RunState::Begun { epochs: done } => epochs(&run.settings).saturating_sub(*done),
        RunState::Missing | RunState::Failed { .. } => epochs(&run.settings),
    }
}

/// How fast this call gets through epochs, for the time that is left.
struct Pace {
    started: Instant,
    epochs: usize,
}

impl Pace {
    /// Says how long `left` more epochs will take; nothing where no epoch has been run or none is left.
    fn time_left(&self, left: usize) -> String {
        if left == 0 || self.epochs == 0 {
            return String::new();
        }
        let seconds = self.started.elapsed().as_secs_f64() * left as f64 / self.epochs as f64;
        format!("; about {} left", HumanDuration(Duration::from_secs_f64(seconds)))
    }
}

/// Starts a run, or resumes it if its folder holds one.
fn start_or_resume(run: &GridRun, stop: &Stop) -> Result<()> {
    let folder = run.folder();
    let resume = folder.join("config.toml").exists().then_some(folder.as_path());
    run::run(&run.settings, resume, stop, &World::default())
}

/// The state of a run after an attempt that ended as `ended` and left the folder in the state `found`; `idle`
/// is an attempt that did no epoch.
fn state_after(ended: &Result<()>, found: RunState, idle: bool) -> RunState {
    match (ended, found) {
        (Err(error), RunState::Missing | RunState::Begun { .. }) => {
            RunState::Failed { reason: one_line(error) }
        }
        (Ok(()), RunState::Begun { .. }) if idle => RunState::Failed {
            reason: "its metrics.jsonl lacks epochs that its checkpoint has done; move the folder away"
                .into(),
        },
        (_, found) => found,
    }
}

/// How a run ended, in words.
fn outcome(state: &RunState) -> String {
    match state {
        RunState::Complete { best, last } => format!("best top-1 {best:.2} %, last {last:.2} %"),
        RunState::Failed { reason } => format!("failed: {reason}"),
        RunState::Running { .. } => "is running in another process".into(),
        RunState::Missing | RunState::Begun { .. } => "stopped".into(),
    }
}

/// Runs or resumes every run that is neither complete nor running elsewhere, in order. Keeps `states` up to
/// date and passes them to `changed` after each run. A failed run does not stop the others.
///
/// # Errors
/// A usage error of the first run if it leaves nothing behind (with wrong data or the wrong device the others
/// would end the same way), a folder with other settings, or an error of `changed`;
/// [`crate::error::Stopped`] where `stop` asked for it: no further run is started then.
pub fn run_missing(
    grid: &Grid,
    runs: &[GridRun],
    states: &mut [RunState],
    stop: &Stop,
    mut changed: impl FnMut(&[RunState]) -> Result<()>,
) -> Result<()> {
    let pending: Vec<usize> = (0..runs.len()).filter(|&i| remaining(&runs[i], &states[i]) > 0).collect();
    let mut pace = Pace { started: Instant::now(), epochs: 0 };
    let mut tried = false;
    for (number, &index) in pending.iter().enumerate() {
        let run = &runs[index];
        // Another process may have run it in the meantime.
        states[index] = RunState::of(run)?;
        let to_do = remaining(run, &states[index]);
        if to_do == 0 {
            continue;
        }
        let position = format!("run {} of {}", number + 1, pending.len());
        say(&format!("{position}: {}, {}", grid.described(run), run.folder().display()));
        let began = Instant::now();
        let ended = start_or_resume(run, stop);
        let found = RunState::of(run)?;
        if !tried && found == RunState::Missing && ended.as_ref().is_err_and(|error| exit_code(error) == 2) {
            states[index] = found;
            return ended;
        }
        if ended.as_ref().is_err_and(|error| stopped(error).is_some()) {
            states[index] = found;
            refresh(runs, states)?;
            changed(states)?;
            return ended;
        }
        tried = true;
        let still_to_do = remaining(run, &found);
        pace.epochs += to_do.saturating_sub(still_to_do);
        states[index] = state_after(&ended, found, still_to_do == to_do);
        let left: usize = pending[number + 1..].iter().map(|&i| remaining(&runs[i], &states[i])).sum();
        let (took, how) = (HumanDuration(began.elapsed()), outcome(&states[index]));
        say(&format!("{position} ended after {took}: {how}{}\n", pace.time_left(left)));
        refresh(runs, states)?;
        changed(states)?;
        if matches!(states[index], RunState::Begun { .. }) {
            // It ended early without an error, so the rest is not started either.
            break;
        }
    }
    refresh(runs, states)
}

/// Reads again the states of runs that other processes may be working on.
fn refresh(runs: &[GridRun], states: &mut [RunState]) -> Result<()> {
    for (run, state) in runs.iter().zip(states) {
        // A run that failed in this call may have left no trace of its failure.
        if !matches!(state, RunState::Complete { .. } | RunState::Failed { .. }) {
            *state = RunState::of(run)?;
        }
    }
    Ok(())
}
