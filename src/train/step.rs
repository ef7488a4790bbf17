//! Recording the training step of CORR, with or without the debias of RECORDS.

use anyhow::Result;

use super::model::Model;
use crate::autograd::Tape;
use crate::device::primitive::{control, counter};
use crate::device::{Buffer, Device, Element, Plan, Primitive, Tensor};
use crate::nn::resnet::{self, Mode};
use crate::pll::{ConfidenceStore, corr};

/// The constants of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// Samples B of a batch; the network sees 2B views in one batchnorm batch.
    pub batch: usize,
    /// Height and width of a view.
    pub size: usize,
    /// SGD's momentum.
    pub momentum: f32,
    /// SGD's weight decay, on every parameter.
    pub weight_decay: f32,
}

/// Where a step finds its views and sample numbers: on the tape.
#[derive(Clone, Copy)]
pub struct StepInputs {
    /// f32 `[2B, size, size, 3]`, weak views first.
    pub views: Tensor,
    /// i32 `[B]`, distinct.
    pub index: Tensor,
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
    pub fn set(&self, device: &mut dyn Device, rate: f64, update: bool) -> Result<()> {
        let mut values = [0.0; control::LEN];
        values[control::LEARNING_RATE] = rate as f32;
        values[control::UPDATE] = f32::from(u8::from(update));
        device.write_f32(self.control, &values)
    }
}

/// Records forward, loss, class-prior estimate, confidence update, counters, backward and SGD on `tape`; returns the logits
/// `[2B,K]`. The estimate and the update read the weights before SGD, the loss the confidences before the update.
pub fn record(
    tape: &mut Tape,
    settings: &StepSettings,
    model: &Model,
    store: &ConfidenceStore,
    state: &StepState,
    inputs: StepInputs,
) -> Tensor {
    let StepSettings { batch, size, momentum, weight_decay } = *settings;
    let control = tape.persistent(state.control);
    let rows = corr::Rows {
        confidence: tape.persistent(store.confidence),
        candidates: tape.persistent(store.candidates),
        index: inputs.index,
    };
    let shape = [2 * batch, size];
    let outputs =
        resnet::record(tape, &model.architecture, &model.parameters, Mode::Training, shape, inputs.views);
    let logits = outputs.logits;

    // The estimate first, so that loss and update, which read the same rows, stand side by side.
    let log_prior = model.prior.as_ref().map(|prior| prior.record(tape, 2 * batch, &outputs));
    let (d_logits, loss_rows) = corr::record_loss(tape, store, batch, logits, rows);
    corr::record_update(tape, store, batch, logits, log_prior, rows, control);

    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    let (classes, index) = (store.classes, inputs.index);
    tape.push(Primitive::StepStatistics { batch, classes, logits, labels, index, loss_rows, counters });

    tape.backward(&[(logits, d_logits)]);
    resnet::record_sgd(tape, &model.parameters, control, momentum, weight_decay);
    logits
}

/// The training set on the device, and what is uploaded once an epoch.
pub struct ResidentData {
    /// Height and width of the source images.
    pub source: [usize; 2],
    /// u8 `[N,H,W,3]`.
    pub images: Buffer,
    /// u8 `[N, 2, bytes of the parameters of a view]`, weak view first.
    pub parameters: Buffer,
    /// i32 `[N]`, the epoch's order of the samples.
    pub order: Buffer,
    /// f32 `[6]`, mean then standard deviation.
    pub normalisation: Buffer,
    /// i32 `[1]`, the step of the epoch.
    pub step: Buffer,
}

/// Records a whole training step on resident data and plans its memory.
///
/// # Errors
/// When the device has not enough memory.
pub fn plan(
    settings: &StepSettings,
    model: &Model,
    store: &ConfidenceStore,
    state: &StepState,
    data: &ResidentData,
    device: &mut dyn Device,
) -> Result<Plan> {
    let StepSettings { batch, size, .. } = *settings;
    let mut tape = Tape::new(device.activations());
    let (order, step) = (tape.persistent(data.order), tape.persistent(data.step));
    let (images, parameters) = (tape.persistent(data.images), tape.persistent(data.parameters));
    let normalisation = tape.persistent(data.normalisation);
    let index = tape.temporary(Element::I32, batch);
    let views = tape.temporary(tape.activations(), 2 * batch * size * size * 3);
    tape.push(Primitive::SelectBatch { batch, order, step, index });
    let source = data.source;
    tape.push(Primitive::Augment {
        batch,
        first: 0,
        count: 2,
        source,
        size,
        images,
        parameters,
        index,
        normalisation,
        views,
    });
    record(&mut tape, settings, model, store, state, StepInputs { views, index });
    tape.push(Primitive::AdvanceStep { step, modulus: None });
    tape.finish(device)
}
