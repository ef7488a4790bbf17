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
    convolution_inference, convolution_of_batchnorm, convolution_stem, convolution_weight_gradient,
};
use crate::device::gpu::launch::{Address, Kernel, KernelOf, Launch, Parameters};
use crate::device::gpu::lower::{Lowering, Waiting};
use crate::device::gpu::tiles::Beside;
use crate::device::gpu::work::{Span, Work};
use crate::device::{Element, Tensor};
use crate::ops::batchnorm::{
    BatchNorm, BatchNormGradient, BatchNormInference, Normalisation, PartialGradientSums, PartialStatistics,
};
use crate::usage;
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
    /// That normalises its input.
    OfBatchnorm(KernelOf<convolution_of_batchnorm::ForwardOfBatchnorm>),
    Stem(KernelOf<convolution_stem::ConvolutionStemForward>),
    F32,
}

/// A kernel of the data gradient.
#[derive(Clone, Copy)]
enum DataGradientKernel {
    Tile(KernelOf<convolution_data_gradient::DataGradient>),
    /// That computes its input from the gradient of a batchnorm.
    OfBatchnorm(KernelOf<convolution_of_batchnorm::DataGradientOfBatchnorm>),
    F32,
}

impl ForwardKernel {
    /// Whatever its parameters.
    fn kernel(self) -> Kernel {
        match self {
            Self::Tile(kernel) => kernel.kernel,
            Self::OfBatchnorm(kernel) => kernel.kernel,
            Self::Stem(kernel) => kernel.kernel,
            Self::F32 => convolution_f32::CONVOLUTION_FORWARD_F32.kernel,
        }
    }

    fn is_of_batchnorm(self) -> bool {
        matches!(self, Self::OfBatchnorm(_))
    }
}

impl DataGradientKernel {
    /// Whatever its parameters.
    fn kernel(self) -> Kernel {
        match self {
            Self::Tile(kernel) => kernel.kernel,
            Self::OfBatchnorm(kernel) => kernel.kernel,
            Self::F32 => convolution_f32::CONVOLUTION_DATA_GRADIENT_F32.kernel,
        }
    }

    fn is_of_batchnorm(self) -> bool {
        matches!(self, Self::OfBatchnorm(_))
    }
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
        return (
            stem(CONVOLUTION_STEM_FORWARD_F16),
            stem_weight(WeightKernel::Stem(CONVOLUTION_STEM_WEIGHT_GRADIENT_F16)),
        );
    }
    (stem(CONVOLUTION_STEM_FORWARD), stem_weight(WeightKernel::Stem(CONVOLUTION_STEM_WEIGHT_GRADIENT)))
}

/// The stem's weight gradient that computes dy from the gradient of a batchnorm.
fn stem_of_batchnorm(element: Element) -> WeightTile {
    use convolution_stem::*;
    let kernel = match element {
        Element::F16 => CONVOLUTION_STEM_WEIGHT_GRADIENT_OF_BATCHNORM_F16,
        _ => CONVOLUTION_STEM_WEIGHT_GRADIENT_OF_BATCHNORM,
    };
    stem_weight(WeightKernel::StemOfBatchnorm(kernel))
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
            ForwardKernel::Tile(_) | ForwardKernel::OfBatchnorm(_) => self.of_tiles(),
            ForwardKernel::Stem(_) => Gathered::Patches,
            ForwardKernel::F32 => Gathered::Plain,
        }
    }
}

impl Gathering<DataGradientKernel> {
    /// For what its blocks do.
    fn gathered(&self) -> Gathered {
        match self.kernel {
            DataGradientKernel::Tile(_) | DataGradientKernel::OfBatchnorm(_) => self.of_tiles(),
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
    let [x, _, y] = operands;
    let gives_x = |waiting: &Waiting<Normalisation>| {
        let of = &waiting.work.of;
        of.channels == shape.in_channels && of.rows * of.channels == shape.input_len()
    };
    let waiting = lowering.find_put_off(x, &[y]).filter(gives_x);
    let normalisation = waiting.as_ref().map(|waiting| &waiting.work);
    let gathering = match path(shape, lowering.element(x))? {
        Path::F32 => f32_gathering(ForwardKernel::F32),
        Path::Stem => stems(lowering.element(x)).0,
        Path::TensorCores => {
            let numbers = numbers(lowering, x);
            let mut ways = gatherings(lowering, shape, tiles::forward(numbers), ForwardKernel::Tile);
            if waiting.is_some() {
                let tiles = tiles::forward_of_batchnorm(numbers);
                ways.extend(gatherings(lowering, shape, tiles, ForwardKernel::OfBatchnorm));
            }
            let ways = choice::of_wanted_tile(lowering.gpu(), ways, |way| way.kernel.kernel(), |_| true);
            choice::fastest(lowering, Beside::Nothing, &ways, |way, apart| {
                let before = waiting.as_ref().filter(|_| !way.kernel.is_of_batchnorm());
                before.into_iter().for_each(|before| apart.launch_all(&before.launches));
                forward_by(way, apart, shape, operands, statistics, normalisation);
            })
        }
    };
    if gathering.kernel.is_of_batchnorm() {
        lowering.do_put_off(x);
    }
    Ok(forward_by(&gathering, lowering, shape, operands, statistics, normalisation))
}

/// The ways to gather a shape by tiles.
fn gatherings<P: Copy, K: Copy>(
    lowering: &Lowering<'_>,
    shape: &ConvolutionShape,
    tiles: Vec<Tile<KernelOf<P>>>,
    kernel: impl Fn(KernelOf<P>) -> K,
) -> Vec<Gathering<K>> {
    let taken = tiles.into_iter().filter(|tile| tile.takes(shape, lowering.gpu()));
    taken.map(|tile| Gathering::of(tile, shape, &kernel)).collect()
}

fn forward_by(
    gathering: &Gathering<ForwardKernel>,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands @ [x, w, y]: [Tensor; 3],
    statistics: bool,
    normalisation: Option<&Normalisation>,
) -> Option<PartialStatistics> {
    let (rows_per_tile, rows) = (gathering.rows, pixels(shape));
    let tiles = rows.div_ceil(rows_per_tile);
    let statistics = statistics.then(|| {
        let address = lowering.workspace(tiles * 2 * shape.out_channels * 4);
        PartialStatistics { address, tiles, rows_per_tile }
    });
    let address = statistics.as_ref().map_or(Address::NULL, |statistics| statistics.address);
    let left = statistics.as_ref().map(|_| Span::new(address, tiles * 2 * shape.out_channels * 4));
    let mut work = work::forward(lowering, shape, operands, gathering.gathered(), left);
    let extent = [rows, shape.out_channels, 1];
    let shape = kernel_shape(shape);
    let [w_at, y_at] = [w, y].map(|operand| lowering.address(operand));
    let launch = match gathering.kernel {
        ForwardKernel::Tile(kernel) => {
            let x = lowering.address(x);
            let parameters = convolution_forward::Forward { shape, x, w: w_at, y: y_at, statistics: address };
            gathering.launch(kernel, extent, parameters)
        }
        ForwardKernel::OfBatchnorm(kernel) => {
            let Normalisation { of, residual } = normalisation.expect("the batchnorm that gives its input");
            work = work::of_batchnorm(lowering, work, of, residual.as_ref());
            let given = |tensor: fn(&BatchNorm) -> Tensor| lowering.optional(residual.as_ref().map(tensor));
            let parameters = convolution_of_batchnorm::ForwardOfBatchnorm {
                shape,
                with_relu: usize::from(of.relu),
                source: lowering.address(of.x),
                affine: lowering.address(of.affine),
                batch: lowering.address(of.batch),
                residual: match residual {
                    Some(before) => lowering.address(before.x),
                    None => lowering.optional(of.residual),
                },
                residual_affine: given(|before| before.affine),
                residual_batch: given(|before| before.batch),
                x: lowering.address(x),
                positive: lowering.optional(of.positive),
                w: w_at,
                y: y_at,
                statistics: address,
            };
            gathering.launch(kernel, extent, parameters)
        }
        ForwardKernel::Stem(kernel) => {
            let x = lowering.address(x);
            let parameters =
                convolution_stem::ConvolutionStemForward { shape, x, w: w_at, y: y_at, statistics: address };
            gathering.launch(kernel, extent, parameters)
        }
        ForwardKernel::F32 => {
            use convolution_f32::{CONVOLUTION_FORWARD_F32, ConvolutionForwardF32};
            let x = lowering.address(x);
            let parameters = ConvolutionForwardF32 { shape, x, w: w_at, y: y_at, statistics: address };
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
    let ways = choice::of_wanted_tile(lowering.gpu(), ways, |way| way.kernel.kernel, |_| true);
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

/// Whether what waits gives dy.
fn gives_dy(waiting: &Waiting<BatchNormGradient>, shape: &ConvolutionShape) -> bool {
    let above = &waiting.work;
    above.channels == shape.out_channels && above.rows * above.channels == shape.output_len()
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
    let [dy, _, dx] = operands;
    let waiting = lowering.find_put_off(dy, &[dx]).filter(|waiting| gives_dy(waiting, shape));
    let above = waiting.as_ref().map(|waiting| &waiting.work);
    let gathering = match path(shape, lowering.element(dy))? {
        Path::F32 => f32_gathering(DataGradientKernel::F32),
        Path::Stem => {
            return Err(usage!(
                "the data gradient of a convolution with {} input channels has no kernel for the tensor cores; \
                 use --precision f32",
                shape.in_channels
            ));
        }
        Path::TensorCores => {
            let numbers = numbers(lowering, dy);
            let tiles = tiles::data_gradient(numbers);
            let mut ways = gatherings(lowering, shape, tiles, DataGradientKernel::Tile);
            if waiting.is_some() {
                let tiles = tiles::data_gradient_of_batchnorm(numbers);
                ways.extend(gatherings(lowering, shape, tiles, DataGradientKernel::OfBatchnorm));
            }
            let ways = choice::of_wanted_tile(lowering.gpu(), ways, |way| way.kernel.kernel(), |_| true);
            choice::fastest(lowering, Beside::OtherBranch, &ways, |way, apart| {
                let before = waiting.as_ref().filter(|_| !way.kernel.is_of_batchnorm());
                before.into_iter().for_each(|before| apart.launch_all(&before.launches));
                data_gradient_by(way, apart, shape, operands, accumulate, [above, normalised]);
            })
        }
    };
    if gathering.kernel.is_of_batchnorm() {
        lowering.do_put_off(dy);
    }
    Ok(data_gradient_by(&gathering, lowering, shape, operands, accumulate, [above, normalised]))
}

/// `above`: the gradient of the batchnorm that gives dy, `normalised`: that of the one whose dy this gives.
fn data_gradient_by(
    gathering: &Gathering<DataGradientKernel>,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    accumulate: bool,
    [above, normalised]: [Option<&BatchNormGradient>; 2],
) -> Option<PartialGradientSums> {
    let parities = parities(shape);
    let most = parities.iter().copied().max().expect("a stride has parities");
    let extent = [most, shape.in_channels, parities.len()];
    let mut work = work::data_gradient(lowering, shape, operands, gathering.gathered(), accumulate);
    let [dy, w, dx] = operands.map(|operand| lowering.address(operand));
    let accumulate = usize::from(accumulate);
    let tiles = most.div_ceil(gathering.rows);
    // Every tile of rows has its place among the sums, so all parities must have as many.
    let is_even = || parities.iter().all(|rows| rows.div_ceil(gathering.rows) == tiles);
    let of = normalised.filter(|_| !matches!(gathering.kernel, DataGradientKernel::F32) && is_even());
    let sums = of.map(|of| {
        let sums = PartialGradientSums::new(lowering, tiles * parities.len(), shape.in_channels);
        work = work::with_gradient_sums(lowering, std::mem::take(&mut work), of, sums);
        sums
    });
    let mask = of.map_or(MASK_NONE, BatchNormGradient::mask);
    let x = lowering.optional(of.map(|of| of.x));
    let positive = lowering.optional(of.and_then(|of| of.positive));
    let affine = lowering.optional(of.map(|of| of.affine));
    let batch = lowering.optional(of.map(|of| of.batch));
    let partial = sums.map_or(Address::NULL, |sums| sums.address);
    let shape = kernel_shape(shape);
    let launch = match gathering.kernel {
        DataGradientKernel::Tile(kernel) => {
            let parameters = convolution_data_gradient::DataGradient {
                shape,
                accumulate,
                mask,
                dy,
                w,
                x,
                positive,
                affine,
                batch,
                dx,
                partial,
            };
            gathering.launch(kernel, extent, parameters)
        }
        DataGradientKernel::OfBatchnorm(kernel) => {
            let above = above.expect("the batchnorm that gives its input");
            work = work::of_batchnorm_gradient(lowering, work, above);
            let parameters = convolution_of_batchnorm::DataGradientOfBatchnorm {
                shape,
                accumulate,
                mask,
                source: lowering.address(above.dy),
                source_affine: lowering.address(above.affine),
                source_batch: lowering.address(above.batch),
                source_d_affine: lowering.address(above.d_affine),
                source_x: lowering.address(above.x),
                dy,
                w,
                x,
                positive,
                affine,
                batch,
                dx,
                partial,
            };
            gathering.launch(kernel, extent, parameters)
        }
        DataGradientKernel::F32 => {
            use convolution_f32::{CONVOLUTION_DATA_GRADIENT_F32, ConvolutionDataGradientF32};
            let parameters = ConvolutionDataGradientF32 { shape, accumulate, dy, w, dx };
            gathering.launch(CONVOLUTION_DATA_GRADIENT_F32, extent, parameters)
        }
    };
    lowering.launch(launch.doing(work));
    sums
}

/// dw = the weight gradient; the operands are x, dy, dw.
pub(super) fn weight_gradient(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
) -> Result<()> {
    let gpu = lowering.gpu();
    let [x, dy, dw] = operands;
    let is_only_here = |waiting: &Waiting<_>| lowering.is_only_between(dy) && gives_dy(waiting, shape);
    let waiting = lowering.find_put_off(dy, &[dw]).filter(is_only_here);
    let above = waiting.as_ref().map(|waiting| &waiting.work);
    let tiles = match path(shape, lowering.element(x))? {
        Path::F32 => vec![F32_WEIGHT_TILE],
        Path::Stem => {
            let mut tiles = vec![stems(lowering.element(x)).1];
            tiles.extend(above.map(|_| stem_of_batchnorm(lowering.element(x))));
            tiles
        }
        Path::TensorCores => tiles::weight_gradient(numbers(lowering, x)),
    };
    let cuts = tiles::weight_cuts(shape, &tiles, gpu);
    // As many steps as shares or more: tests see the costs of both.
    let is_long = |cut: &WeightCut| cut.splits * cut.tile.slice <= cut.share;
    let cuts = choice::of_wanted_tile(gpu, cuts, |cut| cut.tile.kernel.kernel(), is_long);
    let is_of_batchnorm = |cut: &WeightCut| matches!(cut.tile.kernel, WeightKernel::StemOfBatchnorm(_));
    let cut = choice::fastest(lowering, Beside::OtherBranch, &cuts, |cut, apart| {
        let before = waiting.as_ref().filter(|_| !is_of_batchnorm(cut));
        before.into_iter().for_each(|before| apart.launch_all(&before.launches));
        weight_gradient_by(cut, apart, shape, operands, above);
    });
    if is_of_batchnorm(&cut) {
        lowering.do_put_off(dy);
    }
    weight_gradient_by(&cut, lowering, shape, operands, above);
    Ok(())
}

fn weight_gradient_by(
    cut: &WeightCut,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    [x, dy, dw]: [Tensor; 3],
    above: Option<&BatchNormGradient>,
) {
    let len = shape.weight_len();
    let dw = lowering.address(dw);
    let partials = if cut.splits == 1 { dw } else { lowering.workspace(cut.splits * len * 4) };
    let mut work = work::weight_gradient(lowering, shape, [x, dy], cut, partials);
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
        WeightKernel::StemOfBatchnorm(kernel) => {
            let above = above.expect("the batchnorm that gives dy");
            work = work::only_of_batchnorm_gradient(lowering, work, above);
            let parameters = convolution_stem::ConvolutionStemWeightGradientOfBatchnorm {
                shape,
                share,
                x,
                source: lowering.address(above.dy),
                source_x: lowering.address(above.x),
                affine: lowering.address(above.affine),
                batch: lowering.address(above.batch),
                d_affine: lowering.address(above.d_affine),
                partials,
            };
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
