//! Which of the ways to compute a convolution is taken: the fastest, as measured on the GPU or else by the
//! model (`device/gpu/tiles/`).
//!
//! Every way is lowered by itself, and its launches are timed. That depends on the shape, the GPU's
//! description and the measured times alone, so the same run gives the same launches.

use crate::device::gpu::driver::Gpu;
use crate::device::gpu::launch::Kernel;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::model::gpus;
use crate::device::gpu::tiles::{Beside, Decision, Way};

/// The way whose launches, which `lower` appends, take the least time ([`Decision::taken`]).
///
/// # Panics
/// Without a way.
pub(super) fn fastest<W: Clone>(
    lowering: &mut Lowering<'_>,
    beside: Beside,
    ways: &[W],
    lower: impl Fn(&W, &mut Lowering<'_>),
) -> W {
    if let [only] = ways {
        return only.clone();
    }
    let gpu = gpus::Gpu::nearest(lowering.gpu());
    let lowered = |way: &W| {
        let mut apart = lowering.apart();
        lower(way, &mut apart);
        Way::of(apart, &gpu)
    };
    let decision = Decision::new(beside, ways.iter().map(lowered).collect());
    ways[lowering.decide(decision)].clone()
}

/// Where the GPU's description asks for tiles, one way alone, so that nothing is timed: of those by a kernel of
/// the first tile that has one, the last that is `preferred`, else the first; without such a kernel the first of
/// all.
pub(super) fn of_wanted_tile<W>(
    gpu: &Gpu,
    mut ways: Vec<W>,
    kernel: impl Fn(&W) -> Kernel,
    preferred: impl Fn(&W) -> bool,
) -> Vec<W> {
    let is_of = |way: &W, tile: &str| {
        let name = kernel(way).name;
        let own = name.trim_end_matches("_short").trim_end_matches("_f16");
        let is_plain = |rest: &str| {
            rest.ends_with('_') && !["_halo_", "_of_batchnorm_"].iter().any(|kind| rest.ends_with(kind))
        };
        own.strip_suffix(tile).is_some_and(is_plain)
    };
    let find = |tile: &&str| {
        let best = ways.iter().rposition(|way| is_of(way, tile) && preferred(way));
        best.or_else(|| ways.iter().position(|way| is_of(way, tile)))
    };
    if gpu.choice.tiles.is_empty() {
        return ways;
    }
    let wanted = gpu.choice.tiles.iter().find_map(find).unwrap_or(0);
    vec![ways.swap_remove(wanted)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Buffer, Element, Tensor};
    use crate::ops::convolution::{ConvolutionShape, gpu};

    /// The kernels of the weight gradient of a layer of ResNet-18, 512 images of `size` with so many
    /// channels.
    fn weight_gradient(gpu: &Gpu, size: usize, channels: usize) -> Vec<&'static str> {
        let (height, width) = (size, size);
        let (in_channels, out_channels, kernel, stride) = (channels, channels, 3, 1);
        let shape = ConvolutionShape { batch: 512, height, width, in_channels, out_channels, kernel, stride };
        let lengths = [shape.input_len(), shape.output_len(), shape.weight_len()];
        let elements = [Element::Bf16, Element::Bf16, Element::F32];
        let buffers: Vec<Buffer> = lengths
            .into_iter()
            .zip(elements)
            .enumerate()
            .map(|(allocation, (len, element))| Buffer { allocation, offset: 0, len, element })
            .collect();
        let mut lowering = Lowering::new(gpu, &buffers, &[1 << 30, 2 << 30, 3 << 30]);
        gpu::weight_gradient(&mut lowering, &shape, [0, 1, 2].map(Tensor)).unwrap();
        lowering.into_launches().iter().map(|launch| launch.kernel.name).collect()
    }

    /// On an H100, whose shared memory holds products up, x is copied once for all taps in every layer; a
    /// tile that is asked for is taken; and a choice is the same every time.
    #[test]
    fn the_fastest_by_the_model_is_taken() {
        let mut h100 = gpus::Gpu::find("h100").unwrap().description();
        let rtx3090 = gpus::Gpu::find("rtx3090").unwrap().description();
        for (size, channels) in [(32, 64), (16, 128), (8, 256), (4, 512)] {
            let taken = weight_gradient(&h100, size, channels);
            assert_eq!(taken[0], "convolution_weight_gradient_halo_64x288", "{size}");
            assert_eq!(weight_gradient(&rtx3090, size, channels), weight_gradient(&rtx3090, size, channels));
        }
        const WANTED: [[&str; 2]; 3] = [["none", "64x64"], ["halo_64x288", "64x64"], ["64x192", "none"]];
        for (tiles, taken) in WANTED.iter().zip(["64x64", "halo_64x288", "64x192"]) {
            h100.choice.tiles = tiles;
            assert_eq!(weight_gradient(&h100, 32, 64)[0], format!("convolution_weight_gradient_{taken}"));
        }
    }
}
