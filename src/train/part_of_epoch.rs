//! An epoch that was left between two of its steps: what a checkpoint needs beyond the state after whole
//! epochs.
//!
//! Order of the samples, views and mixup weights are functions of the epoch's number, and the state of a
//! method with queues and prototypes is in every checkpoint. What is left are the sums over the epoch so far,
//! and the log-prior of the last step, which a run without test images reports.

use anyhow::{Result, ensure};

use super::engine::Engine;
use super::tensor_file::{TensorFile, Values};
use crate::device::{Buffer, Device};
use crate::usage;

/// The sums over the steps done of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct PartOfEpoch {
    /// Steps done, at least 1.
    pub steps: usize,
    /// Wall-clock seconds that they took.
    pub seconds: f64,
    /// The values of [`buffers`] in their order.
    values: Vec<Vec<f32>>,
}

/// The buffers, f32, with their names in files.
fn buffers(engine: &Engine) -> Vec<(String, Buffer)> {
    let counters = [("counters", engine.counters_buffer())];
    let prior = engine.model.debias.estimate().map(|prior| ("log_prior", prior.log_prior));
    let all = counters.into_iter().chain(prior).chain(engine.learner.sums_of_epoch());
    all.map(|(name, buffer)| (format!("epoch.{name}"), buffer)).collect()
}

impl PartOfEpoch {
    /// Reads it from the device after `steps` steps, which took `seconds`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn take(engine: &Engine, steps: usize, seconds: f64, device: &mut dyn Device) -> Result<Self> {
        let values = buffers(engine).into_iter().map(|(_, buffer)| device.read_f32(buffer));
        Ok(Self { steps, seconds, values: values.collect::<Result<_>>()? })
    }

    /// Adds the sums to a checkpoint's tensors.
    pub fn export(&self, engine: &Engine, file: &mut TensorFile) {
        for ((name, _), values) in buffers(engine).into_iter().zip(&self.values) {
            file.tensors.insert(name, (vec![values.len()], Values::F32(values.clone())));
        }
    }

    /// Reads it from a checkpoint's tensors.
    ///
    /// # Errors
    /// A usage error naming a tensor that is missing or has another length.
    pub fn read(engine: &Engine, steps: usize, seconds: f64, file: &TensorFile) -> Result<Self> {
        let of = |(name, buffer): (String, Buffer)| {
            let (shape, values) = file.f32(&name)?;
            if shape != [buffer.len] {
                return Err(usage!("tensor '{name}': shape {shape:?}; must be [{}]", buffer.len));
            }
            Ok(values.to_vec())
        };
        Ok(Self { steps, seconds, values: buffers(engine).into_iter().map(of).collect::<Result<_>>()? })
    }

    /// Puts the sums back.
    ///
    /// # Errors
    /// If the device fails.
    pub fn restore(&self, engine: &Engine, device: &mut dyn Device) -> Result<()> {
        let buffers = buffers(engine);
        ensure!(buffers.len() == self.values.len(), "the sums of another engine");
        buffers
            .iter()
            .zip(&self.values)
            .try_for_each(|((_, buffer), values)| device.write_f32(*buffer, values))
    }
}
