//! The weight gradient: for every point, dM`[n, c]` = the sum over tiles of (A dy A^T)`[tile, n]`
//! (B^T x B)`[tile, c]`, then dw = G^T dM G.

use rayon::prelude::*;

use super::super::blocks::{Block, Window, blocks};
use super::super::scratch::{Aligned, Task, Workspace};
use super::super::tile::{Columns, Steps, VectorPanel, vector_panels};
use super::super::weight::{part, parts, sum_up};
use super::transforms::{Grid, Size, transform_gradient, transform_weight_gradient};
use super::{KEPT, Tiles, pitch, transform_block, transformed_len};
use crate::device::cpu::instructions::Simd;
use crate::ops::convolution::ConvolutionShape;

/// Tiles of a block: as many products are summed in registers before the sums go to the caches.
const TILES: usize = 64;
/// The tiles' outputs and products in each direction, and products.
const SIZE: Size = Size::Four;
const OUTPUTS: usize = 4;
const SIDE: usize = 6;
const POINTS: usize = SIDE * SIDE;
/// Sums dM of a task, in values, at most.
const SUMS: usize = 600_000;

/// dw `[Cout,3,3,Cin]` of x and dy.
pub(in super::super) fn run(
    simd: Simd,
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    let ConvolutionShape { height, width, in_channels, out_channels, .. } = *shape;
    let blocks = blocks(shape.batch, [height, width], OUTPUTS, TILES * OUTPUTS * OUTPUTS);
    let most = (SUMS / (POINTS * in_channels) / 16).max(1) * 16;
    let channels = out_channels.div_ceil(out_channels.div_ceil(most)).next_multiple_of(16);
    let parts = parts(dw.len(), blocks.len());
    let threads = workspace.threads.prepare();

    // Several cuts of output channels share the transformed input if it is kept.
    let lengths =
        blocks.iter().map(|block| transformed_len(Tiles::of(SIZE, block, width), block, in_channels));
    let total: usize = lengths.clone().sum();
    let keep = channels < out_channels && total <= KEPT;
    let mut rest = workspace.transformed.take(if keep { total } else { 0 });
    let mut inputs = Vec::new();
    for len in lengths.filter(|_| keep) {
        let (now, later) = rest.split_at_mut(len);
        inputs.push(now);
        rest = later;
    }
    inputs.par_iter_mut().zip(&blocks).with_max_len(1).for_each(|(input, block)| {
        transform_block(
            simd,
            Tiles::of(SIZE, block, width),
            x,
            [height, width, in_channels],
            block,
            &mut threads.mine().padded,
            input,
        );
    });

    let len = dw.len();
    let partial = if parts == 1 { &mut *dw } else { workspace.partial.take(parts * len) };
    let filter = 9 * in_channels;
    let mut tasks = Vec::new();
    for (number, partial) in partial.chunks_exact_mut(len).enumerate() {
        for (cut, dw) in partial.chunks_mut(channels * filter).enumerate() {
            tasks.push((part(number, parts, blocks.len()), cut * channels, dw));
        }
    }
    let panels = vector_panels::<f32>(simd, &[(0, 0, in_channels)]);
    tasks.into_par_iter().with_max_len(1).for_each(|(part, first_channel, dw)| {
        let task = &mut *threads.mine();
        let mut sums = std::mem::take(&mut task.products);
        let mut own = std::mem::take(&mut task.transformed);
        let channels = dw.len() / filter;
        let dm = sums.take(POINTS * pitch(channels * in_channels));
        let first = part.start;
        for number in part {
            let block = &blocks[number];
            let input = if keep {
                &*inputs[number]
            } else {
                let input = own.take(transformed_len(Tiles::of(SIZE, block, width), block, in_channels));
                transform_block(
                    simd,
                    Tiles::of(SIZE, block, width),
                    x,
                    [height, width, in_channels],
                    block,
                    &mut task.padded,
                    input,
                );
                input
            };
            let cut = Cut { simd, shape, panels: &panels, first_channel, channels };
            cut.add_block(block, input, dy, (dm, number > first), task);
        }
        for (n, dw) in dw.chunks_exact_mut(filter).enumerate() {
            let point = pitch(channels * in_channels);
            let from = (&dm[n * in_channels..], Grid { row: SIDE * point, column: point });
            let to = Grid { row: 3 * in_channels, column: in_channels };
            transform_weight_gradient(simd, in_channels, from, (dw, to));
        }
        (task.products, task.transformed) = (sums, own);
    });
    if parts > 1 {
        sum_up(workspace.partial.take(parts * len), dw);
    }
}

/// Some of the output channels.
struct Cut<'a> {
    simd: Simd,
    shape: &'a ConvolutionShape,
    panels: &'a [VectorPanel],
    first_channel: usize,
    channels: usize,
}

impl Cut<'_> {
    /// Sets dM `[point, n, c]` to the sums over the block's tiles, or adds them.
    fn add_block(
        &self,
        block: &Block,
        input: &[f32],
        dy: &[f32],
        (dm, add): (&mut [f32], bool),
        task: &mut Task,
    ) {
        let Self { simd, channels, .. } = *self;
        let in_channels = self.shape.in_channels;
        let count = Tiles::of(SIZE, block, self.shape.width).count(block);
        let gradient = task.transformed_gradient.take(POINTS * pitch(count * channels));
        self.transform(block, dy, &mut task.padded_gradient, gradient);
        let steps: &mut Steps = &mut task.steps;
        steps.clear();
        (0..count).for_each(|tile| steps.push(tile * channels, tile * in_channels));
        for (point, dm) in dm.chunks_exact_mut(pitch(channels * in_channels)).enumerate() {
            let a = &gradient[point * pitch(count * channels)..][..count * channels];
            let b = &input[point * pitch(count * in_channels)..][..count * in_channels];
            for panel in self.panels {
                let (steps, rows, pitch) = (&*steps, channels, in_channels);
                Columns { a, b, steps, rows, panel, pitch, add }.run(simd, dm);
            }
        }
    }

    /// A dy A^T of the block's tiles, `[point, tile, n]`. Pixels outside the image count as zeros.
    fn transform(&self, block: &Block, dy: &[f32], padded: &mut Aligned, out: &mut [f32]) {
        let ConvolutionShape { height, width, out_channels, .. } = *self.shape;
        let tiles = Tiles::of(SIZE, block, width);
        let window = Window {
            first: [block.rows.start as isize, 0],
            rows: tiles.rows * OUTPUTS,
            columns: tiles.columns * OUTPUTS,
        };
        let whole = window.rows == block.rows.len() && window.columns == width;
        let point = pitch(tiles.count(block) * self.channels);
        let image_len = height * width * out_channels;
        let mut number = 0;
        for image in block.images.clone() {
            let image = &dy[image * image_len..][..image_len];
            // Without pixels outside it, the image is read in place.
            let pixels = if whole {
                &image[block.rows.start * width * out_channels..]
            } else {
                let padded = padded.take(window.len(out_channels));
                window.copy(image, [height, width, out_channels], padded);
                padded
            };
            let from = Grid { row: window.columns * out_channels, column: out_channels };
            let to = Grid { row: SIDE * point, column: point };
            for (y, x) in (0..tiles.rows).flat_map(|y| (0..tiles.columns).map(move |x| (y, x))) {
                let at = OUTPUTS * (y * from.row + x * from.column) + self.first_channel;
                let out = &mut out[number * self.channels..];
                transform_gradient(self.simd, self.channels, (&pixels[at..], from), (out, to));
                number += 1;
            }
        }
    }
}
