//! Prototypes of the classes: how they select among a sample's candidates, and how they follow the
//! embeddings.

use anyhow::Result;

use super::contrast::check_columns;
use super::projection::direction;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::pico::{self as kernels, NO_LABEL, PHI, THREADS, WARPS};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::control;
use crate::ops::linear::dot;

/// `labels` f32 `[B]`: each sample's candidate with the largest logit, less `log_prior` `[K]` if there is
/// one; -1 if all are NaN. If control`[UPDATE]` is not 0, the confidence row also becomes s <- phi s + (1 -
/// phi) e with phi = control`[PHI]`, where e is 1 at the candidate whose prototype has the largest product
/// with q. Of equals, the first counts.
#[derive(Clone, Debug, PartialEq)]
pub struct PseudoLabels {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// D.
    pub columns: usize,
    /// f32 `[B,K]`.
    pub logits: Tensor,
    /// ln pi, f32 `[K]`, of the debias.
    pub log_prior: Option<Tensor>,
    /// u8 `[N,K]`.
    pub candidates: Tensor,
    /// i32 `[B]`, distinct.
    pub index: Tensor,
    /// q, f32 `[B,D]`.
    pub embeddings: Tensor,
    /// f32 `[K,D]`.
    pub prototypes: Tensor,
    /// The step's control block, f32 ([`control`]).
    pub control: Tensor,
    /// The pseudo-labels, f32 `[B]`: whole numbers, as f32 so that the queue can store them.
    pub labels: Tensor,
    /// f32 `[N,K]`.
    pub confidence: Tensor,
}

/// prototypes `[K,D]`: mu_label <- m mu_label + (1 - m) q for every sample in the order of the batch, then
/// each row is divided by its length.
#[derive(Clone, Debug, PartialEq)]
pub struct MovePrototypes {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// D.
    pub columns: usize,
    /// m, the share of the old prototype.
    pub momentum: f32,
    /// q, f32 `[B,D]`.
    pub embeddings: Tensor,
    /// f32 `[B]`.
    pub labels: Tensor,
    /// f32 `[K,D]`, updated.
    pub prototypes: Tensor,
}

/// The first candidate with the largest value; `None` if all are NaN or -infinity.
fn largest(candidates: &[u8], value: impl Fn(usize) -> f32) -> Option<usize> {
    let mut best = (f32::NEG_INFINITY, None);
    for k in (0..candidates.len()).filter(|&k| candidates[k] != 0) {
        let value = value(k);
        if value > best.0 {
            best = (value, Some(k));
        }
    }
    best.1
}

impl Operation for PseudoLabels {
    fn name(&self) -> &'static str {
        "pseudo-labels"
    }

    fn operands(&self) -> Vec<Operand> {
        let rows = self.batch * self.classes;
        let mut operands = vec![Operand::read(self.logits)];
        operands.extend(self.log_prior.map(Operand::read));
        operands.extend([
            Operand::read(self.candidates).touching(rows),
            Operand::read(self.index),
            Operand::read(self.embeddings),
            Operand::read(self.prototypes),
            Operand::read(self.control),
            Operand::write(self.labels),
            Operand::update(self.confidence).touching(rows),
        ]);
        operands
    }

    fn flops(&self) -> f64 {
        2.0 * (self.batch * self.classes * self.columns) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { classes, columns, .. } = *self;
        let (logits, candidates, index) =
            (cpu.f32(self.logits)?, cpu.u8(self.candidates)?, cpu.i32(self.index)?);
        let log_prior = cpu.optional(self.log_prior)?;
        let (embeddings, prototypes) = (cpu.f32(self.embeddings)?, cpu.f32(self.prototypes)?);
        let (phi, updates) = {
            let control = cpu.f32(self.control)?;
            (control[PHI], control[control::UPDATE] != 0.0)
        };
        let (mut labels, mut confidence) = (cpu.f32_mut(self.labels)?, cpu.f32_mut(self.confidence)?);
        for (b, (label, &sample)) in labels.iter_mut().zip(index.iter()).enumerate() {
            let row = sample as usize * classes..(sample as usize + 1) * classes;
            let set = &candidates[row.clone()];
            let logits = &logits[b * classes..][..classes];
            let prior = |k: usize| log_prior.as_deref().map_or(0.0, |prior| prior[k]);
            *label = largest(set, |k| logits[k] - prior(k)).map_or(NO_LABEL, |k| k as f32);
            if !updates {
                continue;
            }
            let q = &embeddings[b * columns..][..columns];
            let nearest = largest(set, |k| dot(q, &prototypes[k * columns..][..columns]));
            let Some(nearest) = nearest else { continue };
            for (k, share) in confidence[row].iter_mut().enumerate() {
                *share = phi * *share + if k == nearest { 1.0 - phi } else { 0.0 };
            }
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        check_columns(self.columns)?;
        let parameters = kernels::PseudoLabels {
            batch: self.batch,
            classes: self.classes,
            columns: self.columns,
            logits: gpu.address(self.logits),
            log_prior: gpu.optional(self.log_prior),
            candidates: gpu.address(self.candidates),
            index: gpu.address(self.index),
            embeddings: gpu.address(self.embeddings),
            prototypes: gpu.address(self.prototypes),
            control: gpu.address(self.control),
            labels: gpu.address(self.labels),
            confidence: gpu.address(self.confidence),
        };
        gpu.launch(kernels::PSEUDO_LABELS.linear(self.batch.div_ceil(WARPS), THREADS, parameters));
        Ok(())
    }
}

impl Operation for MovePrototypes {
    fn name(&self) -> &'static str {
        "move prototypes"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.embeddings), Operand::read(self.labels), Operand::update(self.prototypes)]
    }

    fn flops(&self) -> f64 {
        3.0 * ((self.batch + self.classes) * self.columns) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { columns, momentum, .. } = *self;
        let (embeddings, labels) = (cpu.f32(self.embeddings)?, cpu.f32(self.labels)?);
        let mut prototypes = cpu.f32_mut(self.prototypes)?;
        for (q, &label) in embeddings.chunks_exact(columns).zip(labels.iter()).filter(|(_, l)| **l >= 0.0) {
            let prototype = &mut prototypes[label as usize * columns..][..columns];
            prototype.iter_mut().zip(q).for_each(|(p, q)| *p = momentum * *p + (1.0 - momentum) * q);
        }
        prototypes.chunks_exact_mut(columns).for_each(direction);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { batch, columns, momentum, .. } = *self;
        check_columns(columns)?;
        let [embeddings, labels, prototypes] =
            [self.embeddings, self.labels, self.prototypes].map(|tensor| gpu.address(tensor));
        let parameters = kernels::MovePrototypes { batch, columns, momentum, embeddings, labels, prototypes };
        gpu.launch(kernels::MOVE_PROTOTYPES.linear(self.classes, THREADS, parameters));
        Ok(())
    }
}
