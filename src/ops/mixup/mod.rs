//! Mixup: convex combinations of pairs of rows.

mod cpu;
mod gpu;

use anyhow::{Result, ensure};

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// The random draws for the steps of an epoch: a weight and a permutation of the batch for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// f32 `[steps]`.
    pub weights: Tensor,
    /// i32 `[steps,B]`, each a permutation of 0..B.
    pub permutations: Tensor,
    /// The step of the epoch, i32 `[1]`.
    pub step: Tensor,
}

/// out `[R,len]` = w x + (1 - w) x', row by row; the weight w and each row's partner x' are this step's
/// draws. The R rows are groups of B (weak views, strong views), which share both. With `index` i32 `[B]`, R
/// is B and x is a store `[N,len]` whose rows `index` are mixed: confidence rows. `out` has the type of x.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixup {
    /// Samples B.
    pub batch: usize,
    /// R.
    pub rows: usize,
    /// Values of a row.
    pub len: usize,
    /// Weights and permutations of the epoch.
    pub draws: Draws,
    /// The rows of the store, i32 `[B]`; `None` if x is `[R,len]`.
    pub index: Option<Tensor>,
    /// The rows that are mixed.
    pub x: Tensor,
    /// The result, `[R,len]`.
    pub out: Tensor,
}

/// [`Mixup`] of the first half of x `[2R,len]` into the second.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendMixup {
    /// Samples B.
    pub batch: usize,
    /// R.
    pub rows: usize,
    /// Values of a row.
    pub len: usize,
    /// Weights and permutations of the epoch.
    pub draws: Draws,
    /// `[2R,len]`: the first R rows are read, the others written.
    pub x: Tensor,
}

/// Mixup of rows that the device chose: out`[i]` = w x`[rows[i]]` + (1 - w) x`[partners[i]]` for i < count, 0
/// behind them. w is this step's, from `weights` f32 `[steps]`; `rows` and `partners` i32 `[B]`, `count` i32
/// `[1]`; x and `out` `[B,len]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MixupChosen {
    /// B.
    pub batch: usize,
    /// Values of a row.
    pub len: usize,
    /// Mixup weights of the epoch, f32 `[steps]`.
    pub weights: Tensor,
    /// The step of the epoch, i32 `[1]`.
    pub step: Tensor,
    /// The chosen rows, i32 `[B]`.
    pub rows: Tensor,
    /// The row that each is mixed with, i32 `[B]`.
    pub partners: Tensor,
    /// How many rows are valid, i32 `[1]`.
    pub count: Tensor,
    /// The rows that are mixed, `[B,len]`.
    pub x: Tensor,
    /// The result, `[B,len]`, of the type of x.
    pub out: Tensor,
}

impl Draws {
    fn operands(&self, batch: usize) -> [Operand; 3] {
        [
            Operand::read(self.weights).touching(1),
            Operand::read(self.permutations).touching(batch),
            Operand::read(self.step),
        ]
    }

    /// This step's weight and permutation of the batch.
    fn now(&self, cpu: &Call<'_>, batch: usize) -> Result<(f32, Vec<i32>)> {
        let now = cpu.i32(self.step)?[0] as usize;
        let (weights, permutations) = (cpu.f32(self.weights)?, cpu.i32(self.permutations)?);
        ensure!(
            now < weights.len() && permutations.len() == weights.len() * batch,
            "step past the end of the mixup's weights and permutations"
        );
        Ok((weights[now], permutations[now * batch..][..batch].to_vec()))
    }
}

impl Operation for Mixup {
    fn name(&self) -> &'static str {
        "mixup"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = self.draws.operands(self.batch).to_vec();
        list.extend(self.index.map(Operand::read));
        // Of a store, only the rows of the batch are read.
        list.push(Operand::read(self.x).touching(self.rows * self.len));
        list.push(Operand::write(self.out));
        list
    }

    fn flops(&self) -> f64 {
        3.0 * (self.rows * self.len) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (weight, permutation) = self.draws.now(cpu, self.batch)?;
        ensure!(self.index.is_none() || self.rows == self.batch, "a mixup of indexed rows is one group");
        let index = self.index.map(|index| cpu.i32(index)).transpose()?;
        let (x, mut out) = (cpu.f32(self.x)?, cpu.f32_mut(self.out)?);
        cpu::mixup(self.len, weight, &permutation, index.as_deref(), &x, &mut out);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::mixup(gpu, self)
    }
}

impl Operation for AppendMixup {
    fn name(&self) -> &'static str {
        "mixup"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = self.draws.operands(self.batch).to_vec();
        // The first half is read, the second written.
        list.push(Operand::update(self.x).touching(self.rows * self.len));
        list
    }

    fn flops(&self) -> f64 {
        3.0 * (self.rows * self.len) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (weight, permutation) = self.draws.now(cpu, self.batch)?;
        let mut both = cpu.f32_mut(self.x)?;
        let (x, out) = both.split_at_mut(self.rows * self.len);
        cpu::mixup(self.len, weight, &permutation, None, x, out);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::append(gpu, self)
    }
}

impl Operation for MixupChosen {
    fn name(&self) -> &'static str {
        "mixup of chosen rows"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = vec![Operand::read(self.weights).touching(1)];
        list.extend([self.step, self.rows, self.partners, self.count, self.x].map(Operand::read));
        list.push(Operand::write(self.out));
        list
    }

    fn flops(&self) -> f64 {
        3.0 * (self.batch * self.len) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (now, weights) = (cpu.i32(self.step)?[0] as usize, cpu.f32(self.weights)?);
        ensure!(now < weights.len(), "step past the end of the mixup's weights");
        let (rows, partners) = (cpu.i32(self.rows)?, cpu.i32(self.partners)?);
        let count = cpu.i32(self.count)?[0] as usize;
        let (x, mut out) = (cpu.f32(self.x)?, cpu.f32_mut(self.out)?);
        cpu::mixup_chosen(self.len, weights[now], [&rows, &partners], count, &x, &mut out);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::chosen(gpu, self)
    }
}
