//! How a convolution's matrix product is cut into tiles: the tiles there are kernels for, and which one a
//! shape gets.
//!
//! The choice weighs, in multiply-adds of one multiprocessor, what the busiest multiprocessor computes
//! against what it loads and what partial sums cost afterwards. The weights are estimates for an RTX 3090
//! that no measurement has confirmed.

use crate::ops::convolution::ConvolutionShape;

/// Multiply-adds that take as long as loading one value of a tile: 256 multiply-adds a cycle on a
/// multiprocessor's tensor cores against 14 bytes a cycle, its share of the L2 cache.
const LOAD: usize = 36;
/// Multiply-adds that cost as much as writing and reading again one value of a partial sum: 8 bytes against
/// 550 a cycle for the whole GPU.
const PARTIAL: usize = 4;
/// Multiply-adds that cost as much as launching the kernel that adds partial sums.
const LAUNCH: usize = 1_000_000;
/// Largest workspace for partial sums, bytes.
const LARGEST_WORKSPACE: usize = 64 << 20;

/// Channels or pixels of a step of the tensor-core kernels.
const SLICE: usize = 32;

/// A tile of forward and data gradient: pixels by channels.
#[derive(Debug)]
pub struct GatherTile {
    pub rows: usize,
    pub columns: usize,
    pub threads: usize,
    stages: usize,
    pub forward: &'static str,
    pub data_gradient: &'static str,
}

impl GatherTile {
    /// The pipeline's stages, or the tile of results and the sums of its statistics.
    pub fn shared_bytes(&self) -> usize {
        let stages = self.stages * (self.rows + self.columns) * SLICE * 2;
        stages.max(self.rows * self.columns * 2 + self.threads * 8)
    }

    /// Tiles of a product of so many rows and columns.
    pub fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

/// The tiles of forward and data gradient, the largest first.
pub const GATHER_TILES: [GatherTile; 4] = [
    GatherTile {
        rows: 128,
        columns: 128,
        threads: 256,
        stages: 3,
        forward: "convolution_forward_128x128",
        data_gradient: "convolution_data_gradient_128x128",
    },
    GatherTile {
        rows: 128,
        columns: 64,
        threads: 256,
        stages: 4,
        forward: "convolution_forward_128x64",
        data_gradient: "convolution_data_gradient_128x64",
    },
    GatherTile {
        rows: 64,
        columns: 64,
        threads: 128,
        stages: 4,
        forward: "convolution_forward_64x64",
        data_gradient: "convolution_data_gradient_64x64",
    },
    GatherTile {
        rows: 128,
        columns: 32,
        threads: 128,
        stages: 4,
        forward: "convolution_forward_128x32",
        data_gradient: "convolution_data_gradient_128x32",
    },
];

/// The tile for gatherings onto `rows` pixels each (one for the forward pass, one a parity for a data
/// gradient) and `columns` channels.
pub fn gather(rows: &[usize], columns: usize, multiprocessors: usize) -> &'static GatherTile {
    let cost = |tile: &GatherTile| {
        let tiles: usize = rows.iter().map(|&rows| tile.count(rows, columns)).sum();
        tiles.div_ceil(multiprocessors) * step_cost(tile.rows, tile.columns)
    };
    GATHER_TILES.iter().min_by_key(|tile| cost(tile)).expect("there are tiles")
}

/// A tile of the weight gradient: output channels by (tap, input channel).
#[derive(Debug)]
pub struct WeightTile {
    pub rows: usize,
    pub columns: usize,
    /// Pixels of a step: shares are a multiple of it.
    pub slice: usize,
    pub threads: usize,
    /// Dynamic shared memory, bytes.
    pub shared_bytes: usize,
    pub file: &'static str,
    pub kernel: &'static str,
}

const fn weight_tile(
    rows: usize,
    columns: usize,
    threads: usize,
    stages: usize,
    kernel: &'static str,
) -> WeightTile {
    let shared_bytes = stages * (rows + columns) * SLICE * 2;
    WeightTile {
        rows,
        columns,
        slice: SLICE,
        threads,
        shared_bytes,
        file: "convolution_weight_gradient.cu",
        kernel,
    }
}

/// The tiles of the weight gradient, the largest first. 192 columns divide the 576 of 64 channels.
pub const WEIGHT_TILES: [WeightTile; 4] = [
    weight_tile(128, 128, 256, 3, "convolution_weight_gradient_128x128"),
    weight_tile(64, 192, 256, 3, "convolution_weight_gradient_64x192"),
    weight_tile(64, 64, 128, 4, "convolution_weight_gradient_64x64"),
    weight_tile(32, 128, 128, 4, "convolution_weight_gradient_32x128"),
];

/// The weight gradient of few channels.
pub const STEM_WEIGHT_TILES: [WeightTile; 1] = [WeightTile {
    rows: 64,
    columns: 32,
    slice: 128,
    threads: 256,
    shared_bytes: (64 + 32) * 128 * 2,
    file: "convolution_stem.cu",
    kernel: "convolution_stem_weight_gradient",
}];

/// The weight gradient in f32.
pub const F32_WEIGHT_TILES: [WeightTile; 1] = [WeightTile {
    rows: 64,
    columns: 64,
    slice: 16,
    threads: 256,
    shared_bytes: 0,
    file: "convolution_f32.cu",
    kernel: "convolution_weight_gradient_f32",
}];

/// How a weight gradient is cut.
#[derive(Clone, Copy, Debug)]
pub struct WeightCut {
    pub tile: &'static WeightTile,
    /// Tiles of the gradient.
    pub blocks: usize,
    /// Pixels of a block.
    pub share: usize,
    /// Shares of the pixels: partial sums to add.
    pub splits: usize,
}

/// The tile among `tiles` for a weight gradient, and into how many shares its pixels are cut.
pub fn weight(shape: &ConvolutionShape, tiles: &'static [WeightTile], multiprocessors: usize) -> WeightCut {
    let columns = shape.weight_len() / shape.out_channels;
    let pixels = shape.output_len() / shape.out_channels;
    let most_splits = (LARGEST_WORKSPACE / (4 * shape.weight_len())).clamp(1, 4 * multiprocessors);
    let cut = |tile: &'static WeightTile, splits: usize| {
        let blocks = shape.out_channels.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
        let share = pixels.div_ceil(splits).next_multiple_of(tile.slice);
        WeightCut { tile, blocks, share, splits: pixels.div_ceil(share) }
    };
    let cost = |cut: &WeightCut| {
        let turns = (cut.blocks * cut.splits).div_ceil(multiprocessors);
        let adding = if cut.splits > 1 { cut.splits * shape.weight_len() * PARTIAL + LAUNCH } else { 0 };
        turns * cut.share * step_cost(cut.tile.rows, cut.tile.columns) + adding
    };
    tiles
        .iter()
        .flat_map(|tile| (1..=most_splits).map(move |splits| cut(tile, splits)))
        .min_by_key(cost)
        .expect("there are tiles")
}

/// What one value along the summed index costs for a tile: the longer of multiplying and loading, and a third
/// of the shorter one, as much as is assumed not to overlap.
fn step_cost(rows: usize, columns: usize) -> usize {
    let (multiply, load) = (rows * columns, LOAD * (rows + columns));
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
        let tile = |rows, columns| {
            let tile = gather(&[rows], columns, RTX_3090);
            (tile.rows, tile.columns)
        };
        assert_eq!(tile(512 * 32 * 32, 64), (128, 64));
        assert_eq!(tile(512 * 16 * 16, 128), (128, 128));
        assert_eq!(tile(512 * 8 * 8, 256), (128, 128));
        // 256 tiles of 128 x 128 would keep 82 multiprocessors busy for 4 turns where 3.1 are work.
        assert_eq!(tile(512 * 4 * 4, 512), (128, 64));
        assert_eq!(tile(512 * 32 * 32, 24), (128, 32));
    }

    #[test]
    fn weight_gradients_fill_the_gpu_within_the_workspace() {
        let basic = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, c, c, 3));
        let widening = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, c, 4 * c, 1));
        let narrowing = [(32, 64), (16, 128), (8, 256), (4, 512)].map(|(size, c)| shape(size, 4 * c, c, 1));
        for shape in basic.into_iter().chain(widening).chain(narrowing) {
            let size = shape.height;
            let cut = weight(&shape, &WEIGHT_TILES, RTX_3090);
            let columns = shape.kernel * shape.kernel * shape.in_channels;
            assert!(cut.splits * 4 * shape.weight_len() <= LARGEST_WORKSPACE, "{cut:?}");
            assert!(cut.splits * cut.share >= 512 * size * size, "{cut:?}");
            assert!((cut.splits - 1) * cut.share < 512 * size * size, "{cut:?}");
            // Work over what the busiest multiprocessor's turns could have done.
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
