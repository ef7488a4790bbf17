//! How a convolution's matrix product is cut into tiles: the tiles with kernels, and the cuts of weight
//! gradients that are worth a look. `choice.rs` takes one.

use super::halo::{Halo, window_bytes};
use crate::device::Element;
use crate::device::gpu::driver::Gpu;
use crate::device::gpu::kernels::batchnorm_arrival::ARRIVAL_TABLE;
use crate::device::gpu::kernels::convolution::SLICE;
use crate::device::gpu::kernels::{
    convolution_data_gradient, convolution_f32, convolution_forward, convolution_inference,
    convolution_of_batchnorm, convolution_stem, convolution_weight_gradient,
};
use crate::device::gpu::launch::{Kernel, KernelOf};
use crate::ops::convolution::ConvolutionShape;

/// Largest workspace for partial sums, bytes.
const LARGEST_WORKSPACE: usize = 64 << 20;
/// Blocks of a kernel with a halo that are to be on a multiprocessor at once, and what the system takes of
/// the shared memory of each.
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
    /// Bytes for what the pixels are multiplied with on arrival.
    table_bytes: usize,
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
            Some(halo) => 2 * halo.bytes + pipeline_bytes(self.stages, 0, self.columns) + self.table_bytes,
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
}

/// The tiles of a table of kernels for some numbers, largest first; whose pixels a row copies once, and the bytes of
/// the table of what they are multiplied with.
macro_rules! tiles {
    ($table:expr, $numbers:expr, |$row:ident| $with_halo:expr, $table_bytes:expr) => {{
        let rows = $table.iter().filter(|row| $numbers.are(row.t, row.short));
        rows.map(|$row| Tile {
            rows: $row.rows,
            columns: $row.columns,
            threads: 32 * $row.warps_down * $row.warps_across,
            stages: $row.stages,
            with_halo: $with_halo,
            table_bytes: $table_bytes,
            kernel: $row.kernel,
        })
        .collect()
    }};
}

/// The tiles of the forward pass.
pub fn forward(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_forward::Forward>>> {
    tiles!(convolution_forward::FORWARD, numbers, |row| row.halo != 0, 0)
}

/// The tiles of the forward pass of an evaluation.
pub fn inference(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_inference::Inference>>> {
    tiles!(convolution_inference::INFERENCE, numbers, |row| row.halo != 0, 0)
}

/// The tiles of the data gradient.
pub fn data_gradient(numbers: Numbers) -> Vec<Tile<KernelOf<convolution_data_gradient::DataGradient>>> {
    tiles!(convolution_data_gradient::DATA_GRADIENT, numbers, |row| row.halo != 0, 0)
}

/// The tiles of the forward pass that normalises its input.
pub fn forward_of_batchnorm(
    numbers: Numbers,
) -> Vec<Tile<KernelOf<convolution_of_batchnorm::ForwardOfBatchnorm>>> {
    tiles!(convolution_of_batchnorm::FORWARD_OF_BATCHNORM, numbers, |row| true, ARRIVAL_TABLE)
}

/// The tiles of the data gradient that computes its input from the gradient of a batchnorm.
pub fn data_gradient_of_batchnorm(
    numbers: Numbers,
) -> Vec<Tile<KernelOf<convolution_of_batchnorm::DataGradientOfBatchnorm>>> {
    tiles!(convolution_of_batchnorm::DATA_GRADIENT_OF_BATCHNORM, numbers, |row| true, ARRIVAL_TABLE)
}

/// A kernel of the weight gradient.
#[derive(Clone, Copy, Debug)]
pub enum WeightKernel {
    Tile(KernelOf<convolution_weight_gradient::WeightGradient>),
    Stem(KernelOf<convolution_stem::ConvolutionStemWeightGradient>),
    /// That computes dy from the gradient of a batchnorm.
    StemOfBatchnorm(KernelOf<convolution_stem::ConvolutionStemWeightGradientOfBatchnorm>),
    F32,
}

impl WeightKernel {
    /// Whatever its parameters.
    pub fn kernel(self) -> Kernel {
        match self {
            Self::Tile(kernel) => kernel.kernel,
            Self::Stem(kernel) => kernel.kernel,
            Self::StemOfBatchnorm(kernel) => kernel.kernel,
            Self::F32 => convolution_f32::CONVOLUTION_WEIGHT_GRADIENT_F32.kernel,
        }
    }
}

/// A tile of the weight gradient: output channels by (tap, input channel).
#[derive(Clone, Copy, Debug)]
pub struct WeightTile {
    pub rows: usize,
    pub columns: usize,
    /// Pixels per step; a share is a multiple of it.
    pub slice: usize,
    pub threads: usize,
    /// Blocks on a multiprocessor at once.
    side_by_side: usize,
    memory: WeightMemory,
    pub kernel: WeightKernel,
}

/// Dynamic shared memory of a tile of the weight gradient.
#[derive(Clone, Copy, Debug)]
enum WeightMemory {
    /// So many bytes.
    Bytes(usize),
    /// So many stages, where x is copied once for all taps.
    Window(usize),
}

impl WeightTile {
    /// Dynamic shared memory in bytes.
    ///
    /// For a shape that the tile does not take.
    pub fn shared_bytes(&self, shape: &ConvolutionShape) -> usize {
        self.memory(shape).expect("a shape that the tile takes")
    }

    fn memory(&self, shape: &ConvolutionShape) -> Option<usize> {
        match self.memory {
            WeightMemory::Bytes(bytes) => Some(bytes),
            WeightMemory::Window(stages) => {
                window_bytes(shape, stages).map(|bytes| bytes + pipeline_bytes(stages, self.rows, 0))
            }
        }
    }

    /// Whether its kernel copies x once for all taps, and only takes shapes where that can be.
    pub fn with_halo(&self) -> bool {
        matches!(self.memory, WeightMemory::Window(_))
    }

    /// Whether its kernel takes a shape, and enough of its blocks fit a multiprocessor.
    fn takes(&self, shape: &ConvolutionShape, gpu: &Gpu) -> bool {
        let fits = |bytes: usize| SIDE_BY_SIDE * (bytes + RESERVED) <= gpu.shared_bytes + RESERVED;
        self.memory(shape).is_some_and(|bytes| !self.with_halo() || fits(bytes))
    }
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
        side_by_side: row.blocks,
        memory: match row.halo {
            0 => WeightMemory::Bytes(pipeline_bytes(row.stages, row.rows, row.columns)),
            _ => WeightMemory::Window(row.stages),
        },
        kernel: WeightKernel::Tile(row.kernel),
    })
    .collect()
}

/// The weight gradient of a layer with few input channels, by a kernel for its numbers.
pub const fn stem_weight(kernel: WeightKernel) -> WeightTile {
    use convolution_stem::{PATCH, THREADS, WEIGHT_PIXELS, WEIGHT_ROWS};
    WeightTile {
        rows: WEIGHT_ROWS,
        columns: PATCH,
        slice: WEIGHT_PIXELS,
        threads: THREADS,
        side_by_side: 1,
        memory: WeightMemory::Bytes((WEIGHT_ROWS + PATCH) * WEIGHT_PIXELS * 2),
        kernel,
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
        side_by_side: 1,
        memory: WeightMemory::Bytes(0),
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

/// Turns of blocks over the whole GPU that weight gradients are cut for.
const TURNS: usize = 4;
/// Shares that they are cut into besides.
const FEW_SHARES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// The cuts of a weight gradient that are worth a look, for the tiles that take its shape: few shares, and
/// the most that do not begin another turn of blocks.
pub fn weight_cuts(shape: &ConvolutionShape, tiles: &[WeightTile], gpu: &Gpu) -> Vec<WeightCut> {
    let columns = shape.weight_len() / shape.out_channels;
    let pixels = shape.output_len() / shape.out_channels;
    let most_splits = (LARGEST_WORKSPACE / (4 * shape.weight_len())).max(1);
    let mut cuts = Vec::new();
    for tile in tiles.iter().filter(|tile| tile.takes(shape, gpu)) {
        let blocks = shape.out_channels.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
        let turns = (1..=TURNS * tile.side_by_side).map(|turn| turn * gpu.multiprocessors / blocks);
        let mut splits: Vec<usize> =
            FEW_SHARES.into_iter().chain(turns).map(|splits| splits.clamp(1, most_splits)).collect();
        splits.sort_unstable();
        splits.dedup();
        cuts.extend(splits.into_iter().map(|splits| {
            let share = pixels.div_ceil(splits).next_multiple_of(tile.slice);
            WeightCut { tile: *tile, blocks, share, splits: pixels.div_ceil(share) }
        }));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cuts of the layers of ResNets cover all pixels within the workspace, and some of each fill the
    /// multiprocessors.
    #[test]
    fn cuts_cover_all_pixels_within_the_workspace() {
        let gpu = Gpu {
            name: "RTX 3090".into(),
            architecture: 86,
            multiprocessors: 82,
            shared_bytes: 101_376,
            choice: Default::default(),
        };
        let sizes = [(32, 64), (16, 128), (8, 256), (4, 512)];
        let shapes = sizes.into_iter().flat_map(|(size, c)| {
            [(c, c, 3), (c, 4 * c, 1), (4 * c, c, 1)].map(|(in_channels, out_channels, kernel)| {
                let (height, width) = (size, size);
                ConvolutionShape { batch: 512, height, width, in_channels, out_channels, kernel, stride: 1 }
            })
        });
        for shape in shapes {
            let pixels = 512 * shape.height * shape.width;
            let cuts = weight_cuts(&shape, &weight_gradient(Numbers::Bf16), &gpu);
            let halo = cuts.iter().any(|cut| cut.tile.with_halo());
            assert_eq!(halo, shape.kernel == 3, "{shape:?}");
            for cut in &cuts {
                assert!(cut.splits * 4 * shape.weight_len() <= LARGEST_WORKSPACE, "{cut:?}");
                assert!(cut.splits * cut.share >= pixels, "{cut:?}");
                assert!((cut.splits - 1) * cut.share < pixels, "{cut:?}");
            }
            // The work of all over what the multiprocessors could do in as many turns.
            let filled = |cut: &WeightCut| {
                let blocks = cut.blocks * cut.splits;
                blocks as f64 / blocks.next_multiple_of(82) as f64 > 0.9
            };
            assert!(cuts.iter().any(filled), "{shape:?}: {cuts:?}");
        }
    }
}
