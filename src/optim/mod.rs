//! Optimisers: what renews a network's parameters from their gradients.
//!
//! One optimiser has one folder with its operation, CPU twin and kernel launches, and one word in
//! [`registry`].

pub mod adamw;
pub mod registry;
pub mod sgd;

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Tensor};

/// The constants of an optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// The share of the past in the moving mean of the gradients.
    pub momentum: f32,
    /// The same of their squares, for those that keep it.
    pub beta2: f32,
    /// What every parameter's gradient gets of the parameter itself.
    pub weight_decay: f32,
}

/// The flat memory of all parameters, f32 each but for the copy.
#[derive(Clone, Copy, Debug)]
pub struct Arenas {
    pub values: Buffer,
    pub gradients: Buffer,
    /// The values rounded, where the device's convolutions read a copy.
    pub copy: Option<Buffer>,
}

/// What an optimiser keeps from step to step, zero at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimiserState {
    /// A value for every parameter: saved under `prefix` and the parameter's name, in its shape.
    PerParameter { prefix: &'static str, arena: Buffer },
    /// Values of their own, saved under `name`.
    Whole { name: &'static str, values: Buffer },
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

/// An optimiser with its state on a device. One from outside this crate is as good as any.
pub trait Optimiser: Send + Sync {
    /// Appends a step: the values, and their copy, from the gradients. The learning rate lies in `control`
    /// ([`LEARNING_RATE`](crate::ops::control::LEARNING_RATE)), as a recorded step serves all epochs.
    fn record(&self, tape: &mut Tape, arenas: &Arenas, control: Tensor);

    /// What it keeps.
    fn state(&self) -> Vec<OptimiserState>;

    /// Forgets what it kept.
    ///
    /// # Errors
    /// Where the device fails.
    fn reset(&self, device: &mut dyn Device) -> Result<()> {
        let zero = |state: OptimiserState| device.write_f32(state.buffer(), &vec![0.0; state.buffer().len]);
        self.state().into_iter().try_for_each(zero)
    }
}
