//! The one operation that differentiation itself needs: it adds up the gradients of a tensor that is used
//! several times.

use anyhow::Result;
use rayon::prelude::*;

use crate::device::cpu::Call;
use crate::device::gpu::kernels::optimizer::{self as kernels, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::device::{Operand, Operation, Tensor};

/// into `[len]` += x `[len]`, both f32 or both activations; each sum is rounded once.
#[derive(Clone, Debug, PartialEq)]
pub struct Add {
    /// Elements of both tensors.
    pub len: usize,
    /// The summand, of the type of `into`.
    pub x: Tensor,
    /// The tensor that x is added to, in place.
    pub into: Tensor,
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::update(self.into)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        const CHUNK: usize = 1 << 14;
        let (x, (mut into, rounding)) = (cpu.f32(self.x)?, cpu.rounded_mut(self.into)?);
        into.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(into, x)| {
            into.iter_mut().zip(x).for_each(|(into, x)| *into += x);
            rounding.apply(into);
        });
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { len, x, into } = *self;
        let element = gpu.element(into);
        anyhow::ensure!(gpu.element(x) == element, "no addition of {:?} to {element:?}", gpu.element(x));
        let kernel = by_type(element, [kernels::ADD_BF16, kernels::ADD_F16, kernels::ADD_F32])?;
        let [x, into] = [x, into].map(|tensor| gpu.address(tensor));
        let parameters = kernels::Add { len, x, into };
        gpu.launch_over(kernel, [THREADS, 16 / element.bytes()], len, parameters);
        Ok(())
    }
}
