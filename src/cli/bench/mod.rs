//! `records bench step`: the time of a training step, its parts, and how much of the machine's arithmetic and
//! memory bandwidth each operation uses.

mod evaluation;
mod show;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::device::DeviceArguments;
use super::output;
use crate::data::recipe::prepare;
use crate::device::{Device, KernelTime, Plan, Program};
use crate::pll::registry;
use crate::settings::{Debias, GivenSettings, Settings};
use crate::train::run::recipe;
use crate::train::training::Training;
use crate::usage;
use show::StepReport;

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
    /// Time the evaluation of built-in images
    Evaluation(evaluation::EvaluationArguments),
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
    /// The network, as for `records train` [default: resnet18]
    #[arg(long, value_name = "WORD")]
    arch: Option<String>,
    /// Channels of the network's first stage (1 to 1024)
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Least number of timed steps (1 to 100000); a GPU does up to 48 in a row
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
    match &arguments.what {
        BenchCommand::Step(step) => bench_step(step),
        BenchCommand::Evaluation(evaluation) => evaluation::run(evaluation),
    }
}

/// The epoch whose steps are timed: disambiguation and the choice of samples begin with the second.
const EPOCH: usize = 1;

fn bench_step(arguments: &StepArguments) -> Result<()> {
    let mut settings = settings(arguments)?;
    let mut device = arguments.device.open()?;
    // A step of the CPU or the interpreter is long, and nothing is launched ahead there.
    let in_a_row = if device.name() == "cuda" { arguments.steps.min(STEPS_IN_A_ROW) } else { 1 };
    // Ten classes with an imbalance of 10 have 4.09 times the largest, less what is rounded off: an epoch has
    // the steps of a round and one more.
    let images = (settings.batch_size * (in_a_row + 1)).div_ceil(4) + 3;
    settings.synthetic_train_per_class = settings.synthetic_train_per_class.max(images);
    let data = prepare(&recipe(&settings)?)?;
    let mut training = Training::new(&settings, &data, &mut *device)?;
    let step = StepReport {
        title: settings.method_title(),
        batch_size: settings.batch_size,
        width: settings.width,
        arch: settings.arch.clone(),
        timed: timed_steps(&mut training, [arguments.steps, in_a_row], &mut *device)?,
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
        .with("arch", arguments.arch.clone())
        .with("mixup", arguments.mixup);
    given.apply(&mut settings).map_err(|problem| usage!("{problem}"))?;
    // A batch of one sample is allowed here.
    if let Some(problem) = settings.problems().into_iter().find(|problem| problem.name != "batch-size") {
        return Err(usage!("{problem}"));
    }
    Ok(settings)
}

/// How many steps follow each other without a pause on a GPU: enough for its clocks to settle, and for the
/// launches of the host to hide behind the work.
const STEPS_IN_A_ROW: usize = 48;

/// What timing steps gave.
struct Timed {
    /// Seconds of a step: the median of the rounds' means.
    median: f64,
    /// The same in processor time, of all threads together, where the system counts it: what a step takes
    /// beside other load.
    processor_median: Option<f64>,
    rounds: usize,
    /// Steps of a round.
    in_a_row: usize,
}

/// Times at least `steps` steps in rounds of `in_a_row`, each round after a step that does not count.
fn timed_steps(
    training: &mut Training,
    [steps, in_a_row]: [usize; 2],
    device: &mut dyn Device,
) -> Result<Timed> {
    let rounds = steps.div_ceil(in_a_row);
    let progress = ProgressBar::new(rounds as u64);
    let (mut seconds, mut processor) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        training.begin_epoch(EPOCH, device)?;
        device.replay(&training.engine.plan)?;
        let before = processor_seconds();
        seconds.push(device.replay_seconds(&training.engine.plan, in_a_row)?);
        processor.extend(before.zip(processor_seconds()).map(|(from, to)| (to - from) / in_a_row as f64));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(Timed { median: median(seconds), processor_median: median_of(processor), rounds, in_a_row })
}

/// The median of at least one number.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn median_of(numbers: Vec<f64>) -> Option<f64> {
    (!numbers.is_empty()).then(|| median(numbers))
}

/// Processor time of this process so far, of all its threads, where the system counts it.
fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one timespec, which `time` is.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
        (result == 0).then_some(time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64)
    }
    #[cfg(not(unix))]
    None
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

/// What the launches of a kernel take in a step.
#[derive(Clone, Copy, Default)]
struct KernelCost {
    launches: usize,
    seconds: f64,
    /// The fewest blocks of a launch that a multiprocessor holds at once, where that is known.
    resident_blocks: Option<u32>,
}

/// The costs of each kernel, the longest first. Every launch is timed by itself, which adds an event to each
/// on a GPU: together they take longer than the step.
fn kernels(training: &mut Training, device: &mut dyn Device) -> Result<Vec<(&'static str, KernelCost)>> {
    training.begin_epoch(EPOCH, device)?;
    let mut kernels: BTreeMap<&'static str, KernelCost> = BTreeMap::new();
    for KernelTime { kernel, seconds, resident_blocks, .. } in device.kernel_times(&training.engine.plan)? {
        let cost = kernels.entry(kernel).or_default();
        cost.launches += 1;
        cost.seconds += seconds;
        cost.resident_blocks = [cost.resident_blocks, resident_blocks].into_iter().flatten().min();
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    Ok(kernels)
}
