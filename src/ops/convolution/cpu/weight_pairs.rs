//! The weight gradient in products of bf16: dw`[n, tap, c]` = sum over pixels of dy`[pixel, n]`
//! x`[source(pixel, tap), c]`.
//!
//! The sums run over pixels, so two neighbours of a row are a pair, the last of an odd row paired with zeros.
//! dy is copied in such pairs. A tap reads pairs that begin at any column of the window, so each column of
//! the copied window is paired with the one `stride` further: as many bytes as in f32. The rest is as in
//! `weight.rs`.

use super::blocks::{Block, Window};
use super::factors::pair;
use super::pairs::Pair;
use super::scratch::{Aligned, Task, Workspace};
use super::tile::{Columns, Steps, VectorPanel};
use super::weight::{BEHIND, by_parts, filter_panels};
use crate::device::cpu::instructions::PairSums;
use crate::ops::convolution::ConvolutionShape;

pub(super) fn run(
    level: PairSums,
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    let columns = (shape.out_width() - 1) * shape.stride + shape.kernel;
    let layout = Layout { level, shape, columns, panels: filter_panels::<Pair>(level, shape, columns) };
    by_parts(shape, dw, workspace, |block, first_channel, dw, task| {
        layout.add_block(block, x, dy, first_channel, dw, task);
    });
}

/// How a filter's columns are read.
struct Layout<'a> {
    level: PairSums,
    shape: &'a ConvolutionShape,
    /// Columns of a window, in pixels.
    columns: usize,
    panels: Vec<VectorPanel>,
}

impl Layout<'_> {
    /// Sets dw of as many output channels from `first_channel` as it holds to the sum over the block's
    /// pixels, or adds this to it. A block is summed in one piece: its columns stay in the caches.
    fn add_block(
        &self,
        block: &Block,
        x: &[f32],
        dy: &[f32],
        first_channel: usize,
        (dw, add): (&mut [f32], bool),
        task: &mut Task,
    ) {
        let Self { level, shape, columns, .. } = *self;
        let filter = shape.kernel * shape.kernel * shape.in_channels;
        let rows = dw.len() / filter;
        let (window_len, b) = self.pair_inputs(block, x, &mut task.padded, &mut task.gathered);
        let a =
            self.pair_gradients(block, dy, first_channel..first_channel + rows, &mut task.padded_gradient);
        let steps: &mut Steps = &mut task.steps;
        steps.clear();
        for at in 0..block.images.len() {
            for row in 0..block.rows.len() {
                let from = at * window_len + row * shape.stride * columns * shape.in_channels;
                for column in (0..shape.out_width()).step_by(2) {
                    steps.push(steps.len() * rows, from + column * shape.stride * shape.in_channels);
                }
            }
        }
        for panel in &self.panels {
            Columns { a, b, steps, rows, panel, pitch: filter, add }.run(level, dw);
        }
    }

    /// The block's windows, `[image, row, column, channel]`, each column paired with that `stride` further or
    /// zero: the values of a window, and all.
    fn pair_inputs<'a>(
        &self,
        block: &Block,
        x: &[f32],
        padded: &'a mut Aligned,
        line: &mut Aligned,
    ) -> (usize, &'a [Pair]) {
        let ConvolutionShape { height, width, in_channels, kernel, stride, .. } = *self.shape;
        let image_len = height * width * in_channels;
        let padding = self.shape.padding() as isize;
        let window = Window {
            first: [(block.rows.start * stride) as isize - padding, -padding],
            rows: (block.rows.len() - 1) * stride + kernel,
            columns: self.columns,
        };
        let (len, row, ahead) = (window.len(in_channels), self.columns * in_channels, stride * in_channels);
        let padded = padded.take_as::<Pair>(block.images.len() * len + BEHIND);
        let line = line.take(row + ahead);
        for (image, out) in block.images.clone().zip(padded.chunks_exact_mut(len)) {
            let image = &x[image * image_len..][..image_len];
            let lines = window.lines(image, [height, width, in_channels]);
            for (from, out) in lines.zip(out.chunks_exact_mut(row)) {
                if from.pixels.is_empty() {
                    out.fill(Pair::default());
                    continue;
                }
                let before = from.before * in_channels;
                line[..before].fill(0.0);
                line[before..][..from.pixels.len()].copy_from_slice(from.pixels);
                line[before + from.pixels.len()..].fill(0.0);
                pair(&line[..row], &line[ahead..], out);
            }
        }
        (len, padded)
    }

    /// Some channels of the block's dy, `[pair of pixels, channel]`.
    fn pair_gradients<'a>(
        &self,
        block: &Block,
        dy: &[f32],
        channels: std::ops::Range<usize>,
        out: &'a mut Aligned,
    ) -> &'a [Pair] {
        let (height, width, all) = (self.shape.out_height(), self.shape.out_width(), self.shape.out_channels);
        let count = channels.len();
        let pairs = width.div_ceil(2);
        let out = out.take_as::<Pair>(block.images.len() * block.rows.len() * pairs * count);
        let zeros = vec![0.0; count];
        let rows = block.images.clone().flat_map(|image| block.rows.clone().map(move |y| image * height + y));
        for (row, out) in rows.zip(out.chunks_exact_mut(pairs * count)) {
            let pixels = &dy[row * width * all..][..width * all];
            for (number, out) in out.chunks_exact_mut(count).enumerate() {
                let first = &pixels[2 * number * all..];
                let second = match 2 * number + 1 < width {
                    true => &first[all..][channels.clone()],
                    false => &zeros,
                };
                pair(&first[channels.clone()], second, out);
            }
        }
        out
    }
}
