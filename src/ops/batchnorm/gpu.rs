//! Batchnorm: partial sums of tiles of rows, finished by a small kernel, then one pass that applies them.

use anyhow::{Result, ensure};

use super::{BatchNorm, BatchNormGradient, BatchNormInference, PartialStatistics, ValidRows};
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::device::{Element, Tensor};

/// Threads of a block of the passes over activations, and vectors of channels side by side in it at most: a
/// warp's worth.
const THREADS: usize = 256;
const WIDTH: usize = 32;
/// Blocks a multiprocessor holds at once, for which the kernels' registers are bounded.
const FORWARD_BLOCKS: usize = 4;
const GRADIENT_BLOCKS: usize = 3;
/// Rows a thread should have at least: the sums of a block cost about as much as reading so many.
const LEAST_ROWS: usize = 4;
/// Channels, and tiles side by side at most, of a block of the finishing kernels.
const FINISH_CHANNELS: usize = 8;
const FINISH_LANES: usize = 128;

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

    fn launch(&self, name: &'static str, arguments: Arguments) -> Launch {
        Launch {
            kernel: kernel(name),
            grid: [self.slices as u32, self.tiles as u32, 1],
            block: [self.width as u32, self.lanes as u32, 1],
            shared_bytes: 0,
            cooperative: false,
            arguments,
        }
    }
}

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "batchnorm.cu", name }
}

/// A launch of a finishing kernel, which adds up `tiles` partial sums of each channel.
fn finish(name: &'static str, channels: usize, tiles: usize, arguments: Arguments) -> Launch {
    let lanes = tiles.div_ceil(4).next_power_of_two().min(FINISH_LANES);
    Launch {
        block: [FINISH_CHANNELS as u32, lanes as u32, 1],
        ..Launch::linear(kernel(name), channels.div_ceil(FINISH_CHANNELS), 1, arguments)
    }
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

/// The last arguments of every pass: where the number of images is, or null, and the rows of each.
fn valid_rows(lowering: &Lowering<'_>, arguments: Arguments, valid: Option<ValidRows>) -> Arguments {
    let rows_each = valid.map_or(0, |valid| valid.rows_each);
    arguments.pointer(lowering.optional(valid.map(|valid| valid.count))).count(rows_each)
}

/// Lowers batchnorm with the running statistics.
pub(super) fn inference(lowering: &mut Lowering<'_>, operation: &BatchNormInference) -> Result<()> {
    let &BatchNormInference { rows, channels, x, affine, running, residual, relu, y } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let name = by_type(element, "batchnorm_inference_bf16", "batchnorm_inference_f32")?;
    apply(lowering, name, [rows, channels], [x, affine, running, y], residual, relu, None);
    Ok(())
}

/// One pass: y from x with the statistics in `[x, affine, statistics, y]`.
fn apply(
    lowering: &mut Lowering<'_>,
    name: &'static str,
    [rows, channels]: [usize; 2],
    [x, affine, statistics, y]: [Tensor; 4],
    residual: Option<Tensor>,
    relu: bool,
    valid: Option<ValidRows>,
) {
    let cut = Cut::new(lowering.gpu(), rows, channels, lowering.element(x), FORWARD_BLOCKS);
    let arguments = Arguments::new()
        .count(rows)
        .count(channels)
        .count(cut.tile_rows)
        .count(usize::from(relu))
        .pointer(lowering.address(x))
        .pointer(lowering.address(affine))
        .pointer(lowering.address(statistics))
        .pointer(lowering.optional(residual))
        .pointer(lowering.address(y));
    let arguments = valid_rows(lowering, arguments, valid);
    lowering.launch(cut.launch(name, arguments));
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
    let (address, tiles, tile_rows) = match sums {
        Some(sums) => (sums.address, sums.tiles, sums.rows_per_tile),
        None => {
            let cut = Cut::new(lowering.gpu(), rows, channels, element, FORWARD_BLOCKS);
            let partial = lowering.workspace(cut.tiles * 2 * channels * 4);
            let name = by_type(element, "batchnorm_statistics_bf16", "batchnorm_statistics_f32")?;
            let arguments = Arguments::new()
                .count(rows)
                .count(channels)
                .count(cut.tile_rows)
                .pointer(lowering.address(x))
                .pointer(partial);
            let arguments = valid_rows(lowering, arguments, valid);
            lowering.launch(cut.launch(name, arguments));
            (partial, cut.tiles, cut.tile_rows)
        }
    };
    let arguments = Arguments::new()
        .count(rows)
        .count(channels)
        .count(tiles)
        .count(tile_rows)
        .pointer(address)
        .pointer(lowering.address(running))
        .pointer(lowering.address(batch));
    let arguments = valid_rows(lowering, arguments, valid);
    lowering.launch(finish("batchnorm_finish", channels, tiles, arguments));
    let name = by_type(element, "batchnorm_apply_bf16", "batchnorm_apply_f32")?;
    apply(lowering, name, [rows, channels], [x, affine, batch, y], residual, relu, valid);
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

    // With a residual the ReLU's mask comes from y and is left in dy; without, both passes recompute it from
    // x.
    let (sums, apply) = match (relu, residual) {
        (false, _) => (
            by_type(element, "batchnorm_gradient_sums_bf16", "batchnorm_gradient_sums_f32")?,
            by_type(element, "batchnorm_gradient_apply_bf16", "batchnorm_gradient_apply_f32")?,
        ),
        (true, false) => (
            by_type(element, "batchnorm_gradient_sums_relu_bf16", "batchnorm_gradient_sums_relu_f32")?,
            by_type(element, "batchnorm_gradient_apply_relu_bf16", "batchnorm_gradient_apply_relu_f32")?,
        ),
        (true, true) => (
            by_type(
                element,
                "batchnorm_gradient_sums_residual_bf16",
                "batchnorm_gradient_sums_residual_f32",
            )?,
            by_type(element, "batchnorm_gradient_apply_bf16", "batchnorm_gradient_apply_f32")?,
        ),
    };
    let arguments = Arguments::new()
        .count(rows)
        .count(channels)
        .count(cut.tile_rows)
        .pointer(lowering.address(x))
        .pointer(lowering.address(y))
        .pointer(lowering.address(affine))
        .pointer(lowering.address(batch))
        .pointer(lowering.address(dy))
        .pointer(partial);
    let arguments = valid_rows(lowering, arguments, valid);
    lowering.launch(cut.launch(sums, arguments));
    let arguments = Arguments::new()
        .count(channels)
        .count(cut.tiles)
        .pointer(partial)
        .pointer(lowering.address(batch))
        .pointer(lowering.address(d_affine));
    lowering.launch(finish("batchnorm_gradient_finish", channels, cut.tiles, arguments));
    let arguments = Arguments::new()
        .count(rows)
        .count(channels)
        .count(cut.tile_rows)
        .pointer(lowering.address(x))
        .pointer(lowering.address(affine))
        .pointer(lowering.address(batch))
        .pointer(lowering.address(dy))
        .pointer(lowering.address(d_affine))
        .pointer(lowering.address(dx));
    let arguments = valid_rows(lowering, arguments, valid);
    lowering.launch(cut.launch(apply, arguments));
    Ok(())
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
