//! How a convolution's matrix product is cut into tiles: the tiles with kernels, and which one a shape gets.
//!
//! The choice weighs what the busiest multiprocessor computes against what it loads and what partial sums
//! cost afterwards, all in multiply-adds of one multiprocessor. The weights are estimates for an RTX 3090,
//! not confirmed by measurements.

use super::halo::Halo;
use crate::device::Element;
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::kernels::convolution::SLICE;
use crate::device::gpu::kernels::{
    convolution_data_gradient, convolution_f32, convolution_forward, convolution_inference, convolution_stem,
    convolution_weight_gradient,
};
use crate::device::gpu::launch::KernelOf;
use crate::ops::convolution::ConvolutionShape;

/// Multiply-adds that take as long as loading one value of a tile: 256 multiply-adds per cycle on a
/// multiprocessor's tensor cores against 14 bytes per cycle, its share of the L2 bandwidth.
const LOAD: usize = 36;
/// Multiply-adds that take as long as writing one value of a partial sum and reading it again: 8 bytes, at
/// 550 bytes per cycle for the whole GPU.
const PARTIAL: usize = 4;
/// Multiply-adds that take as long as launching the kernel that adds partial sums.
const LAUNCH: usize = 1_000_000;
/// Largest workspace for partial sums, bytes.
const LARGEST_WORKSPACE: usize = 64 << 20;
/// Blocks of a kernel with a halo that are to be on a multiprocessor at once, and what the system takes of the
/// shared memory of each.
const SIDE_BY_SIDE: usize = 2;
const RESERVED: usize = 1024;

/// The numbers that a tensor-core kernel multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    Bf16,
    F16,
    /// f16, whose products are summed in f16 over short runs (`SHORT_RUN`), and these in f32.
    F16Short,
}

impl Numbers {
    /// Those for activations of `element` on a GPU that is faster with sums in f16, or is not.
    pub fn of(element: Element, sums_in_f16: bool) -> Self {
        match (element, sums_in_f16) {
            (Element::F16, true) => Self::F16Short,
            (Element::F16, false) => Self::F16,
            _ => Self::Bf16,
        }
    }

    /// Whether a kernel with the type `t`, and sums in `short` runs if that is not 0, has these.
    fn are(self, t: &str, short: usize) -> bool {
        let own = match self {
            Self::Bf16 => ("bf16", 0),
            Self::F16 => ("f16", 0),
            Self::F16Short => ("f16", 1),
        };
        own == (t, short)
    }
}

/// A tile of the forward pass or of the data gradient: pixels by channels.
#[derive(Clone, Copy, Debug)]
pub struct Tile<K> {
    pub rows: usize,
    pub columns: usize,
    pub threads: usize,
    stages: usize,
    /// Its pixels are copied once for all taps.
    with_halo: bool,
    pub kernel: K,
}

/// Bytes for the tile of results and for the sums of its statistics.
pub const fn result_bytes(rows: usize, columns: usize, threads: usize) -> usize {
    rows * columns * 2 + threads * 8
}

/// Bytes for the stages of a pipeline.
const fn pipeline_bytes(stages: usize, rows: usize, columns: usize) -> usize {
    stages * (rows + columns) * SLICE * 2
}

impl<K> Tile<K> {
    /// Shared memory in bytes: the pipeline's stages and the epilogue's results and sums use the same memory
    /// in turn.
    pub fn shared_bytes(&self, shape: &ConvolutionShape) -> usize {
        let stages = match self.halo(shape) {
            Some(halo) => 2 * halo.bytes + pipeline_bytes(self.stages, 0, self.columns),
            None => pipeline_bytes(self.stages, self.rows, self.columns),
        };
        // In the data gradient every warp has two sums for each column.
        let sums = self.rows * self.columns * 2 + self.threads / 32 * self.columns * 8;
        stages.max(result_bytes(self.rows, self.columns, self.threads)).max(sums)
    }

    /// Whether its kernel copies pixels once for all taps, and only takes shapes where that can be.
    #[cfg(all(test, feature = "sim"))]
    pub fn with_halo(&self) -> bool {
        self.with_halo
    }

    /// How its pixels are copied for a shape, if that is once for all taps.
    pub fn halo(&self, shape: &ConvolutionShape) -> Option<Halo> {
        Halo::of(shape, self.rows).filter(|_| self.with_halo)
    }

    /// Whether its kernel takes a shape, and enough of its blocks fit a multiprocessor.
    pub fn takes(&self, shape: &ConvolutionShape, gpu: &Gpu) -> bool {
        let fits = SIDE_BY_SIDE * (self.shared_bytes(shape) + RESERVED) <= gpu.shared_bytes + RESERVED;
        !self.with_halo || self.halo(shape).is_some() && fits
    }

    /// The number of tiles of a product of `rows` by `columns`.
    pub fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

/// The tiles of the forward pass, largest first.
pub fn forward(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_forward::Forward>>> {
    let rows = convolution_forward::FORWARD.iter().filter(|row| numbers.are(row.t, row.short));
    rows.map(|row| Tile {
        rows: row.rows,
        columns: row.columns,
        threads: 32 * row.warps_down * row.warps_across,
        stages: row.stages,
        with_halo: row.halo != 0,
        kernel: row.kernel,
    })
    .collect()
}

/// The tiles of the forward pass of an evaluation, largest first.
pub fn inference(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_inference::Inference>>> {
    let rows = convolution_inference::INFERENCE.iter().filter(|row| numbers.are(row.t, row.short));
    rows.map(|row| Tile {
        rows: row.rows,
        columns: row.columns,
        threads: 32 * row.warps_down * row.warps_across,
        stages: row.stages,
        with_halo: row.halo != 0,
        kernel: row.kernel,
    })
    .collect()
}

/// The tiles of the data gradient, largest first.
pub fn data_gradient(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_data_gradient::DataGradient>>> {
    let rows = convolution_data_gradient::DATA_GRADIENT.iter().filter(|row| numbers.are(row.t, row.short));
    rows.map(|row| Tile {
        rows: row.rows,
        columns: row.columns,
        threads: 32 * row.warps_down * row.warps_across,
        stages: row.stages,
        with_halo: row.halo != 0,
        kernel: row.kernel,
    })
    .collect()
}

/// The tile for gathering onto `columns` channels of `rows` pixels: one number of pixels for the forward
/// pass, one per parity for a data gradient.
pub fn gather<K: Copy>(
    tiles: &[Tile<K>],
    shape: &ConvolutionShape,
    (rows, columns): (&[usize], usize),
    gpu: &Gpu,
) -> Tile<K> {
    let cost = |tile: &&Tile<K>| {
        let tiles: usize = rows.iter().map(|&rows| tile.count(rows, columns)).sum();
        let taps = shape.kernel * shape.kernel;
        let loaded = tile.halo(shape).map_or(tile.rows, |halo| halo.pixels.div_ceil(taps));
        tiles.div_ceil(gpu.multiprocessors) * step_cost([tile.rows, tile.columns], loaded + tile.columns)
    };
    *tiles
        .iter()
        .filter(|tile| tile.takes(shape, gpu))
        .min_by_key(cost)
        .expect("there are tiles for all shapes")
}

/// A kernel of the weight gradient.
#[derive(Clone, Copy, Debug)]
pub enum WeightKernel {
    Tile(KernelOf<convolution_weight_gradient::WeightGradient>),
    Stem(KernelOf<convolution_stem::ConvolutionStemWeightGradient>),
    F32,
}

/// A tile of the weight gradient: output channels by (tap, input channel).
#[derive(Clone, Copy, Debug)]
pub struct WeightTile {
    pub rows: usize,
    pub columns: usize,
    /// Pixels per step; a share is a multiple of it.
    pub slice: usize,
    pub threads: usize,
    /// Dynamic shared memory, bytes.
    pub shared_bytes: usize,
    pub kernel: WeightKernel,
}

/// The tiles of the weight gradient, largest first. 192 columns divide the 576 of a 3x3 layer of 64 channels.
pub fn weight_gradient(numbers: Numbers) -> Vec<WeightTile> {
    let rows =
        convolution_weight_gradient::WEIGHT_GRADIENT.iter().filter(|row| numbers.are(row.t, row.short));
    rows.map(|row| WeightTile {
        rows: row.rows,
        columns: row.columns,
        slice: SLICE,
        threads: 32 * row.warps_down * row.warps_across,
        shared_bytes: pipeline_bytes(row.stages, row.rows, row.columns),
        kernel: WeightKernel::Tile(row.kernel),
    })
    .collect()
}

/// The weight gradient of a layer with few input channels, by a kernel for its numbers.
pub const fn stem_weight(kernel: KernelOf<convolution_stem::ConvolutionStemWeightGradient>) -> WeightTile {
    use convolution_stem::{PATCH, THREADS, WEIGHT_PIXELS, WEIGHT_ROWS};
    WeightTile {
        rows: WEIGHT_ROWS,
        columns: PATCH,
        slice: WEIGHT_PIXELS,
        threads: THREADS,
        shared_bytes: (WEIGHT_ROWS + PATCH) * WEIGHT_PIXELS * 2,
        kernel: WeightKernel::Stem(kernel),
    }
}

/// The weight gradient in f32.
pub const F32_WEIGHT_TILE: WeightTile = {
    use convolution_f32::{DEPTH, THREADS, TILE};
    WeightTile {
        rows: TILE,
        columns: TILE,
        slice: DEPTH,
        threads: THREADS,
        shared_bytes: 0,
        kernel: WeightKernel::F32,
    }
};

/// How a weight gradient is cut.
#[derive(Clone, Copy, Debug)]
pub struct WeightCut {
    pub tile: WeightTile,
    /// Tiles of the gradient.
    pub blocks: usize,
    /// Pixels per block.
    pub share: usize,
    /// Shares that the pixels are cut into, each giving a partial sum.
    pub splits: usize,
}

/// The best of `tiles` for a weight gradient, and the number of shares that its pixels are cut into.
pub fn weight(shape: &ConvolutionShape, tiles: &[WeightTile], multiprocessors: usize) -> WeightCut {
    let columns = shape.weight_len() / shape.out_channels;
    let pixels = shape.output_len() / shape.out_channels;
    let most_splits = (LARGEST_WORKSPACE / (4 * shape.weight_len())).clamp(1, 4 * multiprocessors);
    let cut = |tile: WeightTile, splits: usize| {
        let blocks = shape.out_channels.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
        let share = pixels.div_ceil(splits).next_multiple_of(tile.slice);
        WeightCut { tile, blocks, share, splits: pixels.div_ceil(share) }
    };
    let cost = |cut: &WeightCut| {
        let turns = (cut.blocks * cut.splits).div_ceil(multiprocessors);
        let adding = if cut.splits > 1 { cut.splits * shape.weight_len() * PARTIAL + LAUNCH } else { 0 };
        turns * cut.share * step_cost([cut.tile.rows, cut.tile.columns], cut.tile.rows + cut.tile.columns)
            + adding
    };
    tiles
        .iter()
        .flat_map(|tile| (1..=most_splits).map(move |splits| cut(*tile, splits)))
        .min_by_key(cost)
        .expect("there are tiles")
}

/// The cost of one step along the summed index, of a tile of rows and columns that loads so many values: the
/// longer of multiplying and loading plus a third of the shorter, the part assumed not to overlap.
fn step_cost([rows, columns]: [usize; 2], loaded: usize) -> usize {
    let (multiply, load) = (rows * columns, LOAD * loaded);
    multiply.max(load) + multiply.min(load) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTX_3090: usize = 82;

    fn shape(size: usize, in_channels: usize, out_channels: usize, kernel: usize) -> ConvolutionShape {
        let (height, width) = (size, size);
        ConvolutionShape { batch: 512, height, width, in_channels, out_channels, kernel, stride: 1 }
    }

    #[test]
    fn resnet18_gets_tiles_that_fit() {
        let gpu = Gpu {
            name: "RTX 3090".into(),
            architecture: 86,
            multiprocessors: RTX_3090,
            shared_bytes: 101_376,
        };
        let tile = |kernel, size, channels| {
            let shape = shape(size, channels, channels, kernel);
            let rows = 512 * size * size;
            let tile = gather(&forward(Numbers::Bf16), &shape, (&[rows], channels), &gpu);
            (tile.rows, tile.columns, tile.halo(&shape).is_some())
        };
        for (kernel, halo) in [(1, false), (3, true)] {
            assert_eq!(tile(kernel, 32, 64), (128, 64, halo));
            // 256 tiles of 128 x 128 would keep 82 multiprocessors busy for 4 rounds with 3.1 rounds of work.
            assert_eq!(tile(kernel, 4, 512), (128, 64, halo));
        }
        for (size, channels) in [(16, 128), (8, 256)] {
            assert_eq!(tile(1, size, channels), (128, 128, false));
            // With a halo little is loaded, so that half a round at the end counts for more.
            assert_eq!(tile(3, size, channels), (128, 64, true));
        }
        assert_eq!(tile(3, 28, 64), (128, 64, false));
        assert_eq!(tile(3, 32, 24), (128, 32, false));
    }

    #[test]
    fn weight_gradients_fill_the_gpu_within_the_workspace() {
        let basic = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, c, c, 3));
        let widening = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, c, 4 * c, 1));
        let narrowing = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, 4 * c, c, 1));
        for shape in basic.into_iter().chain(widening).chain(narrowing) {
            let size = shape.height;
            let cut = weight(&shape, &weight_gradient(Numbers::Bf16), RTX_3090);
            let columns = shape.kernel * shape.kernel * shape.in_channels;
            assert!(cut.splits * 4 * shape.weight_len() <= LARGEST_WORKSPACE, "{cut:?}");
            assert!(cut.splits * cut.share >= 512 * size * size, "{cut:?}");
            assert!((cut.splits - 1) * cut.share < 512 * size * size, "{cut:?}");
            // The work divided by the capacity of all rounds.
            let work = 512 * size * size * shape.out_channels * columns;
            let done = (cut.blocks * cut.splits).div_ceil(RTX_3090)
                * RTX_3090
                * cut.share
                * cut.tile.rows
                * cut.tile.columns;
            assert!(work as f64 / done as f64 > 0.85, "{shape:?}: {cut:?}: {}", work as f64 / done as f64);
        }
    }
}
