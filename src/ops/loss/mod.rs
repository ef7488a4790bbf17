//! Losses of views against rows of class weights, row by row.
//!
//! The loss of a row is a [`RowLoss`], which each method supplies.

#[cfg(test)]
pub(crate) mod check;
mod cpu;
mod cross_entropy;
mod gpu;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use anyhow::Result;

pub use self::cpu::negative;
pub use self::cross_entropy::CrossEntropy;
pub(in crate::ops) use self::gpu::launch_joint;
use super::confidence::Disambiguate;
use super::rows::Softmax;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::loss_by_kind::{LossAndDisambiguate, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// The loss of one row of logits z, p = softmax(z), against a row c of weights and the candidates s
/// (docs/spec.md, section 6).
pub trait RowLoss: Any + Debug + Send + Sync {
    /// Computes the loss of a row on the CPU and writes its gradient times `scale` to `d_logits`.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64;

    /// Whether it reads c.
    fn reads_target(&self) -> bool {
        true
    }

    /// Whether it reads s.
    fn reads_candidates(&self) -> bool {
        false
    }

    /// Floating-point operations per class of a row.
    fn flops_per_class(&self) -> f64 {
        20.0
    }

    /// Its kernel: one of `loss_by_kind.cu`, or its own with the same parameters.
    fn kernel(&self) -> KernelOf<LossRows>;

    /// The kernel's constant parameter, if it uses one.
    fn constant(&self) -> f32 {
        0.0
    }

    /// Appends the launch of `of`, whose row loss this is.
    ///
    /// # Errors
    /// If the kernel does not support the shape.
    fn lower(&self, of: &Loss, gpu: &mut Lowering<'_>) -> Result<()> {
        of.lower_rows(gpu);
        Ok(())
    }
}

impl dyn RowLoss {
    /// This loss as a `T`, if it is one.
    pub fn downcast<T: RowLoss>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// The input of a [`RowLoss`]. Slices that it does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub struct LossRow<'a> {
    /// z.
    pub logits: &'a [f32],
    /// c.
    pub target: &'a [f32],
    /// s: 1 for a candidate, else 0.
    pub candidates: &'a [u8],
}

/// The role of a loss in its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// The loss of the views as they are.
    Plain,
    /// The loss of mixed views, a further term: gradient and loss are multiplied by control`[MIXUP]`, and the
    /// loss is added to `loss_rows`. A weight of 0 gives 0 whatever the logits are.
    Mixed {
        /// The step's control block, f32 ([`control`](crate::ops::control)).
        control: Tensor,
    },
}

/// The losses of `views` views of B samples. View v of sample b is row first + v B + b of `logits` `[R,K]`.
/// Its target is row index`[b]` of a store `target` `[N,K]`, or without `index` row b of `target` `[B,K]`;
/// the same holds for `candidates`, u8 `[N,K]`.
///
/// The same rows of `d_logits` `[R,K]` receive the gradient of the mean over B; `loss_rows` `[B]` receives
/// the sum over the views of each sample.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The loss of one row.
    pub row_loss: Arc<dyn RowLoss>,
    /// Whether this is the loss of the plain views or a further term.
    pub term: Term,
    /// The kernel that computes this loss and the disambiguation of the same rows. It is used if the
    /// disambiguation that follows names it too.
    pub joint: Option<KernelOf<LossAndDisambiguate>>,
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// Views V of each sample.
    pub views: usize,
    /// The row of `logits` that view 0 of sample 0 has.
    pub first: usize,
    /// f32 `[R,K]`.
    pub logits: Tensor,
    /// The weights c, f32 `[N,K]` with `index`, otherwise `[B,K]`.
    pub target: Tensor,
    /// The candidate sets s, u8 `[N,K]`.
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`; `None` if targets are in batch order.
    pub index: Option<Tensor>,
    /// Gradient of the logits, f32 `[R,K]`.
    pub d_logits: Tensor,
    /// Loss of each sample, f32 `[B]`.
    pub loss_rows: Tensor,
}

impl Loss {
    /// Launches the kernel of its [`RowLoss`].
    pub fn lower_rows(&self, gpu: &mut Lowering<'_>) {
        gpu::lower(self, gpu);
    }

    /// Whether it reads exactly the rows that `next` disambiguates.
    fn is_of_rows_of(&self, next: &Disambiguate) -> bool {
        let here = (self.batch, self.classes, self.views, self.logits, self.index);
        (self.term, self.first) == (Term::Plain, 0)
            && here == (next.batch, next.classes, next.disambiguation.views(), next.logits, Some(next.index))
            && (!self.row_loss.reads_target() || self.target == next.confidence)
            && (!self.row_loss.reads_candidates() || self.candidates == next.candidates)
    }
}

impl Operation for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn operands(&self) -> Vec<Operand> {
        let (rows, written) = (self.batch * self.classes, self.views * self.batch * self.classes);
        let mut operands = vec![Operand::read(self.logits).touching(written)];
        if self.row_loss.reads_target() {
            operands.push(Operand::read(self.target).touching(rows));
        }
        if self.row_loss.reads_candidates() {
            operands.push(Operand::read(self.candidates).touching(rows));
        }
        operands.extend(self.index.map(Operand::read));
        let d_logits = Operand::write(self.d_logits).touching(written);
        match self.term {
            Term::Plain => operands.extend([d_logits, Operand::write(self.loss_rows)]),
            Term::Mixed { control } => {
                operands.extend([Operand::read(control), d_logits, Operand::update(self.loss_rows)]);
            }
        }
        operands
    }

    fn flops(&self) -> f64 {
        (self.views * self.batch * self.classes) as f64 * self.row_loss.flops_per_class()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu::run(self, cpu)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        self.row_loss.lower(self, gpu)
    }

    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        match next.downcast::<Disambiguate>() {
            Some(next) if self.is_of_rows_of(next) => next.disambiguation.lower_behind(self, next, gpu),
            _ => Ok(false),
        }
    }
}
