//! Launches of `pooling.cu`: one thread per vector of channels of an image.

use anyhow::{Result, ensure};

use super::{AveragePool, AveragePoolGradient};
use crate::device::gpu::kernels::pooling::{self as kernels, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::device::{Element, Operation};

/// Blocks for a shape of images, positions and channels of `element`.
fn blocks(of: &dyn Operation, [images, positions, channels]: [usize; 3], element: Element) -> Result<usize> {
    let vector = 16 / element.bytes();
    ensure!(
        images > 0 && positions > 0 && channels > 0 && channels.is_multiple_of(vector),
        "'{}' of {images} images of {positions} positions of {channels} channels: needs a multiple of \
         {vector} channels",
        of.name()
    );
    Ok((images * (channels / vector)).div_ceil(THREADS))
}

pub(super) fn lower(of: &AveragePool, gpu: &mut Lowering<'_>) -> Result<()> {
    let element = gpu.element(of.x);
    let kernel =
        by_type(element, [kernels::AVERAGE_POOL_BF16, kernels::AVERAGE_POOL_F16, kernels::AVERAGE_POOL_F32])?;
    let ([images, positions, channels], blocks) = (of.shape, blocks(of, of.shape, element)?);
    let [x, y] = [of.x, of.y].map(|tensor| gpu.address(tensor));
    let parameters = kernels::AveragePool { images, positions, channels, x, y };
    gpu.launch(kernel.linear(blocks, THREADS, parameters));
    Ok(())
}

pub(super) fn lower_gradient(of: &AveragePoolGradient, gpu: &mut Lowering<'_>) -> Result<()> {
    let element = gpu.element(of.dx);
    let kernel = by_type(
        element,
        [
            kernels::AVERAGE_POOL_GRADIENT_BF16,
            kernels::AVERAGE_POOL_GRADIENT_F16,
            kernels::AVERAGE_POOL_GRADIENT_F32,
        ],
    )?;
    let ([images, positions, channels], blocks) = (of.shape, blocks(of, of.shape, element)?);
    let [dy, dx] = [of.dy, of.dx].map(|tensor| gpu.address(tensor));
    let parameters = kernels::AveragePoolGradient { images, positions, channels, dy, dx };
    gpu.launch(kernel.linear(blocks, THREADS, parameters));
    Ok(())
}
