//! A whole run: data, network, epochs, evaluation, checkpoints.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::checkpoint::{Checkpoint, Progress};
use super::device_choice;
use super::evaluate::{self, Evaluation, ResidentImages};
use super::metrics::{self, EpochMetrics};
use super::run_folder::RunFolder;
use super::training::{EVALUATION_BATCH, StageEpoch, Training, epochs};
use crate::data::recipe::{Recipe, prepare};
use crate::device::primitive::counter;
use crate::settings::{self, Method, Settings};
use crate::usage;

/// The recipe of a run's data.
///
/// # Errors
/// A usage error for a name that is no data set.
pub fn recipe(settings: &Settings) -> Result<Recipe> {
    Ok(Recipe {
        dataset: settings.dataset.parse()?,
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

/// The settings without those that do not change what a run computes, which may differ on resuming.
pub(super) fn computation(settings: &Settings) -> Settings {
    Settings {
        device: settings::DeviceChoice::Auto,
        threads: 0,
        exp_dir: "".into(),
        name: None,
        data_dir: None,
        checkpoint_every: 1,
        eval_every: 1,
        ..settings.clone()
    }
}

/// Opens the run folder and the checkpoint to go on from.
fn open_folder(settings: &Settings, resume: Option<&Path>) -> Result<(RunFolder, Option<Checkpoint>)> {
    let config = settings::config_toml(settings)?;
    let Some(resume) = resume else {
        let stem = format!("{}-{}", settings.dataset, settings.method_words());
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
        if computation(settings) != computation(&made_with) {
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

/// Trains as `settings` say, from the beginning or from `resume` (a run folder or one of its checkpoints). Why a run failed
/// stands in its log, too.
///
/// # Errors
/// Usage errors for bad settings, data and folders; a failed run when the loss diverges or a file cannot be written.
pub fn run(settings: &Settings, resume: Option<&Path>) -> Result<()> {
    let mut folder = None;
    let result = train(settings, resume, &mut folder);
    if let (Err(error), Some(folder)) = (&result, &mut folder) {
        folder.note_failure(error);
    }
    result
}

/// As [`run`]; `opened` is the run's folder once there is one.
fn train(settings: &Settings, resume: Option<&Path>, opened: &mut Option<RunFolder>) -> Result<()> {
    settings.validate()?;
    let chosen = device_choice::open(settings.device, settings.precision, settings.threads)?;
    let mut device = chosen.device;
    let data = prepare(&recipe(settings)?)?;
    let counts = data.counts();
    let mut training = Training::new(settings, &data, &mut *device)?;
    let evaluation = match &data.test {
        None => None,
        Some(test) => {
            let images = ResidentImages::new(test, data.test_normalisation, &mut *device)?;
            Some(Evaluation::new(&training.model, images, EVALUATION_BATCH, &mut *device)?)
        }
    };
    let (folder, checkpoint) = open_folder(settings, resume)?;
    let folder = opened.insert(folder);

    let mut progress = Progress {
        epochs_done: 0,
        best_top1: 0.0,
        best_epoch: 0,
        classes: data.classes.clone(),
        train_counts: counts.clone(),
    };
    if let Some(checkpoint) = &checkpoint {
        checkpoint.restore(&mut training, &mut *device)?;
        progress = checkpoint.progress.clone();
    }
    folder.keep_metrics(progress.epochs_done)?;
    folder.say(&format!("device {} ({})", device.describe(), chosen.reason));
    folder.say(&format!(
        "data {}: {} training samples of {} classes ({}), {} test images",
        settings.dataset,
        data.train.len(),
        data.classes.len(),
        sizes(counts.as_deref()),
        data.test.as_ref().map_or("no".into(), |test| test.len().to_string()),
    ));
    for line in data.remarks(Some(settings.batch_size)) {
        folder.say(&line);
    }
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
    let epochs = epochs(settings);
    let remaining = epochs.saturating_sub(progress.epochs_done);
    let bar = progress_bar(remaining * training.steps);
    for epoch in progress.epochs_done..epochs {
        bar.set_message(format!("epoch {epoch}/{epochs}"));
        let at = StageEpoch::of(settings, epoch);
        if settings.method == Method::Solar && at.epoch == 0 {
            bar.suspend(|| folder.say(["estimating the class prior", "training"][at.stage as usize]));
            // What the first stage reached is not the run's result.
            (progress.best_top1, progress.best_epoch) = (0.0, epoch);
        }
        let started = Instant::now();
        let learning_rate = training.begin_epoch(epoch, &mut *device)?;
        let counters = training.run_epoch(epoch, &mut *device, || bar.inc(1))?;
        let trained = started.elapsed().as_secs_f64();
        let samples = (settings.batch_size * training.steps) as f64;
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
        let last = epoch + 1 == epochs;
        let evaluated = last || (epoch + 1) % settings.eval_every == 0;
        let (mut test, mut log_prior) = (None, None);
        if let (true, Some(evaluation), Some(images)) = (evaluated, &evaluation, &data.test) {
            let (logits, prior) = evaluation.run(&mut *device)?;
            test = Some(evaluate::metrics(&logits, &images.labels, data.classes.len(), counts.as_deref()));
            log_prior = prior;
        } else if let (true, Some(prior)) = (evaluated, training.model.debias.estimate()) {
            log_prior = Some(device.read_f32(prior.log_prior)?);
        }
        let estimate = training.class_prior_estimate(log_prior.as_deref(), &mut *device)?;
        let [confidence, label_accuracy] = training.confidence_statistics(&mut *device)?;
        let epoch_metrics = EpochMetrics {
            epoch,
            learning_rate,
            loss,
            train_accuracy: metrics::percent(
                f64::from(counters[counter::CORRECT]),
                training.known_in_epoch(epoch),
            ),
            mean_max_confidence: confidence,
            label_accuracy: metrics::percent(
                label_accuracy * data.train.len() as f64,
                data.train.labels.iter().flatten().count(),
            ),
            prior_distance: estimate
                .as_ref()
                .zip(counts.as_ref())
                .map(|(prior, counts)| evaluate::prior_distance(prior, counts)),
            class_prior: estimate,
            test,
            seconds: started.elapsed().as_secs_f64(),
            images_per_second: samples * training.method.forwards() as f64 / trained,
        };
        progress.epochs_done = epoch + 1;
        let top1 = epoch_metrics.test.as_ref().map(|test| test.top1);
        // Without test images the last is taken for the best.
        let best = match top1 {
            Some(top1) => top1 > progress.best_top1,
            None => last && data.test.is_none(),
        };
        if let (true, Some(top1)) = (best, top1) {
            (progress.best_top1, progress.best_epoch) = (top1, epoch);
        }
        // Metrics first: a crash between the two leaves a line that resuming drops, never a checkpoint without its line.
        folder.append_metrics(&epoch_metrics)?;
        if last || best || (epoch + 1) % settings.checkpoint_every == 0 {
            let mut checkpoint = Checkpoint::collect(&training, progress.clone(), &config, &mut *device)?;
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
