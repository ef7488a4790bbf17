//! Checks before a run is resumed or a checkpoint evaluated: settings and data must be those of the
//! checkpoint. A refusal names what changed and the remedy.

use std::path::Path;

use anyhow::Result;

use super::changes;
use super::checkpoint::Checkpoint;
use super::run_folder;
use crate::data::fingerprint::{FileOf, Fingerprint, Outline};
use crate::data::recipe::TestData;
use crate::settings::{self, Settings, differences};
use crate::usage;

/// Refuses settings with which a run would compute something else than with those of `checkpoint`: the
/// config.toml beside it may have been edited. `given` is the path that --resume names, or that of the
/// checkpoint.
///
/// # Errors
/// A usage error that names every setting that differs, with both values and the remedy.
pub fn check_settings(now: &Settings, checkpoint: &Checkpoint, given: &Path) -> Result<()> {
    let made_with: Settings = toml::from_str(&checkpoint.config)
        .map_err(|error| usage!("--resume {}: the checkpoint's settings: {error}", given.display()))?;
    changes::check_length(now, &checkpoint.progress, &given.display().to_string())?;
    // A run may be made longer or shorter.
    let comparable = |settings: &Settings| Settings { epochs: now.epochs, ..settings.computation() };
    let differing = differences(&comparable(&made_with), &comparable(now))?;
    if differing.is_empty() {
        return Ok(());
    }
    // A differing value that config.toml holds too was edited there; any other comes from a flag.
    let config = if given.is_dir() { given.join("config.toml") } else { given.with_file_name("config.toml") };
    let written = run_folder::settings_of(&config).ok();
    let edited = match &written {
        Some(written) => differences(&comparable(&made_with), &comparable(written))?,
        None => Vec::new(),
    };
    let (mut changes, mut flags, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (name, [was, is]) in &differing {
        let quoted = settings::quoted_where_odd;
        changes.push(format!("{name} was {} and is now {}", quoted(was), quoted(is)));
        if edited.iter().any(|(edited, [_, written])| edited == name && written == is) {
            lines.push(if was == "none" {
                format!("take {name} out of {}", config.display())
            } else {
                format!("put {name} back to {} in {}", quoted(was), config.display())
            });
        } else {
            flags.push(format!("--{name}"));
        }
    }
    let mut remedies = lines;
    if !flags.is_empty() {
        remedies.insert(0, format!("leave {} out", flags.join(", ")));
    }
    Err(usage!(
        "--resume {}: other settings than the run was started with: {}; {} to go on, or make a new \
         run of it with --branch NAME",
        given.display(),
        changes.join("; "),
        remedies.join(", ")
    ))
}

/// Refuses changed data; `shown` is the checkpoint, or the path that --resume names.
fn changed(shown: &Path, changes: &[String], remedy: &str) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    Err(usage!(
        "{}: the data are not those that the run was trained on: {}; {remedy}",
        shown.display(),
        changes.join("; ")
    ))
}

const RESUME_REMEDY: &str =
    "its state belongs to the samples as they were, so put the data back or start a new run without --resume";

/// Refuses data whose class names or sizes differ from those that `checkpoint` was trained on, before images
/// are read.
///
/// # Errors
/// A usage error that names what changed.
pub fn check_outline(now: &Outline, checkpoint: &Checkpoint, given: &Path) -> Result<()> {
    changed(given, &checkpoint.data.outline().changes(now), RESUME_REMEDY)
}

/// Refuses data that differ from those that `checkpoint` was trained on. `file_of` names the current file of
/// a sample.
///
/// # Errors
/// A usage error that names what changed.
pub fn check_data(
    now: &Fingerprint,
    checkpoint: &Checkpoint,
    given: &Path,
    file_of: FileOf<'_>,
) -> Result<()> {
    changed(given, &checkpoint.data.changes(now, file_of), RESUME_REMEDY)
}

const EVAL_REMEDY: &str = "put them back, or evaluate on these with --other-test-images";

/// Refuses classes other than those that `checkpoint` (at `path`) was trained on and, unless `others` allows
/// other test images, another number of them, before images are read.
///
/// # Errors
/// A usage error that names what changed.
pub fn check_test_outline(now: &Outline, checkpoint: &Checkpoint, path: &Path, others: bool) -> Result<()> {
    let was = checkpoint.data.outline();
    let remedy = "the network's outputs stand for the classes of the run, so put the class names back";
    changed(path, &was.class_changes(now), remedy)?;
    if others || was.test.is_none() {
        return Ok(());
    }
    changed(path, &was.test_changes(now), EVAL_REMEDY)
}

/// Refuses test images other than those of the run, unless `others` allows them; then returns what differs.
///
/// # Errors
/// A usage error that names what changed.
pub fn check_test_data(
    now: &TestData,
    checkpoint: &Checkpoint,
    path: &Path,
    others: bool,
    file_of: FileOf<'_>,
) -> Result<Vec<String>> {
    let changes = checkpoint.data.test_changes(now, file_of);
    if !others {
        changed(path, &changes, EVAL_REMEDY)?;
    }
    Ok(changes)
}
