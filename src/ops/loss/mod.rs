//! Losses of views against rows of classes, row by row.
//!
//! What a row's loss is, a [`RowLoss`] says: a value of the method that it belongs to.

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

/// The loss of one row of logits z, p = softmax(z), against a row c of weights and the candidates s (SPEC 6).
pub trait RowLoss: Any + Debug + Send + Sync {
    /// The loss of a row on the CPU; writes its gradient times `scale` to `d_logits`.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64;

    /// Whether it reads c.
    fn reads_target(&self) -> bool {
        true
    }

    /// Whether it reads s.
    fn reads_candidates(&self) -> bool {
        false
    }

    /// Floating-point operations for each class of a row.
    fn flops_per_class(&self) -> f64 {
        20.0
    }

    /// Its kernel: one of `loss_by_kind.cu`, or its own with the same parameters.
    fn kernel(&self) -> KernelOf<LossRows>;

    /// The constant that its kernel is given, where it has one.
    fn constant(&self) -> f32 {
        0.0
    }

    /// Appends the launch of `of`, which it is part of.
    ///
    /// # Errors
    /// Where a shape is beyond what the kernel does.
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

/// What a [`RowLoss`] is of. A row that it does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub struct LossRow<'a> {
    /// z.
    pub logits: &'a [f32],
    /// c.
    pub target: &'a [f32],
    /// s: 1 for a candidate, else 0.
    pub candidates: &'a [u8],
}

/// What a loss is to its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// The loss of the views as they are.
    Plain,
    /// The loss of mixed views, a further term: gradient and loss are multiplied by control`[MIXUP]`, and the
    /// loss is added to what `loss_rows` holds. A weight of 0 gives 0 whatever the logits are.
    Mixed { control: Tensor },
}

/// The losses of `views` views of B samples: view v of sample b has row first + v B + b of `logits` `[R,K]`.
/// The target of sample b is row index`[b]` of a store `target` `[N,K]`, or row b of `target` `[B,K]` without
/// `index`; `candidates` u8 `[N,K]` likewise.
///
/// The same rows of `d_logits` `[R,K]` = the gradient of the mean over B; `loss_rows` `[B]` = each sample's
/// sum over its views.
#[derive(Clone, Debug)]
pub struct Loss {
    pub row_loss: Arc<dyn RowLoss>,
    pub term: Term,
    /// The kernel that does this loss and, of the same rows, the disambiguation behind it, where that names the same one.
    pub joint: Option<KernelOf<LossAndDisambiguate>>,
    pub batch: usize,
    pub classes: usize,
    pub views: usize,
    pub first: usize,
    pub logits: Tensor,
    pub target: Tensor,
    pub candidates: Tensor,
    pub index: Option<Tensor>,
    pub d_logits: Tensor,
    pub loss_rows: Tensor,
}

impl Loss {
    /// Launches the kernel of its [`RowLoss`].
    pub fn lower_rows(&self, gpu: &mut Lowering<'_>) {
        gpu::lower(self, gpu);
    }

    /// Whether it is the loss of the very rows that `next` disambiguates.
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
