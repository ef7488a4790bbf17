//! Convolutions. `kernels/convolution*.cu` and this file share the names; `tiles.rs` decides how the work is
//! cut.
//!
//! | operands | forward, data gradient | weight gradient |
//! |---|---|---|
//! | bf16 | `convolution_forward.cu`, `convolution_data_gradient.cu` | `convolution_weight_gradient.cu` |
//! | bf16, a patch of at most 32 values (the first layer) | `convolution_stem.cu`, none | `convolution_stem.cu` |
//! | f32 | `convolution_f32.cu` | `convolution_f32.cu` |

#[cfg(all(test, feature = "sim"))]
mod tests;
mod tiles;

use anyhow::Result;

use super::ConvolutionShape;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Tensor};
use crate::ops::batchnorm::PartialStatistics;
use crate::usage;
use tiles::{F32_WEIGHT_TILES, GatherTile, STEM_WEIGHT_TILES, WEIGHT_TILES, WeightCut, WeightTile};

/// Which kernels do a convolution.
#[derive(Clone, Copy)]
enum Path {
    TensorCores,
    Stem,
    F32,
}

/// A kernel that gathers taps (forward, data gradient), and its tile of pixels by channels.
struct Gathering {
    kernel: Kernel,
    rows: usize,
    columns: usize,
    threads: usize,
    shared_bytes: usize,
}

/// Largest patch of the stem's kernels, values.
const STEM_PATCH: usize = 32;

const STEM: Gathering = Gathering {
    kernel: Kernel { file: "convolution_stem.cu", name: "convolution_stem_forward" },
    rows: 128,
    columns: 64,
    threads: 256,
    shared_bytes: 128 * 64 * 2 + 256 * 8,
};

const fn f32_gathering(name: &'static str) -> Gathering {
    let kernel = Kernel { file: "convolution_f32.cu", name };
    Gathering { kernel, rows: 64, columns: 64, threads: 256, shared_bytes: 0 }
}

impl Gathering {
    fn forward(tile: &GatherTile) -> Self {
        Self::of(tile, Kernel { file: "convolution_forward.cu", name: tile.forward })
    }

    fn data_gradient(tile: &GatherTile) -> Self {
        Self::of(tile, Kernel { file: "convolution_data_gradient.cu", name: tile.data_gradient })
    }

    fn of(tile: &GatherTile, kernel: Kernel) -> Self {
        let GatherTile { rows, columns, threads, .. } = *tile;
        Self { kernel, rows, columns, threads, shared_bytes: tile.shared_bytes() }
    }

    fn launch(&self, rows: usize, columns: usize, repeats: usize, arguments: Arguments) -> Launch {
        let blocks = rows.div_ceil(self.rows) * columns.div_ceil(self.columns);
        Launch {
            grid: [blocks as u32, 1, repeats as u32],
            shared_bytes: self.shared_bytes as u32,
            ..Launch::linear(self.kernel, blocks, self.threads, arguments)
        }
    }
}

/// y = convolution of x with w; operands are x, w, y. With `statistics` the kernel leaves those of y in the
/// workspace, too.
///
/// # Errors
/// Where no kernel does the shape.
pub(super) fn forward(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    statistics: bool,
) -> Result<Option<PartialStatistics>> {
    let multiprocessors = lowering.gpu().multiprocessors;
    let gathering = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => f32_gathering("convolution_forward_f32"),
        Path::Stem => STEM,
        Path::TensorCores => {
            Gathering::forward(tiles::gather(&[pixels(shape)], shape.out_channels, multiprocessors))
        }
    };
    Ok(forward_by(&gathering, lowering, shape, operands, statistics))
}

fn forward_by(
    gathering: &Gathering,
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
    let address = statistics.as_ref().map_or(0, |statistics| statistics.address);
    let arguments = arguments(lowering, shape, operands).pointer(address);
    lowering.launch(gathering.launch(rows, shape.out_channels, 1, arguments));
    statistics
}

/// dx = (or +=) the data gradient; operands are dy, w, dx.
pub(super) fn data_gradient(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    accumulate: bool,
) -> Result<()> {
    let multiprocessors = lowering.gpu().multiprocessors;
    let gathering = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => f32_gathering("convolution_data_gradient_f32"),
        Path::Stem => {
            return Err(usage!(
                "the data gradient of a convolution with {} input channels is not there in bf16; use --precision f32",
                shape.in_channels
            ));
        }
        Path::TensorCores => {
            Gathering::data_gradient(tiles::gather(&parities(shape), shape.in_channels, multiprocessors))
        }
    };
    data_gradient_by(&gathering, lowering, shape, operands, accumulate);
    Ok(())
}

fn data_gradient_by(
    gathering: &Gathering,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
    accumulate: bool,
) {
    let parities = parities(shape);
    let most = parities.iter().copied().max().expect("a stride has parities");
    let arguments = arguments(lowering, shape, operands).count(usize::from(accumulate));
    lowering.launch(gathering.launch(most, shape.in_channels, parities.len(), arguments));
}

/// dw = the weight gradient; operands are x, dy, dw.
pub(super) fn weight_gradient(
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    operands: [Tensor; 3],
) -> Result<()> {
    let tiles: &[WeightTile] = match path(shape, lowering.element(operands[0]))? {
        Path::F32 => &F32_WEIGHT_TILES,
        Path::Stem => &STEM_WEIGHT_TILES,
        Path::TensorCores => &WEIGHT_TILES,
    };
    let cut = tiles::weight(shape, tiles, lowering.gpu().multiprocessors);
    weight_gradient_by(&cut, lowering, shape, operands);
    Ok(())
}

fn weight_gradient_by(
    cut: &WeightCut,
    lowering: &mut Lowering<'_>,
    shape: &ConvolutionShape,
    [x, dy, dw]: [Tensor; 3],
) {
    let (len, dw) = (shape.weight_len(), lowering.address(dw));
    let partials = if cut.splits == 1 { dw } else { lowering.workspace(cut.splits * len * 4) };
    let arguments = shape_arguments(shape)
        .pointer(lowering.address(x))
        .pointer(lowering.address(dy))
        .pointer(partials)
        .count(cut.share);
    let kernel = Kernel { file: cut.tile.file, name: cut.tile.kernel };
    lowering.launch(Launch {
        grid: [cut.blocks as u32, cut.splits as u32, 1],
        shared_bytes: cut.tile.shared_bytes as u32,
        ..Launch::linear(kernel, cut.blocks, cut.tile.threads, arguments)
    });
    if cut.splits > 1 {
        let kernel = Kernel { file: "convolution_weight_gradient.cu", name: "convolution_sum_partials" };
        let arguments = Arguments::new().pointer(partials).count(cut.splits).count(len).pointer(dw);
        let groups = cut.splits.min(8);
        lowering.launch(Launch {
            block: [32, groups as u32, 1],
            ..Launch::linear(kernel, len.div_ceil(4 * 32), 32 * groups, arguments)
        });
    }
}

/// The kernels for a shape.
fn path(shape: &ConvolutionShape, element: Element) -> Result<Path> {
    for (len, what) in [(shape.input_len(), "input"), (shape.output_len(), "output")] {
        if i32::try_from(len).is_err() {
            return Err(usage!(
                "the {what} of a convolution has {len} values, the kernels address 2147483647; use a smaller --batch-size"
            ));
        }
    }
    let ConvolutionShape { in_channels, out_channels, kernel, .. } = *shape;
    let multiple = if element == Element::F32 { 4 } else { 8 };
    if !out_channels.is_multiple_of(multiple) {
        return Err(usage!(
            "a convolution has {out_channels} output channels, the kernels do multiples of {multiple}"
        ));
    }
    match element {
        Element::F32 => Ok(Path::F32),
        _ if in_channels.is_multiple_of(8) => Ok(Path::TensorCores),
        _ if kernel * kernel * in_channels <= STEM_PATCH => Ok(Path::Stem),
        _ => Err(usage!(
            "a convolution has {in_channels} input channels, the bf16 kernels do multiples of 8; use --precision f32"
        )),
    }
}

/// Pixels of the output.
fn pixels(shape: &ConvolutionShape) -> usize {
    shape.batch * shape.out_height() * shape.out_width()
}

/// Pixels of the input by the parities of their row and column, of which the kernels make one gathering each.
fn parities(shape: &ConvolutionShape) -> Vec<usize> {
    let stride = shape.stride;
    let grid = |size: usize, parity: usize| (size + stride - 1 - parity) / stride;
    (0..stride * stride)
        .map(|p| shape.batch * grid(shape.height, p / stride) * grid(shape.width, p % stride))
        .collect()
}

/// `ConvolutionShape` of convolution.cuh.
fn shape_arguments(shape: &ConvolutionShape) -> Arguments {
    let ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride } = *shape;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    Arguments::new().structure(&[
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        out_height,
        out_width,
    ])
}

/// The shape and three addresses.
fn arguments(lowering: &Lowering<'_>, shape: &ConvolutionShape, operands: [Tensor; 3]) -> Arguments {
    operands.iter().fold(shape_arguments(shape), |list, &operand| list.pointer(lowering.address(operand)))
}
