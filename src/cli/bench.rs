//! `records bench step`: the time of a training step, its parts, and how much of the machine's arithmetic and
//! memory bandwidth each operation uses.

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
use crate::device::{Device, KernelTime, Limits, Plan, Program};
use crate::pll::registry;
use crate::settings::{Debias, GivenSettings, Settings};
use crate::train::run::recipe;
use crate::train::training::Training;
use crate::usage;

/// Arguments of `records bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    #[command(subcommand)]
    what: BenchCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum BenchCommand {
    /// Time training steps on built-in images, and each operation in them
    Step(StepArguments),
}

#[derive(Args, Clone, Debug)]
struct StepArguments {
    /// The method, as for `records train`
    #[arg(long, value_name = "WORD", default_value = "corr")]
    method: String,
    /// The debias: none, oracle, oracle-post or records [default: records if the method allows it]
    #[arg(long, value_name = "WORD")]
    debias: Option<String>,
    /// Mixed views as well [default: as the method has it]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mixup: Option<bool>,
    /// Samples per step (1 to 4096)
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Channels of the network's first stage (1 to 1024)
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Timed steps, after one for warming up (1 to 100000)
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
/// A usage error for bad numbers, words and devices.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let BenchCommand::Step(step) = &arguments.what;
    bench_step(step)
}

/// The epoch whose steps are timed: disambiguation and the choice of samples begin with the second.
const EPOCH: usize = 1;

fn bench_step(arguments: &StepArguments) -> Result<()> {
    let settings = settings(arguments)?;
    let mut device = arguments.device.open()?;
    let data = prepare(&recipe(&settings)?)?;
    let mut training = Training::new(&settings, &data, &mut *device)?;
    let step = StepReport {
        title: settings.method_title(),
        batch_size: settings.batch_size,
        width: settings.width,
        steps: arguments.steps,
        median: median_step(&mut training, arguments.steps, &mut *device)?,
        images: training.engine.step.images * settings.batch_size,
        flops: training.engine.plan.flops(),
        operations: operations(&mut training, &mut *device)?,
        kernels: kernels(&mut training, &mut *device)?,
        limits: device.limits(),
    };
    output::print(&if arguments.json { step.json(&*device) } else { step.table(&*device) })
}

/// The settings of a step on built-in images.
fn settings(arguments: &StepArguments) -> Result<Settings> {
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
    // A batch of one sample is allowed here.
    if let Some(problem) = settings.problems().into_iter().find(|problem| problem.name != "batch-size") {
        return Err(usage!("{problem}"));
    }
    Ok(settings)
}

/// Seconds of a step: the median of `steps`, after one for warming up.
fn median_step(training: &mut Training, steps: usize, device: &mut dyn Device) -> Result<f64> {
    let mut whole = Vec::with_capacity(steps);
    let progress = ProgressBar::new(steps as u64);
    for step in 0..=steps {
        training.begin_epoch(EPOCH, device)?;
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
    whole.sort_by(f64::total_cmp);
    Ok(whole[whole.len() / 2])
}

/// The cost of all operations of one kind in a step.
#[derive(Clone, Copy, Default)]
struct OperationCost {
    calls: usize,
    seconds: f64,
    flops: f64,
    /// The least possible traffic, bytes.
    bytes: f64,
}

/// The costs of each kind of operation, the longest first. Each operation is timed by itself.
fn operations(
    training: &mut Training,
    device: &mut dyn Device,
) -> Result<Vec<(&'static str, OperationCost)>> {
    training.begin_epoch(EPOCH, device)?;
    let plan = &training.engine.plan;
    let mut costs: BTreeMap<&str, OperationCost> = BTreeMap::new();
    for operation in plan.operations() {
        let seconds = if is_predicted(device) {
            let alone = Program::new([operation.clone()], plan.buffers().to_vec());
            let alone = Plan::record(alone, device)?;
            device.kernel_times(&alone)?.iter().map(|time| time.seconds).sum()
        } else {
            let started = Instant::now();
            device.execute(&**operation, plan.buffers())?;
            device.synchronise()?;
            started.elapsed().as_secs_f64()
        };
        let cost = costs.entry(operation.name()).or_default();
        cost.calls += 1;
        cost.seconds += seconds;
        cost.flops += operation.flops();
        cost.bytes += operation.least_bytes(plan.buffers());
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    Ok(costs)
}

/// Whether a device's times are predictions for a GPU.
fn is_predicted(device: &dyn Device) -> bool {
    device.name() == "sim"
}

/// Seconds and number of launches of each kernel, the longest first.
fn kernels(training: &mut Training, device: &mut dyn Device) -> Result<Vec<(&'static str, (f64, usize))>> {
    training.begin_epoch(EPOCH, device)?;
    let mut kernels: BTreeMap<&'static str, (f64, usize)> = BTreeMap::new();
    for KernelTime { kernel, seconds } in device.kernel_times(&training.engine.plan)? {
        let kernel = kernels.entry(kernel).or_default();
        *kernel = (kernel.0 + seconds, kernel.1 + 1);
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    Ok(kernels)
}

/// A measured step.
struct StepReport {
    title: String,
    batch_size: usize,
    width: usize,
    steps: usize,
    /// Seconds.
    median: f64,
    /// Images that go forward in a step.
    images: usize,
    flops: f64,
    operations: Vec<(&'static str, OperationCost)>,
    kernels: Vec<(&'static str, (f64, usize))>,
    limits: Option<Limits>,
}

impl StepReport {
    fn json(&self, device: &dyn Device) -> String {
        let line = json!({
            "device": device.name(),
            "method": self.title,
            "batch_size": self.batch_size,
            "width": self.width,
            "steps": self.steps,
            "seconds_per_step_median": self.median,
            "images_per_second": self.images as f64 / self.median,
            "gflop_per_second": self.flops / self.median / 1e9,
            "kernels": self.kernels.iter().map(|(name, (seconds, launches))| json!({
                "kernel": name, "launches": launches, "seconds": seconds,
            })).collect::<Vec<_>>(),
            "primitives": self.operations.iter().map(|(name, cost)| json!({
                "primitive": name, "calls": cost.calls, "seconds": cost.seconds, "flops": cost.flops,
                "least_bytes": cost.bytes,
            })).collect::<Vec<_>>(),
            "possible": self.limits.as_ref().map(|limits| json!({
                "flops_per_second": limits.flops, "bytes_per_second": limits.bytes, "source": limits.source,
            })),
        });
        format!("{line}\n")
    }

    fn table(&self, device: &dyn Device) -> String {
        let mut text = format!(
            "{}\na step of {} of {} samples at width {}: {:.1} ms (median of {}), {:.1} images/s, {:.1} GFLOP/s\n",
            device.describe(),
            self.title,
            self.batch_size,
            self.width,
            1e3 * self.median,
            self.steps,
            self.images as f64 / self.median,
            self.flops / self.median / 1e9,
        );
        if let Some(Limits { flops, bytes, source }) = &self.limits {
            let _ =
                writeln!(text, "possible: {:.1} GFLOP/s, {:.1} GB/s ({source})", flops / 1e9, bytes / 1e9);
        }
        let how = if is_predicted(device) { ", predicted for an RTX 3090" } else { "" };
        self.add_operations(how, &mut text);
        if !self.kernels.is_empty() {
            let how = if is_predicted(device) { how } else { ", measured" };
            self.add_kernels(how, &mut text);
        }
        text
    }

    /// A row for each kind of operation: its rates in FLOP/s and in bytes of least traffic, and the share of
    /// its time that it would take at the machine's limit.
    fn add_operations(&self, how: &str, text: &mut String) {
        let total: f64 = self.operations.iter().map(|(_, cost)| cost.seconds).sum();
        let _ = writeln!(
            text,
            "\n{:<50} {:>6} {:>10} {:>7} {:>9} {:>8} {:>12}",
            format!("primitive, one step{how}"),
            "calls",
            "ms",
            "share",
            "GFLOP/s",
            "GB/s",
            "of possible"
        );
        for &(name, OperationCost { calls, seconds, flops, bytes }) in &self.operations {
            let possible = self.limits.as_ref().map_or_else(
                || "?".into(),
                |limits| format!("{:.1}%", 100.0 * limits.least_seconds(flops, bytes) / seconds),
            );
            let _ = writeln!(
                text,
                "{name:<50} {calls:>6} {:>10.3} {:>6.1}% {:>9.1} {:>8.1} {possible:>12}",
                1e3 * seconds,
                100.0 * seconds / total,
                flops / seconds / 1e9,
                bytes / seconds / 1e9,
            );
        }
    }

    fn add_kernels(&self, how: &str, text: &mut String) {
        let total: f64 = self.kernels.iter().map(|(_, (seconds, _))| seconds).sum();
        let _ = writeln!(text, "\n{:<50} {:>6} {:>10} {:>7}", format!("kernel{how}"), "calls", "us", "share");
        for (name, (seconds, launches)) in &self.kernels {
            let share = 100.0 * seconds / total;
            let _ = writeln!(text, "{name:<50} {launches:>6} {:>10.1} {share:>6.1}%", 1e6 * seconds);
        }
    }
}
