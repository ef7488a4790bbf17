//! A whole run: data, network, epochs, evaluation, checkpoints.

mod finished;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::branch::Source;
use super::changes;
use super::checkpoint::{self, Checkpoint, Progress};
use super::choice::epochs;
use super::divergence::{self, Diverged};
use super::evaluate::{self, Evaluation, TestMetrics};
use super::looks::Looks;
use super::metrics::{self, EpochMetrics, EpochTimes};
use super::observed::{Confusion, TrackedSamples};
use super::part_of_epoch::PartOfEpoch;
use super::progress::RunProgress;
use super::run_folder::{self, RunFolder, Writer};
use super::stop::{Reason, Stop};
use super::together::{self, AfterStep};
use super::training::{EpochEnd, Training};
use super::{device_choice, resume_checks, room_on_gpu, tiles};
use crate::collective::World;
use crate::data::fingerprint::{Fingerprint, Part};
use crate::data::recipe::{Recipe, TrainingData, file_of, prepare_if};
use crate::data::registry;
use crate::device::Device;
use crate::error::{Stopped, exit_code, one_line, stopped};
use crate::ops::statistics::counter;
use crate::settings::{self, BatchnormChoice, OnDivergence, Settings};
use crate::text::printable;
use crate::usage;
use finished::KeptEpoch;

/// How often a run goes back after it has diverged: the last time with a thirty-second of the learning rate.
const MOST_ROLLBACKS: u32 = 5;

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
        unreadable: settings.unreadable(),
    })
}

/// Opens the folder of a new run, or of the one that `resume` names.
fn open_folder(
    settings: &Settings,
    config: &str,
    tiles: Option<&str>,
    resume: Option<&Path>,
) -> Result<RunFolder> {
    match resume {
        Some(resume) => RunFolder::open_to_resume(resume),
        None => {
            let stem = format!("{}-{}", settings.dataset, settings.method_words());
            RunFolder::create(&settings.exp_dir, settings.name.as_deref(), &stem, (config, tiles))
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
pub(crate) fn open_data(
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
                Part::Test => data.test_positions.of(sample),
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

/// So many processes, in words.
fn in_words(processes: usize) -> String {
    if processes == 1 { "one process".into() } else { format!("{processes} processes") }
}

/// The steps done of the epoch that follows those done, in words; nothing if there are none.
fn and_steps(progress: &Progress) -> String {
    match progress.steps_done {
        0 => String::new(),
        steps => format!(" and {steps} steps"),
    }
}

/// Trains as `settings` say, from the beginning or from `resume` (a run folder or one of its checkpoints).
/// Why a run failed stands in its log, too.
///
/// # Errors
/// Usage errors for bad settings, data and folders; a failed run when the loss diverges or a file cannot be
/// written; [`crate::error::Stopped`] where `stop` asked for it.
pub fn run(settings: &Settings, resume: Option<&Path>, stop: &Stop, world: &World) -> Result<()> {
    let mut run = Run::open(settings, resume, None, (stop, world))?;
    let restored = run.begin(|run| run.restore(resume));
    run.end(restored)
}

/// Trains a new run as `settings` say, whose name is that of its folder, from the checkpoint `from`, or the newest
/// of the run in that folder.
///
/// # Errors
/// As [`run`].
pub fn branch(settings: &Settings, from: &Path, stop: &Stop, world: &World) -> Result<()> {
    let source = Source::open(from)?;
    let mut run = Run::open(settings, None, Some(&source), (stop, world))?;
    let begun = run.begin(|run| run.begin_branch(&source));
    run.end(begun)
}

impl Run<'_> {
    /// Trains if the run has `begun`, and sees to it that log and report say how it ended.
    fn end(mut self, begun: Result<()>) -> Result<()> {
        let run = &mut self;
        let result = begun.and_then(|()| run.train());
        // A resume that is refused has not failed: the run is as it was.
        if let Err(error) = &result
            && (exit_code(error) == 1 || stopped(error).is_some())
        {
            // What is finished is written first, so that the reason is the log's last line.
            let _ = run.hand_over();
            let _ = run.writer.wait();
            run.writer.log().note_end(error);
            if let Ok(Some(folder)) = run.writer.here() {
                folder.write_report();
            }
        }
        result
    }
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
    /// The samples whose confidence is written down.
    tracked: TrackedSamples,
    /// The confusion matrix of the epoch under way, once it is evaluated.
    confusion: Option<Confusion>,
    /// The epoch before, if its state is still to be read back.
    kept: Option<KeptEpoch>,
    /// Whether it has been said that the network's values grow out of proportion.
    has_grown: bool,
    /// Whether it has been said that samples have no confidence in any class.
    has_empty_rows: bool,
    /// Whether the run is to stop early.
    stop: &'a Stop,
    /// The processes that train together.
    world: &'a World,
    /// What is done of the epoch to go on with.
    part: Option<PartOfEpoch>,
    looks: Looks,
    /// Whether this process has done anything yet: however short its time, it does a step.
    has_advanced: bool,
}

/// Test metrics and the estimated class prior after an epoch, each where there is one.
type AfterEpoch = (Option<TestMetrics>, Option<Vec<f64>>);

impl<'a> Run<'a> {
    /// Opens device, data (which must be those of the checkpoint to go on from), network and, last, the
    /// folder.
    fn open(
        settings: &'a Settings,
        resume: Option<&Path>,
        branch: Option<&Source>,
        (stop, world): (&'a Stop, &'a World),
    ) -> Result<Self> {
        settings.validate()?;
        let threads = if settings.threads == 0 { world.threads() } else { settings.threads };
        let chosen =
            device_choice::open_nth(settings.device, settings.precision, threads, world.local_rank())?;
        let mut device = chosen.device;
        together::agree_on_settings(world, settings, &*device)?;
        let joint = settings.batchnorm == BatchnormChoice::Joint;
        let tiles_note = tiles::choose(world, resume, &mut *device)?;
        device.join(world.clone().with_joint_batchnorm(joint))?;
        let resumed = if world.is_first() { peek(settings, resume)? } else { None };
        let (data, fingerprint) = open_data(settings, resumed.as_ref())?;
        together::agree_on_data(world, &fingerprint)?;
        let counts = data.counts();
        let activations = device.activations();
        let explained = |error| room_on_gpu::explain(error, settings, &data, activations);
        let training = Training::new(settings, &data, &mut *device).map_err(explained)?;
        let evaluation = data.test.as_ref().map(|test| {
            Evaluation::of_set(&training.engine.model, test, data.test_normalisation, &mut *device)
        });
        let evaluation = evaluation.transpose().map_err(explained)?;
        let config = settings::config_toml(settings)?;
        let tiles = tiles::to_keep(&*device)?;
        let mut folder = None;
        let path = world.from_first(|| {
            let opened = match (branch, &settings.name) {
                (Some(_), Some(name)) => RunFolder::create_branch(&settings.exp_dir, name, tiles.as_deref())?,
                _ => open_folder(settings, &config, tiles.as_deref(), resume)?,
            };
            Ok(folder.insert(opened).path().as_os_str().as_bytes().to_vec())
        })?;
        let writer = match folder {
            Some(folder) => Writer::new(folder),
            None => Writer::elsewhere(OsString::from_vec(path).into()),
        };
        tiles_note.iter().for_each(|note| writer.log().say(note));
        let progress = Progress {
            epochs_done: 0,
            best_top1: NO_BEST,
            best_epoch: 0,
            classes: data.classes.clone(),
            train_counts: counts.clone(),
            steps_done: 0,
            rollbacks: 0,
            seconds: 0.0,
            further_processes: world.size() - 1,
            tiles: tiles::digest(&*device),
        };
        let tracked = TrackedSamples::choose(&data)?;
        Ok(Self {
            tracked,
            confusion: None,
            kept: None,
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
            has_empty_rows: false,
            stop,
            world,
            part: None,
            looks: Looks::new(),
            has_advanced: false,
        })
    }

    /// Runs the epochs that are left.
    fn train(&mut self) -> Result<()> {
        self.introduce();
        self.stop.listen()?;
        let epochs = epochs(self.settings);
        let bars = RunProgress::new(self.progress.epochs_done, epochs, self.training.steps);
        while self.progress.epochs_done < epochs {
            let epoch = self.progress.epochs_done;
            if let Some(reason) = self.after_step(false)?.stop.filter(|_| self.has_advanced) {
                return Err(self.stop_before(epoch, reason)?);
            }
            bars.begin_epoch(self.part.as_ref().map_or(0, |part| part.steps));
            if let Err(error) = self.run_epoch(epoch, &bars) {
                // The epoch before comes first, also where it is found to have diverged.
                let error =
                    self.hand_over().err().filter(|earlier| earlier.is::<Diverged>()).unwrap_or(error);
                bars.suspend(|| self.roll_back(error))?;
                bars.go_back(self.progress.epochs_done);
            }
        }
        self.hand_over()?;
        self.writer.wait()?;
        bars.finish();
        self.finish()
    }

    /// Trains and evaluates an epoch, and hands it over to be written.
    fn run_epoch(&mut self, epoch: usize, bars: &RunProgress) -> Result<()> {
        let (metrics, times) = self.epoch(epoch, bars)?;
        bars.suspend(|| self.writer.log().say_row(&metrics.row(&times)));
        let (of_epoch, of_times) = (metrics.clone(), times.clone());
        self.record(metrics, times)?;
        let Progress { best_top1, best_epoch, .. } = self.progress;
        let best = (best_top1 >= 0.0).then_some((best_top1, best_epoch));
        bars.end_epoch(&of_epoch, &of_times, best);
        Ok(())
    }

    /// Goes back to the last checkpoint of a run that has diverged, with half the learning rate, if the settings
    /// say so; otherwise ends with `error`, as with all others.
    ///
    /// The checkpoint is replaced by one that knows of it before anything else: a run that is killed at any
    /// moment goes back to the same state with the same rate.
    fn roll_back(&mut self, error: anyhow::Error) -> Result<()> {
        let sign = match error.downcast_ref::<Diverged>() {
            Some(diverged) if self.settings.on_divergence == OnDivergence::Rollback => diverged.sign.clone(),
            _ => return Err(error),
        };
        if self.progress.rollbacks >= MOST_ROLLBACKS {
            return Err(error.context(format!("after going back {MOST_ROLLBACKS} times")));
        }
        self.writer.wait()?;
        // Never inside an epoch: a run that was not stopped there has no such state.
        let mut path = self.writer.path().to_path_buf();
        let newest = together::checkpoint_of_first(self.world, || {
            let newest = run_folder::resumable(self.writer.path()).into_iter().find_map(|(found, done)| {
                let checkpoint = run_folder::read_resumable(&found, Some(done?)).ok()?;
                path = found;
                Some(checkpoint)
            });
            Ok(newest)
        });
        let Some(checkpoint) = newest? else { return Err(error) };
        self.writer.log().say(&printable(&sign));
        self.restore_from(checkpoint, &path)?;
        self.set_rollbacks(self.progress.rollbacks + 1);
        let mut again = self.collect()?;
        let best = self.epochs_to_best();
        let (done, factor) = (self.progress.epochs_done, self.training.rate_factor);
        let Some(folder) = self.writer.here()? else { return Ok(()) };
        folder.go_back_again(&mut again, best)?;
        folder.say(&format!("going back to {done} epochs, with learning rates times {factor}"));
        folder.observe(done, &self.tracked);
        Ok(())
    }

    fn set_rollbacks(&mut self, rollbacks: u32) {
        self.progress.rollbacks = rollbacks;
        self.training.rate_factor = 0.5f64.powi(rollbacks as i32);
    }

    /// What the processes have agreed on after a step; `look` is whether this one is to look at its counters.
    fn after_step(&self, look: bool) -> Result<AfterStep> {
        AfterStep { stop: self.stop.requested(), look }.agreed(self.world)
    }

    /// Makes the run's state and folder ready as `begins` says, on the first process; the others take its
    /// state.
    fn begin(&mut self, begins: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.world.is_alone() {
            return begins(self);
        }
        let world = self.world;
        let state = together::checkpoint_of_first(world, || {
            begins(self)?;
            let state = self.collect()?;
            Ok(Some(match &self.part {
                Some(part) => state.with_part(part, &self.training.engine)?,
                None => state,
            }))
        })?;
        let Some(state) = state.filter(|_| !world.is_first()) else { return Ok(()) };
        self.config = state.config.clone();
        let path = self.writer.path().to_path_buf();
        self.restore_from(state, &path)
    }

    /// Puts back the state that `resume` names and makes the folder ready to go on from it: that of a
    /// checkpoint, or of the newest in a folder that is whole and fits.
    fn restore(&mut self, resume: Option<&Path>) -> Result<()> {
        match resume {
            None => {}
            Some(folder) if folder.is_dir() => self.restore_newest()?,
            Some(file) => {
                self.restore_from(Checkpoint::read(file)?, file)?;
                self.writer.folder()?.go_back(file, self.progress.epochs_done)?;
            }
        }
        let best = self.epochs_to_best();
        self.writer.folder()?.begin(self.progress.epochs_done, best)?;
        if resume.is_some() {
            self.note_changes()?;
        }
        self.say_where();
        self.writer.folder()?.observe(self.progress.epochs_done, &self.tracked);
        Ok(())
    }

    /// Writes down what changed since the run's settings were written.
    fn note_changes(&mut self) -> Result<()> {
        let folder = self.writer.folder()?;
        self.config = folder.config()?;
        if let Some((config, notes)) = changes::on_resume(&self.config, self.settings, &self.progress)? {
            folder.write_config(&config)?;
            notes.iter().for_each(|note| folder.say(note));
            self.config = config;
        }
        Ok(())
    }

    /// Takes over what fits of another run's state, and writes it down as this run's.
    fn begin_branch(&mut self, source: &Source) -> Result<()> {
        let Source { checkpoint, .. } = source;
        let shown = source.shown();
        let (config, said) =
            changes::on_branch(&checkpoint.config, self.settings, &checkpoint.progress, &shown)?;
        let data = checkpoint.data.changes(&self.fingerprint, &|_, _| None);
        let anew = checkpoint
            .restore_what_fits(&mut self.training, data.is_empty(), &mut *self.device)
            .map_err(|error| usage!("{shown}: {}", one_line(&error)))?;
        self.config = config;
        self.progress.epochs_done = checkpoint.progress.epochs_done;
        self.progress.best_epoch = checkpoint.progress.epochs_done;
        let mut begun = self.collect()?;
        let folder = self.writer.folder()?;
        folder.begin_branch(&mut begun, source.folder())?;
        folder.say(&said);
        data.iter().for_each(|change| folder.say(&format!("other data: {change}")));
        if !anew.is_empty() {
            folder.say(&format!("starts anew: {}", anew.join(", ")));
        }
        self.say_where();
        self.writer.folder()?.observe(self.progress.epochs_done, &self.tracked);
        Ok(())
    }

    fn restore_newest(&mut self) -> Result<()> {
        let mut first_error = None;
        for (path, done) in run_folder::resumable(self.writer.path()) {
            let read = run_folder::read_resumable(&path, done);
            match read.and_then(|checkpoint| self.restore_from(checkpoint, &path)) {
                Ok(()) => return self.writer.folder()?.follow(&path, self.progress.epochs_done),
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
        self.part = checkpoint
            .restore(&mut self.training, &mut *self.device)
            .map_err(|error| usage!("{shown}: {}", one_line(&error)))?;
        if let Some(folder) = self.writer.here()? {
            folder.restore_config(&checkpoint.config)?;
        }
        let of_file = checkpoint.progress.further_processes;
        let tiles = tiles::digest(&*self.device);
        let change = tiles::change(&checkpoint.progress.tiles, &tiles);
        change.iter().for_each(|change| self.writer.log().say(change));
        self.progress = Progress { further_processes: self.world.size() - 1, tiles, ..checkpoint.progress };
        if of_file != self.progress.further_processes {
            self.writer.log().say(&format!(
                "the state was computed by {} and goes on with {}: sums are added in another order, so bits differ \
                 from here on",
                in_words(of_file + 1),
                in_words(self.world.size())
            ));
        }
        self.set_rollbacks(self.progress.rollbacks);
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
        let Self { settings, device, data, counts, training, writer, .. } = self;
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
        if !self.world.is_alone() {
            log.say(&together::introduction(self.world, settings, training));
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
        log.say(metrics::HEADER);
    }

    /// Says where the run goes on: before its report is written, for which the log ended with the end of the
    /// process before.
    fn say_where(&self) {
        let (log, progress) = (self.writer.log(), &self.progress);
        if progress.epochs_done > 0 {
            log.say(&format!("resuming after {} epochs{}", progress.epochs_done, and_steps(progress)));
        } else if progress.steps_done > 0 {
            log.say(&format!("resuming after {} steps", progress.steps_done));
        }
    }

    /// Trains and evaluates one epoch.
    fn epoch(&mut self, epoch: usize, bar: &RunProgress) -> Result<(EpochMetrics, EpochTimes)> {
        let settings = self.settings;
        let at = self.training.at(epoch);
        if let Some(name) = self.training.stage_name(at) {
            bar.suspend(|| self.writer.log().say(name));
        }
        let started = Instant::now();
        let part = self.part.take();
        let (from, before) = part.as_ref().map_or((0, 0.0), |part| (part.steps, part.seconds));
        let learning_rate = match &part {
            None => self.training.begin_epoch(epoch, &mut *self.device)?,
            Some(part) => self.training.continue_epoch(epoch, part, &mut *self.device)?,
        };
        let seconds = || before + started.elapsed().as_secs_f64();
        let counters = self.run_steps(epoch, from, &seconds, bar)?;
        let trained = started.elapsed().as_secs_f64();
        let samples = (settings.batch_size * (self.training.steps - from)) as f64;
        bar.suspend(|| self.check_epoch(epoch, &counters))?;
        let evaluated = Instant::now();
        let Some((test, class_prior)) = self.evaluate(epoch)? else {
            let steps = self.training.steps;
            let reason = self.stop.requested().context("an evaluation was left for no reason")?;
            return Err(self.stop_inside(epoch, [steps, steps], seconds(), reason)?);
        };
        let evaluation_seconds = Some(evaluated.elapsed().as_secs_f64());
        let metrics = self.results(epoch, learning_rate, &counters, (test, class_prior))?;
        let times = EpochTimes {
            epoch,
            seconds: seconds(),
            training_seconds: Some(trained),
            evaluation_seconds,
            images_per_second: samples * self.training.engine.step.images as f64 / trained,
        };
        match divergence::in_figures(&metrics, self.data.classes.len()) {
            Some(sign) => Err(self.diverged(epoch, &sign)),
            None => Ok((metrics, times)),
        }
    }

    /// The results of an epoch that has been trained and tested.
    fn results(
        &mut self,
        epoch: usize,
        learning_rate: f64,
        counters: &[f32],
        (test, class_prior): AfterEpoch,
    ) -> Result<EpochMetrics> {
        let [confidence, label_accuracy] = self.training.confidence_statistics(&mut *self.device)?;
        let train = &self.data.train;
        Ok(EpochMetrics {
            epoch,
            learning_rate,
            loss: f64::from(counters[counter::LOSS]) / self.training.steps as f64,
            train_accuracy: metrics::percent(
                f64::from(counters[counter::CORRECT]),
                self.training.known_in_epoch(epoch),
            ),
            chosen: self.training.chosen(&mut *self.device)?,
            steps_left_out: self.training.steps_left_out(&mut *self.device)?,
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
        })
    }

    /// Runs the steps of a begun epoch that are left after the first `from`, and reads the counters. `seconds`
    /// is how long the epoch has taken.
    fn run_steps(
        &mut self,
        epoch: usize,
        from: usize,
        seconds: &dyn Fn() -> f64,
        bar: &RunProgress,
    ) -> Result<Vec<f32>> {
        self.looks.restart();
        for done in from + 1..=self.training.steps {
            self.training.run_step(&mut *self.device)?;
            self.has_advanced = true;
            bar.step();
            self.writer.check()?;
            let look = self.looks.is_due(&*self.device);
            let AfterStep { stop, look } = self.after_step(look)?;
            if look || done == self.training.steps {
                // The device has steps to do: half a second's, or all that are left.
                self.hand_over()?;
            }
            if look {
                let counters = self.training.engine.counters(&mut *self.device)?;
                self.looks.looked();
                self.check_steps(epoch, done, &counters)?;
            }
            if let Some(reason) = stop {
                return Err(self.stop_inside(epoch, [done, self.training.steps], seconds(), reason)?);
            }
        }
        self.training.end_steps(&mut *self.device)
    }

    /// Writes down the state inside an epoch, after `done` of its steps; returns what to end with.
    fn stop_inside(
        &mut self,
        epoch: usize,
        [done, of]: [usize; 2],
        seconds: f64,
        reason: Reason,
    ) -> Result<anyhow::Error> {
        self.hand_over()?;
        let counters = self.training.engine.counters(&mut *self.device)?;
        self.check_steps(epoch, done, &counters)?;
        if let Some(sign) = self.training.not_finite(&mut *self.device)? {
            return Err(self.diverged(epoch, &format!("after step {done} of {of}, {sign}")));
        }
        let part = PartOfEpoch::take(&self.training.engine, done, seconds, &mut *self.device)?;
        let mut checkpoint = self.collect()?.with_part(&part, &self.training.engine)?;
        if let Some(folder) = self.writer.here()? {
            folder.save_stopped(&mut checkpoint)?;
        }
        self.stopped(&format!("in epoch {epoch} after {done} of {of} steps"), reason)
    }

    /// Writes down the state before `epoch`, unless a checkpoint holds it; returns what to end with.
    fn stop_before(&mut self, epoch: usize, reason: Reason) -> Result<anyhow::Error> {
        self.hand_over()?;
        if epoch > 0 && !self.is_due(epoch - 1) {
            let mut checkpoint = self.collect()?;
            if let Some(folder) = self.writer.here()? {
                folder.save_stopped(&mut checkpoint)?;
            }
        }
        self.stopped(&format!("before epoch {epoch}"), reason)
    }

    /// What a run that stops early ends with, once everything is on the disk.
    fn stopped(&mut self, place: &str, reason: Reason) -> Result<anyhow::Error> {
        self.writer.wait()?;
        let shown = printable(&self.writer.path().display().to_string());
        let line =
            format!("{}{reason} {place}; go on with: records train --resume {shown}", run_folder::STOPPED_BY);
        Ok(Stopped { line, code: reason.exit_code() }.into())
    }

    /// The state of the run as it is now.
    fn collect(&mut self) -> Result<Checkpoint> {
        let (engine, progress) = (&self.training.engine, self.progress.clone());
        Checkpoint::collect(engine, progress, &self.config, &self.fingerprint, &mut *self.device)
    }

    /// Ends a run whose counters, after `done` steps of `epoch`, say that a step had values that are not finite,
    /// or that its loss has exploded.
    fn check_steps(&mut self, epoch: usize, done: usize, counters: &[f32]) -> Result<()> {
        let Some((step, what)) = divergence::first_step(counters) else {
            let Some(sign) = divergence::exploded_loss(counters) else { return Ok(()) };
            return Err(
                self.diverged(epoch, &format!("after step {done} of {}, {sign}", self.training.steps))
            );
        };
        let now = self.training.not_finite(&mut *self.device)?;
        let now = now.map_or(String::new(), |now| format!(" (now {now})"));
        let layer = match self.layer_of(epoch, step, done) {
            Ok(Some(layer)) => format!(", first in layer {}", printable(&layer)),
            // What cannot be found out is left out: the run has ended anyway.
            _ => String::new(),
        };
        let samples = divergence::samples_in_words(&self.training.samples_of(epoch, step));
        let steps = self.training.steps;
        let sign = format!(
            "{what} are not finite from step {step} of {steps} on{layer}; its training samples are {samples}{now}"
        );
        Err(self.diverged(epoch, &sign))
    }

    /// The first layer with statistics that are not finite after step `step` of `epoch`. If more steps are
    /// done by now, and the state before the epoch is in a checkpoint, they are run again up to this one, with
    /// the same bits.
    fn layer_of(&mut self, epoch: usize, step: usize, done: usize) -> Result<Option<String>> {
        if done > step {
            self.hand_over()?;
            self.writer.wait()?;
            let before = together::checkpoint_of_first(self.world, || {
                let all = run_folder::resumable(self.writer.path());
                let found = all.into_iter().find(|(_, at)| *at == Some(epoch));
                found.map(|(path, at)| run_folder::read_resumable(&path, at)).transpose()
            })?;
            let Some(before) = before else { return Ok(None) };
            before.restore(&mut self.training, &mut *self.device)?;
            self.training.begin_epoch(epoch, &mut *self.device)?;
            (0..step).try_for_each(|_| self.training.engine.run_step(&mut *self.device))?;
        }
        self.training.engine.model.parameters.first_layer_not_finite(&mut *self.device)
    }

    /// Whether the steps of an epoch, with these counters, and the state after them are fit to go on from.
    fn check_epoch(&mut self, epoch: usize, counters: &[f32]) -> Result<()> {
        together::check_state(self.world, &self.training, &mut *self.device)?;
        self.check_steps(epoch, self.training.steps, counters)?;
        if let Some(sign) = self.training.not_finite(&mut *self.device)? {
            return Err(self.diverged(epoch, &format!("after its last step, {sign}")));
        }
        if let Some(scale) = self.training.engine.model.loss_scale
            && let Some(sign) = scale.problem(&mut *self.device)?
        {
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

    /// Ends `epoch` for the method; returns what is known after it, or `None` if the run is to stop before
    /// that.
    ///
    /// The test comes first, on which the method's end of the epoch has no effect: until it has ended, the state
    /// is that after the last step, from which a run that is stopped here goes on.
    fn evaluate(&mut self, epoch: usize) -> Result<Option<AfterEpoch>> {
        let (stop, has_advanced) = (self.stop, self.has_advanced);
        let goes_on = || stop.lets_go_on(has_advanced);
        let evaluated = self.is_last(epoch) || (epoch + 1).is_multiple_of(self.settings.eval_every);
        let (mut test, mut log_prior, mut tested) = (None, None, None);
        if let (true, Some(evaluation)) = (evaluated, &self.evaluation) {
            tested = evaluation.run_while(&goes_on, &mut *self.device)?;
            if tested.is_none() {
                return Ok(None);
            }
        }
        match self.training.end_epoch_while(epoch, &goes_on, &mut *self.device)? {
            EpochEnd::Done => {}
            EpochEnd::Left => return Ok(None),
            EpochEnd::Diverged(sign) => return Err(self.diverged(epoch, &sign)),
        }
        if let (Some((logits, prior)), Some(images)) = (tested, &self.data.test) {
            let (classes, counts) = (self.data.classes.len(), self.counts.as_deref());
            if let Some(sign) = divergence::in_logits(&logits, classes, "test") {
                return Err(self.diverged(epoch, &sign));
            }
            if evaluate::are_all_the_same(&logits, classes) {
                self.writer.log().say(&format!("epoch {epoch}: {}", divergence::SAME_LOGITS));
            }
            test = Some(evaluate::metrics(&logits, &images.labels, classes, counts));
            self.confusion = Some(Confusion::of(epoch, &self.data.classes, &logits, &images.labels));
            log_prior = prior;
        } else if let (true, Some(prior)) = (evaluated, self.training.engine.model.debias.estimate()) {
            log_prior = Some(self.device.read_f32(prior.log_prior)?);
        }
        let class_prior = self.training.class_prior_estimate(log_prior.as_deref(), &mut *self.device)?;
        Ok(Some((test, class_prior)))
    }

    /// Epochs between two checkpoints.
    fn checkpoint_interval(&self) -> usize {
        match self.settings.checkpoint_every {
            0 => checkpoint::interval(self.device.name(), self.training.epoch_flops()),
            every => every,
        }
    }

    /// Whether `epoch` gets a checkpoint even if it is not the best.
    fn is_due(&self, epoch: usize) -> bool {
        self.is_last(epoch) || (epoch + 1).is_multiple_of(self.checkpoint_interval())
    }

    fn is_last(&self, epoch: usize) -> bool {
        epoch + 1 == epochs(self.settings)
    }

    /// Shows what came out.
    fn finish(&mut self) -> Result<()> {
        let Progress { epochs_done, best_top1, best_epoch, .. } = self.progress;
        let Some(folder) = self.writer.here()? else { return Ok(()) };
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
            "run folder {shown}: report.html, config.toml, metrics.jsonl, times.jsonl, log.txt, checkpoints"
        ));
        Ok(())
    }
}
