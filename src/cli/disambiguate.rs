//! `records disambiguate`: the labels that a run has made of candidate sets.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::device::DeviceArguments;
use super::output;
use crate::data::fingerprint::Part;
use crate::data::recipe::{TrainingData, paths};
use crate::files::write_atomically;
use crate::text::printable;
use crate::train::checkpoint::Checkpoint;
use crate::train::labels::{CleanedLabel, Summary, cleaned};
use crate::train::predict::classes_of;
use crate::train::run::{open_data, recipe};
use crate::train::run_folder;
use crate::usage;

/// Arguments of `records disambiguate`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Columns of the table: sample (position in the training set), index (position in the data set), path where \
                  images have files of their own, label, confidence (0 to 1), size of the candidate set, candidates \
                  (separated by |), truth where it is known; with --model also model (the network's class of the image) \
                  and agrees (yes or no)."
)]
pub struct DisambiguateArguments {
    /// A run's folder, whose newest checkpoint is taken, or a checkpoint
    #[arg(value_name = "RUN_FOLDER|CHECKPOINT")]
    run: PathBuf,
    /// Write the table to this file instead of standard output
    #[arg(long, value_name = "labels.csv")]
    out: Option<PathBuf>,
    /// Also compare each label with the class that the network gives the image: a pass over the training
    /// images
    #[arg(long)]
    model: bool,
    /// Folder that holds the data set; by default the one of the run
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Runs `records disambiguate`.
///
/// # Errors
/// A usage error for a run without a whole checkpoint, and for data other than the run's.
pub fn run(arguments: &DisambiguateArguments) -> Result<()> {
    let (path, checkpoint) = checkpoint(&arguments.run)?;
    let mut settings = checkpoint.settings(&path)?;
    if arguments.data_dir.is_some() {
        settings.data_dir.clone_from(&arguments.data_dir);
    }
    let found = (checkpoint, path);
    let (data, _) = open_data(&settings, Some(&found))?;
    let (checkpoint, path) = found;
    let labels = cleaned(&checkpoint, &path, &data)?;
    let model = match arguments.model {
        true => {
            let mut device = arguments.device.open()?;
            Some(classes_of(&checkpoint, &path, &data.train.images, &mut *device)?)
        }
        false => None,
    };
    let files = paths(&recipe(&settings)?, Part::Train)?;
    let table = table(&data, &labels, files.as_deref(), model.as_deref())?;
    match &arguments.out {
        Some(out) => {
            write_atomically(out, table.as_bytes())?;
            output::print(&summary(&path, &checkpoint, &labels, model.as_deref()))
        }
        None => output::print(&table),
    }
}

/// The checkpoint that RUN names, and where it is.
fn checkpoint(run: &Path) -> Result<(PathBuf, Checkpoint)> {
    if !run.is_dir() {
        return Ok((run.to_path_buf(), Checkpoint::read(run)?));
    }
    run_folder::newest(run).ok_or_else(|| {
        let shown = printable(&run.display().to_string());
        usage!("{shown}: holds no whole checkpoint; name a run's folder or a checkpoint")
    })
}

/// The table.
fn table(
    data: &TrainingData,
    labels: &[CleanedLabel],
    files: Option<&[PathBuf]>,
    model: Option<&[usize]>,
) -> Result<String> {
    let name = |class: u8| data.classes[usize::from(class)].as_str();
    let knows_truth = labels.iter().any(|label| label.truth.is_some());
    let mut header = vec!["sample", "index"];
    header.extend(files.map(|_| "path"));
    header.extend(["label", "confidence", "size", "candidates"]);
    header.extend(knows_truth.then_some("truth"));
    header.extend(model.iter().flat_map(|_| ["model", "agrees"]));
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(&header)?;
    for (sample, (label, &index)) in labels.iter().zip(&data.index).enumerate() {
        let mut row = vec![sample.to_string(), index.to_string()];
        if let Some(files) = files {
            let file = usize::try_from(index).ok().and_then(|index| files.get(index));
            row.push(file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default());
        }
        let candidates: Vec<&str> = label.candidates.iter().map(|&class| name(class)).collect();
        row.extend([name(label.label).into(), label.confidence.to_string()]);
        row.extend([candidates.len().to_string(), candidates.join("|")]);
        if knows_truth {
            row.push(label.truth.map(name).unwrap_or_default().into());
        }
        if let Some(model) = model {
            let agrees = if model[sample] == usize::from(label.label) { "yes" } else { "no" };
            row.extend([data.classes[model[sample]].clone(), agrees.into()]);
        }
        table.write_record(&row)?;
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}

/// What came out, in a few lines.
fn summary(path: &Path, checkpoint: &Checkpoint, labels: &[CleanedLabel], model: Option<&[usize]>) -> String {
    let Summary { samples, ambiguous, confidence, accuracy } = Summary::of(labels);
    let mut text = format!(
        "{} after {} epochs: {samples} labels, {ambiguous} of them from sets of several candidates\n\
         mean confidence {confidence:.4}\n",
        printable(&path.display().to_string()),
        checkpoint.progress.epochs_done,
    );
    if let Some(accuracy) = accuracy {
        text.push_str(&format!("labels that are true, where that is known: {accuracy:.2} %\n"));
    }
    if let Some(model) = model {
        let agree = model.iter().zip(labels).filter(|(class, label)| **class == usize::from(label.label));
        let share = 100.0 * agree.count() as f64 / samples as f64;
        text.push_str(&format!("labels that the network gives the image, too: {share:.2} %\n"));
    }
    text
}
