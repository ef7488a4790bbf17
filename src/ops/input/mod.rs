//! The input of a step and its counter: the samples of a batch, normalised images, rows kept for all samples.

mod cpu;
mod gpu;

use anyhow::{Result, ensure};

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
pub(super) use cpu::constants;

/// index`[b]` = order`[step * batch + b]`: the samples of this step. `step` i32 `[1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectBatch {
    /// Samples B of a step.
    pub batch: usize,
    /// The epoch's permutation of the samples, i32 `[M]` with M at least steps times B.
    pub order: Tensor,
    /// The step of the epoch, i32 `[1]`.
    pub step: Tensor,
    /// The result, i32 `[B]`.
    pub index: Tensor,
}

/// step += 1, modulo `modulus`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdvanceStep {
    /// The counter, i32 `[1]`.
    pub step: Tensor,
    /// Where the counter wraps to 0; `None` if it never does.
    pub modulus: Option<usize>,
}

/// Normalises images without augmentation: x `[B,H,W,3]` holds images first..first+B of `images` u8
/// `[N,H,W,3]`, first = step B; past the end the last image is repeated. `normalisation` f32 `[6]` holds
/// mean, then standard deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct NormaliseImages {
    /// Images B of a step.
    pub batch: usize,
    /// H times W.
    pub pixels: usize,
    /// The source images, u8 `[N,H,W,3]`.
    pub images: Tensor,
    /// The step of the pass, i32 `[1]`.
    pub step: Tensor,
    /// Mean and standard deviation of each channel, f32 `[6]`.
    pub normalisation: Tensor,
    /// The result, activations `[B,H,W,3]`.
    pub x: Tensor,
}

/// Copies `rows` `[B,K]` into `store` `[M,K]`, from row step B.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRows {
    /// Rows B of a step.
    pub batch: usize,
    /// K.
    pub columns: usize,
    /// The rows of this step, f32 `[B,K]`.
    pub rows: Tensor,
    /// The block of B rows that is written, i32 `[1]`.
    pub step: Tensor,
    /// All rows, f32 `[M,K]`.
    pub store: Tensor,
}

impl Operation for SelectBatch {
    fn name(&self) -> &'static str {
        "select batch"
    }

    fn operands(&self) -> Vec<Operand> {
        let order = Operand::read(self.order).touching(self.batch);
        vec![order, Operand::read(self.step), Operand::write(self.index)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (batch, order) = (self.batch, cpu.i32(self.order)?);
        let first = cpu.i32(self.step)?[0] as usize * batch;
        ensure!(first + batch <= order.len(), "step past the end of the epoch's order");
        cpu.i32_mut(self.index)?.copy_from_slice(&order[first..first + batch]);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::select_batch(gpu, self)
    }
}

impl Operation for AdvanceStep {
    fn name(&self) -> &'static str {
        "advance step"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::update(self.step)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let mut step = cpu.i32_mut(self.step)?;
        step[0] += 1;
        if self.modulus.is_some_and(|modulus| step[0] as usize >= modulus) {
            step[0] = 0;
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::advance_step(gpu, self)
    }
}

impl Operation for NormaliseImages {
    fn name(&self) -> &'static str {
        "normalise images"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.images).touching(self.batch * self.pixels * 3),
            Operand::read(self.step),
            Operand::read(self.normalisation),
            Operand::write(self.x),
        ]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let first = cpu.i32(self.step)?[0] as usize * self.batch;
        let (images, normalisation) = (cpu.u8(self.images)?, cpu.f32(self.normalisation)?);
        cpu::normalise(self.pixels, first, &images, &normalisation, &mut cpu.f32_mut(self.x)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::normalise_images(gpu, self)
    }
}

impl Operation for StoreRows {
    fn name(&self) -> &'static str {
        "store rows"
    }

    fn operands(&self) -> Vec<Operand> {
        // Only these rows of the store are written.
        let store = Operand::write(self.store).touching(self.batch * self.columns);
        vec![Operand::read(self.rows), Operand::read(self.step), store]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let len = self.batch * self.columns;
        let first = cpu.i32(self.step)?[0] as usize * len;
        cpu.f32_mut(self.store)?[first..first + len].copy_from_slice(&cpu.f32(self.rows)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::store_rows(gpu, self)
    }
}
