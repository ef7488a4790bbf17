//! Recording a training step: what the method records, and what is the same for all of them around it.

use anyhow::{Result, ensure};

use super::model::Model;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::{Mode, Network, Outputs, Parameters, Pass};
use crate::ops::control;
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

/// Device memory a step reads its changing scalars from and counts into.
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
    /// When the device has not enough memory.
    pub fn new(device: &mut dyn Device) -> Result<Self> {
        Ok(Self {
            control: device.allocate(Element::F32, control::LEN, "the step's control block")?,
            counters: device.allocate(Element::F32, counter::LEN, "the step's counters")?,
        })
    }

    /// Sets what changes from epoch to epoch.
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

/// Where a step finds its samples and their views.
pub trait StepInputs: ViewSource {
    /// The numbers of the step's samples, i32 `[B]`, distinct; recorded before all else.
    fn index(&mut self, tape: &mut Tape) -> Tensor;
}

/// The network of a model, with room for the gradients of as many passes as a step makes.
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

/// What a step trains.
pub struct Trained<'a> {
    pub model: &'a mut Model,
    pub learner: &'a dyn Learner,
    pub store: &'a ConfidenceStore,
    pub state: &'a StepState,
}

/// What a step recorded, for those who look at it.
#[derive(Clone, Debug)]
pub struct Step {
    pub recorded: RecordedStep,
    /// Forward passes.
    pub forwards: usize,
    /// Images in them for each sample.
    pub images: usize,
}

/// Records forward, loss, class-prior estimate, confidence renewal, counters, backward and the optimiser on `tape`.
/// Estimate and renewal read the weights before its step, the loss the confidences before the renewal.
///
/// # Errors
/// When the device has not enough memory, and where views are missing.
pub fn record(
    tape: &mut Tape,
    settings: &StepSettings,
    trained: Trained<'_>,
    inputs: &mut dyn StepInputs,
    device: &mut dyn Device,
) -> Result<Step> {
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

    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    let (classes, loss_rows) = (store.classes, recorded.loss_rows);
    let logits = recorded.logits[0].0;
    tape.push(StepStatistics { batch, classes, logits, labels, index, loss_rows, counters });
    record_watch(tape, model, &recorded, batch, counters);

    tape.backward(&[&recorded.logits[..], &recorded.seeds].concat());
    model.record_update(tape, rows.control);
    Ok(Step { recorded, forwards, images })
}

/// Records which step is the first whose logits, losses or running statistics are not finite: an epoch that
/// ends with finite figures can hide it, for batchnorm forgets and a largest logit is found among NaN as
/// well.
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
