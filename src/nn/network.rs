//! The interface of a network.

use std::fmt::Debug;

use super::{NetworkLayout, Parameters};
use crate::autograd::Tape;
use crate::device::Tensor;

/// A network over images: its tensors, and how its forward pass is recorded. Other crates can implement it as
/// well.
pub trait Network: Debug + Send + Sync {
    /// The word it is registered under.
    fn name(&self) -> &str;

    /// Its tensors in state_dict order.
    fn layout(&self) -> NetworkLayout;

    /// Length of the feature vector.
    fn features(&self) -> usize;

    /// Classes K.
    fn classes(&self) -> usize;

    /// A common divisor of the channels of all its activations, usually its width. A device whose kernels
    /// need multiples of n channels needs this to be a multiple of n.
    fn channel_multiple(&self) -> usize;

    /// Records the forward pass of `batch` normalised images x `[batch, size, size, 3]`; `shape` is `[batch,
    /// size]`, and `parameters` are those of its layout.
    fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        mode: Mode,
        shape: [usize; 2],
        x: Tensor,
    ) -> Outputs;
}

/// Which statistics batchnorm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, running statistics updated, differentiable.
    Training(Pass),
    /// Running statistics.
    Evaluation,
}

/// One forward pass of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Counted from 0; each pass has its own memory for gradients ([`Parameters::gradients_of`]).
    pub number: usize,
    /// How many images are valid, i32 `[1]`, if the device decides it: the first ones; the rest are zeros.
    pub count: Option<Tensor>,
}

/// The results of a forward pass.
pub struct Outputs {
    /// Pooled features `[batch, features]`.
    pub features: Tensor,
    /// Logits `[batch, classes]`.
    pub logits: Tensor,
    /// The classifier's parameters `[W (classes x features); b]`.
    pub classifier: Tensor,
    /// What a method's own layers compute beside the classifier, if it has any.
    pub projection: Option<Tensor>,
}
