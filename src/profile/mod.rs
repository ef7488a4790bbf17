//! The clock: what every launch of a run does, and how long it would take on a GPU that need not be there.
//!
//! | question | file |
//! |---|---|
//! | which launches? | `plan.rs`, over a training set of which only the shape is known (`data.rs`) |
//! | how long does a launch take? | `device/gpu/model/` |
//! | what does the host do between epochs? | `host.rs`, `host.toml` |
//! | what do branches gain? | `overlap.rs` |
//! | which part of a step is it? | `parts.rs` |
//! | how long did it take on a GPU that is there? | `measured.rs` |
//! | which tiles are fastest on a GPU that is there? | `tuning.rs` |
//! | what if several GPUs share a step? | `world.rs` |
//! | how is it shown? | `show/` |
//!
//! `docs/kernel-cost.md` says how far to trust it.

pub mod data;
pub mod host;
pub mod measured;
mod overlap;
pub mod parts;
pub mod plan;
pub mod show;
pub mod tuning;
pub mod world;

pub use crate::device::gpu::model::{self, facts, gpus};

use std::collections::HashMap;

use anyhow::Result;

use crate::settings::{PrecisionChoice, Settings};
use crate::train::checkpoint;
use data::Given;
use gpus::Gpu;
use host::Host;
use measured::Measured;
use model::{Model, Predicted, Time};
use plan::{Plan, Planned};

/// A launch with its time.
#[derive(Clone, Debug)]
pub struct Timed {
    /// What is launched.
    pub planned: Planned,
    /// How long it takes.
    pub predicted: Predicted,
    /// The part of the step that it belongs to.
    pub part: &'static str,
}

/// Launches in their places among branches, and the time from the first to the last.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// In their order.
    pub launches: Vec<Timed>,
    /// Of all together.
    pub time: Time,
}

/// What the launches of a part take.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Launches.
    pub launches: usize,
    /// Of all together, without gaps.
    pub time: Time,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that are read and written, each once a launch.
    pub bytes: f64,
}

/// What a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Steps of all epochs.
    pub steps: Time,
    /// Passes over the test images.
    pub evaluation: Time,
    /// Launches between the steps of an epoch and the next.
    pub between: Time,
    /// The host between epochs while the GPU waits.
    pub host: f64,
    /// Checkpoints.
    pub checkpoints: f64,
}

/// A run on a GPU.
pub struct Profile {
    /// What the run is set up with.
    pub settings: Settings,
    /// The GPU.
    pub gpu: Gpu,
    /// What the host does between epochs.
    pub host: Host,
    /// How large the run is; its launches stand in the sequences below.
    pub plan: Plan,
    /// A training step.
    pub step: Sequence,
    /// What comes before the steps of an epoch.
    pub begin_epoch: Sequence,
    /// What comes after them.
    pub end_epoch: Sequence,
    /// A pass over the test images.
    pub evaluation: Sequence,
    /// What a GPU that is there took for the step, if it was asked.
    pub measured: Option<Measured>,
}

impl Profile {
    /// The run that `settings` describe on `gpu`; `given` says how large the data set is where that is not
    /// known.
    ///
    /// # Errors
    /// A usage error for settings that no run can have, and for data sets of unknown size.
    pub fn new(settings: &Settings, given: Given, gpu: &Gpu) -> Result<Self> {
        let mut plan = Plan::new(settings, given, gpu.description())?;
        let mut model = Model::new(gpu);
        let take = std::mem::take::<Vec<Planned>>;
        let step = take(&mut plan.step);
        let predicted = model.predict_repeated(step.iter().map(|planned| &planned.launch))?;
        let step = Sequence::new(gpu, step, predicted);
        let mut once = |launches: Vec<Planned>| {
            let predicted = model.predict(launches.iter().map(|planned| &planned.launch))?;
            Ok::<_, anyhow::Error>(Sequence::new(gpu, launches, predicted))
        };
        let end_epoch = once(take(&mut plan.end_epoch))?;
        let evaluation = once(take(&mut plan.evaluation))?;
        let begin_epoch = once(take(&mut plan.begin_epoch))?;
        let (settings, gpu, host) = (settings.clone(), gpu.clone(), Host::measured()?);
        Ok(Self { settings, gpu, host, plan, step, begin_epoch, end_epoch, evaluation, measured: None })
    }

    /// The measured seconds of each launch of the step, where the GPU that is there is launched alike.
    pub fn measured_launches(&self) -> Option<Vec<f64>> {
        let kernels = self.step.launches.iter().map(|timed| timed.planned.launch.kernel.name);
        self.measured.as_ref()?.beside(kernels)
    }

    /// How activations are stored on a GPU.
    pub fn precision(&self) -> &'static str {
        match self.settings.precision {
            PrecisionChoice::F32 => "f32",
            PrecisionChoice::F16 => "f16",
            PrecisionChoice::Bf16 | PrecisionChoice::Auto => "bf16",
        }
    }

    /// Seconds of the whole run.
    pub fn run(&self) -> Run {
        let epochs = self.plan.epochs;
        let evaluated = times(epochs, self.settings.eval_every);
        let flops: f64 = self.step.launches.iter().map(|timed| timed.planned.work().flops).sum();
        let epoch = self.step.time.expected * self.plan.steps as f64;
        let interval = match self.settings.checkpoint_every {
            0 => checkpoint::interval("cuda", flops * self.plan.steps as f64),
            every => every,
        };
        let kept = times(epochs, interval);
        // Values and momentum in f32; confidences.
        let bytes = 4.0 * (2 * self.plan.parameters + self.plan.samples * self.plan.classes) as f64;
        Run {
            steps: self.step.time * (epochs * self.plan.steps) as f64,
            evaluation: self.evaluation.time * evaluated as f64,
            between: [self.begin_epoch.time, self.end_epoch.time].into_iter().sum::<Time>() * epochs as f64,
            host: self.host.epoch * (self.plan.samples * epochs) as f64,
            // The state is copied on the GPU; it is read back and written while the next epochs train.
            checkpoints: kept as f64
                * (self.host.copy_aside * bytes
                    + (self.host.checkpoint * bytes - epoch * interval as f64).max(0.0)),
        }
    }

    /// The expected time of a part of the step, with the gaps behind its launches, as a share of the step.
    pub fn share(&self, part: &str) -> f64 {
        let launches = self.step.launches.iter().filter(|timed| timed.part == part);
        let seconds = launches.fold(0.0, |sum, timed| sum + timed.predicted.time.expected + self.gpu.gap);
        seconds / self.step.time.expected
    }
}

/// How often something happens in so many epochs that happens every so many, and after the last.
fn times(epochs: usize, every: usize) -> usize {
    epochs.div_ceil(every.max(1))
}

impl Run {
    /// Seconds of all.
    pub fn total(&self) -> Time {
        let host = self.host + self.checkpoints;
        let host = Time { best: host, expected: host, pessimistic: host };
        [self.steps, self.evaluation, self.between, host].into_iter().sum()
    }
}

impl Sequence {
    fn new(gpu: &Gpu, launches: Vec<Planned>, predicted: Vec<Predicted>) -> Self {
        let timed = launches.into_iter().zip(predicted).map(|(planned, predicted)| {
            let kernel = planned.launch.kernel;
            Timed { part: parts::of(kernel.source.name, kernel.name), planned, predicted }
        });
        Self::of(gpu, timed.collect())
    }

    fn of(gpu: &Gpu, launches: Vec<Timed>) -> Self {
        let time = overlap::time(gpu, &launches);
        Self { launches, time }
    }

    /// Launches that are the same kernel for the same layer with the same grid, in the order of the first:
    /// how many, and the time of all of them.
    pub fn alike(&self) -> Vec<(&Timed, usize, Time)> {
        let mut places = HashMap::new();
        let mut alike: Vec<(&Timed, usize, Time)> = Vec::new();
        for timed in &self.launches {
            let launch = &timed.planned.launch;
            let at = *places.entry((launch.kernel, &timed.planned.layer, launch.grid)).or_insert_with(|| {
                alike.push((timed, 0, Time::default()));
                alike.len() - 1
            });
            alike[at].1 += 1;
            alike[at].2 += timed.predicted.time;
        }
        alike
    }

    /// Its parts, the longest first, then the gaps and what branches gain.
    pub fn parts(&self, gpu: &Gpu) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for Timed { planned, predicted, part } in &self.launches {
            let at = parts.iter().position(|known| known.name == *part).unwrap_or_else(|| {
                parts.push(Part { name: part, launches: 0, time: Time::default(), flops: 0.0, bytes: 0.0 });
                parts.len() - 1
            });
            let (work, part) = (planned.work(), &mut parts[at]);
            part.launches += 1;
            part.time += predicted.time;
            part.flops += work.flops;
            part.bytes += work.read_bytes() + work.written_bytes();
        }
        parts.sort_by(|a, b| b.time.expected.total_cmp(&a.time.expected));
        let own = |name, time| Part { name, launches: 0, time, flops: 0.0, bytes: 0.0 };
        parts.push(own(parts::GAPS, gaps(gpu, self.launches.len())));
        let gained = self.gained(gpu);
        if gained != Time::default() {
            parts.push(own(parts::OVERLAP, gained));
        }
        parts
    }

    /// What branches gain over launches one after the other, below 0.
    pub fn gained(&self, gpu: &Gpu) -> Time {
        self.time - in_turn(gpu, &self.launches)
    }
}

/// The gaps after so many launches.
fn gaps(gpu: &Gpu, launches: usize) -> Time {
    let gaps = gpu.gap * launches as f64;
    Time { best: gaps, expected: gaps, pessimistic: gaps }
}

/// The time of launches that run one after the other, with the gaps.
fn in_turn(gpu: &Gpu, launches: &[Timed]) -> Time {
    let mut time: Time = launches.iter().map(|timed| timed.predicted.time).sum();
    time += gaps(gpu, launches.len());
    time
}
