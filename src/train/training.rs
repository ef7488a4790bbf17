//! What training keeps on the device, and how an epoch goes.

use anyhow::Result;
use rayon::prelude::*;

use super::evaluate::{Evaluation, ResidentImages};
use super::schedule::Schedule;
use super::step::{self, EpochControl, Method, ResidentData, StepSettings, StepState};
use super::{divergence, method_choice, model::Model};
use crate::autograd::Tape;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::data::augment::{View, ViewParameters};
use crate::data::recipe::TrainingData;
use crate::device::primitive::counter;
use crate::device::{Buffer, Device, Element, Plan, Primitive};
use crate::nn;
use crate::optim::{self, Hyperparameters};
use crate::pll::method::Start;
use crate::pll::{ConfidenceStore, solar};
use crate::random::philox::{Purpose, Stream};
use crate::settings::{self, Settings};
use crate::usage;

/// Images that a forward pass in evaluation mode takes.
pub const EVALUATION_BATCH: usize = 256;

/// The network of a run over `classes` classes, whose training samples are `counts` where they are known.
///
/// # Errors
/// A usage error for an unknown architecture; when the device has not enough memory.
pub fn model(
    settings: &Settings,
    classes: usize,
    counts: Option<&[usize]>,
    device: &mut dyn Device,
) -> Result<Model> {
    let network = nn::registry::find(&settings.arch).ok_or_else(|| {
        usage!("--arch {}: must be one of {}", settings.arch, nn::registry::NAMES.join(", "))
    })?(settings.width, classes);
    let debias = method_choice::debias(settings, counts, [network.features(), classes], device)?;
    Model::new(network, optimiser(settings), settings.seed, debias, device)
}

/// The optimiser of a run and its constants.
pub fn optimiser(settings: &Settings) -> (optim::registry::Constructor, Hyperparameters) {
    let constants =
        Hyperparameters { momentum: settings.momentum as f32, weight_decay: settings.weight_decay as f32 };
    (optim::registry::find(optim::registry::DEFAULT).expect("the default is listed"), constants)
}

/// The learning-rate schedule of a run.
fn schedule(settings: &Settings) -> Schedule {
    let decay = settings.lr_decay_rate;
    match settings.schedule {
        settings::Schedule::Cosine => Schedule::Cosine { epochs: settings.epochs, decay },
        settings::Schedule::Step => Schedule::Step { milestones: settings.lr_decay_epochs.clone(), decay },
    }
}

/// Where an epoch of a run stands: SoLar has two stages, the others one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEpoch {
    /// 0 for SoLar's estimation of the class prior, 1 for training.
    pub stage: u32,
    /// Epoch of the stage, from 0.
    pub epoch: usize,
}

impl StageEpoch {
    /// Of epoch `epoch` of the whole run.
    pub fn of(settings: &Settings, epoch: usize) -> Self {
        match epoch.checked_sub(estimation_epochs(settings)) {
            Some(epoch) => Self { stage: 1, epoch },
            None => Self { stage: 0, epoch },
        }
    }
}

/// Epochs of SoLar's first stage; 0 for the other methods.
fn estimation_epochs(settings: &Settings) -> usize {
    match settings.method {
        settings::Method::Solar => settings.solar().estimation_epochs,
        _ => 0,
    }
}

/// Epochs of all stages.
pub fn epochs(settings: &Settings) -> usize {
    estimation_epochs(settings) + settings.epochs
}

/// What training keeps on the device, and the recorded plans.
pub struct Training {
    settings: Settings,
    schedule: Schedule,
    pub model: Model,
    pub store: ConfidenceStore,
    pub method: Method,
    state: StepState,
    data: ResidentData,
    /// One training step.
    pub plan: Plan,
    statistics: Plan,
    statistics_out: Buffer,
    /// SoLar's pass over all training images after an epoch.
    counting: Option<Evaluation>,
    candidates: Vec<u8>,
    /// Which samples' true classes are known, for metrics.
    known: Vec<bool>,
    /// Steps of an epoch: the incomplete last batch is dropped.
    pub steps: usize,
}

impl Training {
    /// Uploads the training set and records the step.
    ///
    /// # Errors
    /// A usage error if a batch is larger than the training set; when the device has not enough memory.
    pub fn new(settings: &Settings, data: &TrainingData, device: &mut dyn Device) -> Result<Self> {
        let (samples, classes, batch) = (data.train.len(), data.classes.len(), settings.batch_size);
        if batch > samples {
            return Err(usage!(
                "--batch-size {batch}: the training set has {samples} samples; must be at most that"
            ));
        }
        let steps = samples / batch;
        let mut model = model(settings, classes, data.counts().as_deref(), device)?;
        let labels = data.device_labels();
        let start = method_choice::label_method(settings).map_or(Start::Uniform, |method| method.start);
        let store = ConfidenceStore::new(classes, &data.candidates.rows, &labels, start, device)?;
        let state = StepState::new(device)?;
        let resident = ResidentData {
            source: [data.train.height, data.train.width],
            images: device.allocate(Element::U8, data.train.images.len(), "the training images")?,
            parameters: device.allocate(
                Element::U8,
                samples * 2 * VIEW_BYTES,
                "the augmentation parameters",
            )?,
            order: device.allocate(Element::I32, samples, "the order of the samples")?,
            normalisation: device.allocate(Element::F32, 6, "the normalisation")?,
            step: device.allocate(Element::I32, 1, "the step counter")?,
        };
        device.write_u8(resident.images, &data.train.images)?;
        device.write_f32(resident.normalisation, &data.train_normalisation.flat())?;
        let method = method_choice::method(settings, classes, steps, resident.step, device)?;
        if let Some(solar) = method.solar() {
            model.parameters.allocate_passes(solar.passes(), device)?;
        }
        let step_settings = StepSettings { batch, size: settings.image_size };
        let plan = step::plan(&step_settings, &model, &method, &store, &state, &resident, device)?;

        let statistics_out = device.allocate(Element::F32, 2, "the confidence statistics")?;
        let mut tape = Tape::new(device.activations());
        let [confidence, labels, out] =
            [store.confidence, store.labels, statistics_out].map(|buffer| tape.persistent(buffer));
        // LW's rows weigh the other classes as well.
        let candidates = (start == Start::UniformInsideAndOutside).then(|| tape.persistent(store.candidates));
        tape.push(Primitive::ConfidenceStatistics {
            rows: samples,
            classes,
            confidence,
            candidates,
            labels,
            out,
        });
        let statistics = tape.finish(device)?;

        let counting = match method.solar() {
            Some(solar) if solar.counts.is_none() => {
                let normalisation = device.allocate(Element::F32, 6, "the normalisation")?;
                device.write_f32(normalisation, &data.test_normalisation.flat())?;
                let size = data.train.height;
                let images = ResidentImages { images: resident.images, count: samples, size, normalisation };
                Some(Evaluation::new(&model, images, EVALUATION_BATCH, device)?)
            }
            _ => None,
        };
        let (settings, schedule) = (settings.clone(), schedule(settings));
        Ok(Self {
            steps,
            settings,
            schedule,
            model,
            store,
            method,
            state,
            data: resident,
            plan,
            statistics,
            statistics_out,
            counting,
            candidates: data.candidates.rows.clone(),
            known: data.train.labels.iter().map(Option::is_some).collect(),
        })
    }

    /// Steps that SoLar's queue has seen when `epochs_done` epochs of the run are done.
    pub fn queue_steps(&self, epochs_done: usize) -> usize {
        StageEpoch::of(&self.settings, epochs_done).epoch * self.steps
    }

    /// The samples of an epoch in their order.
    fn order(&self, epoch: usize) -> Vec<u32> {
        Stream::new(self.settings.seed, Purpose::Shuffle, epoch as u32, 0, 0).permutation(self.store.samples)
    }

    /// Samples of an epoch's steps whose true class is known.
    pub fn known_in_epoch(&self, epoch: usize) -> usize {
        let stepped = self.steps * self.settings.batch_size;
        self.order(epoch).iter().take(stepped).filter(|&&i| self.known[i as usize]).count()
    }

    /// Uploads what an epoch needs: order of samples, augmentation parameters, mixup, learning rate and the other scalars. SoLar's
    /// training stage begins anew but for the class prior. Returns the learning rate.
    pub fn begin_epoch(&self, epoch: usize, device: &mut dyn Device) -> Result<f64> {
        let Settings { seed, upd_start, lr, image_size, alpha, .. } = self.settings;
        let at = StageEpoch::of(&self.settings, epoch);
        if at == (StageEpoch { stage: 1, epoch: 0 }) && epoch > 0 {
            self.model.initialise(seed, 1, device)?;
            self.store.restart(device)?;
            self.method.solar().map_or(Ok(()), |solar| solar.restart(device))?;
        }
        let (samples, number) = (self.store.samples, epoch as u32);
        let order: Vec<i32> = self.order(epoch).iter().map(|&i| i as i32).collect();
        device.write_i32(self.data.order, &order)?;
        let source = self.data.source;
        let parameters: Vec<ViewParameters> = (0..samples as u32)
            .into_par_iter()
            .flat_map_iter(|sample| {
                [View::Weak, View::Strong]
                    .map(|view| ViewParameters::of_sample(seed, number, sample, view, source, image_size))
            })
            .collect();
        device.write_u8(self.data.parameters, bytemuck::cast_slice(&parameters))?;
        if let Some(mixup) = self.method.mixup() {
            mixup.draw(seed, number, device)?;
        }
        device.write_i32(self.data.step, &[0])?;
        device.write_f32(self.state.counters, &[0.0; counter::LEN])?;
        let learning_rate = self.schedule.rate(lr, at.epoch);
        let mut control = EpochControl { learning_rate, alpha, ..EpochControl::default() };
        match self.method.solar() {
            None => control.update = epoch >= upd_start,
            Some(solar) => {
                let [eta, rho] = solar::ramps(&self.settings.solar(), at.epoch);
                control = EpochControl { update: true, eta, rho, ..control };
                if let Some(counts) = solar.counts {
                    device.write_f32(counts, &vec![0.0; counts.len])?;
                }
            }
        }
        self.state.set(device, control)?;
        Ok(learning_rate)
    }

    /// Runs the steps of a begun epoch, `done` called after each, and reads the counters back once.
    pub fn run_epoch(
        &mut self,
        epoch: usize,
        device: &mut dyn Device,
        mut done: impl FnMut(),
    ) -> Result<Vec<f32>> {
        for _ in 0..self.steps {
            device.replay(&self.plan)?;
            done();
        }
        let at = StageEpoch::of(&self.settings, epoch);
        let forwards = match self.method.solar() {
            None => 1,
            // Nothing is chosen, so nothing mixed, in epoch 0; later every batch has chosen samples.
            Some(solar) => solar.passes().min(if at.epoch == 0 { 2 } else { 3 }),
        };
        if at == (StageEpoch { stage: 1, epoch: 0 }) {
            self.model.parameters.batches_tracked = 0;
        }
        self.model.parameters.batches_tracked += (forwards * self.steps) as i64;
        device.read_f32(self.state.counters)
    }

    /// Moves SoLar's class prior towards the predictions after `epoch`; nothing for the other methods. Returns what is not finite
    /// among those predictions, if anything is: the prior stays then.
    pub fn move_class_prior(&self, epoch: usize, device: &mut dyn Device) -> Result<Option<String>> {
        let at = StageEpoch::of(&self.settings, epoch);
        if let Some(solar) = self.method.solar() {
            let counted = match (&self.counting, solar.counts) {
                (Some(pass), _) => {
                    let (logits, classes) = (pass.logits(device)?, self.store.classes);
                    if let Some(sign) = divergence::in_logits(&logits, classes, "training") {
                        return Ok(Some(sign));
                    }
                    solar::count_predictions(&logits, &self.candidates, classes)
                }
                (None, Some(counts)) => device.read_f32(counts)?.into_iter().map(f64::from).collect(),
                (None, None) => unreachable!("SoLar counts its predictions in one way or the other"),
            };
            let gamma = self.settings.solar().gamma[at.stage as usize];
            solar.update_prior(&counted, gamma, device)?;
        }
        Ok(None)
    }

    /// The class prior that the method estimates, if it does: from the log-prior that evaluation subtracted, or SoLar's r.
    pub fn class_prior_estimate(
        &self,
        log_prior: Option<&[f32]>,
        device: &mut dyn Device,
    ) -> Result<Option<Vec<f64>>> {
        if let Some(solar) = self.method.solar() {
            let prior = device.read_f32(solar.class_prior)?;
            return Ok(Some(prior.into_iter().map(f64::from).collect()));
        }
        let estimated = log_prior.filter(|_| self.model.debias.estimate().is_some());
        Ok(estimated.map(|prior| prior.iter().map(|&log| f64::from(log).exp()).collect()))
    }

    /// `[mean max confidence, accuracy of the disambiguated labels]`, both in 0..=1.
    pub fn confidence_statistics(&self, device: &mut dyn Device) -> Result<[f64; 2]> {
        device.replay(&self.statistics)?;
        let values = device.read_f32(self.statistics_out)?;
        Ok([f64::from(values[0]), f64::from(values[1])])
    }
}
