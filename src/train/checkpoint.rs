//! Checkpoints: one safetensors file with everything that evaluation and resuming need.
//!
//! Tensors: the network's state_dict under the reference's names (`encoder.*`, `fc.*`, with running
//! statistics and `num_batches_tracked`), `momentum.<parameter>`, `feat_mean` where RECORDS estimates a class
//! prior, `confidence` `[N,K]`, and what the method keeps besides ([`crate::pll::Learner::state`]). Metadata:
//! the run's configuration, the number of epochs done, class names and counts, the best accuracy so far, a
//! fingerprint of the data that the state belongs to, and a CRC-32C of all the rest. Every value is finite; a
//! file with another one is refused. In PyTorch: `model.load_state_dict(safetensors.torch.load_file(path),
//! strict=False)`.
//!
//! No random state is stored because there is none: random numbers are functions of (seed, purpose, epoch,
//! sample, view).

use std::path::Path;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::choice;
use super::divergence;
use super::engine::{self, Engine};
use super::model::Model;
use super::part_of_epoch::PartOfEpoch;
use super::tensor_file::{TensorFile, Values};
use super::training::Training;
use crate::data::MAX_CLASSES;
use crate::data::fingerprint::Fingerprint;
use crate::device::Device;
#[cfg(doc)]
use crate::device::gpu::tiles::Tiles;
use crate::nn::StateDict;
use crate::pll::method::{MOST_STAGES, StateTensor};
use crate::pll::{ConfidenceStore, Learner};
use crate::settings::Settings;
use crate::text::excerpt;
use crate::{settings, usage};

/// Marks our files and their version.
const FORMAT: &str = "records checkpoint 2";

/// FLOPs after which a checkpoint pays on a GPU: some twenty seconds of work of one that does 40 TFLOP/s.
const WORTH_A_CHECKPOINT: f64 = 800e12;

/// Epochs between two checkpoints where the settings leave it open, on a device of that name whose epochs
/// take that many FLOPs: every epoch, but up to ten on a GPU that does one in a second or two. A function of
/// the run alone, never of time, so that a run that was killed keeps the same files as one that was not.
pub fn interval(device: &str, epoch_flops: f64) -> usize {
    match device {
        "cuda" => (WORTH_A_CHECKPOINT / epoch_flops.max(1.0)).clamp(1.0, 10.0) as usize,
        _ => 1,
    }
}

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epochs_done: usize,
    /// Best test top-1 so far, percent; below 0 while none has been evaluated in the stage that the run is in.
    pub best_top1: f64,
    /// The epoch, from 0, that reached it.
    pub best_epoch: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Training samples of each class; `None` where true classes are unknown.
    pub train_counts: Option<Vec<usize>>,
    /// Steps done of the epoch that follows; 0 in all checkpoints but those of a stopped run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub steps_done: usize,
    /// How often the run has diverged and gone back; each time halves the learning rate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rollbacks: u32,
    /// Wall-clock seconds that these steps took.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seconds: f64,
    /// Further processes that have computed the state: their number decides the order of sums.
    #[serde(default, skip_serializing_if = "is_default")]
    pub further_processes: usize,
    /// What the tiles that the state was computed with were chosen by ([`Tiles::digest`]): empty by the
    /// model. They decide the order of sums, too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tiles: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Progress {
    /// What arithmetic on these numbers relies on.
    fn check(&self) -> std::result::Result<(), String> {
        let most = MOST_STAGES * settings::MOST_EPOCHS;
        if self.epochs_done > most || self.best_epoch > most {
            return Err(format!("epochs {} and {}, at most {most}", self.epochs_done, self.best_epoch));
        }
        if !(0.0..=f64::MAX).contains(&self.seconds) {
            return Err(format!("{} seconds", self.seconds));
        }
        let counts = self.train_counts.as_deref().unwrap_or(&[1]);
        let sum = counts.iter().try_fold(0usize, |sum, &count| sum.checked_add(count));
        if sum.is_none_or(|sum| sum == 0 || sum > i32::MAX as usize) {
            return Err("'train_counts' are no numbers of training samples".into());
        }
        Ok(())
    }
}

/// A checkpoint in memory.
pub struct Checkpoint {
    /// How far the run is.
    pub progress: Progress,
    /// The run's configuration as TOML.
    pub config: String,
    /// The data that the state belongs to.
    pub data: Fingerprint,
    file: TensorFile,
}

impl Checkpoint {
    /// Collects the state of a run as it is.
    pub fn collect(
        engine: &Engine,
        progress: Progress,
        config: &str,
        data: &Fingerprint,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let mut file = TensorFile::default();
        engine.export(&mut file, device)?;
        Self::of_state(file, progress, config, data)
    }

    /// The checkpoint of a state that an engine has exported.
    pub fn of_state(
        mut file: TensorFile,
        progress: Progress,
        config: &str,
        data: &Fingerprint,
    ) -> Result<Self> {
        file.metadata.insert("format".into(), FORMAT.into());
        file.metadata.insert("config".into(), config.into());
        file.metadata.insert("progress".into(), serde_json::to_string(&progress)?);
        file.metadata.insert("data".into(), serde_json::to_string(data)?);
        Ok(Self { progress, config: config.into(), data: data.clone(), file })
    }

    /// The same inside the epoch that follows: `part` of it is done.
    pub fn with_part(mut self, part: &PartOfEpoch, engine: &Engine) -> Result<Self> {
        self.progress.steps_done = part.steps;
        self.progress.seconds = part.seconds;
        self.file.metadata.insert("progress".into(), serde_json::to_string(&self.progress)?);
        part.export(engine, &mut self.file);
        Ok(self)
    }

    /// Writes the checkpoint whole or not at all.
    ///
    /// # Errors
    /// A usage error naming the file.
    pub fn write(&mut self, path: &Path) -> Result<()> {
        self.seal()?;
        self.file.write(path)
    }

    /// The bytes of its file.
    pub fn to_bytes(&mut self) -> Result<Vec<u8>> {
        self.seal()?;
        self.file.to_bytes()
    }

    fn seal(&mut self) -> Result<()> {
        let checksum = self.file.checksum("checksum")?;
        self.file.metadata.insert("checksum".into(), format!("{checksum:08x}"));
        Ok(())
    }

    /// The checkpoint in the bytes that another process has sent.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file =
            TensorFile::from_bytes(bytes).map_err(|problem| anyhow!("the state of rank 0: {problem}"))?;
        Self::of_file(file, "the state of rank 0")
    }

    /// Reads a checkpoint and verifies its checksum.
    ///
    /// # Errors
    /// A usage error naming the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of_file(TensorFile::read(path)?, &path.display().to_string())
    }

    fn of_file(file: TensorFile, name: &str) -> Result<Self> {
        let text = |key: &str| {
            let value = file.metadata.get(key);
            value.ok_or_else(|| usage!("{name}: not a checkpoint of records (no '{key}' in its metadata)"))
        };
        let format = text("format")?;
        if format != FORMAT {
            let format = excerpt(format);
            return Err(usage!(
                "{name}: format '{format}'; this version reads '{FORMAT}', so use the version that wrote it or train again"
            ));
        }
        if *text("checksum")? != format!("{:08x}", file.checksum("checksum")?) {
            return Err(usage!(
                "{name}: the checksum does not match, the file is damaged; use an earlier checkpoint"
            ));
        }
        let unreadable =
            |key: &str, error: serde_json::Error| usage!("{name}: bad '{key}' metadata: {error}");
        let progress: Progress =
            serde_json::from_str(text("progress")?).map_err(|error| unreadable("progress", error))?;
        progress.check().map_err(|problem| usage!("{name}: bad 'progress' metadata: {problem}"))?;
        let data = serde_json::from_str(text("data")?).map_err(|error| unreadable("data", error))?;
        if let Some(problem) = divergence::first_of_dict(&file.state_dict()) {
            return Err(usage!(
                "{name}: {problem}: the state of a run that had diverged; use an earlier checkpoint"
            ));
        }
        let config = text("config")?.clone();
        Ok(Self { progress, config, data, file })
    }

    /// The settings of the run; `path` names the file in messages.
    ///
    /// # Errors
    /// A usage error if they cannot be read or are out of range.
    pub fn settings(&self, path: &Path) -> Result<Settings> {
        let shown = path.display();
        let settings: Settings = toml::from_str(&self.config)
            .map_err(|error| usage!("{shown}: its configuration: {}", error.message()))?;
        settings.validate().map_err(|error| usage!("{shown}: its configuration: {error}"))?;
        Ok(settings)
    }

    /// The network with its state and the debias, on a device; `path` names the file in messages.
    ///
    /// # Errors
    /// A usage error where the file's network, classes or class counts do not fit each other or `settings`;
    /// if the device has not enough memory.
    pub fn model(&self, settings: &Settings, path: &Path, device: &mut dyn Device) -> Result<Model> {
        let shown = path.display();
        let classes = self.progress.classes.len();
        if !(2..=MAX_CLASSES).contains(&classes) {
            return Err(usage!("{shown}: {classes} classes; must be 2 to {MAX_CLASSES}"));
        }
        let counts = self.progress.train_counts.as_deref();
        if counts.is_some_and(|counts| counts.len() != classes) {
            return Err(usage!("{shown}: its class counts do not fit its {classes} classes"));
        }
        let method = choice::method(settings);
        let mut model = engine::model(settings, &*method, classes, counts, device)?;
        self.restore_model(&mut model, device).map_err(|error| usage!("{shown}: {error}"))?;
        Ok(model)
    }

    /// The confidence rows with their shape `[N,K]`.
    ///
    /// # Errors
    /// A usage error if the file has none.
    pub fn confidence(&self) -> Result<(&[usize], &[f32])> {
        self.file.f32("confidence")
    }

    /// The first tensor whose values have exploded, in words.
    pub fn first_exploded(&self) -> Option<String> {
        divergence::first_exploded(self.file.tensors.iter().filter_map(|(name, (_, values))| match values {
            Values::F32(values) => Some((name, &values[..])),
            _ => None,
        }))
    }

    /// The samples without any confidence, in words, if there are such.
    pub fn empty_rows(&self) -> Option<String> {
        let (shape, rows) = self.confidence().ok()?;
        divergence::empty_rows(rows, *shape.get(1)?)
    }

    /// All f32 tensors.
    pub fn state_dict(&self) -> StateDict {
        self.file.state_dict()
    }

    /// Puts everything back into a run of the same settings. Returns what is done of the epoch that follows,
    /// if the run was stopped inside it.
    ///
    /// # Errors
    /// A usage error when the file is of another network or training set.
    pub fn restore(&self, training: &mut Training, device: &mut dyn Device) -> Result<Option<PartOfEpoch>> {
        let Progress { epochs_done, steps_done, seconds, .. } = self.progress;
        if steps_done > training.steps {
            return Err(usage!("{steps_done} steps of an epoch are done, which has {}", training.steps));
        }
        self.restore_model(&mut training.engine.model, device)?;
        self.restore_confidence(&training.engine.store, device)?;
        let steps = training.stage_steps(epochs_done) + steps_done;
        self.restore_method(&*training.engine.learner, steps, device)?;
        match steps_done {
            0 => Ok(None),
            _ => PartOfEpoch::read(&training.engine, steps_done, seconds, &self.file).map(Some),
        }
    }

    /// Puts back what fits of it into a run of other settings: the network, which must fit, and the state of
    /// optimiser, debias and method where the file has it; the confidence rows if `same_samples`. Returns what
    /// starts anew, in words.
    ///
    /// # Errors
    /// A usage error when the file is of another network.
    pub fn restore_what_fits(
        &self,
        training: &mut Training,
        same_samples: bool,
        device: &mut dyn Device,
    ) -> Result<Vec<String>> {
        let mut anew: Vec<String> = Vec::new();
        let engine = &mut training.engine;
        let dict = self.state_dict();
        let (found, wanted) = (engine.model.import(&dict, device)?, engine.model.parameters.tensor_count());
        if found != wanted {
            return Err(usage!("the checkpoint holds {found} of the network's {wanted} tensors"));
        }
        engine.model.parameters.batches_tracked =
            self.file.batch_counter(&engine.model.parameters)?.unwrap_or(0);
        let lacks = |name: &String| !dict.contains_key(name);
        if engine.model.export(device)?.keys().any(lacks) {
            anew.push("the state of the optimiser or the debias".into());
        }
        if same_samples {
            self.restore_confidence(&engine.store, device)?;
        } else {
            anew.push("the confidence rows, since the data differ".into());
        }
        let mut state = StateDict::new();
        for StateTensor { name, shape: wanted, .. } in engine.learner.state() {
            match self.file.f32(name) {
                Ok((shape, values)) if shape == wanted => {
                    _ = state.insert(name.into(), (wanted, values.to_vec()))
                }
                _ => anew.push(name.into()),
            }
        }
        let steps = training.stage_steps(self.progress.epochs_done);
        training.engine.learner.import(&state, Some(steps), device)?;
        Ok(anew)
    }

    /// Puts the network's part into `model`.
    ///
    /// # Errors
    /// A usage error when the file is of another network.
    pub fn restore_model(&self, model: &mut Model, device: &mut dyn Device) -> Result<()> {
        let found = model.import(&self.state_dict(), device)?;
        let wanted = model.parameters.tensor_count();
        if found != wanted {
            return Err(usage!("the checkpoint holds {found} of the network's {wanted} tensors"));
        }
        model.parameters.batches_tracked = self.file.batch_counter(&model.parameters)?.unwrap_or(0);
        if model.debias.estimate().is_some() {
            self.file.f32(super::model::MEAN_FEATURE)?;
        }
        Ok(())
    }

    fn restore_confidence(&self, store: &ConfidenceStore, device: &mut dyn Device) -> Result<()> {
        let (shape, values) = self.file.f32("confidence")?;
        if shape != [store.samples, store.classes] {
            let (n, k) = (store.samples, store.classes);
            return Err(usage!(
                "the checkpoint's confidences are {shape:?}, but the training set is [{n}, {k}]"
            ));
        }
        device.write_f32(store.confidence, values)
    }

    /// Puts back what the method keeps, as it was after `steps` steps of its stage.
    fn restore_method(&self, learner: &dyn Learner, steps: usize, device: &mut dyn Device) -> Result<()> {
        let mut state = StateDict::new();
        for StateTensor { name, shape: wanted, .. } in learner.state() {
            let (shape, values) = self.file.f32(name)?;
            if shape != wanted {
                return Err(usage!("tensor '{name}': shape {shape:?}; must be {wanted:?}"));
            }
            state.insert(name.into(), (wanted, values.to_vec()));
        }
        learner.import(&state, Some(steps), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_epochs_on_a_gpu_are_not_all_kept() {
        // 48 steps of 512 views of 3.35 GFLOP: CIFAR-10-LT.
        assert_eq!(interval("cuda", 48.0 * 512.0 * 3.35e9), 9);
        assert_eq!(interval("cuda", 0.0), 10);
        assert_eq!(interval("cuda", 1e15), 1);
        assert_eq!(interval("cpu", 1e9), 1);
    }
}
