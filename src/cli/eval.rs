//! `records eval`: the test metrics of a checkpoint, from the file alone.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArguments;
use super::output;
use crate::data::recipe::open;
use crate::settings::Settings;
use crate::train::checkpoint::Checkpoint;
use crate::train::evaluate::{self, Evaluation, ResidentImages, Shot};
use crate::train::run::recipe;
use crate::train::training::{EVALUATION_BATCH, model};
use crate::usage;

/// Arguments of `records eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArguments {
    /// A checkpoint of `records train`
    #[arg(long, value_name = "FILE.safetensors")]
    checkpoint: PathBuf,
    /// Where the data set is now; default: where it was when the run was trained
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Runs `records eval`.
///
/// # Errors
/// A usage error for a file that is no whole checkpoint, and for missing test data.
pub fn run(arguments: &EvalArguments) -> Result<()> {
    let shown = arguments.checkpoint.display();
    let checkpoint = Checkpoint::read(&arguments.checkpoint)?;
    let mut settings: Settings =
        toml::from_str(&checkpoint.config).map_err(|error| usage!("{shown}: its configuration: {error}"))?;
    settings.validate()?;
    if arguments.data_dir.is_some() {
        settings.data_dir.clone_from(&arguments.data_dir);
    }
    let source = open(&recipe(&settings)?)?;
    let counts = &checkpoint.progress.train_counts;
    if source.classes != checkpoint.progress.classes || counts.len() != source.classes.len() {
        return Err(usage!("{shown}: the data set's classes are not those the checkpoint was trained on"));
    }
    let mut device = arguments.device.open()?;
    let mut model = model(&settings, source.classes.len(), Some(counts), &mut *device)?;
    checkpoint.restore_model(&mut model, &mut *device).map_err(|error| usage!("{shown}: {error}"))?;
    let images = ResidentImages::new(&source.test, source.test_normalisation, &mut *device)?;
    let evaluation = Evaluation::new(&model, images, EVALUATION_BATCH, &mut *device)?;
    let (logits, log_prior) = evaluation.run(&mut *device)?;
    let metrics = evaluate::metrics(&logits, &source.test.labels, counts);

    let mut text = format!(
        "{shown}: {} after {} epochs, {} test images\ntop-1 {:.2} %  top-5 {:.2} %  many {:.2} %  medium {:.2} %  few {:.2} %\n",
        settings.method_title(),
        checkpoint.progress.epochs_done,
        source.test.len(),
        metrics.top1,
        metrics.top5,
        metrics.many,
        metrics.medium,
        metrics.few,
    );
    if let (Some(log_prior), Some(_)) = (log_prior, model.debias.estimate()) {
        let prior: Vec<f64> = log_prior.iter().map(|&log| f64::from(log).exp()).collect();
        let distance = evaluate::prior_distance(&prior, counts);
        text.push_str(&format!("class prior, estimated to true (total variation) {distance:.4}\n"));
    }
    text.push('\n');
    for (((name, accuracy), count), shot) in
        source.classes.iter().zip(&metrics.per_class).zip(counts).zip(evaluate::shots(counts))
    {
        let shot = match shot {
            Shot::Many => "many",
            Shot::Medium => "medium",
            Shot::Few => "few",
        };
        let bar = "#".repeat((accuracy / 4.0).round() as usize);
        text.push_str(&format!("{name:<20} {shot:<7} {count:>6} trained on  {accuracy:>6.2} %  {bar}\n"));
    }
    output::print(&text)
}
