//! `records bench evaluation`: images per second of a forward pass in evaluation mode.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{median, median_of, processor_seconds};
use crate::cli::device::DeviceArguments;
use crate::cli::output;
use crate::data::recipe::prepare;
use crate::settings::{GivenSettings, Settings};
use crate::train::evaluate::Evaluation;
use crate::train::run::recipe;
use crate::train::{choice, engine};
use crate::usage;

/// Arguments of `records bench evaluation`.
#[derive(Args, Clone, Debug)]
pub(super) struct EvaluationArguments {
    /// Images, from which batches are made as after an epoch of training (10 to 100000)
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Channels of the network's first stage (1 to 1024)
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// The network, as for `records train` [default: resnet18]
    #[arg(long, value_name = "WORD")]
    arch: Option<String>,
    /// Timed passes over all images (1 to 1000)
    #[arg(long, default_value_t = 3)]
    passes: usize,
    #[command(flatten)]
    device: DeviceArguments,
    /// Print one line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// The settings of a network that is evaluated on built-in images.
fn settings(arguments: &EvaluationArguments) -> Result<Settings> {
    let EvaluationArguments { images, width, passes, .. } = *arguments;
    let ranges =
        [("--images", images, 10, 100_000), ("--width", width, 1, 1024), ("--passes", passes, 1, 1000)];
    for (flag, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            return Err(usage!("{flag} {value}: must be {least} to {most}"));
        }
    }
    let mut settings = Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: 10,
        synthetic_test_per_class: images.div_ceil(10),
        imb_factor: 1.0,
        width,
        ..Settings::default()
    };
    let given = GivenSettings::default().with("arch", arguments.arch.clone());
    given.apply(&mut settings).map_err(|problem| usage!("{problem}"))?;
    match settings.problems().into_iter().find(|problem| ["arch", "width"].contains(&problem.name)) {
        Some(problem) => Err(usage!("{problem}")),
        None => Ok(settings),
    }
}

/// Runs `records bench evaluation`.
///
/// # Errors
/// A usage error for bad numbers, words and devices.
pub(super) fn run(arguments: &EvaluationArguments) -> Result<()> {
    let settings = settings(arguments)?;
    let mut device = arguments.device.open()?;
    let data = prepare(&recipe(&settings)?)?;
    let method = choice::method(&settings);
    let model = engine::model(&settings, &*method, data.classes.len(), None, &mut *device)?;
    let Some(test) = &data.test else { anyhow::bail!("the built-in images have no test set") };
    let evaluation = Evaluation::of_set(&model, test, data.test_normalisation, &mut *device)?;
    evaluation.logits(&mut *device)?;
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..arguments.passes {
        let (before, started) = (processor_seconds(), Instant::now());
        evaluation.logits(&mut *device)?;
        seconds.push(started.elapsed().as_secs_f64());
        processor.extend(before.zip(processor_seconds()).map(|(from, to)| to - from));
    }
    let (images, seconds, processor) = (test.len(), median(seconds), median_of(processor));
    let line = json!({
        "device": device.name(), "arch": settings.arch, "width": settings.width, "images": images,
        "seconds_per_pass_median": seconds, "processor_seconds_per_pass_median": processor,
        "images_per_second": images as f64 / seconds,
    });
    output::print(&match arguments.json {
        true => format!("{line}\n"),
        false => format!(
            "{}\nevaluation of {images} images, {} of width {}: {seconds:.3} s (median of {}), {:.1} images/s\n",
            device.describe(),
            settings.arch,
            settings.width,
            arguments.passes,
            images as f64 / seconds,
        ),
    })
}
