//! A whole run: data, network, epochs, evaluation, checkpoints.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::checkpoint::{Checkpoint, Progress};
use super::device_choice;
use super::evaluate::{self, Evaluation};
use super::metrics::{self, EpochMetrics};
use super::model::Model;
use super::run_folder::RunFolder;
use super::schedule::Schedule;
use super::step::{self, ResidentData, StepSettings, StepState};
use crate::autograd::Tape;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::data::augment::{View, ViewParameters};
use crate::data::recipe::{Recipe, TrainingData, prepare};
use crate::device::primitive::counter;
use crate::device::{Buffer, Device, Element, Plan, Primitive};
use crate::nn::Architecture;
use crate::pll::ConfidenceStore;
use crate::random::philox::{Purpose, Stream};
use crate::settings::{self, Settings};
use crate::usage;

/// Test images a forward pass takes.
const EVALUATION_BATCH: usize = 256;

/// The recipe of a run's data.
///
/// # Errors
/// A usage error for a name that is no data set.
pub fn recipe(settings: &Settings) -> Result<Recipe> {
    Ok(Recipe {
        dataset: settings.dataset.parse()?,
        data_dir: settings.data_dir.clone(),
        imb_factor: settings.imb_factor,
        imb_type: settings.imb_type.word().parse()?,
        reverse: settings.reverse,
        partial_rate: settings.partial_rate,
        seed: settings.seed,
        data_seed: settings.data_seed,
        image_size: settings.image_size,
        synthetic_train_per_class: settings.synthetic_train_per_class,
        synthetic_test_per_class: settings.synthetic_test_per_class,
    })
}

/// The network of a run over `classes` classes.
///
/// # Errors
/// A usage error for an unknown architecture; when the device has not enough memory.
pub fn model(settings: &Settings, classes: usize, device: &mut dyn Device) -> Result<Model> {
    let architecture = Architecture::by_name(&settings.arch, settings.width, classes).ok_or_else(|| {
        usage!("--arch {}: must be one of {}", settings.arch, Architecture::names().join(", "))
    })?;
    let momentum = (settings.debias == settings::Debias::Records).then_some(settings.m as f32);
    Model::new(architecture, settings.seed, momentum, device)
}

/// The learning-rate schedule of a run.
fn schedule(settings: &Settings) -> Schedule {
    let decay = settings.lr_decay_rate;
    match settings.schedule {
        settings::Schedule::Cosine => Schedule::Cosine { epochs: settings.epochs, decay },
        settings::Schedule::Step => Schedule::Step { milestones: settings.lr_decay_epochs.clone(), decay },
    }
}

/// What training keeps on the device, and the recorded plans.
pub struct Training {
    settings: Settings,
    schedule: Schedule,
    pub model: Model,
    pub store: ConfidenceStore,
    state: StepState,
    data: ResidentData,
    /// One training step.
    pub plan: Plan,
    statistics: Plan,
    statistics_out: Buffer,
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
        let model = model(settings, classes, device)?;
        let labels: Vec<i32> = data.train.labels.iter().map(|&label| i32::from(label)).collect();
        let store = ConfidenceStore::new(classes, &data.candidates.rows, &labels, device)?;
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
        let step_settings = StepSettings {
            batch,
            size: settings.image_size,
            momentum: settings.momentum as f32,
            weight_decay: settings.weight_decay as f32,
        };
        let plan = step::plan(&step_settings, &model, &store, &state, &resident, device)?;

        let statistics_out = device.allocate(Element::F32, 2, "the confidence statistics")?;
        let mut tape = Tape::new(device.activations());
        let [confidence, labels, out] =
            [store.confidence, store.labels, statistics_out].map(|buffer| tape.persistent(buffer));
        tape.push(Primitive::ConfidenceStatistics { rows: samples, classes, confidence, labels, out });
        let statistics = tape.finish(device)?;
        let (settings, schedule) = (settings.clone(), schedule(settings));
        Ok(Self {
            steps: samples / batch,
            settings,
            schedule,
            model,
            store,
            state,
            data: resident,
            plan,
            statistics,
            statistics_out,
        })
    }

    /// Uploads what an epoch needs: order of samples, augmentation parameters, learning rate, update flag.
    pub fn begin_epoch(&self, epoch: usize, device: &mut dyn Device) -> Result<f64> {
        let Settings { seed, upd_start, lr, image_size, .. } = self.settings;
        let (samples, number) = (self.store.samples, epoch as u32);
        let order = Stream::new(seed, Purpose::Shuffle, number, 0, 0).permutation(samples);
        device.write_i32(self.data.order, &order.iter().map(|&i| i as i32).collect::<Vec<_>>())?;
        let source = self.data.source;
        let parameters: Vec<ViewParameters> = (0..samples as u32)
            .into_par_iter()
            .flat_map_iter(|sample| {
                [View::Weak, View::Strong]
                    .map(|view| ViewParameters::of_sample(seed, number, sample, view, source, image_size))
            })
            .collect();
        device.write_u8(self.data.parameters, bytemuck::cast_slice(&parameters))?;
        device.write_i32(self.data.step, &[0])?;
        device.write_f32(self.state.counters, &[0.0; counter::LEN])?;
        let rate = self.schedule.rate(lr, epoch);
        self.state.set(device, rate, epoch >= upd_start)?;
        Ok(rate)
    }

    /// Runs the steps of a begun epoch, `done` called after each, and reads the counters back once.
    pub fn run_epoch(&mut self, device: &mut dyn Device, mut done: impl FnMut()) -> Result<Vec<f32>> {
        for _ in 0..self.steps {
            device.replay(&self.plan)?;
            done();
        }
        self.model.parameters.batches_tracked += self.steps as i64;
        device.read_f32(self.state.counters)
    }

    /// `[mean max confidence, accuracy of the disambiguated labels]`, both in 0..=1.
    pub fn confidence_statistics(&self, device: &mut dyn Device) -> Result<[f64; 2]> {
        device.replay(&self.statistics)?;
        let values = device.read_f32(self.statistics_out)?;
        Ok([f64::from(values[0]), f64::from(values[1])])
    }
}

/// Settings that do not change what a run computes may differ on resuming.
fn same_computation(a: &Settings, b: &Settings) -> bool {
    let neutral = |settings: &Settings| Settings {
        device: settings::DeviceChoice::Auto,
        threads: 0,
        exp_dir: "".into(),
        name: None,
        data_dir: None,
        checkpoint_every: 1,
        eval_every: 1,
        ..settings.clone()
    };
    neutral(a) == neutral(b)
}

/// Opens the run folder and the checkpoint to go on from.
fn open_folder(settings: &Settings, resume: Option<&Path>) -> Result<(RunFolder, Option<Checkpoint>)> {
    let config = settings::config_toml(settings)?;
    let Some(resume) = resume else {
        let method = settings.debias.word();
        let stem = match method {
            "none" => format!("{}-{}", settings.dataset, settings.method.word()),
            _ => format!("{}-{}-{method}", settings.dataset, settings.method.word()),
        };
        return Ok((RunFolder::create(&settings.exp_dir, settings.name.as_deref(), &stem, &config)?, None));
    };
    let (mut folder, checkpoint) = if resume.is_file() {
        let parent = resume.parent().unwrap_or(Path::new("."));
        (RunFolder::open(parent)?, Some(Checkpoint::read(resume)?))
    } else {
        let mut folder = RunFolder::open(resume)?;
        let checkpoint = folder.newest_checkpoint()?;
        (folder, checkpoint)
    };
    if let Some(checkpoint) = &checkpoint {
        let made_with: Settings = toml::from_str(&checkpoint.config)
            .map_err(|error| usage!("the checkpoint's configuration: {error}"))?;
        if !same_computation(settings, &made_with) {
            let shown = resume.display();
            return Err(usage!(
                "--resume {shown}: the settings differ from those the run was started with; leave them out"
            ));
        }
    } else {
        folder.say("no checkpoint yet: starting again from the beginning");
    }
    Ok((folder, checkpoint))
}

fn progress_bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    let template = "{msg} [{bar:30}] {pos}/{len} steps, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Trains as `settings` say, from the beginning or from `resume` (a run folder or one of its checkpoints).
///
/// # Errors
/// Usage errors for bad settings, data and folders; a failed run when the loss diverges or a file cannot be written.
pub fn run(settings: &Settings, resume: Option<&Path>) -> Result<()> {
    settings.validate()?;
    let chosen = device_choice::open(settings.device, settings.precision, settings.threads)?;
    let mut device = chosen.device;
    let data = prepare(&recipe(settings)?)?;
    let counts = data.counts();
    let mut training = Training::new(settings, &data, &mut *device)?;
    let evaluation = Evaluation::new(
        &training.model,
        &data.test,
        data.test_normalisation,
        EVALUATION_BATCH,
        &mut *device,
    )?;
    let (mut folder, checkpoint) = open_folder(settings, resume)?;

    let mut progress = Progress {
        epochs_done: 0,
        best_top1: 0.0,
        best_epoch: 0,
        classes: data.classes.clone(),
        train_counts: counts.clone(),
    };
    if let Some(checkpoint) = &checkpoint {
        checkpoint.restore_model(&mut training.model, &mut *device)?;
        checkpoint.restore_confidence(&training.store, &mut *device)?;
        progress = checkpoint.progress.clone();
    }
    folder.keep_metrics(progress.epochs_done)?;
    folder.say(&format!("device {} ({})", device.describe(), chosen.reason));
    folder.say(&format!(
        "data {}: {} training samples of {} classes (largest {}, smallest {}), {} test images",
        settings.dataset,
        data.train.len(),
        data.classes.len(),
        counts.iter().max().unwrap_or(&0),
        counts.iter().min().unwrap_or(&0),
        data.test.len(),
    ));
    let plan = &training.plan;
    folder.say(&format!(
        "{} on {} of width {}, {} parameters; a step of {} samples: {:.1} GFLOP, {} MiB of temporaries ({} without sharing)",
        settings.method_title(),
        settings.arch,
        settings.width,
        training.model.parameters.len(),
        settings.batch_size,
        plan.flops() / 1e9,
        plan.temporary_bytes >> 20,
        plan.unshared_bytes >> 20,
    ));
    if progress.epochs_done > 0 {
        folder.say(&format!("resuming after {} epochs", progress.epochs_done));
    }
    folder.say(metrics::HEADER);

    let config = settings::config_toml(settings)?;
    let remaining = settings.epochs.saturating_sub(progress.epochs_done);
    let bar = progress_bar(remaining * training.steps);
    for epoch in progress.epochs_done..settings.epochs {
        bar.set_message(format!("epoch {epoch}/{}", settings.epochs));
        let started = Instant::now();
        let learning_rate = training.begin_epoch(epoch, &mut *device)?;
        let counters = training.run_epoch(&mut *device, || bar.inc(1))?;
        let trained = started.elapsed().as_secs_f64();
        let views = (2 * settings.batch_size * training.steps) as f64;
        let loss = f64::from(counters[counter::LOSS]) / training.steps as f64;
        if !loss.is_finite() {
            bar.abandon();
            bail!(
                "the loss became {loss} in epoch {epoch}: training has diverged; lower --lr (now {}) and go on from an \
                 earlier checkpoint in {}",
                settings.lr,
                folder.path().display()
            );
        }
        let last = epoch + 1 == settings.epochs;
        let evaluated = last || (epoch + 1) % settings.eval_every == 0;
        let (mut test, mut log_prior) = (None, None);
        if evaluated {
            let (logits, prior) = evaluation.run(&mut *device)?;
            test = Some(evaluate::metrics(&logits, &data.test.labels, &counts));
            log_prior = prior;
        }
        let [confidence, label_accuracy] = training.confidence_statistics(&mut *device)?;
        let epoch_metrics = EpochMetrics {
            epoch,
            learning_rate,
            loss,
            train_accuracy: 100.0 * f64::from(counters[counter::CORRECT]) / (views / 2.0),
            mean_max_confidence: confidence,
            label_accuracy: 100.0 * label_accuracy,
            prior_distance: log_prior.as_ref().map(|prior| evaluate::prior_distance(prior, &counts)),
            class_prior: log_prior.map(|prior| prior.iter().map(|&log| f64::from(log).exp()).collect()),
            test,
            seconds: started.elapsed().as_secs_f64(),
            images_per_second: views / trained,
        };
        progress.epochs_done = epoch + 1;
        let top1 = epoch_metrics.test.as_ref().map(|test| test.top1);
        let best = top1.is_some_and(|top1| top1 > progress.best_top1);
        if let (true, Some(top1)) = (best, top1) {
            (progress.best_top1, progress.best_epoch) = (top1, epoch);
        }
        // Metrics first: a crash between the two leaves a line that resuming drops, never a checkpoint without its line.
        folder.append_metrics(&epoch_metrics)?;
        if last || best || (epoch + 1) % settings.checkpoint_every == 0 {
            let mut checkpoint = Checkpoint::collect(
                &training.model,
                &training.store,
                progress.clone(),
                &config,
                &mut *device,
            )?;
            folder.save(&mut checkpoint, best)?;
        }
        bar.suspend(|| folder.say(&epoch_metrics.row()));
    }
    bar.finish_and_clear();
    match folder.metrics().last() {
        Some(last) => folder.say(&metrics::final_table(last, progress.best_top1, progress.best_epoch)),
        None => folder.say("nothing to do: the run has no epochs"),
    }
    let shown = folder.path().display().to_string();
    folder.say(&format!("run folder {shown}: config.toml, metrics.jsonl, log.txt, checkpoints"));
    Ok(())
}
