//! Launches of the convolution kernels, `kernels/convolution*.cu`; `tiles.rs` cuts the work, `choice.rs` chooses.
//!
//! | operands | forward, data gradient | weight gradient |
//! |---|---|---|
//! | bf16, f16 | `convolution_forward.cu`, `convolution_data_gradient.cu` | `convolution_weight_gradient.cu` |
//! | bf16 or f16, patch of at most 32 values (first layer) | `convolution_stem.cu`, none | `convolution_stem.cu` |
//! | f32 | `convolution_f32.cu` | `convolution_f32.cu` |

mod choice;
mod halo;
#[cfg(all(test, feature = "sim"))]
mod tests;
mod tiles;
mod work;

use anyhow::Result;

use super::ConvolutionShape;
use crate::device::gpu::kernels::batchnorm_value::MASK_NONE;
use crate::device::gpu::kernels::{
    convolution as kernels, convolution_data_gradient, convolution_f32, convolution_forward,
    convolution_inference, convolution_stem, convolution_weight_gradient,
};
use crate::device::gpu::launch::{Address, KernelOf, Launch, Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};
use crate::device::{Element, Tensor};
use crate::ops::batchnorm::{BatchNormGradient, BatchNormInference, PartialGradientSums, PartialStatistics};
use crate::usage;
use choice::Beside;
use halo::Halo;
use tiles::{F32_WEIGHT_TILE, Numbers, Tile, WeightCut, WeightKernel, WeightTile, stem_weight};
use work::Gathered;

/// Which kernels compute a convolution.
#[derive(Clone, Copy)]
enum Path {
    TensorCores,
    Stem,
    F32,
}

/// A kernel of the forward pass.
#[derive(Clone, Copy)]
enum ForwardKernel {
    Tile(KernelOf<convolution_forward::Forward>),
    Stem(KernelOf<convolution_stem::ConvolutionStemForward>),
    F32,
}

/// A kernel of the data gradient.
#[derive(Clone, Copy)]
enum DataGradientKernel {
    Tile(KernelOf<convolution_data_gradient::DataGradient>),
    F32,
}

/// A kernel that gathers taps (forward, data gradient), and its tile of pixels by channels.
#[derive(Clone, Copy)]
struct Gathering<K> {
    kernel: K,
    rows: usize,
    columns: usize,
    threads: usize,
    shared_bytes: usize,
    /// How its pixels are copied, if that is once for all taps.
    halo: Option<Halo>,
}

const fn stem(kernel: KernelOf<convolution_stem::ConvolutionStemForward>) -> Gathering<ForwardKernel> {
    use convolution_stem::{COLUMNS, ROWS, THREADS};
    let shared_bytes = tiles::result_bytes(ROWS, COLUMNS, THREADS);
    let kernel = ForwardKernel::Stem(kernel);
    Gathering { kernel, rows: ROWS, columns: COLUMNS, threads: THREADS, shared_bytes, halo: None }
}

/// The stem's kernels for activations of `element`: forward, weight gradient.
fn stems(element: Element) -> (Gathering<ForwardKernel>, WeightTile) {
    use convolution_stem::*;
    if element == Element::F16 {
        return (stem(CONVOLUTION_STEM_FORWARD_F16), stem_weight(CONVOLUTION_STEM_WEIGHT_GRADIENT_F16));
    }
    (stem(CONVOLUTION_STEM_FORWARD), stem_weight(CONVOLUTION_STEM_WEIGHT_GRADIENT))
}

/// What the tensor cores multiply and add for activations of a tensor's type.
fn numbers(lowering: &Lowering<'_>, tensor: Tensor) -> Numbers {
    Numbers::of(lowering.element(tensor), lowering.gpu().sums_in_f16())
}

const fn f32_gathering<K: Copy>(kernel: K) -> Gathering<K> {
    use convolution_f32::{THREADS, TILE};
    Gathering { kernel, rows: TILE, columns: TILE, threads: THREADS, shared_bytes: 0, halo: None }
}

impl Gathering<ForwardKernel> {
    /// For what its blocks do.
    fn gathered(&self) -> Gathered {
        match self.kernel {
            ForwardKernel::Tile(_) => self.of_tiles(),
            ForwardKernel::Stem(_) => Gathered::Patches,
            ForwardKernel::F32 => Gathered::Plain,
        }
    }
}

impl Gathering<DataGradientKernel> {
    /// For what its blocks do.
    fn gathered(&self) -> Gathered {
        match self.kernel {
            DataGradientKernel::Tile(_) => self.of_tiles(),
            DataGradientKernel::F32 => Gathered::Plain,
        }
    }
}

impl<K: Copy> Gathering<K> {
    fn of<T>(tile: Tile<T>, shape: &ConvolutionShape, kernel: impl Fn(T) -> K) -> Self {
        let (rows, columns, threads) = (tile.rows, tile.columns, tile.threads);
        let (shared_bytes, halo) = (tile.shared_bytes(shape), tile.halo(shape));
        Self { kernel: kernel(tile.kernel), rows, columns, threads, shared_bytes, halo }
    }

    /// What the blocks of a kernel of the tensor cores do.
    fn of_tiles(&self) -> Gathered {
        let tile = [self.rows, self.columns];
        self.halo.map_or(Gathered::Tile(tile), |halo| Gathered::Halo(tile, halo))
    }

    /// A launch over `rows` pixels of `columns` channels; `repeats` is the depth of the grid.
    fn launch<P: Parameters>(
        &self,
        kernel: KernelOf<P>,
        [rows, columns, repeats]: [usize; 3],
        parameters: P,
    ) -> Launch {
        let blocks = rows.div_ceil(self.rows) * columns.div_ceil(self.columns);
        Launch {
            grid: [blocks as u32, 1, repeats as u32],
            shared_bytes: self.shared_bytes as u32,
            ..kernel.linear(blocks, self.threads, parameters)
        }
    }
}

/// y = convolution of x with w; the operands are x, w, y. With `statistics`, the kernel also leaves the
/// partial statistics of y in the workspace.
///
/// # Errors
/// If no kernel supports the shape.
pub(super) fn forward(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    statistics: bool,
) -> Result<Option<PartialStatistics>> {
    let gathering = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => f32_gathering(ForwardKernel::F32),
        Path::Stem => stems(lowering.element(operands[0])).0,
        Path::TensorCores => {
            let tiles = tiles::forward(numbers(lowering, operands[0]));
            let ways = gatherings(lowering, shape, tiles, ForwardKernel::Tile);
            choice::fastest(lowering, Beside::Nothing, &ways, |way, apart| {
                forward_by(way, apart, shape, operands, statistics);
            })
        }
    };
    Ok(forward_by(&gathering, lowering, shape, operands, statistics))
}

/// The ways to gather a shape by tiles.
fn gatherings<P: Copy, K: Copy>(
    lowering: &Lowering<'_>,
    shape: &ConvolutionShape,
    tiles: Vec<Tile<KernelOf<P>>>,
    kernel: impl Fn(KernelOf<P>) -> K,
) -> Vec<Gathering<K>> {
    let gpu = lowering.gpu();
    let taken = tiles.into_iter().filter(|tile| tile.takes(shape, gpu)).collect();
    let wanted = choice::of_wanted_tile(gpu, taken, |tile: &Tile<KernelOf<P>>| tile.kernel.kernel, |_| true);
    wanted.into_iter().map(|tile| Gathering::of(tile, shape, &kernel)).collect()
}

fn forward_by(
    gathering: &Gathering<ForwardKernel>,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    statistics: bool,
) -> Option<PartialStatistics> {
    let (rows_per_tile, rows) = (gathering.rows, pixels(shape));
    let tiles = rows.div_ceil(rows_per_tile);
    let statistics = statistics.then(|| {
        let address = lowering.workspace(tiles * 2 * shape.out_channels * 4);
        PartialStatistics { address, tiles, rows_per_tile }
    });
    let address = statistics.as_ref().map_or(Address::NULL, |statistics| statistics.address);
    let left = statistics.as_ref().map(|_| Span::new(address, tiles * 2 * shape.out_channels * 4));
    let work = work::forward(lowering, shape, operands, gathering.gathered(), left);
    let (extent, shape) = ([rows, shape.out_channels, 1], kernel_shape(shape));
    let [x, w, y] = operands.map(|operand| lowering.address(operand));
    let launch = match gathering.kernel {
        ForwardKernel::Tile(kernel) => {
            let parameters = convolution_forward::Forward { shape, x, w, y, statistics: address };
            gathering.launch(kernel, extent, parameters)
        }
        ForwardKernel::Stem(kernel) => {
            let parameters = convolution_stem::ConvolutionStemForward { shape, x, w, y, statistics: address };
            gathering.launch(kernel, extent, parameters)
        }
        ForwardKernel::F32 => {
            use convolution_f32::{CONVOLUTION_FORWARD_F32, ConvolutionForwardF32};
            let parameters = ConvolutionForwardF32 { shape, x, w, y, statistics: address };
            gathering.launch(CONVOLUTION_FORWARD_F32, extent, parameters)
        }
    };
    lowering.launch(launch.doing(work));
    statistics
}

/// The convolution's result normalised with running statistics, in one kernel; returns whether there is one for
/// the shape. The operands of the convolution are x, w, y.
///
/// # Errors
/// If no kernel supports the shape.
pub(super) fn forward_and_normalise(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    [x, w, _]: [Tensor; 3],
    next: &BatchNormInference,
) -> Result<bool> {
    if !matches!(path(shape, lowering.element(x))?, Path::TensorCores) {
        return Ok(false);
    }
    let tiles = tiles::inference(numbers(lowering, x));
    let ways = gatherings(lowering, shape, tiles, |kernel| kernel);
    let way = choice::fastest(lowering, Beside::Nothing, &ways, |way, apart| {
        normalise_by(way, apart, shape, [x, w], next);
    });
    normalise_by(&way, lowering, shape, [x, w], next);
    Ok(true)
}

fn normalise_by(
    gathering: &Gathering<KernelOf<convolution_inference::Inference>>,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    [x, w]: [Tensor; 2],
    next: &BatchNormInference,
) {
    let rows = pixels(shape);
    let parameters = convolution_inference::Inference {
        shape: kernel_shape(shape),
        with_relu: usize::from(next.relu),
        x: lowering.address(x),
        w: lowering.address(w),
        affine: lowering.address(next.affine),
        running: lowering.address(next.running),
        residual: lowering.optional(next.residual),
        y: lowering.address(next.y),
    };
    let work = work::forward(lowering, shape, [x, w, next.y], gathering.of_tiles(), None)
        .reading([next.affine, next.running].map(|tensor| lowering.span(tensor)))
        .reading(lowering.optional_span(next.residual));
    let launch = gathering.launch(gathering.kernel, [rows, shape.out_channels, 1], parameters);
    lowering.launch(launch.doing(work));
}

/// dx = (or +=) the data gradient; the operands are dy, w, dx. If x is the result of a batchnorm, dx is the dy
/// of its gradient `normalised`, whose sums the kernel leaves in the workspace where it can.
///
/// # Errors
/// Where no kernel does the shape.
pub(super) fn data_gradient(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    accumulate: bool,
    normalised: Option<&BatchNormGradient>,
) -> Result<Option<PartialGradientSums>> {
    let gathering = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => f32_gathering(DataGradientKernel::F32),
        Path::Stem => {
            return Err(usage!(
                "the data gradient of a convolution with {} input channels has no kernel for the tensor cores; \
                 use --precision f32",
                shape.in_channels
            ));
        }
        Path::TensorCores => {
            let tiles = tiles::data_gradient(numbers(lowering, operands[0]));
            let ways = gatherings(lowering, shape, tiles, DataGradientKernel::Tile);
            choice::fastest(lowering, Beside::OtherBranch, &ways, |way, apart| {
                data_gradient_by(way, apart, shape, operands, accumulate, normalised);
            })
        }
    };
    Ok(data_gradient_by(&gathering, lowering, shape, operands, accumulate, normalised))
}

fn data_gradient_by(
    gathering: &Gathering<DataGradientKernel>,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    accumulate: bool,
    normalised: Option<&BatchNormGradient>,
) -> Option<PartialGradientSums> {
    let parities = parities(shape);
    let most = parities.iter().copied().max().expect("a stride has parities");
    let extent = [most, shape.in_channels, parities.len()];
    let mut work = work::data_gradient(lowering, shape, operands, gathering.gathered(), accumulate);
    let [dy, w, dx] = operands.map(|operand| lowering.address(operand));
    let accumulate = usize::from(accumulate);
    match gathering.kernel {
        DataGradientKernel::Tile(kernel) => {
            let tiles = most.div_ceil(gathering.rows);
            // Every tile of rows has its place among the sums, so all parities must have as many.
            let of =
                normalised.filter(|_| parities.iter().all(|rows| rows.div_ceil(gathering.rows) == tiles));
            let sums = of.map(|of| {
                let sums = PartialGradientSums::new(lowering, tiles * parities.len(), shape.in_channels);
                work = work::with_gradient_sums(lowering, std::mem::take(&mut work), of, sums);
                sums
            });
            let parameters = convolution_data_gradient::DataGradient {
                shape: kernel_shape(shape),
                accumulate,
                mask: of.map_or(MASK_NONE, BatchNormGradient::mask),
                dy,
                w,
                x: lowering.optional(of.map(|of| of.x)),
                positive: lowering.optional(of.and_then(|of| of.positive)),
                affine: lowering.optional(of.map(|of| of.affine)),
                batch: lowering.optional(of.map(|of| of.batch)),
                dx,
                partial: sums.map_or(Address::NULL, |sums| sums.address),
            };
            lowering.launch(gathering.launch(kernel, extent, parameters).doing(work));
            sums
        }
        DataGradientKernel::F32 => {
            use convolution_f32::{CONVOLUTION_DATA_GRADIENT_F32, ConvolutionDataGradientF32};
            let shape = kernel_shape(shape);
            let parameters = ConvolutionDataGradientF32 { shape, accumulate, dy, w, dx };
            let launch = gathering.launch(CONVOLUTION_DATA_GRADIENT_F32, extent, parameters);
            lowering.launch(launch.doing(work));
            None
        }
    }
}

/// dw = the weight gradient; the operands are x, dy, dw.
pub(super) fn weight_gradient(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
) -> Result<()> {
    let gpu = lowering.gpu();
    let tiles = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => vec![F32_WEIGHT_TILE],
        Path::Stem => vec![stems(lowering.element(operands[0])).1],
        Path::TensorCores => tiles::weight_gradient(numbers(lowering, operands[0])),
    };
    let cuts = tiles::weight_cuts(shape, &tiles, gpu);
    // As many steps as shares or more: tests see the costs of both.
    let is_long = |cut: &WeightCut| cut.splits * cut.tile.slice <= cut.share;
    let cuts = choice::of_wanted_tile(gpu, cuts, |cut| cut.tile.kernel.kernel(), is_long);
    let cut = choice::fastest(lowering, Beside::OtherBranch, &cuts, |cut, apart| {
        weight_gradient_by(cut, apart, shape, operands);
    });
    weight_gradient_by(&cut, lowering, shape, operands);
    Ok(())
}

fn weight_gradient_by(
    cut: &WeightCut,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    [x, dy, dw]: [Tensor; 3],
) {
    let len = shape.weight_len();
    let dw = lowering.address(dw);
    let partials = if cut.splits == 1 { dw } else { lowering.workspace(cut.splits * len * 4) };
    let work = work::weight_gradient(lowering, shape, [x, dy], cut, partials);
    let shared_bytes = cut.tile.shared_bytes(shape) as u32;
    let (shape, share) = (kernel_shape(shape), cut.share);
    let [x, dy] = [x, dy].map(|operand| lowering.address(operand));
    let (blocks, threads) = (cut.blocks, cut.tile.threads);
    let launch = match cut.tile.kernel {
        WeightKernel::Tile(kernel) => {
            let parameters = convolution_weight_gradient::WeightGradient { shape, share, x, dy, partials };
            kernel.linear(blocks, threads, parameters)
        }
        WeightKernel::Stem(kernel) => {
            let parameters =
                convolution_stem::ConvolutionStemWeightGradient { shape, share, x, dy, partials };
            kernel.linear(blocks, threads, parameters)
        }
        WeightKernel::F32 => {
            use convolution_f32::{CONVOLUTION_WEIGHT_GRADIENT_F32, ConvolutionWeightGradientF32};
            let parameters = ConvolutionWeightGradientF32 { shape, share, x, dy, partials };
            CONVOLUTION_WEIGHT_GRADIENT_F32.linear(blocks, threads, parameters)
        }
    };
    let launch = Launch { grid: [cut.blocks as u32, cut.splits as u32, 1], shared_bytes, ..launch };
    lowering.launch(launch.doing(work));
    if cut.splits > 1 {
        lowering.launch(sum_partials(cut.splits, len, partials, dw));
    }
}

/// out = the sum of `splits` partial sums of `len` values.
fn sum_partials(splits: usize, len: usize, partials: Address, out: Address) -> Launch {
    use convolution_weight_gradient::{
        CONVOLUTION_SUM_PARTIALS, ConvolutionSumPartials, SUM_GROUPS, SUM_VALUES,
    };
    let groups = splits.min(SUM_GROUPS);
    let parameters = ConvolutionSumPartials { splits, len, partials, out };
    let launch = CONVOLUTION_SUM_PARTIALS.linear(len.div_ceil(SUM_VALUES * 32), 32 * groups, parameters);
    let work = Work::of((splits * len) as f64)
        .reading([Span::new(partials, splits * len * 4)])
        .writing([Span::new(out, len * 4)]);
    Launch { block: [32, groups as u32, 1], ..launch }.doing(work)
}

/// The kernels for a shape.
fn path(shape: &ConvolutionShape, element: Element) -> Result<Path> {
    for (len, what) in [(shape.input_len(), "input"), (shape.output_len(), "output")] {
        if i32::try_from(len).is_err() {
            return Err(usage!(
                "the {what} of a convolution has {len} values, more than the 2147483647 that the kernels \
                 address; use a smaller --batch-size"
            ));
        }
    }
    let ConvolutionShape { in_channels, out_channels, kernel, .. } = *shape;
    let multiple = if element == Element::F32 { 4 } else { 8 };
    if !out_channels.is_multiple_of(multiple) {
        return Err(usage!(
            "a convolution has {out_channels} output channels, but the kernels need a multiple of {multiple}"
        ));
    }
    match element {
        Element::F32 => Ok(Path::F32),
        _ if in_channels.is_multiple_of(8) => Ok(Path::TensorCores),
        _ if kernel * kernel * in_channels <= convolution_stem::PATCH => Ok(Path::Stem),
        _ => Err(usage!(
            "a convolution has {in_channels} input channels, but the tensor-core kernels need a multiple of 8; \
             use --precision f32"
        )),
    }
}

/// Pixels of the output.
fn pixels(shape: &ConvolutionShape) -> usize {
    shape.batch * shape.out_height() * shape.out_width()
}

/// Pixels of the input for each parity of row and column; the kernels gather once for each.
fn parities(shape: &ConvolutionShape) -> Vec<usize> {
    let stride = shape.stride;
    let grid = |size: usize, parity: usize| (size + stride - 1 - parity) / stride;
    (0..stride * stride)
        .map(|p| shape.batch * grid(shape.height, p / stride) * grid(shape.width, p % stride))
        .collect()
}

/// The shape as the kernels' parameter.
fn kernel_shape(shape: &ConvolutionShape) -> kernels::ConvolutionShape {
    let ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride } = *shape;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    kernels::ConvolutionShape {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        out_height,
        out_width,
    }
}
