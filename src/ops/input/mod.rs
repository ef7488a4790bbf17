//! What feeds a step and counts it: the samples of a batch, plain normalised images, rows kept for all
//! samples.

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
    pub batch: usize,
    pub order: Tensor,
    pub step: Tensor,
    pub index: Tensor,
}

/// step += 1, back to 0 at `modulus`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdvanceStep {
    pub step: Tensor,
    pub modulus: Option<usize>,
}

/// Un-augmented images first..first+batch, first = step * batch, of `images` u8 `[N,H,W,3]`, normalised into
/// x f32 `[B,H,W,3]`; past the end the last image is repeated. `normalisation` f32 `[6]`, mean then standard
/// deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct NormaliseImages {
    pub batch: usize,
    /// H times W.
    pub pixels: usize,
    pub images: Tensor,
    pub step: Tensor,
    pub normalisation: Tensor,
    pub x: Tensor,
}

/// Rows of `rows` `[B,K]` copied into `store` `[M,K]` from row step * B.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRows {
    pub batch: usize,
    /// K.
    pub columns: usize,
    pub rows: Tensor,
    pub step: Tensor,
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
        // Of the store, these rows alone are touched.
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
