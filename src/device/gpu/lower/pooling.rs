//! Global average pooling: one thread a vector of channels of an image.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Element, Primitive};

const THREADS: usize = 256;

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    let (shape, activations, names, from, to) = match *primitive {
        Primitive::AveragePool { images, positions, channels, x, y } => {
            ([images, positions, channels], x, ["average_pool_bf16", "average_pool_f32"], x, y)
        }
        Primitive::AveragePoolGradient { images, positions, channels, dy, dx } => (
            [images, positions, channels],
            dx,
            ["average_pool_gradient_bf16", "average_pool_gradient_f32"],
            dy,
            dx,
        ),
        _ => bail!("'{}' is no pooling", primitive.name()),
    };
    let (name, vector) = match lowering.element(activations) {
        Element::Bf16 => (names[0], 8),
        Element::F32 => (names[1], 4),
        other => bail!("'{}' of {other:?}", primitive.name()),
    };
    let [images, positions, channels] = shape;
    ensure!(
        images > 0 && positions > 0 && channels > 0 && channels.is_multiple_of(vector),
        "'{}' of {images} images of {positions} positions of {channels} channels: needs a multiple of {vector} channels",
        primitive.name()
    );
    let arguments = Arguments::new()
        .count(images)
        .count(positions)
        .count(channels)
        .pointer(lowering.address(from))
        .pointer(lowering.address(to));
    let blocks = (images * (channels / vector)).div_ceil(THREADS);
    lowering.launch(Launch::linear(Kernel { file: "pooling.cu", name }, blocks, THREADS, arguments));
    Ok(())
}
