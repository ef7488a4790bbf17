//! Batchnorm: partial sums of tiles of rows, finished by a small kernel, then one pass that applies them.

use anyhow::{Result, ensure};

use super::{BatchNorm, BatchNormGradient, BatchNormInference, PartialStatistics, ValidRows};
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::kernels::batchnorm::{
    self as kernels, FINISH_CHANNELS, FINISH_LANES, FORWARD_BLOCKS, GRADIENT_BLOCKS, THREADS,
};
use crate::device::gpu::launch::{Address, KernelOf, Launch, Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};
use crate::device::operation::by_type;
use crate::device::{Element, Tensor};

/// Vectors of channels side by side in a block of the passes over activations at most: a warp's worth.
const WIDTH: usize = 32;
/// Rows a thread should have at least: the sums of a block cost about as much as reading so many.
const LEAST_ROWS: usize = 4;

/// How a pass over `[rows, channels]` is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    /// Vectors of 16 bytes side by side in a block, and rows under each other.
    width: usize,
    lanes: usize,
    /// Blocks across the channels and down the rows.
    slices: usize,
    tiles: usize,
    tile_rows: usize,
}

impl Cut {
    /// About as many equal blocks as the GPU holds at once with `resident` on a multiprocessor.
    fn new(gpu: &Gpu, rows: usize, channels: usize, element: Element, resident: usize) -> Self {
        let vectors = channels * element.bytes() / 16;
        let slices = vectors.div_ceil(WIDTH);
        let width = vectors.div_ceil(slices);
        let lanes = THREADS / width;
        let tiles = (gpu.multiprocessors * resident).div_ceil(slices);
        let tiles = tiles.min(rows.div_ceil(lanes * LEAST_ROWS));
        let tile_rows = rows.div_ceil(tiles).next_multiple_of(lanes);
        Self { width, lanes, slices, tiles: rows.div_ceil(tile_rows), tile_rows }
    }

    fn launch<P: Parameters>(&self, kernel: KernelOf<P>, parameters: P) -> Launch {
        Launch {
            grid: [self.slices as u32, self.tiles as u32, 1],
            block: [self.width as u32, self.lanes as u32, 1],
            ..kernel.linear(1, 1, parameters)
        }
    }
}

/// A launch of a finishing kernel, which adds up `tiles` partial sums of each channel.
fn finish<P: Parameters>(kernel: KernelOf<P>, channels: usize, tiles: usize, parameters: P) -> Launch {
    let lanes = tiles.div_ceil(4).next_power_of_two().min(FINISH_LANES);
    Launch {
        block: [FINISH_CHANNELS as u32, lanes as u32, 1],
        ..kernel.linear(channels.div_ceil(FINISH_CHANNELS), 1, parameters)
    }
}

/// The partial sums of `tiles` tiles: two a channel.
fn partials(address: Address, tiles: usize, channels: usize) -> Span {
    Span::new(address, tiles * 2 * channels * 4)
}

/// Whether the kernels can take `channels` of `element`: whole vectors of 16 bytes.
fn check(rows: usize, channels: usize, element: Element) -> Result<()> {
    let vector = 16 / element.bytes();
    ensure!(
        rows > 0 && channels > 0 && channels.is_multiple_of(vector),
        "batchnorm of {rows} rows of {channels} channels: needs a multiple of {vector} channels"
    );
    Ok(())
}

/// What every pass is given of the rows that are valid: where the number of images is, or null, and the rows of each.
fn valid_rows(lowering: &Lowering<'_>, valid: Option<ValidRows>) -> (Address, usize) {
    let images = lowering.optional(valid.map(|valid| valid.count));
    (images, valid.map_or(0, |valid| valid.rows_each))
}

/// Lowers batchnorm with the running statistics.
pub(super) fn inference(lowering: &mut Lowering<'_>, operation: &BatchNormInference) -> Result<()> {
    let &BatchNormInference { rows, channels, x, affine, running, residual, relu, y } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let kernel = by_type(element, kernels::BATCHNORM_INFERENCE_BF16, kernels::BATCHNORM_INFERENCE_F32)?;
    apply(lowering, kernel, [rows, channels], [x, affine, running, y], residual, relu, None);
    Ok(())
}

/// What a pass over `[rows, channels]` of `x` does, with `flops` a value.
fn pass(lowering: &Lowering<'_>, [rows, channels]: [usize; 2], x: Tensor, flops: usize) -> Work {
    Work::of((flops * rows * channels) as f64).reading([lowering.span(x)])
}

/// One pass: y from x with the statistics in `[x, affine, statistics, y]`.
fn apply(
    lowering: &mut Lowering<'_>,
    kernel: KernelOf<kernels::Apply>,
    [rows, channels]: [usize; 2],
    [x, affine, statistics, y]: [Tensor; 4],
    residual: Option<Tensor>,
    relu: bool,
    valid: Option<ValidRows>,
) {
    let cut = Cut::new(lowering.gpu(), rows, channels, lowering.element(x), FORWARD_BLOCKS);
    let (images, rows_each) = valid_rows(lowering, valid);
    let work = pass(lowering, [rows, channels], x, if residual.is_some() { 4 } else { 3 })
        .reading([affine, statistics].map(|tensor| lowering.span(tensor)))
        .reading(lowering.optional_span(residual))
        .writing([lowering.span(y)]);
    let parameters = kernels::Apply {
        rows,
        channels,
        tile_rows: cut.tile_rows,
        rows_each,
        with_relu: usize::from(relu),
        x: lowering.address(x),
        affine: lowering.address(affine),
        statistics: lowering.address(statistics),
        residual: lowering.optional(residual),
        images,
        y: lowering.address(y),
    };
    lowering.launch(cut.launch(kernel, parameters).doing(work));
}

/// Lowers training batchnorm; `sums` are a convolution's partial statistics of x, else a kernel makes them.
pub(super) fn forward(
    lowering: &mut Lowering<'_>,
    operation: &BatchNorm,
    sums: Option<PartialStatistics>,
) -> Result<()> {
    let &BatchNorm { rows, channels, x, affine, running, batch, residual, relu, valid, y } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let (images, rows_each) = valid_rows(lowering, valid);
    let (partial, tiles, tile_rows) = match sums {
        Some(sums) => (sums.address, sums.tiles, sums.rows_per_tile),
        None => {
            let cut = Cut::new(lowering.gpu(), rows, channels, element, FORWARD_BLOCKS);
            let partial = lowering.workspace(cut.tiles * 2 * channels * 4);
            let kernel =
                by_type(element, kernels::BATCHNORM_STATISTICS_BF16, kernels::BATCHNORM_STATISTICS_F32)?;
            let work =
                pass(lowering, [rows, channels], x, 4).writing([partials(partial, cut.tiles, channels)]);
            let (x, tile_rows) = (lowering.address(x), cut.tile_rows);
            let parameters = kernels::Statistics { rows, channels, tile_rows, rows_each, x, images, partial };
            lowering.launch(cut.launch(kernel, parameters).doing(work));
            (partial, cut.tiles, cut.tile_rows)
        }
    };
    let [running_span, batch_span] = [running, batch].map(|tensor| lowering.span(tensor));
    let work = Work::of((8 * tiles * channels) as f64)
        .reading([partials(partial, tiles, channels), running_span])
        .writing([running_span, batch_span]);
    let parameters = kernels::BatchnormFinish {
        rows,
        channels,
        tiles,
        tile_rows,
        rows_each,
        partial,
        images,
        running: lowering.address(running),
        batch: lowering.address(batch),
    };
    lowering.launch(finish(kernels::BATCHNORM_FINISH, channels, tiles, parameters).doing(work));
    let kernel = by_type(element, kernels::BATCHNORM_APPLY_BF16, kernels::BATCHNORM_APPLY_F32)?;
    apply(lowering, kernel, [rows, channels], [x, affine, batch, y], residual, relu, valid);
    Ok(())
}

/// The reduction over rows, its finish, and the pass that gives dx.
pub(super) fn gradient(lowering: &mut Lowering<'_>, operation: &BatchNormGradient) -> Result<()> {
    let &BatchNormGradient { rows, channels, x, y, relu, residual, valid, affine, batch, dy, d_affine, dx } =
        operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let cut = Cut::new(lowering.gpu(), rows, channels, element, GRADIENT_BLOCKS);
    let partial = lowering.workspace(cut.tiles * 2 * channels * 4);

    let (sums, apply) = gradient_kernels(element, relu, residual)?;
    let (images, rows_each) = valid_rows(lowering, valid);
    let span = |tensor: Tensor| lowering.span(tensor);
    // With a residual y gives the mask, which is left in dy.
    let masked = relu && residual;
    let sums_work = pass(lowering, [rows, channels], x, 5)
        .reading([span(dy), span(batch)])
        .reading((relu && !residual).then(|| span(affine)))
        .reading(masked.then(|| span(y)))
        .writing(masked.then(|| span(dy)))
        .writing([partials(partial, cut.tiles, channels)]);
    let finish_work = Work::of((2 * cut.tiles * channels) as f64)
        .reading([partials(partial, cut.tiles, channels), span(batch)])
        .writing([span(d_affine)]);
    let apply_work = pass(lowering, [rows, channels], x, 5)
        .reading([span(dy), span(affine), span(batch), span(d_affine)])
        .writing([span(dx)]);
    let [x, y, affine, batch, dy, d_affine, dx] =
        [x, y, affine, batch, dy, d_affine, dx].map(|tensor| lowering.address(tensor));
    let tile_rows = cut.tile_rows;
    let parameters = kernels::GradientSums {
        rows,
        channels,
        tile_rows,
        rows_each,
        x,
        y,
        affine,
        batch,
        images,
        dy,
        partial,
    };
    lowering.launch(cut.launch(sums, parameters).doing(sums_work));
    let tiles = cut.tiles;
    let parameters = kernels::BatchnormGradientFinish { channels, tiles, partial, batch, d_affine };
    lowering
        .launch(finish(kernels::BATCHNORM_GRADIENT_FINISH, channels, tiles, parameters).doing(finish_work));
    let parameters = kernels::GradientApply {
        rows,
        channels,
        tile_rows,
        rows_each,
        x,
        affine,
        batch,
        dy,
        d_affine,
        images,
        dx,
    };
    lowering.launch(cut.launch(apply, parameters).doing(apply_work));
    Ok(())
}

/// The kernels of the gradient's sums and of its last pass. With a residual the ReLU's mask comes from y and is left in dy; without,
/// both passes recompute it from x.
fn gradient_kernels(
    element: Element,
    relu: bool,
    residual: bool,
) -> Result<(KernelOf<kernels::GradientSums>, KernelOf<kernels::GradientApply>)> {
    use kernels::*;
    let plain = (BATCHNORM_GRADIENT_APPLY_BF16, BATCHNORM_GRADIENT_APPLY_F32);
    let (sums, apply) = match (relu, residual) {
        (false, _) => ((BATCHNORM_GRADIENT_SUMS_BF16, BATCHNORM_GRADIENT_SUMS_F32), plain),
        (true, false) => (
            (BATCHNORM_GRADIENT_SUMS_RELU_BF16, BATCHNORM_GRADIENT_SUMS_RELU_F32),
            (BATCHNORM_GRADIENT_APPLY_RELU_BF16, BATCHNORM_GRADIENT_APPLY_RELU_F32),
        ),
        (true, true) => {
            ((BATCHNORM_GRADIENT_SUMS_RESIDUAL_BF16, BATCHNORM_GRADIENT_SUMS_RESIDUAL_F32), plain)
        }
    };
    Ok((by_type(element, sums.0, sums.1)?, by_type(element, apply.0, apply.1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtx_3090() -> Gpu {
        Gpu { name: "RTX 3090".into(), architecture: 86, multiprocessors: 82, shared_bytes: 101_376 }
    }

    /// Every shape is covered by whole tiles of at most 256 threads, and the layers of a ResNet fill the
    /// multiprocessors once, none twice.
    #[test]
    fn cuts_cover_every_row_and_fill_the_gpu() {
        let gpu = rtx_3090();
        for element in [Element::Bf16, Element::F32] {
            for rows in [1, 2, 31, 33, 1000, 8192, 524_288] {
                for channels in [8, 16, 24, 40, 64, 264, 512, 1000, 2048] {
                    let cut = Cut::new(&gpu, rows, channels, element, FORWARD_BLOCKS);
                    let vectors = channels * element.bytes() / 16;
                    assert!(cut.width * cut.lanes <= THREADS && cut.width <= WIDTH, "{cut:?}");
                    assert!(
                        cut.slices * cut.width >= vectors && (cut.slices - 1) * cut.width < vectors,
                        "{cut:?}"
                    );
                    assert!(
                        cut.tiles * cut.tile_rows >= rows && (cut.tiles - 1) * cut.tile_rows < rows,
                        "{cut:?}"
                    );
                }
            }
        }
        for (rows, channels) in [(524_288, 64), (131_072, 128), (32_768, 256), (8192, 512)] {
            let cut = Cut::new(&gpu, rows, channels, Element::Bf16, FORWARD_BLOCKS);
            let blocks = cut.slices * cut.tiles;
            assert!((270..=328).contains(&blocks), "{rows} x {channels}: {blocks} blocks, {cut:?}");
        }
    }
}
