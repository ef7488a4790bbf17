//! The weight gradient: dw`[n, tap, c]` = sum over pixels of dy`[pixel, n]` x`[source(pixel, tap), c]`.
//!
//! Both factors are read where they lie: dy in place, x from a block that was copied with the zeros around
//! it, in which the taps of a row of the filter are one stretch of 3 Cin columns. A step of a tile is one
//! pixel.
//!
//! The sum is long and the result small, so the blocks are cut into parts, each with its own partial result,
//! which are added in order. Where the result is large there are fewer parts, and the output channels are cut
//! instead. Both cuts depend on the shape alone.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{Block, Window, blocks};
use super::scratch::{Task, Workspace};
use super::tile::{Columns, Steps, Value, VectorPanel, vector_panels};
use crate::device::cpu::instructions::Simd;
use crate::ops::convolution::ConvolutionShape;

/// Output pixels of a block.
const PIXELS: usize = 512;
/// Pixels that a tile sums before the next tile: their columns stay in the caches.
const STEPS: usize = 256;
/// Output channels per task if they are cut.
const CHANNELS: usize = 64;
/// Parts at most.
const PARTS: usize = 16;
/// Values of all partial results together.
const PARTIAL: usize = 1 << 20;
/// Values read behind a window by vectors that are wider than what is left of it.
pub(super) const BEHIND: usize = 16;

/// The parts that a sum over `units` with results of `len` values is cut into.
pub(super) fn parts(len: usize, units: usize) -> usize {
    (PARTIAL / len).clamp(1, PARTS).min(units)
}

/// The units of a part.
pub(super) fn part(number: usize, parts: usize, units: usize) -> Range<usize> {
    number * units / parts..(number + 1) * units / parts
}

/// Sets `dw` to the sum of the partial results, in their order.
pub(super) fn sum_up(partial: &[f32], dw: &mut [f32]) {
    const CHUNK: usize = 4096;
    let len = dw.len();
    dw.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, dw)| {
        for (number, partial) in partial.chunks_exact(len).enumerate() {
            let partial = &partial[chunk * CHUNK..][..dw.len()];
            if number == 0 {
                dw.copy_from_slice(partial);
            } else {
                dw.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
            }
        }
    });
}

/// Sets dw to the sum over all blocks of what `add_block(block, first channel, (dw, whether to add), task)`
/// makes of a block: dw of as many output channels from the first as the slice holds.
pub(super) fn by_parts(
    shape: &ConvolutionShape,
    dw: &mut [f32],
    workspace: &mut Workspace,
    add_block: impl Fn(&Block, usize, (&mut [f32], bool), &mut Task) + Sync,
) {
    let blocks = blocks(shape.batch, [shape.out_height(), shape.out_width()], 1, PIXELS);
    let parts = parts(dw.len(), blocks.len());
    let filter = shape.weight_len() / shape.out_channels;
    let channels = if shape.out_channels >= 2 * CHANNELS { CHANNELS } else { shape.out_channels };
    let threads = workspace.threads.prepare();
    let len = dw.len();
    let partial = if parts == 1 { &mut *dw } else { workspace.partial.take(parts * len) };
    let mut tasks = Vec::new();
    for (number, partial) in partial.chunks_exact_mut(len).enumerate() {
        for (cut, dw) in partial.chunks_mut(channels * filter).enumerate() {
            tasks.push((part(number, parts, blocks.len()), cut * channels, dw));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(part, first_channel, dw)| {
        let task = &mut *threads.mine();
        for (number, block) in blocks[part].iter().enumerate() {
            add_block(block, first_channel, (dw, number > 0), task);
        }
    });
    if parts > 1 {
        sum_up(workspace.partial.take(parts * len), dw);
    }
}

pub(super) fn run(
    simd: Simd,
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    let layout = Layout::new(simd, shape);
    by_parts(shape, dw, workspace, |block, first_channel, dw, task| {
        layout.add_block(block, x, dy, first_channel, dw, task);
    });
}

/// How a filter's columns are read from a window of `columns` pixels a row: as many runs as it has rows.
pub(super) fn filter_panels<T: Value>(
    level: T::Level,
    shape: &ConvolutionShape,
    columns: usize,
) -> Vec<VectorPanel> {
    let len = shape.kernel * shape.in_channels;
    let runs: Vec<_> =
        (0..shape.kernel).map(|row| (row * columns * shape.in_channels, row * len, len)).collect();
    vector_panels::<T>(level, &runs)
}

/// How a filter's columns are read.
struct Layout<'a> {
    simd: Simd,
    shape: &'a ConvolutionShape,
    /// Columns of a window, in pixels.
    columns: usize,
    panels: Vec<VectorPanel>,
}

impl<'a> Layout<'a> {
    fn new(simd: Simd, shape: &'a ConvolutionShape) -> Self {
        let columns = (shape.out_width() - 1) * shape.stride + shape.kernel;
        Self { simd, shape, columns, panels: filter_panels::<f32>(simd, shape, columns) }
    }

    /// Sets dw of as many output channels from `first_channel` as it holds to the sum over the block's
    /// pixels, or adds this to it.
    fn add_block(
        &self,
        block: &Block,
        x: &[f32],
        dy: &[f32],
        first_channel: usize,
        (dw, add): (&mut [f32], bool),
        task: &mut Task,
    ) {
        let Self { simd, shape, columns, .. } = *self;
        let ConvolutionShape { height, width, in_channels, out_channels, kernel, stride, .. } = *shape;
        let image_len = height * width * in_channels;
        let padding = shape.padding() as isize;
        let window = Window {
            first: [(block.rows.start * stride) as isize - padding, -padding],
            rows: (block.rows.len() - 1) * stride + kernel,
            columns,
        };
        let len = window.len(in_channels);
        let padded = task.padded.take(block.images.len() * len + BEHIND);
        for (image, out) in block.images.clone().zip(padded.chunks_exact_mut(len)) {
            window.copy(&x[image * image_len..][..image_len], [height, width, in_channels], out);
        }
        let filter = kernel * kernel * in_channels;
        let mut add = add;
        let steps = &mut task.steps;
        let mut flush = |steps: &mut Steps| {
            for panel in &self.panels {
                let rows = dw.len() / filter;
                let product = Columns { a: dy, b: padded, steps, rows, panel, pitch: filter, add };
                product.run(simd, dw);
            }
            add = true;
            steps.clear();
        };
        steps.clear();
        for (at, image) in block.images.clone().enumerate() {
            for (row, y) in block.rows.clone().enumerate() {
                let from_y = (image * shape.out_height() + y) * shape.out_width();
                let from_x = at * len + row * stride * columns * in_channels;
                for column in 0..shape.out_width() {
                    let a = (from_y + column) * out_channels + first_channel;
                    steps.push(a, from_x + column * stride * in_channels);
                    if steps.len() == STEPS {
                        flush(steps);
                    }
                }
            }
        }
        if steps.len() > 0 {
            flush(steps);
        }
    }
}
