//! Training on resident data, epoch by epoch.

use anyhow::Result;

use super::divergence::StateWatch;
use super::engine::{self, Engine, EngineParts};
use super::evaluate::{Evaluation, ResidentImages, evaluation_batch};
use super::part_of_epoch::PartOfEpoch;
use super::resident::ResidentData;
use super::schedule::Schedule;
use super::statistics::ConfidenceSummary;
use super::step::StepSettings;
use super::{choice, divergence, next_epoch};
use crate::data::recipe::TrainingData;
use crate::device::{Device, Element};
use crate::pll::Method;
use crate::pll::method::{EpochControl, Room, Stage, StageEpoch};
use crate::settings::{self, Settings};
use crate::usage;

/// The learning-rate schedule of a run.
fn schedule(settings: &Settings) -> Schedule {
    let decay = settings.lr_decay_rate;
    match settings.schedule {
        settings::ScheduleChoice::Cosine => Schedule::Cosine { epochs: settings.epochs, decay },
        settings::ScheduleChoice::Step => {
            Schedule::Step { milestones: settings.lr_decay_epochs.clone(), decay }
        }
    }
}

/// The learning rate of epoch `epoch` (from 0) of a run, counted over all its stages.
pub fn learning_rate(settings: &Settings, epoch: usize) -> f64 {
    let at = StageEpoch::of(&choice::stages(settings), epoch);
    schedule(settings).rate(settings.lr, at.epoch)
}

/// How the end of an epoch went.
#[derive(Debug, PartialEq)]
pub enum EpochEnd {
    /// The method has ended the epoch.
    Done,
    /// The pass over the training images was left before its end; the state is that after the last step.
    Left,
    /// These logits of training images are not finite.
    Diverged(String),
}

/// A run in training: the engine with the data on the device.
pub struct Training {
    settings: Settings,
    schedule: Schedule,
    stages: Vec<Stage>,
    always_disambiguates: bool,
    /// Network, method and the recorded step.
    pub engine: Engine,
    data: ResidentData,
    statistics: ConfidenceSummary,
    watch: StateWatch,
    /// The pass over all training images after an epoch, for methods that read their logits.
    training_images: Option<Evaluation>,
    candidates: Vec<u8>,
    /// Whether each sample's true class is known, for metrics; `None` where all are.
    known: Option<Vec<bool>>,
    /// Steps per epoch; an incomplete last batch is dropped.
    pub steps: usize,
    /// What the schedule's learning rates are multiplied by; 1 but after a divergence.
    pub rate_factor: f64,
}

impl Training {
    /// Uploads the training set and records the step of the method that the settings name.
    ///
    /// # Errors
    /// A usage error if a batch is larger than the training set; if the device has not enough memory.
    pub fn new(settings: &Settings, data: &TrainingData, device: &mut dyn Device) -> Result<Self> {
        Self::with_method(settings, &*choice::method(settings), data, device)
    }

    /// The same with any method, also one from outside the crate that settings cannot name.
    ///
    /// # Errors
    /// As [`Training::new`].
    pub fn with_method(
        settings: &Settings,
        method: &dyn Method,
        data: &TrainingData,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let (samples, classes, batch) = (data.train.len(), data.classes.len(), settings.batch_size);
        if batch > samples {
            return Err(usage!(
                "--batch-size {batch}: the training set has {samples} samples; must be at most that"
            ));
        }
        let steps = samples / batch;
        let model = engine::model(settings, method, classes, data.counts().as_deref(), device)?;
        let resident = ResidentData::new(data, device)?;
        let step_settings = StepSettings { batch, size: settings.image_size };
        let parts = EngineParts {
            method,
            model,
            room: Room {
                batch,
                classes,
                steps,
                step: resident.step,
                mixup: settings.mixup,
                parameters: None,
            },
            candidates: &data.candidates.rows,
            labels: &data.device_labels(),
            settings: step_settings,
            keeps_step: false,
        };
        let engine = Engine::assemble(parts, &mut resident.inputs(step_settings), device)?;
        // So that there is room for it.
        engine.take_snapshot(device)?;
        Ok(Self {
            settings: settings.clone(),
            schedule: schedule(settings),
            stages: method.stages(settings.epochs),
            always_disambiguates: method.always_disambiguates(),
            statistics: ConfidenceSummary::new(&engine.store, method.start(), device)?,
            training_images: match engine.learner.reads_training_logits() {
                true => Some(training_images(&engine, &resident, data, device)?),
                false => None,
            },
            watch: StateWatch::new(&engine, device)?,
            engine,
            data: resident,
            candidates: data.candidates.rows.clone(),
            known: data
                .train
                .labels
                .contains(&None)
                .then(|| data.train.labels.iter().map(Option::is_some).collect()),
            steps,
            rate_factor: 1.0,
        })
    }

    /// The stage of an epoch of the run, and its number there.
    pub fn at(&self, epoch: usize) -> StageEpoch {
        StageEpoch::of(&self.stages, epoch)
    }

    /// The name of the stage that begins at `at`, if one begins there and has a name.
    pub fn stage_name(&self, at: StageEpoch) -> Option<&'static str> {
        self.stages.get(at.stage)?.name.filter(|_| at.epoch == 0)
    }

    /// Steps done in the current stage after `epochs_done` epochs of the run.
    pub fn stage_steps(&self, epochs_done: usize) -> usize {
        self.at(epochs_done).epoch * self.steps
    }

    /// The samples in the order of an epoch.
    fn order(&self, epoch: usize) -> Vec<u32> {
        next_epoch::order(self.settings.seed, epoch as u32, self.engine.store.samples)
    }

    /// The samples of step `step` (from 1) of an epoch, as their positions in the training set.
    pub fn samples_of(&self, epoch: usize, step: usize) -> Vec<u32> {
        let batch = self.settings.batch_size;
        self.order(epoch).into_iter().skip((step - 1) * batch).take(batch).collect()
    }

    /// How many samples of an epoch's steps have a known true class.
    pub fn known_in_epoch(&self, epoch: usize) -> usize {
        let stepped = self.steps * self.settings.batch_size;
        let Some(known) = &self.known else { return stepped };
        self.order(epoch).iter().take(stepped).filter(|&&i| known[i as usize]).count()
    }

    /// Uploads an epoch's order of samples, augmentation parameters, mixup weights, learning rate and other
    /// scalars. Where a stage other than the first begins, training starts over. Returns the learning rate.
    ///
    /// # Errors
    /// If the device fails.
    pub fn begin_epoch(&mut self, epoch: usize, device: &mut dyn Device) -> Result<f64> {
        let at = self.at(epoch);
        if at.epoch == 0 && epoch > 0 {
            self.engine.restart(self.settings.seed, at.stage, device)?;
        }
        self.set_up_epoch(epoch, device)
    }

    /// As [`Training::begin_epoch`], but goes on behind the steps done in `part`, after which the state on the
    /// device is.
    ///
    /// # Errors
    /// A usage error if an epoch has fewer steps; if the device fails.
    pub fn continue_epoch(
        &mut self,
        epoch: usize,
        part: &PartOfEpoch,
        device: &mut dyn Device,
    ) -> Result<f64> {
        let learning_rate = self.set_up_epoch(epoch, device)?;
        self.data.skip_to(part.steps, device)?;
        part.restore(&self.engine, device)?;
        Ok(learning_rate)
    }

    fn set_up_epoch(&mut self, epoch: usize, device: &mut dyn Device) -> Result<f64> {
        let Settings { seed, upd_start, lr, image_size, alpha, .. } = self.settings;
        let at = self.at(epoch);
        let number = epoch as u32;
        self.data.begin_epoch((seed, number), image_size, device)?;
        if let Some(mixup) = self.engine.learner.mixup() {
            mixup.draw(seed, number, device)?;
        }
        self.engine.clear_counters(device)?;
        let learning_rate = self.rate_factor * self.schedule.rate(lr, at.epoch);
        let own = self.engine.learner.begin_epoch(at, device)?;
        let update = self.always_disambiguates || epoch >= upd_start;
        self.engine.set(EpochControl { learning_rate, update, alpha, own }, device)?;
        Ok(learning_rate)
    }

    /// FLOPs of an epoch's steps.
    pub fn epoch_flops(&self) -> f64 {
        self.steps as f64 * self.engine.plan.flops()
    }

    /// Runs a step of a begun epoch. Where the device works meanwhile, what the next epoch needs is drawn from the
    /// first one on.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_step(&mut self, device: &mut dyn Device) -> Result<()> {
        self.engine.run_step(device)?;
        self.data.draw_next();
        Ok(())
    }

    /// Uploads what the next epoch needs while the device is still at work on the steps of this one; then waits for
    /// them and returns the counters.
    ///
    /// # Errors
    /// When the device fails.
    pub fn end_steps(&mut self, device: &mut dyn Device) -> Result<Vec<f32>> {
        self.data.upload_next(device)?;
        self.engine.counters(device)
    }

    /// Runs the steps of a begun epoch, `done` called after each, and reads the counters back once.
    ///
    /// # Errors
    /// When the device fails, or `done` does.
    pub fn run_epoch(
        &mut self,
        device: &mut dyn Device,
        mut done: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f32>> {
        for _ in 0..self.steps {
            self.run_step(device)?;
            done()?;
        }
        self.end_steps(device)
    }

    /// What of the state is not finite, if anything is.
    ///
    /// # Errors
    /// When the device fails.
    pub fn not_finite(&self, device: &mut dyn Device) -> Result<Option<String>> {
        self.watch.first(&self.engine, device)
    }

    /// Ends `epoch` for the method, which may update what it estimates over all samples, such as a class
    /// prior. For a method that reads the logits of the training images, returns which of these are not
    /// finite, if any; the method does not see such logits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn end_epoch(&self, epoch: usize, device: &mut dyn Device) -> Result<Option<String>> {
        Ok(match self.end_epoch_while(epoch, &|| true, device)? {
            EpochEnd::Diverged(sign) => Some(sign),
            EpochEnd::Done | EpochEnd::Left => None,
        })
    }

    /// As [`Training::end_epoch`], but the pass over the training images may be left.
    ///
    /// # Errors
    /// If the device fails.
    pub fn end_epoch_while(
        &self,
        epoch: usize,
        goes_on: &dyn Fn() -> bool,
        device: &mut dyn Device,
    ) -> Result<EpochEnd> {
        let at = self.at(epoch);
        let learner = &self.engine.learner;
        if let Some(pass) = &self.training_images {
            let Some(logits) = pass.logits_while(goes_on, device)? else { return Ok(EpochEnd::Left) };
            if let Some(sign) = divergence::in_logits(&logits, self.engine.store.classes, "training") {
                return Ok(EpochEnd::Diverged(sign));
            }
            learner.take_training_logits(at, &logits, &self.candidates, device)?;
        }
        learner.end_epoch(at, device)?;
        Ok(EpochEnd::Done)
    }

    /// The share of the samples of an epoch's steps that the method chose, in 0..=1, if it chooses.
    ///
    /// # Errors
    /// If the device fails.
    pub fn chosen(&self, device: &mut dyn Device) -> Result<Option<f64>> {
        let samples = (self.steps * self.settings.batch_size) as f64;
        Ok(self.engine.learner.chosen(device)?.map(|chosen| chosen as f64 / samples))
    }

    /// Steps of the stage so far that were left out, where there is a loss scale.
    ///
    /// # Errors
    /// If the device fails.
    pub fn steps_left_out(&self, device: &mut dyn Device) -> Result<Option<u64>> {
        self.engine.model.loss_scale.map(|scale| scale.steps_left_out(device)).transpose()
    }

    /// The class-prior estimate, if there is one: the method's own, or that of the log-prior that evaluation
    /// subtracted.
    ///
    /// # Errors
    /// If the device fails.
    pub fn class_prior_estimate(
        &self,
        log_prior: Option<&[f32]>,
        device: &mut dyn Device,
    ) -> Result<Option<Vec<f64>>> {
        if let Some(prior) = self.engine.learner.class_prior(device)? {
            return Ok(Some(prior));
        }
        Ok(self.engine.model.debias.estimated_prior(log_prior))
    }

    /// `[mean maximum confidence (MMC), accuracy of the disambiguated labels]`, both in 0..=1.
    ///
    /// # Errors
    /// If the device fails.
    pub fn confidence_statistics(&self, device: &mut dyn Device) -> Result<[f64; 2]> {
        self.statistics.run(device)
    }
}

/// The evaluation pass over the training images without augmentation.
fn training_images(
    engine: &Engine,
    resident: &ResidentData,
    data: &TrainingData,
    device: &mut dyn Device,
) -> Result<Evaluation> {
    let normalisation = device.allocate(Element::F32, 6, "the normalisation")?;
    device.write_f32(normalisation, &data.test_normalisation.flat())?;
    let (count, size) = (data.train.len(), data.train.height);
    let images = ResidentImages { images: resident.images, count, size, normalisation };
    Evaluation::new(&engine.model, images, evaluation_batch(device), device)
}
