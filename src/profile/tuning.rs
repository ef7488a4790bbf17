//! Which tiles are fastest on a GPU that is there: every way that a run's convolutions could be computed in,
//! timed on the memory of a step.

use anyhow::Result;

use super::data::Given;
use super::measured::noise;
use super::plan::{EPOCH, Names};
use crate::data::progress::{self, Unit};
use crate::device::Device;
use crate::device::gpu::GpuDevice;
use crate::device::gpu::launch::Launch;
use crate::device::gpu::tiles::{Decision, Times, Way};
use crate::settings::Settings;
use crate::train::evaluate::Evaluation;
use crate::train::training::Training;

/// Seconds that a way is repeated for, so that the events around it are little beside: by the model, for all
/// ways of a decision as often.
const SECONDS: f64 = 5e-4;
/// Repeats at least and at most.
const REPEATS: [f64; 2] = [4.0, 20.0];

/// The part of a run that launches belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOfRun {
    /// A step, and passes over the training images.
    Step,
    /// A pass over the test images.
    Evaluation,
}

impl PartOfRun {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Evaluation => "evaluation",
        }
    }
}

/// A way that is taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its kernel and grid.
    pub kernel: String,
    /// Seconds by the model.
    pub estimated: f64,
    /// Seconds as measured.
    pub measured: f64,
}

/// What was chosen for a convolution.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The part of the run.
    pub part: PartOfRun,
    /// The layer and the operation.
    pub what: String,
    /// How many ways there are.
    pub ways: usize,
    /// What the model takes.
    pub model: Taken,
    /// What is taken by measured times.
    pub tuned: Taken,
}

impl Choice {
    /// Seconds that it gains while nothing runs beside; less than 0 where a way was taken that is a little
    /// slower and leaves more of the GPU to the other branch.
    pub fn gain(&self) -> f64 {
        self.model.measured - self.tuned.measured
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Every choice of the run, in order.
    pub choices: Vec<Choice>,
    /// Times that were measured now.
    pub measured: usize,
    /// Times that were there already.
    pub known: usize,
}

/// Times all ways of the run that `settings` describe which are not among `times`, or all of them `again`,
/// and adds them to `times`, also where it fails on the way.
///
/// # Errors
/// As [`super::Profile::new`]; those of the device.
pub fn tune(
    settings: &Settings,
    given: Given,
    device: &mut GpuDevice,
    (times, again): (&mut Times, bool),
) -> Result<Tuning> {
    let data = noise(settings, given)?;
    device.keep_decisions();
    let mut training = Training::new(settings, &data, device)?;
    let of_step = device.take_decisions();
    let evaluation = match &data.test {
        None => None,
        Some(test) => {
            Some(Evaluation::of_set(&training.engine.model, test, data.test_normalisation, device)?)
        }
    };
    let of_evaluation = device.take_decisions();
    let parts = [PartOfRun::Step; 1].repeat(of_step.len());
    let parts = parts.into_iter().chain(std::iter::repeat(PartOfRun::Evaluation));
    let decisions: Vec<(PartOfRun, Decision)> = parts.zip(of_step.into_iter().chain(of_evaluation)).collect();
    let mut missing = missing(&decisions, times, again);
    let measured = missing.iter().map(|(ways, _)| ways.len()).sum();
    if measured > 0 {
        // What the ways read is what a step leaves.
        training.begin_epoch(EPOCH, device)?;
        (0..training.steps.min(2)).try_for_each(|_| device.replay(&training.engine.plan))?;
        training.end_epoch(EPOCH, device)?;
        evaluation.iter().try_for_each(|evaluation| evaluation.run(device).map(|_| ()))?;
        let bar = progress::begin("timing tiles", measured as u64, Unit::Items);
        for (ways, repeats) in missing.drain(..) {
            let seconds = device.time_ways(&ways, repeats)?;
            ways.iter().zip(seconds).for_each(|(way, seconds)| times.insert(way.key(), seconds));
            bar.advance(ways.len() as u64);
        }
    }
    let names = Names::new(&training.engine.model.parameters, device)?;
    let choices: Vec<Choice> =
        decisions.iter().filter_map(|(part, decision)| choice(*part, decision, times, &names)).collect();
    let ways: std::collections::BTreeSet<String> =
        decisions.iter().flat_map(|(_, decision)| decision.ways.iter().map(Way::key)).collect();
    Ok(Tuning { choices, measured, known: ways.len() - measured })
}

/// The ways of each decision that are to be timed, each once, and how often they are repeated.
fn missing<'a>(
    decisions: &'a [(PartOfRun, Decision)],
    times: &Times,
    again: bool,
) -> Vec<(Vec<&'a Way>, usize)> {
    let mut met = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    for (_, decision) in decisions {
        let is_missing = |way: &&Way| {
            let key = way.key();
            (again || times.get(&key).is_none()) && met.insert(key)
        };
        let ways: Vec<&Way> = decision.ways.iter().filter(is_missing).collect();
        let least = ways.iter().fold(f64::INFINITY, |least, way| least.min(way.estimate.whole));
        let [fewest, most] = REPEATS;
        if !ways.is_empty() {
            all.push((ways, (SECONDS / least).clamp(fewest, most).ceil() as usize));
        }
    }
    all
}

/// What is chosen now, and was before.
fn choice(part: PartOfRun, decision: &Decision, times: &Times, names: &Names) -> Option<Choice> {
    let seconds = decision.measured(times)?;
    let taken = |number: usize| {
        let way = &decision.ways[number];
        Taken { kernel: kernel(way), estimated: way.estimate.whole, measured: seconds[number] }
    };
    // The last launch of the first way is the product, or the sum of its parts: both touch the layer's
    // weights alone.
    let layer = decision.ways[0].launches.last().map(|launch| names.layer(launch)).unwrap_or_default();
    let what =
        if layer.is_empty() { decision.operation.into() } else { format!("{layer}: {}", decision.operation) };
    let (model, tuned) = (taken(decision.taken(None)), taken(decision.taken(Some(times))));
    Some(Choice { part, what, ways: decision.ways.len(), model, tuned })
}

/// The product's kernel and grid, and how many launches there are beside.
fn kernel(way: &Way) -> String {
    let is_product = |launch: &&Launch| launch.work.as_ref().is_some_and(|work| work.product.is_some());
    let Some(main) = way.launches.iter().find(is_product).or(way.launches.last()) else {
        return String::new();
    };
    let [x, y, z] = main.grid;
    let name = main.kernel.name.trim_start_matches("convolution_");
    match way.launches.len() - 1 {
        0 => format!("{name} {x}x{y}x{z}"),
        more => format!("{name} {x}x{y}x{z} +{more}"),
    }
}
