//! Winograd's algorithm for 3x3 convolutions of stride 1: F(4x4, 3x3) has 36 multiplications for 16 outputs
//! in place of 144, F(2x2, 3x3) 16 for 4 in place of 36.
//!
//! A block of tiles is transformed into a buffer that stays in the caches, multiplied point by point, and
//! transformed back into its place; the products over channels are ordinary tiles of `tile/`. So nothing
//! large is written to memory, except that many channels have their transformed input kept while the weights,
//! which are then larger than the caches, stream past once.

mod polynomials;
mod product;
mod transforms;
mod weight;

use super::Products;
use super::blocks::{Block, Window};
use super::scratch::Aligned;
use crate::device::cpu::instructions::Simd;
use crate::ops::convolution::ConvolutionShape;
pub(super) use product::run;
use transforms::Grid;
pub(super) use transforms::Size;
pub(super) use weight::run as weight_gradient;

/// Transformed inputs of a whole batch that are kept, in values, at most; more are transformed again.
const KEPT: usize = 5 << 18;

/// The distance between points whose values take `len` each: at powers of two all points of a tile would fall
/// into the same few lines of a cache.
fn pitch(len: usize) -> usize {
    len.next_multiple_of(16) + 16
}

/// The size of tiles for a forward pass, if the algorithm serves it: in f32, 2 x 2 from 128 channels.
///
/// The error of 4 x 4 is several times that of the direct sum. In the forward pass it decides on which side of
/// zero a ReLU's input falls, and the golden networks have inputs that are zero within rounding. With 64
/// channels they are that sensitive to 2 x 2, too; with 16 it does not win. In bf16 it decides on which side of
/// a tie a result is rounded, which takes a step as far from a GPU's as rounding may; direct sums of products
/// of bf16 are as fast as 2 x 2.
pub(super) fn size_of_forward(shape: &ConvolutionShape, products: Products) -> Option<Size> {
    const CHANNELS: usize = 128;
    let wide = shape.in_channels.min(shape.out_channels) >= CHANNELS;
    (fits(shape, Size::Two) && wide && products.pairs().is_none()).then_some(Size::Two)
}

/// Whether the algorithm serves the weight gradient, with tiles of 4 x 4. Sums over a few tiles are neither
/// faster nor, beside the rounding of the transforms, as exact as direct ones.
pub(super) fn serves_weight_gradient(shape: &ConvolutionShape) -> bool {
    const TILES: usize = 16;
    let tiles = |extent: usize| extent.div_ceil(Size::Four.outputs());
    fits(shape, Size::Four) && shape.batch * tiles(shape.height) * tiles(shape.width) >= TILES
}

/// The size of tiles for the data gradient, if the algorithm serves it.
pub(super) fn size_of_data_gradient(shape: &ConvolutionShape) -> Option<Size> {
    fits(shape, Size::Four).then_some(Size::Four)
}

/// Whether a convolution has what tiles need: by its shape alone, so that results do not depend on the
/// machine. Narrow layers would spend more on the transforms than they save, and images that do not fill
/// their tiles would lose a part of the gain.
fn fits(shape: &ConvolutionShape, size: Size) -> bool {
    let whole = |extent: usize| extent.next_multiple_of(size.outputs());
    shape.kernel == 3
        && shape.stride == 1
        && shape.in_channels.is_multiple_of(16)
        && shape.out_channels.is_multiple_of(16)
        && 2 * whole(shape.height) * whole(shape.width) <= 3 * shape.height * shape.width
}

/// The tiles of a block of an image of `columns`: rows and columns of tiles.
#[derive(Clone, Copy)]
struct Tiles {
    size: Size,
    rows: usize,
    columns: usize,
}

impl Tiles {
    fn of(size: Size, block: &Block, columns: usize) -> Self {
        let outputs = size.outputs();
        Self { size, rows: block.rows.len().div_ceil(outputs), columns: columns.div_ceil(outputs) }
    }

    /// Tiles of all images of the block.
    fn count(self, block: &Block) -> usize {
        block.images.len() * self.rows * self.columns
    }
}

/// Values of a block's transformed tiles.
fn transformed_len(tiles: Tiles, block: &Block, channels: usize) -> usize {
    tiles.size.points() * pitch(tiles.count(block) * channels)
}

/// Transforms the tiles of a block of images (rows, columns, channels) to `[point, tile, channels]`, the
/// points at a [`pitch`].
fn transform_block(
    simd: Simd,
    tiles: Tiles,
    images: &[f32],
    [rows, columns, channels]: [usize; 3],
    block: &Block,
    padded: &mut Aligned,
    transformed: &mut [f32],
) {
    let (outputs, transform) = (tiles.size.outputs(), tiles.size.transform_input());
    let window = Window {
        first: [block.rows.start as isize - 1, -1],
        rows: tiles.rows * outputs + 2,
        columns: tiles.columns * outputs + 2,
    };
    let padded = padded.take(window.len(channels));
    let row = window.columns * channels;
    let image_len = rows * columns * channels;
    let point = pitch(tiles.count(block) * channels);
    let to = Grid { row: tiles.size.side() * point, column: point };
    let mut number = 0;
    for image in block.images.clone() {
        window.copy(&images[image * image_len..][..image_len], [rows, columns, channels], padded);
        for y in 0..tiles.rows {
            for x in 0..tiles.columns {
                let from = &padded[(y * row + x * channels) * outputs..];
                let from = (from, Grid { row, column: channels });
                transform(simd, channels, from, (&mut transformed[number * channels..], to));
                number += 1;
            }
        }
    }
}
