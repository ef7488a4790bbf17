//! A whole run: data, network, epochs, evaluation, checkpoints.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::checkpoint::{self, Checkpoint, Progress};
use super::choice::epochs;
use super::evaluate::{self, Evaluation, TestMetrics};
use super::metrics::{self, EpochMetrics, EpochTimes};
use super::run_folder::{self, FinishedEpoch, RunFolder, Writer};
use super::training::Training;
use super::{device_choice, divergence, resume_checks};
use crate::data::fingerprint::{Fingerprint, Part};
use crate::data::recipe::{Recipe, TrainingData, file_of, prepare_if};
use crate::data::registry;
use crate::device::Device;
use crate::error::{exit_code, one_line};
use crate::ops::statistics::counter;
use crate::settings::{self, Settings};
use crate::text::printable;
use crate::usage;

/// Stands for the best top-1 where no epoch has been evaluated yet, so that one of 0 % is better.
const NO_BEST: f64 = -1.0;

/// The recipe of a run's data.
///
/// # Errors
/// A usage error for a name that is no data set.
pub fn recipe(settings: &Settings) -> Result<Recipe> {
    Ok(Recipe {
        dataset: registry::named(&settings.dataset)?,
        data_dir: settings.data_dir.clone(),
        imb_factor: settings.imb_factor,
        imb_type: settings.imb_type,
        reverse: settings.reverse,
        partial_rate: settings.partial_rate,
        seed: settings.seed,
        data_seed: settings.data_seed,
        image_size: settings.image_size,
        synthetic_train_per_class: settings.synthetic_train_per_class,
        synthetic_test_per_class: settings.synthetic_test_per_class,
    })
}

/// Opens the folder of a new run, or of the one that `resume` names.
fn open_folder(settings: &Settings, config: &str, resume: Option<&Path>) -> Result<RunFolder> {
    match resume {
        Some(resume) => RunFolder::open_to_resume(resume),
        None => {
            let stem = format!("{}-{}", settings.dataset, settings.method_words());
            RunFolder::create(&settings.exp_dir, settings.name.as_deref(), &stem, config)
        }
    }
}

/// The checkpoint that a run will go on from and what names it, read early so that other settings and other
/// data are refused before anything else is done; `None` where none is whole.
fn peek(settings: &Settings, resume: Option<&Path>) -> Result<Option<(Checkpoint, PathBuf)>> {
    let found = match resume {
        None => None,
        Some(folder) if folder.is_dir() => {
            run_folder::newest(folder).map(|(_, checkpoint)| (checkpoint, folder.to_path_buf()))
        }
        Some(file) => Some((Checkpoint::read(file)?, file.to_path_buf())),
    };
    if let Some((checkpoint, path)) = &found {
        resume_checks::check_settings(settings, checkpoint, path)?;
    }
    Ok(found)
}

/// The data of a run and what they are known by again; those of `resumed`, a checkpoint and what names it, if
/// there is one. Class names and sizes are compared before images are read.
fn open_data(
    settings: &Settings,
    resumed: Option<&(Checkpoint, PathBuf)>,
) -> Result<(TrainingData, Fingerprint)> {
    let recipe = recipe(settings)?;
    let data = prepare_if(&recipe, &|outline| match resumed {
        Some((checkpoint, path)) => resume_checks::check_outline(outline, checkpoint, path),
        None => Ok(()),
    })?;
    let fingerprint = Fingerprint::of(&data);
    if let Some((checkpoint, path)) = resumed {
        let file_of = |part: Part, sample: usize| {
            let position = match part {
                Part::Train => usize::try_from(*data.index.get(sample)?).ok()?,
                Part::Test => sample,
            };
            file_of(&recipe, part, position)
        };
        resume_checks::check_data(&fingerprint, checkpoint, path, &file_of)?;
    }
    Ok((data, fingerprint))
}

/// How many training samples the largest and the smallest class have.
fn sizes(counts: Option<&[usize]>) -> String {
    let range = counts.and_then(|counts| Some((counts.iter().max()?, counts.iter().min()?)));
    range.map_or("true classes not all known".into(), |(most, least)| {
        format!("largest {most}, smallest {least}")
    })
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
/// Why a run failed stands in its log, too.
///
/// # Errors
/// Usage errors for bad settings, data and folders; a failed run when the loss diverges or a file cannot be
/// written.
pub fn run(settings: &Settings, resume: Option<&Path>) -> Result<()> {
    let mut run = Run::open(settings, resume)?;
    let result = run.restore(resume).and_then(|()| run.train());
    // A resume that is refused has not failed: the run is as it was.
    if let Err(error) = &result
        && exit_code(error) == 1
    {
        // What has been handed over is written first, so that the reason is the log's last line.
        let _ = run.writer.wait();
        run.writer.log().note_failure(error);
    }
    result
}

/// A run under way: what it trains on, with and into.
struct Run<'a> {
    settings: &'a Settings,
    /// The settings as the run's files hold them.
    config: String,
    device: Box<dyn Device>,
    /// Why this device.
    device_reason: String,
    data: TrainingData,
    /// Training samples of each class; `None` where true classes are unknown.
    counts: Option<Vec<usize>>,
    training: Training,
    /// The pass over the test images, where there are any.
    evaluation: Option<Evaluation>,
    writer: Writer,
    progress: Progress,
    /// What the state belongs to.
    fingerprint: Fingerprint,
    /// Whether it has been said that the network's values grow out of proportion.
    has_grown: bool,
}

impl<'a> Run<'a> {
    /// Opens device, data (which must be those of the checkpoint to go on from), network and, last, the
    /// folder.
    fn open(settings: &'a Settings, resume: Option<&Path>) -> Result<Self> {
        settings.validate()?;
        let chosen = device_choice::open(settings.device, settings.precision, settings.threads)?;
        let mut device = chosen.device;
        let (data, fingerprint) = open_data(settings, peek(settings, resume)?.as_ref())?;
        let counts = data.counts();
        let training = Training::new(settings, &data, &mut *device)?;
        let evaluation = match &data.test {
            None => None,
            Some(test) => {
                Some(Evaluation::of_set(&training.engine.model, test, data.test_normalisation, &mut *device)?)
            }
        };
        let config = settings::config_toml(settings)?;
        let writer = Writer::new(open_folder(settings, &config, resume)?);
        let progress = Progress {
            epochs_done: 0,
            best_top1: NO_BEST,
            best_epoch: 0,
            classes: data.classes.clone(),
            train_counts: counts.clone(),
        };
        Ok(Self {
            settings,
            config,
            device,
            device_reason: chosen.reason,
            data,
            counts,
            training,
            evaluation,
            writer,
            progress,
            fingerprint,
            has_grown: false,
        })
    }

    /// Runs the epochs that are left.
    fn train(&mut self) -> Result<()> {
        self.introduce();
        let epochs = epochs(self.settings);
        let remaining = epochs.saturating_sub(self.progress.epochs_done);
        let bar = progress_bar(remaining * self.training.steps);
        for epoch in self.progress.epochs_done..epochs {
            bar.set_message(format!("epoch {epoch}/{epochs}"));
            let (metrics, times) = self.epoch(epoch, &bar)?;
            bar.suspend(|| self.writer.log().say(&metrics.row(&times)));
            self.record(metrics, times)?;
        }
        self.writer.wait()?;
        bar.finish_and_clear();
        self.finish()
    }

    /// Puts back the state that `resume` names and makes the folder ready to go on from it: that of a
    /// checkpoint, or of the newest in a folder that is whole and fits.
    fn restore(&mut self, resume: Option<&Path>) -> Result<()> {
        match resume {
            None => {}
            Some(folder) if folder.is_dir() => self.restore_newest()?,
            Some(file) => {
                self.restore_from(Checkpoint::read(file)?, file)?;
                self.writer.folder()?.go_back(self.progress.epochs_done)?;
            }
        }
        let best = self.epochs_to_best();
        self.writer.folder()?.begin(self.progress.epochs_done, best)
    }

    fn restore_newest(&mut self) -> Result<()> {
        let mut first_error = None;
        for (done, path) in self.writer.folder()?.checkpoints() {
            match run_folder::read(done, &path).and_then(|checkpoint| self.restore_from(checkpoint, &path)) {
                Ok(()) => return self.writer.folder()?.set_later_aside(done).map(|_| ()),
                Err(error) => {
                    self.writer.log().say(&format!("passing over {}", one_line(&error)));
                    first_error.get_or_insert(error);
                }
            }
        }
        let interval = self.checkpoint_interval();
        let folder = self.writer.folder()?;
        match (first_error, folder.offer_best()) {
            (Some(error), Some(offer)) => Err(usage!("{}; {offer}", one_line(&error))),
            (Some(error), None) => Err(error),
            (None, _) => {
                folder.refuse_lost_checkpoints(interval)?;
                folder.say("no checkpoint yet: starting again from the beginning");
                Ok(())
            }
        }
    }

    /// Puts the state of a checkpoint back; an error names its file.
    fn restore_from(&mut self, checkpoint: Checkpoint, path: &Path) -> Result<()> {
        let shown = printable(&path.display().to_string());
        resume_checks::check_settings(self.settings, &checkpoint, path)?;
        resume_checks::check_data(&self.fingerprint, &checkpoint, path, &|_, _| None)?;
        checkpoint
            .restore(&mut self.training, &mut *self.device)
            .map_err(|error| usage!("{shown}: {}", one_line(&error)))?;
        self.writer.folder()?.restore_config(&checkpoint.config)?;
        self.progress = checkpoint.progress;
        Ok(())
    }

    /// How many epochs end with the best one so far, whose state is in best.safetensors; `None` if there is
    /// none yet.
    fn epochs_to_best(&self) -> Option<usize> {
        let Progress { epochs_done, best_top1, best_epoch, .. } = self.progress;
        match self.data.test {
            Some(_) => (best_top1 >= 0.0 && epochs_done > 0).then_some(best_epoch + 1),
            // Without test images the last is taken for the best.
            None => (epochs_done > 0 && epochs_done == epochs(self.settings)).then_some(epochs_done),
        }
    }

    /// Says what is about to be trained, on what and how.
    fn introduce(&self) {
        let Self { settings, device, data, counts, training, writer, progress, .. } = self;
        let log = writer.log();
        log.say(&format!("device {} ({})", device.describe(), self.device_reason));
        log.say(&format!(
            "data {}: {} training samples of {} classes ({}), {} test images",
            settings.dataset,
            data.train.len(),
            data.classes.len(),
            sizes(counts.as_deref()),
            data.test.as_ref().map_or("no".into(), |test| test.len().to_string()),
        ));
        for line in data.remarks(Some(settings.batch_size)) {
            log.say(&line);
        }
        let plan = &training.engine.plan;
        log.say(&format!(
            "{} on {} of width {}, {} parameters; a step of {} samples: {:.1} GFLOP, {} MiB of temporaries ({} without \
             sharing)",
            settings.method_title(),
            settings.arch,
            settings.width,
            training.engine.model.parameters.len(),
            settings.batch_size,
            plan.flops() / 1e9,
            plan.temporaries().bytes >> 20,
            plan.temporaries().unshared_bytes >> 20,
        ));
        if progress.epochs_done > 0 {
            log.say(&format!("resuming after {} epochs", progress.epochs_done));
        }
        log.say(metrics::HEADER);
    }

    /// Trains and evaluates one epoch.
    fn epoch(&mut self, epoch: usize, bar: &ProgressBar) -> Result<(EpochMetrics, EpochTimes)> {
        let settings = self.settings;
        let at = self.training.at(epoch);
        if let Some(name) = self.training.stage_name(at) {
            bar.suspend(|| self.writer.log().say(name));
        }
        if at.epoch == 0 {
            // What an earlier stage reached is not the run's result.
            (self.progress.best_top1, self.progress.best_epoch) = (NO_BEST, epoch);
        }
        let started = Instant::now();
        let learning_rate = self.training.begin_epoch(epoch, &mut *self.device)?;
        let counters = self.training.run_epoch(&mut *self.device, || {
            bar.inc(1);
            self.writer.check()
        })?;
        let trained = started.elapsed().as_secs_f64();
        let samples = (settings.batch_size * self.training.steps) as f64;
        let loss = f64::from(counters[counter::LOSS]) / self.training.steps as f64;
        bar.suspend(|| self.check_epoch(epoch, &counters))?;
        let (test, class_prior) = self.evaluate(epoch)?;
        let [confidence, label_accuracy] = self.training.confidence_statistics(&mut *self.device)?;
        let train = &self.data.train;
        let metrics = EpochMetrics {
            epoch,
            learning_rate,
            loss,
            train_accuracy: metrics::percent(
                f64::from(counters[counter::CORRECT]),
                self.training.known_in_epoch(epoch),
            ),
            chosen: self.training.chosen(&mut *self.device)?,
            mean_max_confidence: confidence,
            label_accuracy: metrics::percent(
                label_accuracy * train.len() as f64,
                train.labels.iter().flatten().count(),
            ),
            prior_distance: class_prior
                .as_ref()
                .zip(self.counts.as_ref())
                .map(|(prior, counts)| evaluate::prior_distance(prior, counts)),
            class_prior,
            test,
        };
        let times = EpochTimes {
            epoch,
            seconds: started.elapsed().as_secs_f64(),
            images_per_second: samples * self.training.engine.step.images as f64 / trained,
        };
        match divergence::in_figures(&metrics) {
            Some(sign) => Err(self.diverged(epoch, &sign)),
            None => Ok((metrics, times)),
        }
    }

    /// Whether the steps of an epoch, with these counters, and the state after them are fit to go on from;
    /// ends the epoch for the method.
    fn check_epoch(&mut self, epoch: usize, counters: &[f32]) -> Result<()> {
        if let Some((step, what)) = divergence::first_step(counters) {
            let now = self.training.not_finite(&mut *self.device)?;
            let now = now.map_or(String::new(), |now| format!(" (after the epoch, {now})"));
            let steps = self.training.steps;
            let sign = format!("{what} are not finite from step {step} of {steps} on{now}");
            return Err(self.diverged(epoch, &sign));
        }
        if let Some(sign) = self.training.not_finite(&mut *self.device)? {
            return Err(self.diverged(epoch, &format!("after its last step, {sign}")));
        }
        if let Some(sign) = self.training.end_epoch(epoch, &mut *self.device)? {
            return Err(self.diverged(epoch, &sign));
        }
        if !self.has_grown
            && let Some(growth) = divergence::growth(&self.training.engine.model, &mut *self.device)?
        {
            self.has_grown = true;
            self.writer.log().say(&format!("epoch {epoch}: {growth}; lower --lr if the loss does not fall"));
        }
        Ok(())
    }

    /// The failure of this run in `epoch` with its first sign.
    fn diverged(&self, epoch: usize, sign: &str) -> anyhow::Error {
        divergence::failure(self.settings, epoch, sign, self.writer.path())
    }

    /// Test metrics and the estimated class prior after `epoch`, each where there is one.
    fn evaluate(&mut self, epoch: usize) -> Result<(Option<TestMetrics>, Option<Vec<f64>>)> {
        let evaluated = self.is_last(epoch) || (epoch + 1).is_multiple_of(self.settings.eval_every);
        let (mut test, mut log_prior) = (None, None);
        if let (true, Some(evaluation), Some(images)) = (evaluated, &self.evaluation, &self.data.test) {
            let (logits, prior) = evaluation.run(&mut *self.device)?;
            let (classes, counts) = (self.data.classes.len(), self.counts.as_deref());
            if let Some(sign) = divergence::in_logits(&logits, classes, "test") {
                return Err(self.diverged(epoch, &sign));
            }
            if evaluate::are_all_the_same(&logits, classes) {
                self.writer.log().say(&format!("epoch {epoch}: {}", divergence::SAME_LOGITS));
            }
            test = Some(evaluate::metrics(&logits, &images.labels, classes, counts));
            log_prior = prior;
        } else if let (true, Some(prior)) = (evaluated, self.training.engine.model.debias.estimate()) {
            log_prior = Some(self.device.read_f32(prior.log_prior)?);
        }
        let class_prior = self.training.class_prior_estimate(log_prior.as_deref(), &mut *self.device)?;
        Ok((test, class_prior))
    }

    /// Hands a finished epoch over to be written.
    fn record(&mut self, metrics: EpochMetrics, times: EpochTimes) -> Result<()> {
        let epoch = metrics.epoch;
        self.progress.epochs_done = epoch + 1;
        let top1 = metrics.test.as_ref().map(|test| test.top1);
        // Without test images the last is taken for the best.
        let is_best = match top1 {
            Some(top1) => top1 > self.progress.best_top1,
            None => self.is_last(epoch) && self.data.test.is_none(),
        };
        if let (true, Some(top1)) = (is_best, top1) {
            (self.progress.best_top1, self.progress.best_epoch) = (top1, epoch);
        }
        let is_due = self.is_last(epoch) || is_best || (epoch + 1).is_multiple_of(self.checkpoint_interval());
        let checkpoint = match is_due {
            true => Some(Checkpoint::collect(
                &self.training.engine,
                self.progress.clone(),
                &self.config,
                &self.fingerprint,
                &mut *self.device,
            )?),
            false => None,
        };
        let epochs_to_best = self.epochs_to_best();
        self.writer.write(FinishedEpoch { metrics, times, checkpoint, is_best, epochs_to_best })
    }

    /// Epochs between two checkpoints.
    fn checkpoint_interval(&self) -> usize {
        match self.settings.checkpoint_every {
            0 => checkpoint::interval(self.device.name(), self.training.epoch_flops()),
            every => every,
        }
    }

    fn is_last(&self, epoch: usize) -> bool {
        epoch + 1 == epochs(self.settings)
    }

    /// Shows what came out.
    fn finish(&mut self) -> Result<()> {
        let Progress { epochs_done, best_top1, best_epoch, .. } = self.progress;
        let folder = self.writer.folder()?;
        let kept = if folder.has_best() { "" } else { ", its state is in no file" };
        let best = format!("{best_top1:.2} % (epoch {best_epoch}{kept})");
        let lines = run_folder::metrics(folder.path());
        match lines.iter().find(|line| line.epoch + 1 == epochs_done) {
            Some(last) => folder.say(&metrics::final_table(last, &best)),
            None => folder.say(&format!(
                "metrics.jsonl has no line of the last epoch, so there is no table; best top-1 {best}; records eval shows more"
            )),
        }
        let shown = printable(&folder.path().display().to_string());
        folder.say(&format!(
            "run folder {shown}: config.toml, metrics.jsonl, times.jsonl, log.txt, checkpoints"
        ));
        Ok(())
    }
}
