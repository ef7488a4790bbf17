//! Predictions among the candidates, and their counts by class.

use anyhow::Result;

use super::launch_one_block;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::solar as kernels;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::rows::{Softmax, argmax, row_threads};

/// SoLar's predictions M `[B,K]` = softmax(z) s, from logits z `[B,K]` and the rows `index` of `candidates`
/// s, u8 `[N,K]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedSoftmax {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// z, f32 `[B,K]`.
    pub logits: Tensor,
    /// s, u8 `[N,K]`.
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// M, f32 `[B,K]`.
    pub out: Tensor,
}

/// Adds to `counts` `[K]`, for each class, the number of rows of x `[R,K]` whose argmax it is.
#[derive(Clone, Debug, PartialEq)]
pub struct CountArgmax {
    /// Rows R.
    pub rows: usize,
    /// Classes K.
    pub classes: usize,
    /// f32 `[R,K]`.
    pub x: Tensor,
    /// f32 `[K]`, added to.
    pub counts: Tensor,
}

impl Operation for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked softmax"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.logits),
            Operand::read(self.candidates).touching(self.batch * self.classes),
            Operand::read(self.index),
            Operand::write(self.out),
        ]
    }

    fn flops(&self) -> f64 {
        5.0 * (self.batch * self.classes) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let classes = self.classes;
        let (logits, candidates, index) =
            (cpu.f32(self.logits)?, cpu.u8(self.candidates)?, cpu.i32(self.index)?);
        let mut softmax = Softmax::new(classes);
        let mut out = cpu.f32_mut(self.out)?;
        let rows = logits.chunks_exact(classes).zip(out.chunks_exact_mut(classes)).zip(index.iter());
        for ((logits, out), &sample) in rows {
            out.copy_from_slice(&softmax.of(logits).p);
            let candidates = &candidates[sample as usize * classes..][..classes];
            out.iter_mut().zip(candidates).filter(|(_, s)| **s == 0).for_each(|(p, _)| *p = 0.0);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let parameters = kernels::MaskedSoftmax {
            classes: self.classes,
            logits: gpu.address(self.logits),
            candidates: gpu.address(self.candidates),
            index: gpu.address(self.index),
            out: gpu.address(self.out),
        };
        gpu.launch(kernels::MASKED_SOFTMAX.linear(self.batch, row_threads(self.classes), parameters));
        Ok(())
    }
}

impl Operation for CountArgmax {
    fn name(&self) -> &'static str {
        "count largest"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::update(self.counts)]
    }

    fn flops(&self) -> f64 {
        (self.rows * self.classes) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let mut counts = cpu.f32_mut(self.counts)?;
        cpu.f32(self.x)?.chunks_exact(self.classes).for_each(|row| counts[argmax(row)] += 1.0);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { rows, classes, .. } = *self;
        let [x, counts] = [self.x, self.counts].map(|tensor| gpu.address(tensor));
        let parameters = kernels::CountArgmax { rows, classes, x, counts };
        launch_one_block(gpu, kernels::COUNT_ARGMAX, classes * size_of::<i32>(), parameters)
    }
}
