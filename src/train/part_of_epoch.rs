//! An epoch that was left between two of its steps: what a checkpoint needs beyond the state after whole
//! epochs.
//!
//! Order of the samples, views and mixup weights are functions of the epoch's number, and the state of a
//! method with queues and prototypes is in every checkpoint. What is left are the sums over the epoch so far,
//! and the log-prior of the last step, which a run without test images reports.

use anyhow::{Result, bail, ensure};

use super::engine::Engine;
use super::tensor_file::{TensorFile, Values};
use crate::device::{Buffer, Device, Element};
use crate::usage;

/// The sums over the steps done of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct PartOfEpoch {
    /// Steps done, at least 1.
    pub steps: usize,
    /// Wall-clock seconds that they took.
    pub seconds: f64,
    /// The values of [`buffers`] in their order.
    values: Vec<Values>,
}

/// The buffers, f32 or i32, with their names in files.
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
        let mut values = Vec::new();
        for (_, buffer) in buffers(engine) {
            values.push(match buffer.element {
                Element::I32 => Values::I32(device.read_i32(buffer)?),
                _ => Values::F32(device.read_f32(buffer)?),
            });
        }
        Ok(Self { steps, seconds, values })
    }

    /// Adds the sums to a checkpoint's tensors.
    pub fn export(&self, engine: &Engine, file: &mut TensorFile) {
        for ((name, buffer), values) in buffers(engine).into_iter().zip(&self.values) {
            file.tensors.insert(name, (vec![buffer.len], values.clone()));
        }
    }

    /// Reads it from a checkpoint's tensors.
    ///
    /// # Errors
    /// A usage error naming a tensor that is missing or has another type or length.
    pub fn read(engine: &Engine, steps: usize, seconds: f64, file: &TensorFile) -> Result<Self> {
        let of = |(name, buffer): (String, Buffer)| match (file.tensors.get(&name), buffer.element) {
            (Some((shape, values @ Values::F32(_))), Element::F32)
            | (Some((shape, values @ Values::I32(_))), Element::I32)
                if *shape == [buffer.len] =>
            {
                Ok(values.clone())
            }
            (Some(_), element) => {
                Err(usage!("tensor '{name}': must be {element:?} of shape [{}]", buffer.len))
            }
            (None, _) => Err(usage!("tensor '{name}': is not there")),
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
        for ((_, buffer), values) in buffers.into_iter().zip(&self.values) {
            match values {
                Values::F32(values) => device.write_f32(buffer, values)?,
                Values::I32(values) => device.write_i32(buffer, values)?,
                _ => bail!("sums of an epoch are f32 or i32"),
            }
        }
        Ok(())
    }
}
