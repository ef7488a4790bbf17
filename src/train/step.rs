//! Recording the training step of a method.

use anyhow::Result;

use super::model::Model;
use crate::autograd::Tape;
use crate::device::primitive::{control, counter};
use crate::device::{Buffer, Device, Element, Plan, Primitive, Tensor};
use crate::nn::{Mode, Outputs, Pass};
use crate::ops::augment::Augment;
use crate::ops::input::{AdvanceStep, SelectBatch};
use crate::ops::mixup::{self, AppendMixup};
use crate::pll::method::Rows;
use crate::pll::mixup::Mixup;
use crate::pll::{ConfidenceStore, LabelMethod, Solar, solar};

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
    fn image_len(&self) -> usize {
        self.size * self.size * 3
    }
}

/// How a step turns views into the gradients of logits.
pub enum Method {
    /// All views in one forward, so one batchnorm batch; with a mixup, as many mixed views behind them.
    Joint(LabelMethod, Option<Mixup>),
    /// SoLar's separate forwards.
    Solar(Box<Solar>, Mixup),
}

impl Method {
    /// Views of a sample that a step reads.
    pub fn views(&self) -> usize {
        match self {
            Method::Joint(method, _) => method.views,
            Method::Solar(..) => 2,
        }
    }

    /// Images that a step forwards for a sample, at most: views, and mixed views.
    pub fn forwards(&self) -> usize {
        match self {
            Method::Joint(method, mixup) => method.views * if mixup.is_some() { 2 } else { 1 },
            Method::Solar(solar, _) => solar.passes(),
        }
    }

    /// Weights and permutations of mixed views, if there are any.
    pub fn mixup(&self) -> Option<&Mixup> {
        match self {
            Method::Joint(_, mixup) => mixup.as_ref(),
            Method::Solar(_, mixup) => Some(mixup),
        }
    }

    /// SoLar's state, if that is the method.
    pub fn solar(&self) -> Option<&Solar> {
        match self {
            Method::Joint(..) => None,
            Method::Solar(solar, _) => Some(solar),
        }
    }
}

/// Where a step finds its views and sample numbers: on the tape.
#[derive(Clone, Copy)]
pub struct StepInputs {
    pub views: Views,
    /// i32 `[B]`, distinct.
    pub index: Tensor,
}

/// The views of a step, weak first.
#[derive(Clone, Copy)]
pub enum Views {
    /// f32 `[R, size, size, 3]`: view after view of B images, and as many rows again for mixed ones where there is a mixup.
    Together(Tensor),
    /// f32 `[B, size, size, 3]` each.
    Apart { weak: Tensor, strong: Tensor },
}

/// Device memory a step reads its changing scalars from and counts into.
#[derive(Clone, Copy)]
pub struct StepState {
    /// f32, see [`control`].
    pub control: Buffer,
    /// f32, see [`counter`].
    pub counters: Buffer,
}

/// What changes from epoch to epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochControl {
    pub learning_rate: f64,
    /// Whether confidences are renewed.
    pub update: bool,
    /// Weight of the mixed views' loss, once confidences are renewed.
    pub alpha: f64,
    /// SoLar's eta, 0 for an epoch in which nothing is chosen, and rho.
    pub eta: f64,
    pub rho: f64,
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
        values[control::ETA] = epoch.eta as f32;
        values[control::RHO] = epoch.rho as f32;
        device.write_f32(self.control, &values)
    }
}

/// What a step recorded, for those who look at it.
pub struct Recorded {
    /// `[R,K]`: of a joint forward, else one tensor for each forward.
    pub logits: Vec<Tensor>,
    /// SoLar's pseudo-labels f32 `[B,K]`, chosen samples i32 `[B]`, and figures of Sinkhorn.
    pub solar: Option<[Tensor; 3]>,
}

/// Records forward, loss, class-prior estimate, confidence renewal, counters, backward and the optimiser on `tape`. Estimate and renewal read the weights before
/// its step, the loss the confidences before the renewal.
pub fn record(
    tape: &mut Tape,
    settings: &StepSettings,
    model: &Model,
    method: &Method,
    store: &ConfidenceStore,
    state: &StepState,
    inputs: StepInputs,
) -> Recorded {
    let StepSettings { batch, size } = *settings;
    let rows = store.rows(tape, inputs.index, state.control);
    let mut kept = None;
    let (seeds, loss_rows) = match (method, inputs.views) {
        (Method::Joint(method, mixup), Views::Together(views)) => {
            let target = mixup.as_ref().map(|mixup| {
                record_mixed_views(tape, mixup, [method.views * batch, settings.image_len()], views);
                record_mixed_rows(tape, mixup, rows)
            });
            let shown = method.views * batch;
            let forwarded = if target.is_some() { 2 * shown } else { shown };
            let outputs = forward(tape, model, Pass::default(), [forwarded, size], views);
            // The estimate first, so that loss and renewal, which read the same rows, stand side by side.
            let log_prior = model.debias.record_training(tape, shown, &outputs);
            let recorded = method.record(tape, batch, outputs.logits, rows, log_prior, target);
            (vec![(outputs.logits, recorded.d_logits)], recorded.loss_rows)
        }
        (Method::Solar(solar, mixup), Views::Apart { weak, strong }) => {
            let inputs = solar::Inputs { weak, strong, len: settings.image_len(), rows };
            let recorded = solar.record(tape, inputs, mixup, &mut |tape, images, pass| {
                let pass = match pass {
                    solar::Pass::Weak => Pass { number: 0, count: None },
                    solar::Pass::Strong => Pass { number: 1, count: None },
                    solar::Pass::Mixed { count } => Pass { number: 2, count: Some(count) },
                };
                forward(tape, model, pass, [batch, size], images).logits
            });
            kept = Some([recorded.refined, recorded.chosen, recorded.outcome]);
            (recorded.logits, recorded.loss_rows)
        }
        _ => unreachable!("a joint forward has its views together, SoLar has them apart"),
    };

    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    let (classes, index) = (store.classes, inputs.index);
    let weak = seeds[0].0;
    tape.push(Primitive::StepStatistics { batch, classes, logits: weak, labels, index, loss_rows, counters });
    record_watch(tape, model, &seeds, (loss_rows, batch), counters);

    tape.backward(&seeds);
    model.record_update(tape, rows.control);
    Recorded { logits: seeds.into_iter().map(|(logits, _)| logits).collect(), solar: kept }
}

/// Records which step is the first whose logits, losses or running statistics are not finite: an epoch that ends with finite
/// figures can hide it, for batchnorm forgets and a largest logit is found among NaN as well.
fn record_watch(
    tape: &mut Tape,
    model: &Model,
    seeds: &[(Tensor, Tensor)],
    (loss_rows, batch): (Tensor, usize),
    counters: Tensor,
) {
    let watch = |tape: &mut Tape, slot, values, len| {
        tape.push(Primitive::CountFiniteSteps { len, slot, values, counters });
    };
    for (&(logits, _), slot) in seeds.iter().zip(counter::LOGITS) {
        let len = tape.len_of(logits);
        watch(tape, slot, logits, len);
    }
    watch(tape, counter::LOSS_ROWS, loss_rows, batch);
    let running = model.parameters.running;
    let statistics = tape.persistent(running);
    watch(tape, counter::RUNNING, statistics, running.len);
}

fn forward(tape: &mut Tape, model: &Model, pass: Pass, shape: [usize; 2], views: Tensor) -> Outputs {
    model.network.record(tape, &model.parameters, Mode::Training(pass), shape, views)
}

/// Mixes the first `rows` images of `len` values into the rows behind them.
fn record_mixed_views(tape: &mut Tape, mixup: &Mixup, [rows, len]: [usize; 2], views: Tensor) {
    let batch = mixup.batch();
    let draws = mixup.tensors(tape);
    tape.push(AppendMixup { batch, rows, len, draws, x: views });
}

/// The mixed confidence rows `[B,K]`, from the rows as they are before their renewal.
pub fn record_mixed_rows(tape: &mut Tape, mixup: &Mixup, rows: Rows) -> Tensor {
    let batch = mixup.batch();
    let out = tape.temporary(Element::F32, batch * rows.classes);
    let draws = mixup.tensors(tape);
    let (len, index) = (rows.classes, Some(rows.index));
    tape.push(mixup::Mixup { batch, rows: batch, len, draws, index, x: rows.confidence, out });
    out
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
    method: &Method,
    store: &ConfidenceStore,
    state: &StepState,
    data: &ResidentData,
    device: &mut dyn Device,
) -> Result<Plan> {
    let StepSettings { batch, size } = *settings;
    let mut tape = Tape::new(device.activations());
    let (order, step) = (tape.persistent(data.order), tape.persistent(data.step));
    let (images, parameters) = (tape.persistent(data.images), tape.persistent(data.parameters));
    let normalisation = tape.persistent(data.normalisation);
    let index = tape.temporary(Element::I32, batch);
    tape.push(SelectBatch { batch, order, step, index });
    let source = data.source;
    let augment = |tape: &mut Tape, first, count, rows: usize| {
        let views = tape.temporary(tape.activations(), rows * settings.image_len());
        tape.push(Augment {
            batch,
            first,
            count,
            source,
            size,
            images,
            parameters,
            index,
            normalisation,
            views,
        });
        views
    };
    let views = match method {
        Method::Joint(..) => {
            Views::Together(augment(&mut tape, 0, method.views(), method.forwards() * batch))
        }
        Method::Solar(..) => {
            Views::Apart { weak: augment(&mut tape, 0, 1, batch), strong: augment(&mut tape, 1, 1, batch) }
        }
    };
    record(&mut tape, settings, model, method, store, state, StepInputs { views, index });
    tape.push(AdvanceStep { step, modulus: None });
    tape.finish(device)
}
