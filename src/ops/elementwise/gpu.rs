//! Launches of the elementwise kernels of `optimizer.cu`.

use anyhow::{Result, bail};

use super::{Convert, Relu, ReluGradient, Sum};
use crate::device::Element;
use crate::device::gpu::kernels::optimizer::{self as kernels, ELEMENTS, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::usage;

/// Checks that the kernels can index `len` parameters.
///
/// # Errors
/// A usage error if there are too many.
pub(crate) fn check_parameters(len: usize) -> Result<()> {
    match i32::try_from(len) {
        Ok(_) => Ok(()),
        Err(_) => Err(usage!(
            "the network has {len} parameters, more than the 2147483647 that the kernels index; \
             use a smaller --width"
        )),
    }
}

/// Lowers a conversion of a network's parameters, or a copy of activations.
pub(super) fn convert(gpu: &mut Lowering<'_>, operation: &Convert) -> Result<()> {
    let &Convert { len, from, to } = operation;
    let kernel = match (gpu.element(from), gpu.element(to)) {
        (Element::F32, Element::Bf16) => kernels::CONVERT_BF16,
        (Element::F32, Element::F16) => kernels::CONVERT_F16,
        (Element::F32, Element::F32) => kernels::CONVERT_F32,
        (Element::Bf16, Element::Bf16) | (Element::F16, Element::F16) => {
            let [from, to] = [from, to].map(|tensor| gpu.address(tensor));
            let each = 16 / Element::Bf16.bytes();
            gpu.launch_over(kernels::COPY_BF16, [THREADS, each], len, kernels::CopyBf16 { len, from, to });
            return Ok(());
        }
        (from, to) => bail!("no conversion of {from:?} to {to:?}"),
    };
    check_parameters(len)?;
    let [from, to] = [from, to].map(|tensor| gpu.address(tensor));
    gpu.launch_over(kernel, [THREADS, ELEMENTS], len, kernels::Convert { len, from, to });
    Ok(())
}

/// Lowers a sum.
pub(super) fn sum(gpu: &mut Lowering<'_>, &Sum { len, terms, out }: &Sum) -> Result<()> {
    let element = gpu.element(out);
    let kernel = by_type(element, [kernels::SUM_BF16, kernels::SUM_F16, kernels::SUM_F32])?;
    let [a, b, out] = [terms[0], terms[1], out].map(|tensor| gpu.address(tensor));
    gpu.launch_over(kernel, [THREADS, 16 / element.bytes()], len, kernels::Sum { len, a, b, out });
    Ok(())
}

/// Lowers a ReLU.
pub(super) fn relu(gpu: &mut Lowering<'_>, &Relu { len, x, y }: &Relu) {
    let [x, y] = [x, y].map(|tensor| gpu.address(tensor));
    gpu.launch_over(kernels::RELU, [THREADS, 1], len, kernels::Relu { len, x, y });
}

/// Lowers its gradient.
pub(super) fn relu_gradient(gpu: &mut Lowering<'_>, operation: &ReluGradient) {
    let &ReluGradient { len, y, dy, dx } = operation;
    let [y, dy, dx] = [y, dy, dx].map(|tensor| gpu.address(tensor));
    gpu.launch_over(kernels::RELU_GRADIENT, [THREADS, 1], len, kernels::ReluGradient { len, y, dy, dx });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::driver::Gpu;
    use crate::device::{Buffer, Tensor};
    use crate::error::UsageError;

    /// A ResNet-101 of width 1024 has about ten billion parameters.
    #[test]
    fn more_parameters_than_the_kernels_number_are_refused() {
        let gpu = Gpu {
            name: "a GPU".into(),
            architecture: 86,
            multiprocessors: 82,
            shared_bytes: 101_376,
            choice: Default::default(),
        };
        let of_length = |len: usize| {
            let buffers = [Element::F32, Element::Bf16].map(|element| Buffer {
                allocation: 0,
                offset: 0,
                len,
                element,
            });
            let mut lowering = Lowering::new(&gpu, &buffers, &[256, 512]);
            convert(&mut lowering, &Convert { len, from: Tensor(0), to: Tensor(1) })
        };
        of_length(i32::MAX as usize).unwrap();
        let error = of_length(1 << 31).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--width"), "{error}");
    }
}
