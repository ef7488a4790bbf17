//! Sums over processes, and values of the first.

use anyhow::{Result, ensure};

use super::gpu;
use crate::autograd::Add;
use crate::device::cpu::Call;
use crate::device::gpu::exchange::Exchange;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// Begins the sum of `values` over the processes: what follows goes on beside it. [`EndSum`] waits for it; in
/// between, the values are undefined.
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

/// The middle of a sum on a GPU: values = the sum over so many processes, in the order of the ranks, of these
/// values, as those of process `rank`, and of what the others have sent.
#[derive(Clone, Debug, PartialEq)]
pub struct AddParts {
    /// Values.
    pub len: usize,
    /// This process.
    pub rank: usize,
    /// Processes.
    pub ranks: usize,
    /// f32 `[ranks, len]`; this process's own are not read.
    pub received: Tensor,
    /// f32 `[len]`.
    pub values: Tensor,
}

/// Adds a further forward pass's gradients to those of the first, beside what follows: what reads them is the sum
/// over the processes, beside it as well.
#[derive(Clone, Debug, PartialEq)]
pub struct AddPass(pub Add);

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
        vec![Operand::update(self.values)]
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.world().collective().begin_sum(self.number, &cpu.f32(self.values)?)
    }

    fn runs_aside(&self) -> bool {
        true
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::sum(gpu, self.len, self.values)
    }
}

impl Operation for AddPass {
    fn name(&self) -> &'static str {
        "add pass"
    }

    fn operands(&self) -> Vec<Operand> {
        self.0.operands()
    }

    fn flops(&self) -> f64 {
        self.0.flops()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        self.0.run(cpu)
    }

    fn runs_aside(&self) -> bool {
        true
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        self.0.lower(gpu)
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

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.world().collective().end_sum(self.number, &mut cpu.f32_mut(self.values)?)
    }

    /// A GPU has done everything in [`BeginSum`]: whoever reads the values waits for it.
    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        Ok(())
    }
}

impl Operation for TakeFirst {
    fn name(&self) -> &'static str {
        "values of rank 0"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::update(self.values)]
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let mut values = cpu.f32_mut(self.values)?;
        let bytes = bytemuck::cast_slice::<f32, u8>(&values).to_vec();
        let first = cpu.world().collective().broadcast(bytes)?;
        bytemuck::cast_slice_mut::<f32, u8>(&mut values).copy_from_slice(&first);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let values = gpu.address(self.values);
        gpu.exchange(Exchange::First { values, bytes: self.len * size_of::<f32>() })
    }
}

impl Operation for AddParts {
    fn name(&self) -> &'static str {
        "sum of parts"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.received), Operand::update(self.values)]
    }

    fn flops(&self) -> f64 {
        (self.len * (self.ranks - 1)) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (received, mut values) = (cpu.f32(self.received)?, cpu.f32_mut(self.values)?);
        ensure!(received.len() == self.ranks * self.len, "{} values were received", received.len());
        for (i, value) in values.iter_mut().enumerate() {
            let of = |rank| if rank == self.rank { *value } else { received[rank * self.len + i] };
            *value = (1..self.ranks).fold(of(0), |sum, rank| sum + of(rank));
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::add_parts(gpu, self);
        Ok(())
    }
}
