//! Launches of `optimizer.cu`: four parameters per thread.

use anyhow::{Result, ensure};

use super::Sgd;
use crate::device::Element;
use crate::device::gpu::kernels::optimizer::{self as kernels, ELEMENTS, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::ops::elementwise::check_parameters;

/// Lowers a step.
pub(super) fn lower(gpu: &mut Lowering<'_>, operation: &Sgd) -> Result<()> {
    let &Sgd { len, momentum, weight_decay, nesterov, control, gradients, velocity, parameters, copy } =
        operation;
    ensure!(
        copy.is_none_or(|copy| gpu.element(copy) == Element::Bf16),
        "SGD keeps a rounded copy of the weights in bf16 only"
    );
    check_parameters(len)?;
    let given = kernels::Sgd {
        len,
        momentum,
        weight_decay,
        control: gpu.address(control),
        gradients: gpu.address(gradients),
        velocity: gpu.address(velocity),
        parameters: gpu.address(parameters),
        copy: gpu.optional(copy),
    };
    let kernel = if nesterov { kernels::SGD_NESTEROV } else { kernels::SGD };
    gpu.launch_over(kernel, [THREADS, ELEMENTS], len, given);
    Ok(())
}
