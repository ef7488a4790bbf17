//! `records profile`: what a run would take on a GPU that need not be there, kernel by kernel.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::described_run::DescribedRun;
use super::output;
use crate::device::gpu::{self, DriverKind};
use crate::files::write_atomically;
use crate::profile::Profile;
use crate::profile::gpus::Gpu;
use crate::profile::measured::Measured;
use crate::profile::show::Format;
use crate::profile::world::{self, Link};
use crate::settings::quoted_where_odd;
use crate::train::device_choice::precision_on_gpu;
use crate::usage;

/// Arguments of `records profile`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Nothing is run (but with --measured) and no data is read. How far to trust the times: docs/kernel-cost.md."
)]
pub struct ProfileArguments {
    /// The GPU: rtx3090, a100, h100, h200, or a file of your own with the keys of one in src/device/gpu/model/gpus.toml
    /// [default: rtx3090; with --measured the one that is there, with the rates of the nearest of these]
    #[arg(long, value_name = "WORD|FILE.toml")]
    gpu: Option<String>,
    /// How to show it: table, json, trace (for ui.perfetto.dev) or svg
    #[arg(long, value_name = "WORD", default_value = "table")]
    format: String,
    /// Write it to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show every launch of a step in the table, not the slowest alone
    #[arg(long)]
    launches: bool,
    /// Time the step on this machine's GPU as well, launch by launch, with random images: beside the prediction
    /// in a table or in json
    #[arg(long)]
    measured: bool,
    /// Show what up to so many GPUs would gain that share a step, below the table
    #[arg(long, value_name = "GPUS")]
    world: Option<usize>,
    /// What connects them: nvlink, pcie or ib
    #[arg(long, value_name = "WORD", default_value = "nvlink")]
    link: String,
    #[command(flatten)]
    run: DescribedRun,
}

/// GPUs at most: beyond, rounds over a switch are no model.
const MOST_GPUS: usize = 64;

/// Runs `records profile`.
///
/// # Errors
/// A usage error for bad settings, an unknown GPU or format, and a file that cannot be read or written.
pub fn run(arguments: &ProfileArguments) -> Result<()> {
    let format = Format::from_word(&arguments.format).ok_or_else(|| {
        let words = Format::ALL.map(|format| format.to_string()).join(", ");
        usage!("--format {}: must be one of {words}", quoted_where_odd(&arguments.format))
    })?;
    if arguments.measured && !matches!(format, Format::Table | Format::Json) {
        return Err(usage!("--measured: must be with --format table or json"));
    }
    let link = Link::find(&arguments.link)?;
    let (settings, given) = arguments.run.resolve()?;
    let mut device = match arguments.measured {
        false => None,
        true => Some(gpu::open(DriverKind::Cuda, precision_on_gpu(settings.precision))?),
    };
    let gpu = match (&arguments.gpu, &device) {
        (Some(word), _) => Gpu::find(word)?,
        (None, Some(device)) => Gpu::nearest(device.gpu()),
        (None, None) => Gpu::find("rtx3090")?,
    };
    let mut profile = Profile::new(&settings, given, &gpu)?;
    if let Some(device) = &mut device {
        profile.measured = Some(Measured::of(&settings, given, device)?);
    }
    let mut shown = format.show(&profile, arguments.launches);
    if let Some(most) = arguments.world {
        if format != Format::Table || !(2..=MOST_GPUS).contains(&most) {
            return Err(usage!("--world {most}: must be 2 to {MOST_GPUS}, with --format table"));
        }
        shown += &world::table(&profile, given, &gpu, most, link)?;
    }
    match &arguments.output {
        None => output::print(&shown),
        Some(path) => write_atomically(path, shown.as_bytes()),
    }
}
