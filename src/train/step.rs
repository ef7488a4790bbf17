//! Recording a training step: the method's part, and around it the part that is the same for all methods.

use anyhow::{Result, ensure};

use super::model::Model;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::{Mode, Network, Outputs, Parameters, Pass};
use crate::ops::control;
use crate::ops::division::TakeFirst;
use crate::ops::statistics::{CountFiniteSteps, StepStatistics, counter};
use crate::pll::method::EpochControl;
use crate::pll::recorder::{Forward, ViewSource};
use crate::pll::{ConfidenceStore, Learner, RecordedStep, StepRecorder};

/// The constants of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// Samples B of a batch.
    pub batch: usize,
    /// Height and width of a view.
    pub size: usize,
}

impl StepSettings {
    /// Values of an image.
    pub fn image_len(&self) -> usize {
        self.size * self.size * 3
    }
}

/// Device memory with the scalars that a step reads and the counters that it adds to.
#[derive(Clone, Copy)]
pub struct StepState {
    /// f32, see [`control`].
    pub control: Buffer,
    /// f32, see [`counter`].
    pub counters: Buffer,
}

impl StepState {
    /// Zeroed state.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(device: &mut dyn Device) -> Result<Self> {
        Ok(Self {
            control: device.allocate(Element::F32, control::LEN, "the step's control block")?,
            counters: device.allocate(Element::F32, counter::LEN, "the step's counters")?,
        })
    }

    /// Sets the scalars of an epoch.
    pub fn set(&self, device: &mut dyn Device, epoch: EpochControl) -> Result<()> {
        let mut values = [0.0; control::LEN];
        values[control::LEARNING_RATE] = epoch.learning_rate as f32;
        values[control::UPDATE] = f32::from(u8::from(epoch.update));
        values[control::MIXUP] = if epoch.update { epoch.alpha as f32 } else { 0.0 };
        for (value, own) in values[control::OWN..].iter_mut().zip(epoch.own) {
            *value = own as f32;
        }
        device.write_f32(self.control, &values)
    }
}

/// Gives a step its samples and their views.
pub trait StepInputs: ViewSource {
    /// The indices of the step's samples, i32 `[B]`, distinct; recorded first.
    fn index(&mut self, tape: &mut Tape) -> Tensor;
}

/// The network of a model, which allocates gradients for every forward pass that a step records.
struct Trainee<'a> {
    network: &'a dyn Network,
    parameters: &'a mut Parameters,
    size: usize,
}

impl Forward for Trainee<'_> {
    fn record(
        &mut self,
        pass: Pass,
        images: usize,
        x: Tensor,
        tape: &mut Tape,
        device: &mut dyn Device,
    ) -> Result<Outputs> {
        self.parameters.allocate_passes(pass.number + 1, device)?;
        let mode = Mode::Training(pass);
        Ok(self.network.record(tape, self.parameters, mode, [images, self.size], x))
    }

    fn record_with(
        &mut self,
        parameters: &Parameters,
        images: usize,
        x: Tensor,
        tape: &mut Tape,
    ) -> Result<Outputs> {
        let mode = Mode::Training(Pass::default());
        Ok(self.network.record(tape, parameters, mode, [images, self.size], x))
    }
}

/// The state that a step changes.
pub struct Trained<'a> {
    /// Network, optimiser and debias.
    pub model: &'a mut Model,
    /// The method's state on the device.
    pub learner: &'a dyn Learner,
    /// Confidence rows, candidate sets and labels.
    pub store: &'a ConfidenceStore,
    /// Scalars and counters.
    pub state: &'a StepState,
}

/// A recorded step: the tensors that tests and replays read, and its size.
#[derive(Clone, Debug)]
pub struct TrainingStep {
    /// Logits, losses and the other tensors that the method exposes.
    pub recorded: RecordedStep,
    /// Forward passes.
    pub forwards: usize,
    /// Images that go forward for each sample, in all passes together.
    pub images: usize,
}

/// Records a training step on `tape`: forward, loss, class-prior estimate, disambiguation, counters,
/// backward, optimiser. Estimate and disambiguation read the weights as they are before the optimiser's step;
/// the loss reads the confidence rows as they are before disambiguation.
///
/// # Errors
/// If the device has not enough memory, or views are missing.
pub fn record(
    tape: &mut Tape,
    settings: &StepSettings,
    trained: Trained<'_>,
    inputs: &mut dyn StepInputs,
    device: &mut dyn Device,
) -> Result<TrainingStep> {
    let StepSettings { batch, size } = *settings;
    let Trained { model, learner, store, state } = trained;
    let index = inputs.index(tape);
    let rows = store.rows(tape, index, state.control);
    let Model { network, parameters, debias, .. } = &mut *model;
    let mut network = Trainee { network: &**network, parameters, size };
    let shape = [batch, settings.image_len()];
    let mut recorder = StepRecorder::new(shape, rows, debias, inputs, &mut network, tape, device);
    let recorded = learner.record(&mut recorder)?;
    ensure!(!recorded.logits.is_empty(), "the method has recorded no logits");
    let (forwards, images) = (recorder.forwards(), recorder.images() / batch);

    let share = tape.share();
    if share.is_divided() && !share.joint_batchnorm {
        // As DistributedDataParallel's buffers: one network, whatever the process.
        let running = model.parameters.running;
        let values = tape.persistent(running);
        tape.push(TakeFirst { len: running.len, values });
    }
    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    let (classes, loss_rows) = (store.classes, recorded.loss_rows);
    let logits = recorded.logits[0].0;
    tape.push(StepStatistics { batch, classes, logits, labels, index, loss_rows, counters });
    record_watch(tape, model, &recorded, batch, counters);

    let seeds = [&recorded.logits[..], &recorded.seeds].concat();
    if let Some(scale) = &model.loss_scale {
        scale.record_scaling(tape, seeds.iter().map(|&(_, gradient)| gradient));
    }
    tape.backward(&seeds);
    model.record_update(tape, rows.control);
    Ok(TrainingStep { recorded, forwards, images })
}

/// Records the first step whose logits, losses or running statistics are not finite. The figures at the end
/// of an epoch can hide such a step, because batchnorm's moving statistics forget it and an argmax exists
/// even among NaN.
fn record_watch(tape: &mut Tape, model: &Model, recorded: &RecordedStep, batch: usize, counters: Tensor) {
    let watch = |tape: &mut Tape, slot, values, len| {
        tape.push(CountFiniteSteps { len, slot, values, counters });
    };
    for (&(logits, _), slot) in recorded.logits.iter().zip(counter::LOGITS) {
        let len = tape.len_of(logits);
        watch(tape, slot, logits, len);
    }
    watch(tape, counter::LOSS_ROWS, recorded.loss_rows, batch);
    let running = model.parameters.running;
    let statistics = tape.persistent(running);
    watch(tape, counter::RUNNING, statistics, running.len);
}
