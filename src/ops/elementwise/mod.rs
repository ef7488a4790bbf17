//! Passes over flat arrays.

mod gpu;

use anyhow::Result;

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
pub(crate) use gpu::check_parameters;

/// `to` `[len]` = `from` `[len]`, rounded to the type of `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct Convert {
    pub len: usize,
    pub from: Tensor,
    pub to: Tensor,
}

impl Operation for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.from), Operand::write(self.to)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.f32_mut(self.to)?.copy_from_slice(&cpu.f32(self.from)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::convert(gpu, self)
    }
}
