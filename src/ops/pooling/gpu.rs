//! Launches of `pooling.cu`: one thread per vector of channels of an image.

use anyhow::{Result, ensure};

use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::device::{Element, Tensor};

const THREADS: usize = 256;

/// Kernels for bf16 and f32 activations.
pub(super) const FORWARD: [&str; 2] = ["average_pool_bf16", "average_pool_f32"];
pub(super) const GRADIENT: [&str; 2] = ["average_pool_gradient_bf16", "average_pool_gradient_f32"];

/// Launches one of `kernels`, by the type of `activations`, on a `shape` of images, positions and channels.
pub(super) fn lower(
    gpu: &mut Lowering<'_>,
    operation: &str,
    shape: [usize; 3],
    kernels: [&'static str; 2],
    activations: Tensor,
    [from, to]: [Tensor; 2],
) -> Result<()> {
    let [images, positions, channels] = shape;
    let element = gpu.element(activations);
    let name = by_type(element, kernels[0], kernels[1])?;
    let vector = if element == Element::Bf16 { 8 } else { 4 };
    ensure!(
        images > 0 && positions > 0 && channels > 0 && channels.is_multiple_of(vector),
        "'{operation}' of {images} images of {positions} positions of {channels} channels: needs a multiple of {vector} \
         channels"
    );
    let arguments = Arguments::new().counts(&shape).pointer(gpu.address(from)).pointer(gpu.address(to));
    let blocks = (images * (channels / vector)).div_ceil(THREADS);
    gpu.launch(Launch::linear(Kernel { file: "pooling.cu", name }, blocks, THREADS, arguments));
    Ok(())
}
