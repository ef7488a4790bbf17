//! Counting the values of a buffer that are not finite, which decides after an epoch whether its state is fit
//! to go on from. The state stays on the device: a few counts are read, not the weights.

use anyhow::Result;

use crate::device::cpu::Call;
use crate::device::gpu::kernels::loss::{self as kernels, STEP_THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// Values that a thread of the kernel looks at before there are more blocks than needed.
const VALUES_OF_A_THREAD: usize = 16;

/// Values of one launch at most.
const MOST_VALUES: usize = 1 << 30;

/// counts\[slot\] += how many of `values` f32 `[len]` are infinite or NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct CountNotFinite {
    /// Values that are looked at.
    pub len: usize,
    /// Where in `counts` to add.
    pub slot: usize,
    /// f32, at least `len`.
    pub values: Tensor,
    /// i32; what was there before stays in the sum.
    pub counts: Tensor,
}

impl Operation for CountNotFinite {
    fn name(&self) -> &'static str {
        "count of values that are not finite"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.values).touching(self.len), Operand::update(self.counts).touching(1)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let found = cpu.f32(self.values)?[..self.len].iter().filter(|value| !value.is_finite()).count();
        let mut counts = cpu.i32_mut(self.counts)?;
        counts[self.slot] = counts[self.slot].saturating_add(i32::try_from(found).unwrap_or(i32::MAX));
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let most = 2 * gpu.gpu().multiprocessors;
        // The kernel numbers values by int: a larger buffer takes several launches.
        for first in (0..self.len).step_by(MOST_VALUES) {
            let len = MOST_VALUES.min(self.len - first);
            let blocks = len.div_ceil(STEP_THREADS * VALUES_OF_A_THREAD).min(most);
            let parameters = kernels::CountNotFinite {
                len,
                slot: self.slot,
                values: gpu.address(self.values).plus(first * size_of::<f32>()),
                counts: gpu.address(self.counts),
            };
            gpu.launch(kernels::COUNT_NOT_FINITE.linear(blocks, STEP_THREADS, parameters));
        }
        Ok(())
    }
}
