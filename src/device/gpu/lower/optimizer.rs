//! Passes over the flat arena of all parameters: SGD; addition and conversion of flat arrays: four elements a thread.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Element, Primitive};
use crate::usage;

const THREADS: usize = 256;
/// Elements of a thread.
const ELEMENTS: usize = 4;

fn launch(name: &'static str, len: usize, arguments: Arguments) -> Launch {
    let kernel = Kernel { file: "optimizer.cu", name };
    Launch::linear(kernel, len.div_ceil(ELEMENTS).div_ceil(THREADS), THREADS, arguments)
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
            let arguments = Arguments::new()
                .count(len)
                .float(momentum)
                .float(weight_decay)
                .pointer(lowering.address(control))
                .pointer(lowering.address(gradients))
                .pointer(lowering.address(velocity))
                .pointer(lowering.address(parameters))
                .pointer(lowering.optional(copy));
            lowering.launch(launch("sgd", len, arguments));
        }
        Primitive::Add { len, x, into } => {
            if len == 0 {
                return Ok(());
            }
            let arguments =
                Arguments::new().count(len).pointer(lowering.address(x)).pointer(lowering.address(into));
            lowering.launch(launch("add", len, arguments));
        }
        Primitive::Convert { len, from, to } => {
            let name = match (lowering.element(from), lowering.element(to)) {
                (Element::F32, Element::Bf16) => "convert_bf16",
                (Element::F32, Element::F32) => "convert_f32",
                (from, to) => bail!("no conversion of {from:?} to {to:?}"),
            };
            if len == 0 {
                return Ok(());
            }
            check(len)?;
            let arguments =
                Arguments::new().count(len).pointer(lowering.address(from)).pointer(lowering.address(to));
            lowering.launch(launch(name, len, arguments));
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
            let mut lowering = Lowering::new(&gpu, &buffers, &[256, 512], 0);
            lower(&mut lowering, &Primitive::Convert { len, from: Tensor(0), to: Tensor(1) })
        };
        convert(i32::MAX as usize).unwrap();
        let error = convert(1 << 31).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--width"), "{error}");
    }
}
