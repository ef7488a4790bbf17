//! Disambiguation of confidence rows by what the network says of a sample's views.
//!
//! How a row is disambiguated, a [`Disambiguation`] says: a value of the method that it belongs to.

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

/// How a confidence row c is disambiguated by the logits z of a sample's views, less the log-prior where
/// there is one; p is their softmax, s the candidate row.
pub trait Disambiguation: Any + Debug + Send + Sync {
    /// Views of a sample that it reads.
    fn views(&self) -> usize {
        1
    }

    /// Disambiguates c on the CPU.
    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]);

    /// Floating-point operations for each class of a view.
    fn flops_per_class(&self) -> f64 {
        10.0
    }

    /// Appends the launches of `of`, which it is part of: [`Disambiguate::lower_rows`], where its kernel is
    /// in `loss_by_kind.cu`.
    ///
    /// # Errors
    /// Where a shape is beyond what the kernel does.
    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()>;

    /// Appends launches that do `loss` and then `of`, which it is part of, on the same rows together, if
    /// there are such; returns whether: the kernel of `loss_by_kind.cu` that both name.
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

/// What a view says of a sample.
#[derive(Clone, Debug)]
pub struct ViewPrediction {
    /// z, less the log-prior where there is one.
    pub logits: Vec<f32>,
    /// Of z.
    pub softmax: Softmax,
}

/// Disambiguates the rows `index` of `confidence` `[N,K]` from the first rows of logits `[R,K]`, view after
/// view of B, where control`[UPDATE]` is not 0. `candidates` u8 `[N,K]`; `log_prior` `[K]` is subtracted from
/// the logits.
#[derive(Clone, Debug)]
pub struct Disambiguate {
    pub disambiguation: Arc<dyn Disambiguation>,
    /// See [`Loss::joint`].
    pub joint: Option<KernelOf<LossAndDisambiguate>>,
    pub batch: usize,
    pub classes: usize,
    pub logits: Tensor,
    pub log_prior: Option<Tensor>,
    pub candidates: Tensor,
    /// i32 `[B]`, distinct.
    pub index: Tensor,
    pub control: Tensor,
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
