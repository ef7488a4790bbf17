//! `records import`: weights of the reference, or of any program with its names, as a checkpoint.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output;
use super::train::{self, TrainArguments};
use crate::exchange::import;
use crate::settings::GivenSettings;
use crate::train::device_choice;
use crate::train::run::open_data;

/// Arguments of `records import`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The settings say what the weights were trained as: network, data set, method. The checkpoint is one of a run \
                  after 0 epochs: eval, predict and export take it, and from a folder of its own records train --resume FILE \
                  trains it further."
)]
pub struct ImportArguments {
    /// A file of torch.save (.pt, .pth, .pth.tar) or safetensors with a state_dict, also one of the reference
    weights: PathBuf,
    /// Where to write the checkpoint
    #[arg(short, long, value_name = "FILE.safetensors")]
    output: PathBuf,
    /// Start from the named settings; `records train --list-presets` shows them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Read settings from a TOML file, such as the config.toml of a run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The settings among the flags.
    #[command(flatten)]
    given: GivenSettings,
}

/// Runs `records import`.
///
/// # Errors
/// A usage error for a file that cannot be read, weights of another network, and missing data.
pub fn run(arguments: &ImportArguments) -> Result<()> {
    let settings = train::resolve(&TrainArguments {
        preset: arguments.preset.clone(),
        config: arguments.config.clone(),
        given: arguments.given.clone(),
        ..TrainArguments::default()
    })?;
    let dict = import::read(&arguments.weights)?;
    let mut device = device_choice::open(settings.device, settings.precision, settings.threads)?.device;
    let (data, _) = open_data(&settings, None)?;
    let mut imported = import::import(&dict, &arguments.weights, &settings, &data, &mut *device)?;
    imported.notes.iter().for_each(|note| output::note(note));
    imported.checkpoint.write(&arguments.output)?;
    output::print(&format!(
        "{}: {} of width {} over {} classes\n",
        arguments.output.display(),
        settings.arch,
        settings.width,
        data.classes.len()
    ))
}
