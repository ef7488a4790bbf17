//! The runs of a grid as command lines, and as an array job for Slurm.

use anyhow::Result;

use super::{Grid, GridRun, RunState};
use crate::settings::{DeviceChoice, flags};

/// A word, quoted for the shell where necessary.
pub fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn flags_of(run: &GridRun) -> Result<String> {
    let flags = flags(&run.settings)?;
    Ok(flags.iter().map(|flag| shell_quoted(flag)).collect::<Vec<_>>().join(" "))
}

fn folder_of(run: &GridRun) -> String {
    let folder = run.folder().display().to_string();
    // A path that begins with a hyphen would be taken for a flag.
    shell_quoted(&if folder.starts_with('-') { format!("./{folder}") } else { folder })
}

/// The runs that are neither complete nor running now.
fn left<'a>(
    runs: &'a [GridRun],
    states: &'a [RunState],
) -> impl Iterator<Item = (&'a GridRun, &'a RunState)> {
    runs.iter()
        .zip(states)
        .filter(|(_, state)| !matches!(state, RunState::Complete { .. } | RunState::Running { .. }))
}

/// A command line for each run that is neither complete nor running: `records train` with all its settings,
/// or with `--resume` where it was begun.
///
/// # Errors
/// Only where a path is not UTF-8.
pub fn command_lines(runs: &[GridRun], states: &[RunState]) -> Result<String> {
    let line = |(run, state): (&GridRun, &RunState)| {
        Ok(match state {
            RunState::Missing => format!("records train {}\n", flags_of(run)?),
            _ => format!("records train --resume {}\n", folder_of(run)),
        })
    };
    left(runs, states).map(line).collect()
}

/// The same as a script for `sbatch`: an array job with a task for each run, where a restarted task resumes
/// its run, each shared by so many `processes` over MPI, with a GPU each unless all runs are on CPUs. `None` if no run is left.
///
/// # Errors
/// Only where a path is not UTF-8.
pub fn slurm_script(
    grid: &Grid,
    runs: &[GridRun],
    states: &[RunState],
    processes: usize,
) -> Result<Option<String>> {
    let left: Vec<&GridRun> = left(runs, states).map(|(run, _)| run).collect();
    let Some(last) = left.len().checked_sub(1) else { return Ok(None) };
    let mut cases = String::new();
    for (number, run) in left.iter().enumerate() {
        cases += &format!("{number}) train {} {} ;;\n", folder_of(run), flags_of(run)?);
    }
    let word = grid.benchmark.word();
    let on_cpu = |run: &&GridRun| matches!(run.settings.device, DeviceChoice::Cpu | DeviceChoice::Sim);
    let (resources, launcher) = match processes {
        1 => ("--gpus=1".into(), ""),
        _ if left.iter().all(on_cpu) => (format!("--ntasks={processes}"), "srun --mpi=pmix "),
        // All see all GPUs of their machine, which NCCL needs for the shortest ways between them.
        _ => (
            format!("--nodes=1\n#SBATCH --ntasks={processes}\n#SBATCH --gpus={processes}"),
            "srun --mpi=pmix ",
        ),
    };
    Ok(Some(format!(
        r#"#!/bin/bash
# The runs of `records table {word}` that are not complete, one task of an array job each.
# Submit it from the folder in which `records table` was called, for relative paths: sbatch FILE
# A task that is stopped or requeued resumes its run; so does submitting the script again.
#SBATCH --job-name=records-{word}
# At most four at a time: --array=0-{last}%4
#SBATCH --array=0-{last}
#SBATCH {resources}
# Adapt: CPU cores (they read and decode the data), memory, time, and what your cluster asks for (partition, account).
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=records-{word}-%A-%a.out
set -euo pipefail

# Adapt: load what `records` and its GPU compiler (NVRTC) need, for example
# module load cuda

# Since 22.05 srun does not take this over from sbatch.
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-1}}"

# train FOLDER FLAGS...: resumes the run in FOLDER, or begins it with FLAGS.
train() {{
    local folder=$1
    shift
    if [ -e "$folder/config.toml" ]; then
        exec {launcher}records train --resume "$folder"
    fi
    exec {launcher}records train "$@"
}}

case "${{SLURM_ARRAY_TASK_ID:?is not set: submit with sbatch, or set it to try one run}}" in
{cases}*)
    echo "error: SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_ID: must be from 0 to {last}" >&2
    exit 2
    ;;
esac
"#
    )))
}
