//! Launches of `optimizer.cu`: four parameters per thread.

use anyhow::{Result, bail};

use super::Sgd;
use crate::device::Element;
use crate::device::gpu::kernels::optimizer::{self as kernels, ELEMENTS, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::ops::elementwise::check_parameters;
use crate::optim::loss_scale::Scaling;

/// Lowers a step.
pub(super) fn lower(gpu: &mut Lowering<'_>, operation: &Sgd) -> Result<()> {
    let &Sgd { len, momentum, weight_decay, nesterov, control, gradients, scaling, velocity, .. } = operation;
    let &Sgd { parameters, copy, .. } = operation;
    let [plain, with_nesterov] = match copy.map(|copy| gpu.element(copy)) {
        None | Some(Element::Bf16) => [kernels::SGD, kernels::SGD_NESTEROV],
        Some(Element::F16) => [kernels::SGD_F16, kernels::SGD_NESTEROV_F16],
        Some(other) => bail!("SGD keeps a rounded copy of the weights in bf16 or f16, not in {other:?}"),
    };
    check_parameters(len)?;
    let [scale, not_finite] = Scaling::addresses(scaling, gpu);
    let given = kernels::Sgd {
        len,
        momentum,
        weight_decay,
        control: gpu.address(control),
        gradients: gpu.address(gradients),
        scale,
        not_finite,
        velocity: gpu.address(velocity),
        parameters: gpu.address(parameters),
        copy: gpu.optional(copy),
    };
    let kernel = if nesterov { with_nesterov } else { plain };
    gpu.launch_over(kernel, [THREADS, ELEMENTS], len, given);
    Ok(())
}
