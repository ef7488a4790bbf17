//! Running what is not complete, one run after another.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::HumanDuration;

use super::{Grid, Run, State};
use crate::error::{exit_code, one_line};
use crate::train::choice::epochs;
use crate::train::run;

/// Prints a line; a closed terminal does not end the runs.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Epochs that a run still has to do.
fn remaining(run: &Run, state: &State) -> usize {
    match state {
        State::Complete { .. } | State::Running { .. } => 0,
        State::Begun { epochs: done } => epochs(&run.settings).saturating_sub(*done),
        State::Missing | State::Failed { .. } => epochs(&run.settings),
    }
}

/// Runs or resumes every run that is neither complete nor running elsewhere, in order, and keeps `states` up to date; after
/// each run `changed` sees them. A run that fails does not keep the others from running.
///
/// # Errors
/// A usage error of the first run that leaves nothing behind (wrong data or device: the others would end the same way), a
/// folder of other settings, or what `changed` fails with.
pub fn run_missing(
    grid: &Grid,
    runs: &[Run],
    states: &mut [State],
    mut changed: impl FnMut(&[State]) -> Result<()>,
) -> Result<()> {
    let pending: Vec<usize> = (0..runs.len()).filter(|&i| remaining(&runs[i], &states[i]) > 0).collect();
    let (started, mut epochs_run, mut tried) = (Instant::now(), 0, false);
    for (number, &index) in pending.iter().enumerate() {
        let run = &runs[index];
        // Another process may have been here since.
        states[index] = State::of(run)?;
        let to_do = remaining(run, &states[index]);
        if to_do == 0 {
            continue;
        }
        let of = format!("run {} of {}", number + 1, pending.len());
        say(&format!("{of}: {}, {}", grid.described(run), run.folder().display()));
        let began = Instant::now();
        let folder = run.folder();
        let resume = folder.join("config.toml").exists().then_some(folder.as_path());
        let ended = run::run(&run.settings, resume);
        states[index] = State::of(run)?;
        let still_to_do = remaining(run, &states[index]);
        match (&ended, &states[index]) {
            (Err(error), State::Missing) if !tried && exit_code(error) == 2 => return ended,
            (Err(error), State::Missing | State::Begun { .. }) => {
                states[index] = State::Failed { reason: one_line(error) };
            }
            (Ok(()), State::Begun { .. }) if still_to_do == to_do => {
                let reason =
                    "its metrics.jsonl lacks epochs that its checkpoint has done; move the folder away"
                        .into();
                states[index] = State::Failed { reason };
            }
            _ => {}
        }
        tried = true;
        epochs_run += to_do.saturating_sub(still_to_do);
        let left: usize = pending[number + 1..].iter().map(|&i| remaining(&runs[i], &states[i])).sum();
        let how = match &states[index] {
            State::Complete { best, last } => format!("best top-1 {best:.2} %, last {last:.2} %"),
            State::Failed { reason } => format!("failed: {reason}"),
            State::Running { .. } => "is running in another process".into(),
            State::Missing | State::Begun { .. } => "stopped".into(),
        };
        let time_left = match (left, epochs_run) {
            (0, _) | (_, 0) => String::new(),
            (left, done) => {
                let seconds = started.elapsed().as_secs_f64() * left as f64 / done as f64;
                format!("; about {} left", HumanDuration(Duration::from_secs_f64(seconds)))
            }
        };
        say(&format!("{of} ended after {}: {how}{time_left}\n", HumanDuration(began.elapsed())));
        refresh(runs, states)?;
        changed(states)?;
        if matches!(states[index], State::Begun { .. }) {
            // It was stopped in good order, and so are the others.
            break;
        }
    }
    refresh(runs, states)
}

/// Looks again at the runs that other processes may have gone on with.
fn refresh(runs: &[Run], states: &mut [State]) -> Result<()> {
    for (run, state) in runs.iter().zip(states) {
        // What failed in this call need not have left a trace of it.
        if !matches!(state, State::Complete { .. } | State::Failed { .. }) {
            *state = State::of(run)?;
        }
    }
    Ok(())
}
