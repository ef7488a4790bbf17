//! `records bench step`: the time of a training step, and where it goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::device::DeviceArguments;
use super::output;
use crate::data::recipe::prepare;
use crate::device::KernelTime;
use crate::pll::registry;
use crate::settings::{Debias, GivenSettings, Settings};
use crate::train::run::recipe;
use crate::train::training::Training;
use crate::usage;

/// Arguments of `records bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    #[command(subcommand)]
    what: Benchmark,
}

#[derive(Subcommand, Clone, Debug)]
enum Benchmark {
    /// Time whole training steps on made-up images, and each primitive in them
    Step(StepArguments),
}

#[derive(Args, Clone, Debug)]
struct StepArguments {
    /// The method: corr, proden, lw, cavl, cc or solar
    #[arg(long, value_name = "WORD", default_value = "corr")]
    method: String,
    /// The debias: none, oracle, oracle-post or records; without it, records where the method takes it
    #[arg(long, value_name = "WORD")]
    debias: Option<String>,
    /// Mixed views as well; solar has them unless told otherwise
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mixup: Option<bool>,
    /// Samples per step (1 to 4096)
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Channels of the network's first stage (1 to 1024)
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Counted steps, after one that is not (1 to 100000)
    #[arg(long, default_value_t = 5)]
    steps: usize,
    #[command(flatten)]
    device: DeviceArguments,
    /// Print one line of JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs `records bench`.
///
/// # Errors
/// A usage error for bad numbers and devices.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let Benchmark::Step(step) = &arguments.what;
    bench_step(step)
}

/// The epoch whose steps are timed: confidences are renewed and samples chosen from the second on.
const EPOCH: usize = 1;

fn bench_step(arguments: &StepArguments) -> Result<()> {
    let StepArguments { batch_size, width, steps, .. } = *arguments;
    for (flag, value, most) in
        [("--batch-size", batch_size, 4096), ("--width", width, 1024), ("--steps", steps, 100_000)]
    {
        if !(1..=most).contains(&value) {
            return Err(usage!("{flag} {value}: must be 1 to {most}"));
        }
    }
    let mut settings = Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: batch_size.max(10),
        synthetic_test_per_class: 1,
        imb_factor: 0.1,
        partial_rate: 0.3,
        batch_size,
        width,
        ..Settings::default()
    };
    let debias = arguments.debias.clone().unwrap_or_else(|| {
        let takes_none = registry::find(&arguments.method).is_some_and(|entry| entry.no_debias.is_some());
        if takes_none { Debias::None.to_string() } else { Debias::Records.to_string() }
    });
    let given = GivenSettings::default()
        .with("method", arguments.method.clone())
        .with("debias", debias)
        .with("mixup", arguments.mixup);
    given.apply(&mut settings).map_err(|problem| usage!("{problem}"))?;
    // The data of a batch of one sample are fine here.
    if let Some(problem) = settings.problems().into_iter().find(|problem| problem.name != "batch-size") {
        return Err(usage!("{problem}"));
    }
    let mut device = arguments.device.open()?;
    let data = prepare(&recipe(&settings)?)?;
    let mut training = Training::new(&settings, &data, &mut *device)?;

    let mut whole = Vec::with_capacity(steps);
    let mut parts: BTreeMap<&str, (f64, f64, usize)> = BTreeMap::new();
    let progress = ProgressBar::new(steps as u64);
    for step in 0..=steps {
        training.begin_epoch(EPOCH, &mut *device)?;
        device.synchronise()?;
        let started = Instant::now();
        device.replay(&training.engine.plan)?;
        device.synchronise()?;
        if step > 0 {
            whole.push(started.elapsed().as_secs_f64());
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    training.begin_epoch(EPOCH, &mut *device)?;
    let plan = &training.engine.plan;
    for operation in plan.operations() {
        let started = Instant::now();
        device.execute(&**operation, plan.buffers())?;
        device.synchronise()?;
        let part = parts.entry(operation.name()).or_default();
        *part = (part.0 + started.elapsed().as_secs_f64(), part.1 + operation.flops(), part.2 + 1);
    }
    let kernels = kernels_by_name(&device.kernel_times(plan)?);
    whole.sort_by(f64::total_cmp);
    let median = whole[whole.len() / 2];
    let images = (training.engine.step.images * batch_size) as f64 / median;
    if arguments.json {
        let line = json!({
            "device": device.name(),
            "method": settings.method_title(),
            "batch_size": batch_size,
            "width": width,
            "steps": steps,
            "seconds_per_step_median": median,
            "images_per_second": images,
            "gflop_per_second": plan.flops() / median / 1e9,
            "kernels": kernels.iter().map(|(name, (seconds, launches))| json!({
                "kernel": name, "launches": launches, "seconds": seconds,
            })).collect::<Vec<_>>(),
            "primitives": parts.iter().map(|(name, (seconds, flops, calls))| json!({
                "primitive": name, "calls": calls, "seconds": seconds, "flops": flops,
            })).collect::<Vec<_>>(),
        });
        return output::print(&format!("{line}\n"));
    }
    let mut text = format!(
        "{}\na step of {} of {batch_size} samples at width {width}: {:.1} ms (median of {steps}), {images:.1} images/s, {:.1} GFLOP/s\n\n",
        device.describe(),
        settings.method_title(),
        1e3 * median,
        plan.flops() / median / 1e9,
    );
    let total: f64 = parts.values().map(|part| part.0).sum();
    let mut rows: Vec<_> = parts.into_iter().collect();
    rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let _ = writeln!(
        text,
        "{:<28} {:>6} {:>10} {:>7} {:>9}",
        "primitive, one step", "calls", "ms", "share", "GFLOP/s"
    );
    for (name, (seconds, flops, calls)) in rows {
        let share = 100.0 * seconds / total;
        let rate = flops / seconds / 1e9;
        let _ = writeln!(text, "{name:<28} {calls:>6} {:>10.3} {share:>6.1}% {rate:>9.1}", 1e3 * seconds);
    }
    if !kernels.is_empty() {
        let total: f64 = kernels.iter().map(|(_, (seconds, _))| seconds).sum();
        let how = if device.name() == "sim" { "predicted for an RTX 3090" } else { "measured" };
        let _ =
            writeln!(text, "\n{:<44} {:>6} {:>10} {:>7}", format!("kernel, {how}"), "calls", "us", "share");
        for (name, (seconds, launches)) in kernels {
            let share = 100.0 * seconds / total;
            let _ = writeln!(text, "{name:<44} {launches:>6} {:>10.1} {share:>6.1}%", 1e6 * seconds);
        }
    }
    output::print(&text)
}

/// Seconds and launches of each kernel, the longest first.
fn kernels_by_name(times: &[KernelTime]) -> Vec<(&'static str, (f64, usize))> {
    let mut kernels: BTreeMap<&'static str, (f64, usize)> = BTreeMap::new();
    for time in times {
        let kernel = kernels.entry(time.kernel).or_default();
        *kernel = (kernel.0 + time.seconds, kernel.1 + 1);
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    kernels
}
