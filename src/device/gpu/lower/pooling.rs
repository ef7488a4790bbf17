//! Global average pooling: one thread a vector of channels of an image.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::kernels::pooling::{self as kernels, THREADS};
use crate::device::{Element, Primitive};

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    let (images, positions, channels, activations) = match *primitive {
        Primitive::AveragePool { images, positions, channels, x, .. } => (images, positions, channels, x),
        Primitive::AveragePoolGradient { images, positions, channels, dx, .. } => {
            (images, positions, channels, dx)
        }
        _ => bail!("'{}' is no pooling", primitive.name()),
    };
    let element = lowering.element(activations);
    let (average_pool, average_pool_gradient, vector) = match element {
        Element::Bf16 => (kernels::AVERAGE_POOL_BF16, kernels::AVERAGE_POOL_GRADIENT_BF16, 8),
        Element::F32 => (kernels::AVERAGE_POOL_F32, kernels::AVERAGE_POOL_GRADIENT_F32, 4),
        other => bail!("'{}' of {other:?}", primitive.name()),
    };
    ensure!(
        images > 0 && positions > 0 && channels > 0 && channels.is_multiple_of(vector),
        "'{}' of {images} images of {positions} positions of {channels} channels: needs a multiple of {vector} channels",
        primitive.name()
    );
    let blocks = (images * (channels / vector)).div_ceil(THREADS);
    let launch = match *primitive {
        Primitive::AveragePoolGradient { dy, dx, .. } => {
            let [dy, dx] = [dy, dx].map(|tensor| lowering.address(tensor));
            let parameters = kernels::AveragePoolGradient { images, positions, channels, dy, dx };
            average_pool_gradient.linear(blocks, THREADS, parameters)
        }
        Primitive::AveragePool { x, y, .. } => {
            let [x, y] = [x, y].map(|tensor| lowering.address(tensor));
            let parameters = kernels::AveragePool { images, positions, channels, x, y };
            average_pool.linear(blocks, THREADS, parameters)
        }
        _ => bail!("'{}' is no pooling", primitive.name()),
    };
    lowering.launch(launch);
    Ok(())
}
