//! `records eval`: the test metrics of a checkpoint, from the file alone.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::device::DeviceArguments;
use super::output;
use crate::data::left_out::PREFIX;
use crate::data::recipe::{file_of, open_test_if};
use crate::settings::Settings;
use crate::text::printable;
use crate::train::checkpoint::Checkpoint;
use crate::train::divergence;
use crate::train::evaluate::{self, Evaluation, Shot, TestMetrics};
use crate::train::resume_checks;
use crate::train::run::recipe;
use crate::train::tiles;
use crate::usage;

/// Arguments of `records eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArguments {
    /// A checkpoint of `records train`
    #[arg(long, value_name = "FILE.safetensors")]
    checkpoint: PathBuf,
    /// Folder that holds the data set; by default the one of the run
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Allow other test images than those of the run, of the same classes
    #[arg(long)]
    other_test_images: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Runs `records eval`.
///
/// # Errors
/// A usage error for a file that is not a complete checkpoint, and for missing test data.
pub fn run(arguments: &EvalArguments) -> Result<()> {
    let shown = arguments.checkpoint.display();
    let checkpoint = Checkpoint::read(&arguments.checkpoint)?;
    let settings = settings(arguments, &checkpoint)?;
    let (path, others) = (&arguments.checkpoint, arguments.other_test_images);
    let recipe = recipe(&settings)?;
    let source = open_test_if(&recipe, &|outline| {
        resume_checks::check_test_outline(outline, &checkpoint, path, others)
    })?;
    let changes = resume_checks::check_test_data(&source, &checkpoint, path, others, &|part, image| {
        file_of(&recipe, part, source.positions.of(image))
    })?;
    let counts = checkpoint.progress.train_counts.as_deref();
    let Some(test) = source.test else {
        return Err(usage!(
            "{shown}: its data set has no test images; list some in test.csv beside train.csv"
        ));
    };
    let mut device = arguments.device.open()?;
    tiles::choose_beside(path, &mut *device);
    let model = checkpoint.model(&settings, path, &mut *device)?;
    let evaluation = Evaluation::of_set(&model, &test, source.normalisation, &mut *device)?;
    let (logits, log_prior) = evaluation.run(&mut *device)?;
    if let Some(sign) = divergence::in_logits(&logits, source.classes.len(), "test") {
        return Err(usage!("{shown}: {sign}; the run had diverged, so use an earlier checkpoint"));
    }
    let metrics = evaluate::metrics(&logits, &test.labels, source.classes.len(), counts);

    let mut text = format!(
        "{shown}: {} after {} epochs, {} test images\ntop-1 {:.2} %",
        settings.method_title(),
        checkpoint.progress.epochs_done,
        test.len(),
        metrics.top1,
    );
    text.push_str(&groups(&metrics));
    if !changes.is_empty() {
        text.push_str(&format!("other test images than those of the run: {}\n", changes.join("; ")));
    }
    if evaluate::are_all_the_same(&logits, source.classes.len()) {
        text.push_str(&format!("{}\n", divergence::SAME_LOGITS));
    }
    let prior = model.debias.estimated_prior(log_prior.as_deref());
    if let (Some(prior), Some(counts)) = (prior, counts) {
        let distance = evaluate::prior_distance(&prior, counts);
        text.push_str(&format!("class prior, estimated to true (total variation) {distance:.4}\n"));
    }
    text.push('\n');
    text.push_str(&class_rows(&source.classes, &metrics, counts));
    for left_out in &source.left_out {
        text.push_str(&format!("\n{PREFIX}{left_out}\n"));
    }
    output::print(&text)
}

/// The settings of the run, with the folder of the data replaced if one is given.
fn settings(arguments: &EvalArguments, checkpoint: &Checkpoint) -> Result<Settings> {
    let mut settings = checkpoint.settings(&arguments.checkpoint)?;
    if arguments.data_dir.is_some() {
        settings.data_dir.clone_from(&arguments.data_dir);
    }
    Ok(settings)
}

/// The accuracies after top-1, to the end of its line; a dash stands for a value that cannot be known.
fn groups(metrics: &TestMetrics) -> String {
    let TestMetrics { top5, many, medium, few, .. } = metrics;
    let group = |(name, accuracy): (&str, &Option<f64>)| match accuracy {
        Some(accuracy) => format!("  {name} {accuracy:.2} %"),
        None => format!("  {name} -"),
    };
    let groups = [("top-5", top5), ("many", many), ("medium", medium), ("few", few)];
    groups.map(group).concat() + "\n"
}

/// A line for each class: its name, its number of training samples if known, its accuracy and a bar of it.
fn class_rows(classes: &[String], metrics: &TestMetrics, counts: Option<&[usize]>) -> String {
    let mut text = String::new();
    let groups = counts.map(evaluate::shots);
    let names: Vec<String> = classes.iter().map(|name| printable(name)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(20);
    for (class, (name, accuracy)) in names.iter().zip(&metrics.per_class).enumerate() {
        let trained = counts.zip(groups.as_ref()).map(|(counts, groups)| {
            let shot = match groups[class] {
                Shot::Many => "many",
                Shot::Medium => "medium",
                Shot::Few => "few",
            };
            format!(" {shot:<7} {:>6} trained on ", counts[class])
        });
        let accuracy = match accuracy {
            Some(accuracy) => format!("{accuracy:>6.2} %  {}", "#".repeat((accuracy / 4.0).round() as usize)),
            None => format!("{:>6}    no test image", "-"),
        };
        text.push_str(&format!("{name:<widest$}{} {accuracy}\n", trained.unwrap_or_default()));
    }
    text
}
