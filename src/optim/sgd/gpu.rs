//! Launches of `optimizer.cu`: four parameters per thread.

use anyhow::{Result, ensure};

use super::Sgd;
use crate::device::Element;
use crate::device::gpu::launch::{Arguments, Kernel};
use crate::device::gpu::lower::Lowering;
use crate::ops::elementwise::check_parameters;

/// Lowers a step.
pub(super) fn lower(gpu: &mut Lowering<'_>, operation: &Sgd) -> Result<()> {
    let &Sgd { len, momentum, weight_decay, control, gradients, velocity, parameters, copy } = operation;
    ensure!(
        copy.is_none_or(|copy| gpu.element(copy) == Element::Bf16),
        "SGD keeps a rounded copy of the weights in bf16 only"
    );
    check_parameters(len)?;
    let arguments = Arguments::new()
        .count(len)
        .float(momentum)
        .float(weight_decay)
        .pointer(gpu.address(control))
        .pointer(gpu.address(gradients))
        .pointer(gpu.address(velocity))
        .pointer(gpu.address(parameters))
        .pointer(gpu.optional(copy));
    gpu.launch_over(Kernel { file: "optimizer.cu", name: "sgd" }, len, 4, arguments);
    Ok(())
}
