//! Passes over the flat arena of all parameters: SGD; addition and conversion of flat arrays: four elements a thread.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::kernels::optimizer::{self as kernels, ELEMENTS, THREADS};
use crate::device::gpu::launch::{KernelOf, Launch, Parameters};
use crate::device::{Element, Primitive};
use crate::usage;

fn launch<P: Parameters>(kernel: KernelOf<P>, len: usize, parameters: P) -> Launch {
    kernel.linear(len.div_ceil(ELEMENTS).div_ceil(THREADS), THREADS, parameters)
}

/// Whether the kernels can number `len` parameters.
fn check(len: usize) -> Result<()> {
    match i32::try_from(len) {
        Ok(_) => Ok(()),
        Err(_) => Err(usage!(
            "the network has {len} parameters, the kernels number 2147483647; use a smaller --width"
        )),
    }
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::Sgd { len, momentum, weight_decay, control, gradients, velocity, parameters, copy } => {
            ensure!(
                copy.is_none_or(|copy| lowering.element(copy) == Element::Bf16),
                "SGD keeps a rounded copy of the weights in bf16 only"
            );
            if len == 0 {
                return Ok(());
            }
            check(len)?;
            let parameters = kernels::Sgd {
                len,
                momentum,
                weight_decay,
                control: lowering.address(control),
                gradients: lowering.address(gradients),
                velocity: lowering.address(velocity),
                parameters: lowering.address(parameters),
                copy: lowering.optional(copy),
            };
            lowering.launch(launch(kernels::SGD, len, parameters));
        }
        Primitive::Add { len, x, into } => {
            if len == 0 {
                return Ok(());
            }
            let [x, into] = [x, into].map(|tensor| lowering.address(tensor));
            lowering.launch(launch(kernels::ADD, len, kernels::Add { len, x, into }));
        }
        Primitive::Convert { len, from, to } => {
            let kernel = match (lowering.element(from), lowering.element(to)) {
                (Element::F32, Element::Bf16) => kernels::CONVERT_BF16,
                (Element::F32, Element::F32) => kernels::CONVERT_F32,
                (from, to) => bail!("no conversion of {from:?} to {to:?}"),
            };
            if len == 0 {
                return Ok(());
            }
            check(len)?;
            let [from, to] = [from, to].map(|tensor| lowering.address(tensor));
            lowering.launch(launch(kernel, len, kernels::Convert { len, from, to }));
        }
        _ => bail!("'{}' is no primitive of the optimiser", primitive.name()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::driver::Gpu;
    use crate::device::{Buffer, Tensor};
    use crate::error::UsageError;

    /// ResNet-101 of width 1024 has ten thousand million parameters.
    #[test]
    fn more_parameters_than_the_kernels_number_are_refused() {
        let gpu = Gpu { name: "a GPU".into(), architecture: 86, multiprocessors: 82, shared_bytes: 101_376 };
        let convert = |len: usize| {
            let buffers = [Element::F32, Element::Bf16].map(|element| Buffer {
                allocation: 0,
                offset: 0,
                len,
                element,
            });
            let mut lowering = Lowering::new(&gpu, &buffers, &[256, 512]);
            lower(&mut lowering, &Primitive::Convert { len, from: Tensor(0), to: Tensor(1) })
        };
        convert(i32::MAX as usize).unwrap();
        let error = convert(1 << 31).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--width"), "{error}");
    }
}
