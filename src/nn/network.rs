//! What a network is.

use std::fmt::Debug;

use super::{NetworkLayout, Parameters};
use crate::autograd::Tape;
use crate::device::Tensor;

/// A network over images: its tensors, and how its forward pass is recorded. One from outside this crate is
/// as good as any.
pub trait Network: Debug + Send + Sync {
    /// The word it is known by.
    fn name(&self) -> &str;

    /// Its tensors in state_dict order.
    fn layout(&self) -> NetworkLayout;

    /// Length of the feature vector.
    fn features(&self) -> usize;

    /// Classes K.
    fn classes(&self) -> usize;

    /// What the channels of all its activations are multiples of: its width, as a rule. A device whose
    /// kernels take multiples of n channels needs a multiple of n.
    fn channel_multiple(&self) -> usize;

    /// Records the forward pass of `batch` normalised images x `[batch, size, size, 3]`; `parameters` are
    /// those of its layout.
    fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        mode: Mode,
        shape: [usize; 2],
        x: Tensor,
    ) -> Outputs;
}

/// How batchnorm behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, running statistics updated, differentiable.
    Training(Pass),
    /// Running statistics.
    Evaluation,
}

/// One of the forwards of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// From 0; the gradients of each have memory of their own ([`Parameters::gradients_of`]).
    pub number: usize,
    /// How many images are valid, i32 `[1]`, where the device decides it: the first ones, and zeros behind.
    pub count: Option<Tensor>,
}

/// What a forward pass gives.
pub struct Outputs {
    /// Pooled features `[batch, features]`.
    pub features: Tensor,
    /// Logits `[batch, classes]`.
    pub logits: Tensor,
    /// The classifier's parameters `[W (classes x features); b]`.
    pub classifier: Tensor,
    /// What layers of a method's own give beside the classifier, where there are such.
    pub projection: Option<Tensor>,
}
