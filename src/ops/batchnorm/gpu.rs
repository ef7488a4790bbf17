//! Launches of `batchnorm.cu`: partial sums over tiles of rows, a small kernel that combines them, then one
//! pass that applies the result.

mod joint;

use anyhow::{Result, ensure};

use super::{
    BatchNorm, BatchNormGradient, BatchNormInference, MASK_FROM_BITS, MASK_FROM_X, Normalisation,
    PartialGradientSums, PartialStatistics, ValidRows,
};
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::kernels::batchnorm::{
    self as kernels, FINISH_CHANNELS, FINISH_LANES, FORWARD_BLOCKS, GRADIENT_BLOCKS, THREADS,
};
use crate::device::gpu::launch::{Address, KernelOf, Launch, Parameters};
use crate::device::gpu::lower::{Lowering, Waiting};
use crate::device::gpu::work::{Span, Work};
use crate::device::operation::by_type;
use crate::device::{Element, Operand, Tensor};

/// Most vectors of channels side by side in a block of a pass over activations: a warp's worth.
const WIDTH: usize = 32;
/// Channels, and most lanes, of a block that adds up tiles.
const FINISH_BLOCK: [usize; 2] = [FINISH_CHANNELS, FINISH_LANES];
/// Fewest rows per thread: a block's reduction costs about as much as reading this many.
const LEAST_ROWS: usize = 4;

/// The blocks that a pass over `[rows, channels]` is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockGrid {
    /// Vectors of 16 bytes side by side in a block, and rows below each other.
    width: usize,
    lanes: usize,
    /// Blocks across the channels and down the rows.
    slices: usize,
    tiles: usize,
    tile_rows: usize,
}

impl BlockGrid {
    /// About as many equal blocks as the GPU runs at once with `resident` blocks per multiprocessor.
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

/// A launch of a kernel that adds up the `tiles` partial sums of each channel, by blocks of so many channels and at
/// most so many lanes.
fn over_tiles<P: Parameters>(
    kernel: KernelOf<P>,
    [block_channels, most_lanes]: [usize; 2],
    [channels, tiles]: [usize; 2],
    parameters: P,
) -> Launch {
    let lanes = tiles.div_ceil(4).next_power_of_two().min(most_lanes);
    Launch {
        block: [block_channels as u32, lanes as u32, 1],
        ..kernel.linear(channels.div_ceil(block_channels), 1, parameters)
    }
}

/// The partial sums of `tiles` tiles: two a channel.
pub(super) fn partials(address: Address, tiles: usize, channels: usize) -> Span {
    Span::new(address, tiles * 2 * channels * 4)
}

/// Checks that `channels` of `element` are whole vectors of 16 bytes.
fn check(rows: usize, channels: usize, element: Element) -> Result<()> {
    let vector = 16 / element.bytes();
    ensure!(
        rows > 0 && channels > 0 && channels.is_multiple_of(vector),
        "batchnorm of {rows} rows of {channels} channels: needs a multiple of {vector} channels"
    );
    Ok(())
}

/// The address of the number of valid images, null if all are valid, and the rows of each image.
fn valid_rows(lowering: &Lowering<'_>, valid: Option<ValidRows>) -> (Address, usize) {
    let images = lowering.optional(valid.map(|valid| valid.count));
    (images, valid.map_or(0, |valid| valid.rows_each))
}

/// Lowers batchnorm with the running statistics.
pub(super) fn inference(lowering: &mut Lowering<'_>, operation: &BatchNormInference) -> Result<()> {
    let &BatchNormInference { rows, channels, x, affine, running, residual, relu, y } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let kernel = by_type(
        element,
        [
            kernels::BATCHNORM_INFERENCE_BF16,
            kernels::BATCHNORM_INFERENCE_F16,
            kernels::BATCHNORM_INFERENCE_F32,
        ],
    )?;
    let operands = [x, affine, running, y];
    let launch = apply(lowering, kernel, [rows, channels], operands, (residual, None), relu, None);
    lowering.launch(launch);
    Ok(())
}

/// What a pass over `[rows, channels]` of `x` does, with `flops` a value.
fn pass(lowering: &Lowering<'_>, [rows, channels]: [usize; 2], x: Tensor, flops: usize) -> Work {
    Work::of((flops * rows * channels) as f64).reading([lowering.span(x)])
}

/// A launch of one pass that computes y from x and the statistics, and with a residual its bits where they are asked
/// for.
fn apply(
    lowering: &mut Lowering<'_>,
    kernel: KernelOf<kernels::Apply>,
    [rows, channels]: [usize; 2],
    [x, affine, statistics, y]: [Tensor; 4],
    (residual, positive): (Option<Tensor>, Option<Tensor>),
    relu: bool,
    valid: Option<ValidRows>,
) -> Launch {
    let cut = BlockGrid::new(lowering.gpu(), rows, channels, lowering.element(x), FORWARD_BLOCKS);
    let (images, rows_each) = valid_rows(lowering, valid);
    let work = pass(lowering, [rows, channels], x, if residual.is_some() { 4 } else { 3 })
        .reading([affine, statistics].map(|tensor| lowering.span(tensor)))
        .reading(lowering.optional_span(residual))
        .writing([lowering.span(y)])
        .writing(lowering.optional_span(positive));
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
        positive: lowering.optional(positive),
    };
    cut.launch(kernel, parameters).doing(work)
}

/// Whose rows the statistics are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum StatisticsOf {
    /// This GPU's.
    Own,
    /// Those of all GPUs that share the batch.
    Joint,
}

/// Lowers training batchnorm; `sums` are a convolution's partial statistics of x. Without them a kernel
/// computes them.
pub(super) fn forward(
    lowering: &mut Lowering<'_>,
    operation: &BatchNorm,
    sums: Option<PartialStatistics>,
    statistics: StatisticsOf,
) -> Result<()> {
    let &BatchNorm { rows, channels, x, affine, batch, residual, relu, valid, y, positive, .. } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    let (images, rows_each) = valid_rows(lowering, valid);
    let (partial, tiles, tile_rows) = match sums {
        Some(sums) => (sums.address, sums.tiles, sums.rows_per_tile),
        None => {
            let cut = BlockGrid::new(lowering.gpu(), rows, channels, element, FORWARD_BLOCKS);
            let partial = lowering.workspace(cut.tiles * 2 * channels * 4);
            let kernel = by_type(
                element,
                [
                    kernels::BATCHNORM_STATISTICS_BF16,
                    kernels::BATCHNORM_STATISTICS_F16,
                    kernels::BATCHNORM_STATISTICS_F32,
                ],
            )?;
            let work =
                pass(lowering, [rows, channels], x, 4).writing([partials(partial, cut.tiles, channels)]);
            let (x, tile_rows) = (lowering.address(x), cut.tile_rows);
            let parameters = kernels::Statistics { rows, channels, tile_rows, rows_each, x, images, partial };
            lowering.launch(cut.launch(kernel, parameters).doing(work));
            (partial, cut.tiles, cut.tile_rows)
        }
    };
    let partial = PartialStatistics { address: partial, tiles, rows_per_tile: tile_rows };
    match statistics {
        StatisticsOf::Own => finish_statistics(lowering, operation, &partial),
        StatisticsOf::Joint => joint::statistics(lowering, operation, &partial)?,
    }
    let kernel = by_type(
        element,
        [kernels::BATCHNORM_APPLY_BF16, kernels::BATCHNORM_APPLY_F16, kernels::BATCHNORM_APPLY_F32],
    )?;
    let positive = positive.filter(|_| relu && residual.is_some());
    let tensors = [x, affine, batch, y];
    let launch = apply(lowering, kernel, [rows, channels], tensors, (residual, positive), relu, valid);
    if valid.is_some() || element == Element::F32 {
        lowering.launch(launch);
        return Ok(());
    }
    let read = [x, affine, batch].into_iter().chain(residual).map(Operand::read);
    let written = [y].into_iter().chain(positive).map(Operand::write);
    let operands = read.chain(written).collect();
    let of = BatchNorm { positive, ..operation.clone() };
    let waiting = Waiting { work: Normalisation { of, residual: None }, launches: vec![launch], operands };
    let waiting = with_residual(lowering, waiting);
    // The convolution that reads y may normalise x itself.
    lowering.put_off(waiting);
    Ok(())
}

/// The last pass of a batchnorm; together with that of the batchnorm that gives its residual, where it waits and
/// nothing else reads its result.
fn with_residual(lowering: &mut Lowering<'_>, own: Waiting<Normalisation>) -> Waiting<Normalisation> {
    let BatchNorm { residual, x, y, running, batch, positive, .. } = own.work.of;
    let Some(residual) = residual.filter(|&residual| lowering.is_only_between(residual)) else { return own };
    // It comes behind the convolution that is lowered with this batchnorm, which writes x, and behind the statistics.
    let written: Vec<Tensor> = [x, running, batch, y].into_iter().chain(positive).collect();
    match lowering.find_put_off::<Normalisation>(residual, &written) {
        Some(before) if before.work.is_affine() => {
            lowering.do_put_off(residual);
            Waiting {
                work: Normalisation { residual: Some(before.work.of), ..own.work },
                launches: [before.launches, own.launches].concat(),
                operands: [before.operands, own.operands].concat(),
            }
        }
        _ => own,
    }
}

/// Launches what makes statistics of those of the tiles.
fn finish_statistics(lowering: &mut Lowering<'_>, operation: &BatchNorm, sums: &PartialStatistics) {
    let &BatchNorm { rows, channels, running, batch, valid, .. } = operation;
    let &PartialStatistics { address: partial, tiles, rows_per_tile: tile_rows } = sums;
    let (images, rows_each) = valid_rows(lowering, valid);
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
    lowering.launch(
        over_tiles(kernels::BATCHNORM_FINISH, FINISH_BLOCK, [channels, tiles], parameters).doing(work),
    );
}

/// Lowers the gradient: partial sums over rows unless they are there, their finish, and the pass that writes dx.
pub(super) fn gradient(
    lowering: &mut Lowering<'_>,
    operation: &BatchNormGradient,
    sums: Option<PartialGradientSums>,
    statistics: StatisticsOf,
) -> Result<()> {
    let &BatchNormGradient { rows, channels, x, valid, affine, batch, dy, d_affine, dx, .. } = operation;
    let element = lowering.element(x);
    check(rows, channels, element)?;
    ensure!(
        operation.mask() != MASK_FROM_BITS || operation.positive.is_some(),
        "the gradient of a batchnorm with residual and ReLU needs the bits of its result"
    );
    let cut = BlockGrid::new(lowering.gpu(), rows, channels, element, GRADIENT_BLOCKS);
    let partial = match sums {
        Some(sums) => sums,
        None => gradient_sums(lowering, operation, &cut)?,
    };
    // Where the sums stand that the last pass divides by the number of rows.
    let d_affine = match statistics {
        StatisticsOf::Own => {
            finish_gradient(lowering, operation, partial);
            lowering.address(d_affine)
        }
        StatisticsOf::Joint => joint::gradient(lowering, operation, partial)?,
    };
    let is_masked = operation.mask() != MASK_FROM_X || sums.is_some();
    let launch = apply_gradient(lowering, operation, &cut, d_affine, is_masked)?;
    // What several processes sum stands in the workspace, which is given to others.
    let can_wait = is_masked && valid.is_none() && statistics == StatisticsOf::Own && element != Element::F32;
    if !can_wait {
        lowering.launch(launch);
        return Ok(());
    }
    let read = [x, affine, batch, dy, operation.d_affine].map(Operand::read).into_iter();
    let operands = read.chain([Operand::write(dx)]).collect();
    // The data gradient of the convolution that gave x may compute dx itself.
    lowering.put_off(Waiting { work: operation.clone(), launches: vec![launch], operands });
    Ok(())
}

/// The pass that writes dx, with the sums that stand in `d_affine`; `is_masked`: dy is.
fn apply_gradient(
    lowering: &mut Lowering<'_>,
    operation: &BatchNormGradient,
    cut: &BlockGrid,
    d_affine: Address,
    is_masked: bool,
) -> Result<Launch> {
    use kernels::*;
    let &BatchNormGradient { rows, channels, x, valid, affine, batch, dy, dx, .. } = operation;
    let element = lowering.element(x);
    let (images, rows_each) = valid_rows(lowering, valid);
    let span = |tensor: Tensor| lowering.span(tensor);
    let work = pass(lowering, [rows, channels], x, 5)
        .reading([span(dy), span(affine), span(batch), Span::new(d_affine, 2 * channels * 4)])
        .writing([span(dx)]);
    let [x, affine, batch, dy, dx] = [x, affine, batch, dy, dx].map(|tensor| lowering.address(tensor));
    let parameters = GradientApply {
        rows,
        channels,
        tile_rows: cut.tile_rows,
        rows_each,
        x,
        affine,
        batch,
        dy,
        d_affine,
        images,
        dx,
    };
    let kernels = match is_masked {
        false => [
            BATCHNORM_GRADIENT_APPLY_RELU_BF16,
            BATCHNORM_GRADIENT_APPLY_RELU_F16,
            BATCHNORM_GRADIENT_APPLY_RELU_F32,
        ],
        true => [BATCHNORM_GRADIENT_APPLY_BF16, BATCHNORM_GRADIENT_APPLY_F16, BATCHNORM_GRADIENT_APPLY_F32],
    };
    Ok(cut.launch(by_type(element, kernels)?, parameters).doing(work))
}

/// Launches what makes the gradient of the parameters of the sums of the tiles.
fn finish_gradient(
    lowering: &mut Lowering<'_>,
    operation: &BatchNormGradient,
    PartialGradientSums { address: partial, tiles }: PartialGradientSums,
) {
    let &BatchNormGradient { channels, batch, d_affine, .. } = operation;
    let work = Work::of((2 * tiles * channels) as f64)
        .reading([partials(partial, tiles, channels), lowering.span(batch)])
        .writing([lowering.span(d_affine)]);
    let [batch, d_affine] = [batch, d_affine].map(|tensor| lowering.address(tensor));
    let parameters = kernels::BatchnormGradientFinish { channels, tiles, partial, batch, d_affine };
    lowering.launch(
        over_tiles(kernels::BATCHNORM_GRADIENT_FINISH, FINISH_BLOCK, [channels, tiles], parameters)
            .doing(work),
    );
}

/// Lowers the partial sums over rows by themselves.
fn gradient_sums(
    lowering: &mut Lowering<'_>,
    operation: &BatchNormGradient,
    cut: &BlockGrid,
) -> Result<PartialGradientSums> {
    use kernels::*;
    let &BatchNormGradient { rows, channels, x, positive, valid, affine, batch, dy, .. } = operation;
    let kernels = match operation.mask() {
        MASK_FROM_X => [
            BATCHNORM_GRADIENT_SUMS_RELU_BF16,
            BATCHNORM_GRADIENT_SUMS_RELU_F16,
            BATCHNORM_GRADIENT_SUMS_RELU_F32,
        ],
        MASK_FROM_BITS => [
            BATCHNORM_GRADIENT_SUMS_RESIDUAL_BF16,
            BATCHNORM_GRADIENT_SUMS_RESIDUAL_F16,
            BATCHNORM_GRADIENT_SUMS_RESIDUAL_F32,
        ],
        _ => [BATCHNORM_GRADIENT_SUMS_BF16, BATCHNORM_GRADIENT_SUMS_F16, BATCHNORM_GRADIENT_SUMS_F32],
    };
    let kernel = by_type(lowering.element(x), kernels)?;
    let sums = PartialGradientSums::new(lowering, cut.tiles, channels);
    let (images, rows_each) = valid_rows(lowering, valid);
    let (mask, span) = (operation.mask(), |tensor: Tensor| lowering.span(tensor));
    let work = pass(lowering, [rows, channels], x, 5)
        .reading([span(dy), span(batch)])
        .reading((mask == MASK_FROM_X).then(|| span(affine)))
        .reading(positive.filter(|_| mask == MASK_FROM_BITS).map(span))
        .writing((mask == MASK_FROM_BITS).then(|| span(dy)))
        .writing([sums.span(channels)]);
    let positive = lowering.optional(positive);
    let [x, affine, batch, dy] = [x, affine, batch, dy].map(|tensor| lowering.address(tensor));
    let tile_rows = cut.tile_rows;
    let parameters = GradientSums {
        rows,
        channels,
        tile_rows,
        rows_each,
        x,
        positive,
        affine,
        batch,
        images,
        dy,
        partial: sums.address,
    };
    lowering.launch(cut.launch(kernel, parameters).doing(work));
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtx_3090() -> Gpu {
        Gpu {
            name: "RTX 3090".into(),
            architecture: 86,
            multiprocessors: 82,
            shared_bytes: 101_376,
            choice: Default::default(),
        }
    }

    /// The tiles cover every shape with at most 256 threads per block, and the layers of a ResNet fill the
    /// multiprocessors once, none twice.
    #[test]
    fn cuts_cover_every_row_and_fill_the_gpu() {
        let gpu = rtx_3090();
        for element in [Element::Bf16, Element::F16, Element::F32] {
            for rows in [1, 2, 31, 33, 1000, 8192, 524_288] {
                for channels in [8, 16, 24, 40, 64, 264, 512, 1000, 2048] {
                    let cut = BlockGrid::new(&gpu, rows, channels, element, FORWARD_BLOCKS);
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
            let cut = BlockGrid::new(&gpu, rows, channels, Element::Bf16, FORWARD_BLOCKS);
            let blocks = cut.slices * cut.tiles;
            assert!((270..=328).contains(&blocks), "{rows} x {channels}: {blocks} blocks, {cut:?}");
        }
    }
}
