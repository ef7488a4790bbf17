//! Optimisers: they update a network's parameters from their gradients.
//!
//! Each has a file or folder with its operation, CPU twin and kernel launches, and one word in [`registry`].

pub mod adamw;
pub mod loss_scale;
pub mod registry;
pub mod sgd;

use anyhow::Result;

pub use loss_scale::LossScale;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Tensor};

/// The hyperparameters of an optimiser that stay constant throughout a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// The weight of the past in the moving mean of the gradients.
    pub momentum: f32,
    /// The same for their squares, in optimisers that keep them.
    pub beta2: f32,
    /// Weight decay; each optimiser's operation says how it is applied.
    pub weight_decay: f32,
}

/// The flat arenas of all parameters.
#[derive(Clone, Copy, Debug)]
pub struct Arenas {
    /// The parameters, f32 `[len]`.
    pub values: Buffer,
    /// Their gradients, f32 `[len]`.
    pub gradients: Buffer,
    /// The rounded values, if the device's convolutions read a copy.
    pub copy: Option<Buffer>,
    /// What the gradients are multiplied by, in f16.
    pub scale: Option<LossScale>,
}

/// What an optimiser keeps between steps, initially zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimiserState {
    /// A value for every parameter, saved under `prefix` and the parameter's name, in its shape.
    PerParameter {
        /// What its name in files begins with.
        prefix: &'static str,
        /// f32, in the order of the parameters.
        arena: Buffer,
    },
    /// Values that belong to no parameter, saved under `name`.
    Whole {
        /// Its name in files.
        name: &'static str,
        /// f32.
        values: Buffer,
    },
}

impl OptimiserState {
    /// Its memory, f32.
    pub fn buffer(&self) -> Buffer {
        match *self {
            OptimiserState::PerParameter { arena, .. } => arena,
            OptimiserState::Whole { values, .. } => values,
        }
    }
}

/// An optimiser with its state on a device. Other crates can implement it as well.
pub trait Optimiser: Send + Sync {
    /// Appends a step: it updates the values and their copy from the gradients. The learning rate lies in
    /// `control` ([`LEARNING_RATE`](crate::ops::control::LEARNING_RATE)), because one recorded step serves
    /// all epochs.
    fn record(&self, tape: &mut Tape, arenas: &Arenas, control: Tensor);

    /// Its state.
    fn state(&self) -> Vec<OptimiserState>;

    /// Resets its state to zero.
    ///
    /// # Errors
    /// If the device fails.
    fn reset(&self, device: &mut dyn Device) -> Result<()> {
        let zero = |state: OptimiserState| device.write_f32(state.buffer(), &vec![0.0; state.buffer().len]);
        self.state().into_iter().try_for_each(zero)
    }
}
