//! Rows of a batch that is divided between processes.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::gpu;
use crate::autograd::{Differentiable, Gradients};
use crate::collective::Share;
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// out `[groups b, len]`: of each group of `count` rows of x, the b that are this process's.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnRows {
    /// Groups.
    pub groups: usize,
    /// Rows of a group.
    pub count: usize,
    /// Values of a row.
    pub len: usize,
    /// Which rows are this process's.
    pub share: Share,
    /// Whether the values are i32.
    pub is_whole: bool,
    /// `[groups count, len]`.
    pub x: Tensor,
    /// `[groups b, len]`, of the type of x.
    pub out: Tensor,
}

/// out `[groups count, len]`: the rows of all processes, each of which has its own of every group in x. Its
/// gradient is this process's rows of out's: every process computes the loss of the whole batch.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherRows {
    /// Groups.
    pub groups: usize,
    /// Rows of a group.
    pub count: usize,
    /// Values of a row.
    pub len: usize,
    /// Which rows are this process's.
    pub share: Share,
    /// f32 `[groups b, len]`.
    pub x: Tensor,
    /// f32 `[groups count, len]`.
    pub out: Tensor,
}

/// The second half of [`GatherRows`] on a GPU: out `[groups count, len]` = the rows that so many processes
/// have sent, those of each `[groups b, len]`, one process's after the other's in `gathered`.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceRows {
    /// Groups.
    pub groups: usize,
    /// Rows of a group.
    pub count: usize,
    /// Values of a row.
    pub len: usize,
    /// Processes.
    pub ranks: usize,
    /// f32 `[groups count len]`.
    pub gathered: Tensor,
    /// f32 `[groups count, len]`.
    pub out: Tensor,
}

/// out i32 `[1]` = how many of `rows` are among the first `count[0]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnCount {
    /// This process's rows.
    pub rows: Range<usize>,
    /// i32 `[1]`.
    pub count: Tensor,
    /// i32 `[1]`.
    pub out: Tensor,
}

/// Copies the rows of each group that are in `rows`.
fn copy<T: Copy>(rows: Range<usize>, [count, len]: [usize; 2], x: &[T], out: &mut [T]) {
    let own = rows.start * len..rows.end * len;
    let groups = x.chunks_exact(count * len).zip(out.chunks_exact_mut(rows.len() * len));
    groups.for_each(|(x, out)| out.copy_from_slice(&x[own.clone()]));
}

impl Operation for OwnRows {
    fn name(&self) -> &'static str {
        "own rows"
    }

    fn operands(&self) -> Vec<Operand> {
        let touched = self.groups * self.share.of(self.count).len() * self.len;
        vec![Operand::read(self.x).touching(touched), Operand::write(self.out)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { count, len, share, .. } = *self;
        let (rows, shape) = (share.of(count), [count, len]);
        if self.is_whole {
            copy(rows, shape, &cpu.i32(self.x)?, &mut cpu.i32_mut(self.out)?);
        } else {
            copy(rows, shape, &cpu.f32(self.x)?, &mut cpu.f32_mut(self.out)?);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::own_rows(gpu, self)
    }
}

impl Operation for GatherRows {
    fn name(&self) -> &'static str {
        "rows of all"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::write(self.out)]
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { groups, count, len, .. } = *self;
        cpu.world().gather_rows(&cpu.f32(self.x)?, [groups, count, len], &mut cpu.f32_mut(self.out)?)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { groups, count, len, share, x, out } = *self;
        gpu::gather_rows(gpu, [groups, count, len], share, [x, out])
    }
}

impl Differentiable for GatherRows {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { groups, count, len, share, x, out } = *self;
        let Some(dy) = gradients.of(out) else { return };
        if gradients.wants(x) {
            let dx = gradients.write(x);
            gradients.push(OwnRows { groups, count, len, share, is_whole: false, x: dy, out: dx });
        }
    }
}

impl Operation for OwnCount {
    fn name(&self) -> &'static str {
        "own count"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.count), Operand::write(self.out)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let count = cpu.i32(self.count)?[0].max(0) as usize;
        cpu.i32_mut(self.out)?[0] = count.min(self.rows.end).saturating_sub(self.rows.start) as i32;
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::own_count(gpu, self);
        Ok(())
    }
}

impl Operation for PlaceRows {
    fn name(&self) -> &'static str {
        "rows in their places"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.gathered), Operand::write(self.out)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { groups, count, len, ranks, .. } = *self;
        let gathered = cpu.f32(self.gathered)?;
        ensure!(gathered.len() == groups * count * len, "{} values of rows", gathered.len());
        let share = Share { size: ranks, ..Share::default() };
        share.place([groups, count, len], &gathered, &mut cpu.f32_mut(self.out)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::place_rows(gpu, self);
        Ok(())
    }
}
