//! Sums over processes, and values of the first.

use anyhow::{Result, bail};

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// Begins the sum of `values` over the processes: what follows goes on beside it. [`EndSum`] waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct BeginSum {
    /// Which sum of the step, from 0.
    pub number: usize,
    /// Values.
    pub len: usize,
    /// This process's, f32 `[len]`.
    pub values: Tensor,
}

/// values = their sum over the processes, in the order of the ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct EndSum {
    /// Which sum of the step, from 0.
    pub number: usize,
    /// Values.
    pub len: usize,
    /// f32 `[len]`.
    pub values: Tensor,
}

/// values = those of rank 0.
#[derive(Clone, Debug, PartialEq)]
pub struct TakeFirst {
    /// Values.
    pub len: usize,
    /// f32 `[len]`.
    pub values: Tensor,
}

impl Operation for BeginSum {
    fn name(&self) -> &'static str {
        "begin sum"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.values)]
    }

    fn runs_in_main_memory(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.world().collective().begin_sum(self.number, &cpu.f32(self.values)?)
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        bail!("there is no kernel for '{}'", self.name())
    }
}

impl Operation for EndSum {
    fn name(&self) -> &'static str {
        "end sum"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::update(self.values)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn runs_in_main_memory(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.world().collective().end_sum(self.number, &mut cpu.f32_mut(self.values)?)
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        bail!("there is no kernel for '{}'", self.name())
    }
}

impl Operation for TakeFirst {
    fn name(&self) -> &'static str {
        "values of rank 0"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::update(self.values)]
    }

    fn runs_in_main_memory(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let mut values = cpu.f32_mut(self.values)?;
        let bytes = bytemuck::cast_slice::<f32, u8>(&values).to_vec();
        let first = cpu.world().collective().broadcast(bytes)?;
        bytemuck::cast_slice_mut::<f32, u8>(&mut values).copy_from_slice(&first);
        Ok(())
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        bail!("there is no kernel for '{}'", self.name())
    }
}
