//! `records tune`: times the tiles of a run's convolutions on this machine's GPU and keeps the times.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::described_run::DescribedRun;
use super::output;
use crate::device::Device as _;
use crate::device::gpu::tiles::{Kept, Tiles, Times};
use crate::device::gpu::{self, DriverKind, GpuDevice, probe};
use crate::profile::data::Shape;
use crate::profile::tuning::{self, Choice, PartOfRun, Taken, Tuning};
use crate::settings::{DeviceChoice, quoted_where_odd};
use crate::text::printable;
use crate::train::device_choice::precision_on_gpu;
use crate::train::run::recipe;
use crate::usage;

/// Arguments of `records tune`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Any setting of `records train` may be given: another width, batch size or precision adds times. Runs of the \
                  same GPU and program take the fastest tiles from then on; a run that has begun goes on with its own, \
                  for others give other bits. What it means: docs/gpu.md."
)]
pub struct TuneArguments {
    /// Measure what is there already, too
    #[arg(long)]
    again: bool,
    /// How to show it: table or json
    #[arg(long, value_name = "WORD", default_value = "table")]
    format: String,
    #[command(flatten)]
    run: DescribedRun,
}

/// Runs `records tune`.
///
/// # Errors
/// A usage error for bad settings, without a GPU, and where the times cannot be kept.
pub fn run(arguments: &TuneArguments) -> Result<()> {
    if !["table", "json"].contains(&&*arguments.format) {
        return Err(usage!("--format {}: must be table or json", quoted_where_odd(&arguments.format)));
    }
    let (settings, given) = arguments.run.resolve()?;
    if !matches!(settings.device, DeviceChoice::Auto | DeviceChoice::Cuda) {
        return Err(usage!(
            "--device {}: tiles are timed on a GPU; must be cuda, or left out",
            settings.device
        ));
    }
    // What is wrong with the arguments is said before what the machine lacks.
    Shape::of(&recipe(&settings)?, given)?;
    probe::usable().map_err(|missing| usage!("--device cuda: no GPU to time tiles on: {missing}"))?;
    let mut device = gpu::open(DriverKind::Cuda, precision_on_gpu(settings.precision))?;
    let Some(on) = device.measured_on() else { anyhow::bail!("the GPU is not known by a name") };
    let kept = Kept::of(&on)?;
    kept.make_ready()?;
    let mut times = kept.read().unwrap_or_else(|problem| {
        output::note(&problem);
        None
    });
    let times = times.get_or_insert_with(|| Times::none(on));
    device.choose_tiles_by(Tiles::Measured(times.clone().into()));
    let before = times.digest();
    let tuned = tuning::tune(&settings, given, &mut device, (times, arguments.again));
    // Also what was measured before it failed.
    if times.digest() != before {
        kept.write(times)?;
    }
    let tuned = tuned?;
    output::print(&match &*arguments.format {
        "json" => format!("{}\n", object(&tuned, &kept, &device)),
        _ => table(&tuned, &kept, &device),
    })
}

/// Seconds that all choices of a part gain, one after the other.
fn gain(tuned: &Tuning, part: PartOfRun) -> f64 {
    tuned.choices.iter().filter(|choice| choice.part == part).map(Choice::gain).sum()
}

fn object(tuned: &Tuning, kept: &Kept, device: &GpuDevice) -> Value {
    let taken = |Taken { kernel, estimated, measured }: &Taken| json!({ "kernel": kernel, "expected_us": 1e6 * estimated, "measured_us": 1e6 * measured });
    let choices = tuned.choices.iter().map(|choice| {
        json!({
            "part": choice.part.word(),
            "what": choice.what,
            "ways": choice.ways,
            "model": taken(&choice.model),
            "tuned": taken(&choice.tuned),
            "gain_us": 1e6 * choice.gain(),
        })
    });
    json!({
        "gpu": device.gpu().name,
        "file": kept.path(),
        "measured": tuned.measured,
        "known": tuned.known,
        "choices": choices.collect::<Vec<_>>(),
        "step_gain_ms": 1e3 * gain(tuned, PartOfRun::Step),
        "evaluation_gain_ms": 1e3 * gain(tuned, PartOfRun::Evaluation),
    })
}

fn table(tuned: &Tuning, kept: &Kept, device: &GpuDevice) -> String {
    let microseconds = |seconds: f64| format!("{:.1}", 1e6 * seconds);
    let heads =
        ["part", "layer", "ways", "the model's", "expected us", "measured", "taken now", "measured", "gain"];
    let mut rows = vec![heads.map(String::from)];
    for choice in &tuned.choices {
        let Choice { part, what, ways, model, tuned } = choice;
        rows.push([
            part.word().into(),
            what.clone(),
            ways.to_string(),
            model.kernel.clone(),
            microseconds(model.estimated),
            microseconds(model.measured),
            if tuned.kernel == model.kernel { "the same".into() } else { tuned.kernel.clone() },
            microseconds(tuned.measured),
            microseconds(choice.gain()),
        ]);
    }
    let Tuning { measured, known, .. } = *tuned;
    let done = match (measured, known) {
        (0, known) => {
            format!("all {known} times were there already, nothing was measured (--again measures anew)")
        }
        (measured, 0) => format!("{measured} times were measured"),
        (measured, known) => format!("{measured} times were measured, {known} were there already"),
    };
    format!(
        "{}\n{}\nlaunch after launch, a step gains {:.3} ms, a pass over the test images {:.3} ms\n{done}; kept in {}\n",
        printable(&device.gpu().name),
        output::table(&rows).trim_end(),
        1e3 * gain(tuned, PartOfRun::Step),
        1e3 * gain(tuned, PartOfRun::Evaluation),
        printable(&kept.path().display().to_string())
    )
}
