//! Every launch of a run, listed without running any: the engine is assembled on a driver that writes
//! launches down.

use std::ops::Range;

use anyhow::Result;

use super::data::{Given, Shape};
use crate::device::gpu::GpuDevice;
use crate::device::gpu::branches::Place;
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::launch::{Address, Launch};
use crate::device::gpu::plan_driver::{Launched, PlanDriver};
use crate::device::gpu::work::Work;
use crate::device::{Buffer, Device};
use crate::nn::Parameters;
use crate::settings::Settings;
use crate::train::choice::epochs;
use crate::train::device_choice::precision_on_gpu;
use crate::train::evaluate::Evaluation;
use crate::train::run::recipe;
use crate::train::training::Training;

/// A launch and the layer whose parameters it touches.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The launch; it has its work.
    pub launch: Launch,
    /// The layer's name in the network's state_dict; empty where it touches no parameter or all of them.
    pub layer: String,
    /// Its place among the branches of its sequence; the number that it may hold counts from there.
    pub place: Place,
}

impl Planned {
    /// What the launch does.
    pub fn work(&self) -> &Work {
        self.launch.known_work()
    }
}

/// The launches of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of a training step.
    pub step: Vec<Planned>,
    /// Before the steps of an epoch.
    pub begin_epoch: Vec<Planned>,
    /// After the steps of an epoch: passes of the method over the training images, statistics of the
    /// confidences.
    pub end_epoch: Vec<Planned>,
    /// Of a pass over the test images.
    pub evaluation: Vec<Planned>,
    /// Steps of an epoch.
    pub steps: usize,
    /// Epochs of all stages of the run.
    pub epochs: usize,
    /// Training samples.
    pub samples: usize,
    /// Classes.
    pub classes: usize,
    /// Images that go forward in a step.
    pub images: usize,
    /// Values of the network.
    pub parameters: usize,
    /// Pooled features of an image.
    pub features: usize,
}

/// The epoch that is listed: one in which confidences are updated and samples chosen.
pub(super) const EPOCH: usize = 1;

impl Plan {
    /// The launches of the run that `settings` describe, on `gpu`. `given` says how large the data set is
    /// where that is not known.
    ///
    /// # Errors
    /// A usage error for settings that no run can have, and for data sets of unknown size.
    pub fn new(settings: &Settings, given: Given, gpu: Gpu) -> Result<Self> {
        let shape = Shape::of(&recipe(settings)?, given)?;
        let data = shape.blank(settings.image_size)?;
        let driver = PlanDriver::new(gpu);
        let launched = driver.launched();
        let mut device = GpuDevice::new(Box::new(driver), precision_on_gpu(settings.precision));
        let mut training = Training::new(settings, &data, &mut device)?;
        let evaluation = match &data.test {
            None => None,
            Some(test) => {
                let model = &training.engine.model;
                Some(Evaluation::of_set(model, test, data.test_normalisation, &mut device)?)
            }
        };
        let names = Names::new(&training.engine.model.parameters, &device)?;
        launched.take();
        let begin_epoch = training.begin_epoch(EPOCH, &mut device).map(|_| names.name(&launched))?;
        let step = device.replay(&training.engine.plan).map(|()| names.name(&launched))?;
        training.end_epoch(EPOCH, &mut device)?;
        let end_epoch = training.confidence_statistics(&mut device).map(|_| names.name(&launched))?;
        let evaluation = match &evaluation {
            Some(evaluation) => evaluation.run(&mut device).map(|_| names.name(&launched))?,
            None => Vec::new(),
        };
        Ok(Self {
            step,
            begin_epoch,
            end_epoch,
            evaluation,
            steps: training.steps,
            epochs: epochs(settings),
            samples: shape.samples(),
            classes: shape.counts.len(),
            images: training.engine.step.images * settings.batch_size,
            parameters: training.engine.model.parameters.len(),
            features: training.engine.model.network.features(),
        })
    }
}

/// Names of what lies where in device memory.
pub(super) struct Names {
    arenas: Vec<Arena>,
}

/// A part of device memory that holds a value for each parameter.
struct Arena {
    /// Its addresses.
    whole: Range<u64>,
    /// Layers and the addresses of their parts.
    parts: Vec<(String, Range<u64>)>,
}

impl Names {
    pub(super) fn new(parameters: &Parameters, device: &GpuDevice) -> Result<Self> {
        let [entries, running] = parameters.ranges();
        let mut arenas = Vec::new();
        let mut add = |buffer: Buffer, entries: &[(&str, Range<usize>)]| -> Result<()> {
            let (start, bytes) = (device.address(buffer)?, buffer.element.bytes() as u64);
            let at = |value: usize| start + value as u64 * bytes;
            let parts = entries.iter().map(|(name, range)| (layer(name), at(range.start)..at(range.end)));
            arenas.push(Arena { whole: start..at(buffer.len), parts: parts.collect() });
            Ok(())
        };
        let further = parameters.further_gradients.iter().copied();
        for arena in
            [parameters.values, parameters.gradients].into_iter().chain(parameters.copy).chain(further)
        {
            add(arena, &entries)?;
        }
        add(parameters.running, &running)?;
        Ok(Self { arenas })
    }

    /// What was launched since the last call, with the names of layers.
    fn name(&self, launched: &Launched) -> Vec<Planned> {
        let launches = launched.take().into_iter();
        let mut planned: Vec<Planned> =
            launches.map(|(launch, place)| Planned { layer: self.layer(&launch), launch, place }).collect();
        // What leaves parts for the next launch of the same operation to put together is of its layer.
        for at in (1..planned.len()).rev() {
            let (before, next) = planned.split_at_mut(at);
            let (one, next) = (&mut before[at - 1], &next[0]);
            if one.layer.is_empty() && one.launch.operation == next.launch.operation {
                one.layer.clone_from(&next.layer);
            }
        }
        planned
    }

    /// The layer whose parameters a launch touches, where they are not all.
    pub(super) fn layer(&self, launch: &Launch) -> String {
        let spans = launch.work.iter().flat_map(|work| work.reads.iter().chain(&work.writes));
        let mut named = spans.filter_map(|span| {
            let Address::Device(address) = span.address else { return None };
            let Arena { whole, parts } = self.arenas.iter().find(|arena| arena.whole.contains(&address))?;
            let whole = address == whole.start && span.bytes as u64 == whole.end - whole.start;
            let (name, _) = parts.iter().find(|(_, part)| part.contains(&address) && !whole)?;
            Some(name.clone())
        });
        // A product reads its weights first. Otherwise what is written last names it best: a pass over activations
        // may read the parameters of several.
        let is_product = launch.work.as_ref().is_some_and(|work| work.product.is_some());
        if is_product { named.next() } else { named.next_back() }.unwrap_or_default()
    }
}

/// The layer of a parameter or buffer: its name up to the last part.
fn layer(name: &str) -> String {
    name.rsplit_once('.').map_or(name, |(layer, _)| layer).into()
}
