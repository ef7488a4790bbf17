//! Disambiguation: updating confidence rows from the network's predictions for a sample's views.
//!
//! The update rule is a [`Disambiguation`], which each method supplies.

mod cpu;
mod gpu;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use anyhow::Result;

pub use self::cpu::partial_softmax;
use super::loss::{self, Loss};
use super::rows::Softmax;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::loss_by_kind::LossAndDisambiguate;
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// The rule that updates a confidence row c from the logits z of a sample's views, less the log-prior if
/// there is one. p is their softmax, s the candidate row.
pub trait Disambiguation: Any + Debug + Send + Sync {
    /// How many views of a sample it reads.
    fn views(&self) -> usize {
        1
    }

    /// Updates c on the CPU.
    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]);

    /// Floating-point operations per class of a view.
    fn flops_per_class(&self) -> f64 {
        10.0
    }

    /// Appends the launches of `of`, whose rule this is: [`Disambiguate::lower_rows`] if its kernel is one of
    /// `loss_by_kind.cu`.
    ///
    /// # Errors
    /// If the kernel does not support the shape.
    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()>;

    /// Appends launches that compute `loss` and then `of`, whose rule this is, on the same rows, if there is
    /// a kernel for both; returns whether it did. By default that is the kernel of `loss_by_kind.cu` that
    /// both name.
    ///
    /// # Errors
    /// As [`Disambiguation::lower`].
    fn lower_behind(&self, loss: &Loss, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<bool> {
        let named = of.joint.filter(|_| loss.joint == of.joint);
        if let Some(kernel) = named {
            loss::launch_joint(loss, of, kernel, gpu);
        }
        Ok(named.is_some())
    }
}

impl dyn Disambiguation {
    /// This disambiguation as a `T`, if it is one.
    pub fn downcast<T: Disambiguation>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// The prediction for a view of a sample.
#[derive(Clone, Debug)]
pub struct ViewPrediction {
    /// z, less the log-prior if there is one.
    pub logits: Vec<f32>,
    /// The softmax of z.
    pub softmax: Softmax,
}

/// Updates the rows `index` of `confidence` `[N,K]` from the first rows of logits `[R,K]`, B rows per view,
/// if control`[UPDATE]` is not 0. `candidates` u8 `[N,K]`; `log_prior` `[K]` is subtracted from the logits.
#[derive(Clone, Debug)]
pub struct Disambiguate {
    /// The rule by which a row is updated.
    pub disambiguation: Arc<dyn Disambiguation>,
    /// See [`Loss::joint`].
    pub joint: Option<KernelOf<LossAndDisambiguate>>,
    /// Samples B of the step.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// f32 `[R,K]`, the views first.
    pub logits: Tensor,
    /// f32 `[K]`, subtracted from every row of the logits.
    pub log_prior: Option<Tensor>,
    /// u8 `[N,K]`, nonzero where a class is a candidate.
    pub candidates: Tensor,
    /// i32 `[B]`, distinct.
    pub index: Tensor,
    /// The step's control block, f32 ([`control`](crate::ops::control)).
    pub control: Tensor,
    /// f32 `[N,K]`; the rows `index` are updated.
    pub confidence: Tensor,
}

impl Operation for Disambiguate {
    fn name(&self) -> &'static str {
        "disambiguation"
    }

    fn operands(&self) -> Vec<Operand> {
        let rows = self.batch * self.classes;
        let mut operands = vec![Operand::read(self.logits).touching(self.disambiguation.views() * rows)];
        operands.extend(self.log_prior.map(Operand::read));
        operands.extend([
            Operand::read(self.candidates).touching(rows),
            Operand::read(self.index),
            Operand::read(self.control),
            Operand::update(self.confidence).touching(rows),
        ]);
        operands
    }

    fn flops(&self) -> f64 {
        let rows = self.disambiguation.views() * self.batch;
        (rows * self.classes) as f64 * self.disambiguation.flops_per_class()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu::run(self, cpu)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        self.disambiguation.lower(self, gpu)
    }
}
