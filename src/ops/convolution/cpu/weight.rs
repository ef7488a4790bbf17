//! The weight gradient: dw`[n, tap, c]` = sum over pixels of dy`[pixel, n]` x`[source(pixel, tap), c]`.
//!
//! The sum is long and the result small, so the pixels are cut into parts, each with its own partial result,
//! which are added in order. Where the result is large there are fewer parts, and the output channels are cut
//! instead. Both cuts depend on the shape alone.

use rayon::prelude::*;

use super::gather::write_row;
use super::kernel::{self, COLUMNS, ROWS};
use super::{Workspace, scratch};
use crate::ops::convolution::ConvolutionShape;

/// Pixels packed at a time: 256 steps of 16 inputs are 16 KB.
const PIXELS: usize = 256;
/// Output channels per task if they are cut: a multiple of the tile's six rows.
const CHANNELS: usize = 66;
/// Values of all partial results together.
const PARTIAL: usize = 1 << 20;

pub(super) fn run(
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    let pixels = shape.batch * shape.out_height() * shape.out_width();
    let parts = (PARTIAL / shape.weight_len()).clamp(1, 8).min(pixels.div_ceil(PIXELS)).max(1);
    let part_pixels = pixels.div_ceil(parts);
    let filter = shape.weight_len() / shape.out_channels;
    let channels = if shape.out_channels > CHANNELS { CHANNELS } else { shape.out_channels };
    let work = |part: usize, cut: usize, dw: &mut [f32], task: &mut WeightTask| {
        let range = part * part_pixels..pixels.min((part + 1) * part_pixels);
        task.run(shape, x, dy, range, cut * channels, dw);
    };
    if parts == 1 {
        dw.par_chunks_mut(channels * filter)
            .enumerate()
            .for_each_init(WeightTask::default, |task, (cut, dw)| work(0, cut, dw, task));
        return;
    }
    let partial = scratch(&mut workspace.partial, parts * dw.len());
    let mut tasks: Vec<(usize, usize, &mut [f32])> = Vec::new();
    for (part, partial) in partial.chunks_exact_mut(dw.len()).enumerate() {
        tasks.extend(partial.chunks_mut(channels * filter).enumerate().map(|(cut, dw)| (part, cut, dw)));
    }
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each_init(WeightTask::default, |task, (part, cut, dw)| work(part, cut, dw, task));
    let len = dw.len();
    dw.par_chunks_mut(4096).enumerate().for_each(|(chunk, dw)| {
        for part in 0..parts {
            let partial = &partial[part * len + chunk * 4096..][..dw.len()];
            if part == 0 {
                dw.copy_from_slice(partial);
            } else {
                dw.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
            }
        }
    });
}

/// The packed blocks of a thread.
#[derive(Default)]
struct WeightTask {
    dy: Vec<f32>,
    x: Vec<f32>,
    sources: Vec<Option<usize>>,
}

impl WeightTask {
    /// Computes dw of as many output channels from `first_channel` as `dw` holds, over the output pixels
    /// `range`.
    fn run(
        &mut self,
        shape: &ConvolutionShape,
        x: &[f32],
        dy: &[f32],
        range: std::ops::Range<usize>,
        first_channel: usize,
        dw: &mut [f32],
    ) {
        let (in_channels, out_channels, kernel) = (shape.in_channels, shape.out_channels, shape.kernel);
        let filter = kernel * kernel * in_channels;
        let channels = dw.len() / filter;
        let groups = channels.div_ceil(ROWS);
        dw.fill(0.0);
        for start in range.clone().step_by(PIXELS) {
            let pixels = PIXELS.min(range.end - start);
            // dy as [group of six channels][pixel][six].
            let packed_dy = scratch(&mut self.dy, groups * pixels * ROWS);
            for (group, packed) in packed_dy.chunks_exact_mut(pixels * ROWS).enumerate() {
                let first = first_channel + group * ROWS;
                let count = ROWS.min(channels - group * ROWS);
                for (at, six) in packed.chunks_exact_mut(ROWS).enumerate() {
                    let values = &dy[(start + at) * out_channels + first..][..count];
                    six[..count].copy_from_slice(values);
                    six[count..].fill(0.0);
                }
            }
            sources(shape, start, pixels, &mut self.sources);
            // Panels of 16 columns of the flattened filter (tap, input channel); a panel may span taps.
            for first in (0..filter).step_by(COLUMNS) {
                let columns = COLUMNS.min(filter - first);
                let packed_x = scratch(&mut self.x, pixels * COLUMNS);
                let mut column = 0;
                while column < columns {
                    let (tap, channel) = ((first + column) / in_channels, (first + column) % in_channels);
                    let count = (in_channels - channel).min(columns - column);
                    let starts = &self.sources[tap * pixels..(tap + 1) * pixels];
                    pack_columns(x, starts, channel, column..column + count, packed_x);
                    column += count;
                }
                for line in packed_x.chunks_exact_mut(COLUMNS).filter(|_| columns < COLUMNS) {
                    line[columns..].fill(0.0);
                }
                for (group, packed_dy) in packed_dy.chunks_exact(pixels * ROWS).enumerate() {
                    let tile = kernel::packed(packed_dy, packed_x);
                    for (i, sums) in tile.iter().enumerate().take(channels - group * ROWS) {
                        let at = (group * ROWS + i) * filter + first;
                        write_row(&mut dw[at..at + columns], sums, true);
                    }
                }
            }
        }
    }
}

/// Copies `columns.len()` channels from `channel` of each pixel into the columns of its packed line; zeros
/// outside the image.
fn pack_columns(
    x: &[f32],
    starts: &[Option<usize>],
    channel: usize,
    columns: std::ops::Range<usize>,
    packed: &mut [f32],
) {
    for (line, start) in packed.chunks_exact_mut(COLUMNS).zip(starts) {
        let line = &mut line[columns.clone()];
        let Some(start) = start else {
            line.fill(0.0);
            continue;
        };
        let values = &x[start + channel..][..columns.len()];
        // Constant lengths compile to vector copies.
        match columns.len() {
            16 => line[..16].copy_from_slice(&values[..16]),
            8 => line[..8].copy_from_slice(&values[..8]),
            _ => line.copy_from_slice(values),
        }
    }
}

/// Offsets of the input pixels of the output pixels start..start+pixels, tap by tap; `None` outside the
/// image.
fn sources(shape: &ConvolutionShape, start: usize, pixels: usize, out: &mut Vec<Option<usize>>) {
    let (rows, columns, padding) = (shape.out_height(), shape.out_width(), shape.padding());
    out.clear();
    for tap in 0..shape.kernel * shape.kernel {
        out.extend((start..start + pixels).map(|pixel| {
            let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
            let y = (row * shape.stride + tap / shape.kernel)
                .checked_sub(padding)
                .filter(|&y| y < shape.height)?;
            let x = (column * shape.stride + tap % shape.kernel)
                .checked_sub(padding)
                .filter(|&x| x < shape.width)?;
            Some(((image * shape.height + y) * shape.width + x) * shape.in_channels)
        }));
    }
}
