//! Checkpoints: one safetensors file with everything that evaluation and resuming need.
//!
//! Tensors: the network's state_dict under the reference's names (`encoder.*`, `fc.*`, with running statistics and
//! `num_batches_tracked`), `momentum.<parameter>`, `feat_mean` where there is a debias, and `confidence` `[N,K]`. Metadata: the
//! run's configuration, the number of epochs done, class names and counts, the best accuracy so far, and a CRC-32C of all
//! the rest. In PyTorch: `model.load_state_dict(safetensors.torch.load_file(path), strict=False)`.
//!
//! No random state is stored because there is none: random numbers are functions of (seed, purpose, epoch, sample, view).

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::model::Model;
use super::tensor_file::{TensorFile, Values};
use crate::device::Device;
use crate::nn::StateDict;
use crate::pll::ConfidenceStore;
use crate::usage;

/// Marks our files and their version.
const FORMAT: &str = "records checkpoint 1";

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epochs_done: usize,
    /// Best test top-1 so far, percent, and its epoch (from 0).
    pub best_top1: f64,
    pub best_epoch: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Training samples of each class; `None` where true classes are unknown.
    pub train_counts: Option<Vec<usize>>,
}

/// A checkpoint in memory.
pub struct Checkpoint {
    pub progress: Progress,
    /// The run's configuration as TOML.
    pub config: String,
    file: TensorFile,
}

impl Checkpoint {
    /// Collects the state of a run.
    pub fn collect(
        model: &Model,
        store: &ConfidenceStore,
        progress: Progress,
        config: &str,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let mut file = TensorFile::default();
        file.extend(model.export(device)?);
        file.add_batch_counters(&model.parameters);
        let confidence = Values::F32(device.read_f32(store.confidence)?);
        file.tensors.insert("confidence".into(), (vec![store.samples, store.classes], confidence));
        file.metadata.insert("format".into(), FORMAT.into());
        file.metadata.insert("config".into(), config.into());
        file.metadata.insert("progress".into(), serde_json::to_string(&progress)?);
        Ok(Self { progress, config: config.into(), file })
    }

    /// Writes the checkpoint whole or not at all.
    ///
    /// # Errors
    /// A usage error naming the file.
    pub fn write(&mut self, path: &Path) -> Result<()> {
        let checksum = self.file.checksum("checksum")?;
        self.file.metadata.insert("checksum".into(), format!("{checksum:08x}"));
        self.file.write(path)
    }

    /// Reads a checkpoint and verifies its checksum.
    ///
    /// # Errors
    /// A usage error naming the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = TensorFile::read(path)?;
        let name = path.display();
        let text = |key: &str| {
            let value = file.metadata.get(key);
            value.ok_or_else(|| usage!("{name}: not a checkpoint of records (no '{key}' in its metadata)"))
        };
        let format = text("format")?;
        if format != FORMAT {
            return Err(usage!("{name}: format '{format}'; this version reads '{FORMAT}'"));
        }
        if *text("checksum")? != format!("{:08x}", file.checksum("checksum")?) {
            return Err(usage!(
                "{name}: the checksum does not match, the file is damaged; use an earlier checkpoint"
            ));
        }
        let progress = serde_json::from_str(text("progress")?)
            .map_err(|error| usage!("{name}: bad 'progress' metadata: {error}"))?;
        let config = text("config")?.clone();
        Ok(Self { progress, config, file })
    }

    /// All f32 tensors.
    pub fn state_dict(&self) -> StateDict {
        self.file.state_dict()
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
        if model.prior.is_some() {
            self.file.f32(super::model::MEAN_FEATURE)?;
        }
        Ok(())
    }

    /// Puts the confidences into `store`.
    ///
    /// # Errors
    /// A usage error when the file is of another training set.
    pub fn restore_confidence(&self, store: &ConfidenceStore, device: &mut dyn Device) -> Result<()> {
        let (shape, values) = self.file.f32("confidence")?;
        if shape != [store.samples, store.classes] {
            let (n, k) = (store.samples, store.classes);
            return Err(usage!(
                "the checkpoint's confidences are {shape:?}, but the training set is [{n}, {k}]"
            ));
        }
        device.write_f32(store.confidence, values)
    }
}
