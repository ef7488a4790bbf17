//! Launches of `optimizer.cu`: four elements per thread.

use anyhow::{Result, bail};

use super::Convert;
use crate::device::Element;
use crate::device::gpu::launch::{Arguments, Kernel};
use crate::device::gpu::lower::Lowering;
use crate::usage;

/// Whether the kernels can number `len` parameters.
///
/// # Errors
/// A usage error where they cannot.
pub(crate) fn check_parameters(len: usize) -> Result<()> {
    match i32::try_from(len) {
        Ok(_) => Ok(()),
        Err(_) => Err(usage!(
            "the network has {len} parameters, the kernels number 2147483647; use a smaller --width"
        )),
    }
}

/// Lowers a conversion: of a network's parameters, the only arrays that are converted whole.
pub(super) fn convert(gpu: &mut Lowering<'_>, operation: &Convert) -> Result<()> {
    let &Convert { len, from, to } = operation;
    let name = match (gpu.element(from), gpu.element(to)) {
        (Element::F32, Element::Bf16) => "convert_bf16",
        (Element::F32, Element::F32) => "convert_f32",
        (from, to) => bail!("no conversion of {from:?} to {to:?}"),
    };
    check_parameters(len)?;
    let arguments = Arguments::new().count(len).pointer(gpu.address(from)).pointer(gpu.address(to));
    gpu.launch_over(Kernel { file: "optimizer.cu", name }, len, 4, arguments);
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
        let of_length = |len: usize| {
            let buffers = [Element::F32, Element::Bf16].map(|element| Buffer {
                allocation: 0,
                offset: 0,
                len,
                element,
            });
            let mut lowering = Lowering::new(&gpu, &buffers, &[256, 512], 0);
            convert(&mut lowering, &Convert { len, from: Tensor(0), to: Tensor(1) })
        };
        of_length(i32::MAX as usize).unwrap();
        let error = of_length(1 << 31).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--width"), "{error}");
    }
}
