//! The forward pass and the data gradient as products of pixels with packed weights.
//!
//! A problem is a grid of target pixels per image. Target pixel (r, c) of the grid is a sum over taps: the
//! source pixel (r stride + tap row, c stride + tap column) times the tap's weights. A block's source is
//! copied with the zeros around it, so the taps of a row are one stretch of memory, the same for all pixels.

use rayon::prelude::*;

use super::blocks::{Block, Window, blocks, split};
use super::factors::Factor;
use super::filter::Filter;
use super::scratch::{Task, Workspace};
use super::slices::{Slice, segments, slices};
use super::tile::{Offsets, Panel, Rows, panels};
use crate::device::cpu::rounding::Rounding;

/// A tap: its offset in the source, and which weights it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub row: isize,
    pub column: isize,
    pub weight: usize,
}

/// Every `step`th target pixel of each direction from `first`, and the taps that reach them, ordered by row
/// and column.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub first: [usize; 2],
    pub taps: Vec<Tap>,
}

/// What all problems of a call share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub batch: usize,
    /// Rows, columns, channels of the source.
    pub source: [usize; 3],
    /// Rows, columns, channels of the target.
    pub target: [usize; 3],
    /// Source pixels between neighbours of the grid.
    pub stride: usize,
    /// Target pixels between neighbours of the grid.
    pub step: usize,
}

/// Pixels of a block at least and at most, and values of its target at most: with those of its source, they stay
/// in the second-level cache.
const PIXELS: [usize; 2] = [128, 512];
const TARGET: usize = 1 << 16;
/// Solves the problems; adds to the target if `accumulate`, and rounds what it then holds.
#[expect(clippy::too_many_arguments, reason = "an operation's operands, its shape and how to compute it")]
pub(super) fn run<T: Factor>(
    level: T::Level,
    geometry: &Geometry,
    problems: &[Problem],
    filter: Filter<'_>,
    source: &[f32],
    (target, accumulate): (&mut [f32], bool),
    rounding: Rounding,
    workspace: &mut Workspace,
) {
    let ([.., in_channels], [height, width, out_channels]) = (geometry.source, geometry.target);
    let each = T::of_pixel(in_channels);
    let panels = panels::<T>(level, out_channels);
    let padded: usize = panels.iter().map(|panel| panel.padded).sum();
    let depth = |problem: &Problem| problem.taps.len() * each;
    let packed = workspace.packed.take_as::<T>(problems.iter().map(|problem| depth(problem) * padded).sum());
    pack(problems, &panels, in_channels, filter, packed);

    let reach = Reach::of(problems);
    let call = Call { level, geometry, reach: &reach, source, accumulate };
    let mut prepared = Vec::new();
    let mut weights = &*packed;
    for problem in problems {
        let (now, later) = weights.split_at(depth(problem) * padded);
        weights = later;
        let segments = segments(&problem.taps, reach.first, call.columns() * each, each);
        prepared.push(Prepared {
            problem,
            slices: slices(&segments, T::DEPTH),
            panels: &panels,
            weights: now,
        });
    }

    let pixels = (TARGET / out_channels).clamp(PIXELS[0], PIXELS[1]);
    let blocks = blocks(geometry.batch, [height, width], geometry.step, pixels);
    let row = width * out_channels;
    let threads = workspace.threads.prepare();
    split(&blocks, height * row, row, target).into_par_iter().with_max_len(1).for_each(|(block, target)| {
        let task = &mut *threads.mine();
        // Parities without a tap are not written below.
        if !accumulate && problems.iter().any(|problem| problem.taps.is_empty()) {
            target.fill(0.0);
        }
        call.compute(&prepared, block, target, task);
        rounding.apply(target);
    });
}

/// Packs the weights: problem, panel, tap and channel, then the columns of the panel.
fn pack<T: Factor>(
    problems: &[Problem],
    panels: &[Panel],
    channels: usize,
    filter: Filter<'_>,
    mut packed: &mut [T],
) {
    let mut parts = Vec::new();
    for problem in problems {
        for panel in panels {
            for tap in &problem.taps {
                let (now, later) = packed.split_at_mut(T::of_pixel(channels) * panel.padded);
                packed = later;
                parts.push((tap.weight, panel, now));
            }
        }
    }
    parts.into_par_iter().for_each(|(tap, panel, packed)| {
        if panel.width < panel.padded {
            packed.fill(T::zeroed());
        }
        T::copy_weights(&filter, tap, channels, [panel.first, panel.width], packed, panel.padded);
    });
}

/// The smallest and largest offsets of the taps, in rows and columns.
struct Reach {
    first: [isize; 2],
    last: [isize; 2],
}

impl Reach {
    fn of(problems: &[Problem]) -> Self {
        let mut reach = Self { first: [0; 2], last: [0; 2] };
        for tap in problems.iter().flat_map(|problem| &problem.taps) {
            for (i, offset) in [tap.row, tap.column].into_iter().enumerate() {
                reach.first[i] = reach.first[i].min(offset);
                reach.last[i] = reach.last[i].max(offset);
            }
        }
        reach
    }

    /// Whether the taps stay on the pixel itself. Then the source is read in place.
    fn is_nothing(&self) -> bool {
        self.first == self.last
    }

    /// The window that `count` positions of the grid read, in the direction `i`.
    fn extent(&self, i: usize, count: usize, stride: usize) -> usize {
        (count.max(1) - 1) * stride + (self.last[i] - self.first[i]).unsigned_abs() + 1
    }
}

/// A problem with its slices and packed weights.
struct Prepared<'a, T> {
    problem: &'a Problem,
    slices: Vec<Slice>,
    panels: &'a [Panel],
    weights: &'a [T],
}

/// What all blocks of a call share.
struct Call<'a, T: Factor> {
    level: T::Level,
    geometry: &'a Geometry,
    reach: &'a Reach,
    source: &'a [f32],
    accumulate: bool,
}

impl<T: Factor> Call<'_, T> {
    /// The source, if the taps stay on the pixel itself and it can be read in place.
    fn in_place(&self) -> Option<&[T]> {
        if self.reach.is_nothing() { T::in_place(self.source) } else { None }
    }

    /// Pixels of a row of what is read.
    fn columns(&self) -> usize {
        let Geometry { source, target, stride, step, .. } = *self.geometry;
        if self.in_place().is_some() {
            source[1]
        } else {
            self.reach.extent(1, target[1].div_ceil(step), stride)
        }
    }

    /// Computes a block of the target.
    fn compute(&self, problems: &[Prepared<'_, T>], block: &Block, target: &mut [f32], task: &mut Task) {
        let Geometry { source: [height, width, in_channels], stride, step, .. } = *self.geometry;
        let (each, reach, columns) = (T::of_pixel(in_channels), self.reach, self.columns());
        let first_row = block.rows.start / step * stride;
        let image_len = height * width * in_channels;
        // The values read, those of an image, and the row of the source that they begin with.
        let (a, a_image, a_row) = if let Some(source) = self.in_place() {
            (&source[block.images.start * image_len..], image_len, 0)
        } else {
            let window = Window {
                first: [first_row as isize + reach.first[0], reach.first[1]],
                rows: reach.extent(0, block.rows.len().div_ceil(step), stride),
                columns,
            };
            let len = window.len(each);
            let padded = task.padded.take_as::<T>(block.images.len() * len);
            for (image, out) in block.images.clone().zip(padded.chunks_exact_mut(len)) {
                let image = &self.source[image * image_len..][..image_len];
                T::copy_window(&window, image, self.geometry.source, out);
            }
            (&*padded, len, first_row)
        };
        let row = columns * each;
        for problem in problems {
            task.sources.clear();
            task.targets.clear();
            let mut source_row = |image: usize, y: usize| image * a_image + (y / step * stride - a_row) * row;
            self.positions(problem.problem, block, &mut source_row, [&mut task.sources, &mut task.targets]);
            self.multiply(problem, a, [&task.sources, &task.targets], target);
        }
    }

    /// The places of the block's pixels in what is read and in the target.
    fn positions(
        &self,
        problem: &Problem,
        block: &Block,
        source_row: &mut dyn FnMut(usize, usize) -> usize,
        [sources, targets]: [&mut Offsets; 2],
    ) {
        let Geometry { source: [.., in_channels], stride, step, .. } = *self.geometry;
        let [_, width, out_channels] = self.geometry.target;
        let each = T::of_pixel(in_channels);
        let [first_y, first_x] = problem.first;
        for image in 0..block.images.len() {
            for y in (block.rows.start + first_y..block.rows.end).step_by(step) {
                let from = source_row(image, y);
                let to = (image * block.rows.len() + y - block.rows.start) * width;
                for x in (first_x..width).step_by(step) {
                    sources.push(from + x / step * stride * each);
                    targets.push((to + x) * out_channels);
                }
            }
        }
    }

    /// The products of a block's pixels with a problem's weights.
    fn multiply(
        &self,
        problem: &Prepared<'_, T>,
        a: &[T],
        [sources, targets]: [&Offsets; 2],
        target: &mut [f32],
    ) {
        let Prepared { problem, slices, panels, weights } = problem;
        let depth = problem.taps.len() * T::of_pixel(self.geometry.source[2]);
        for (number, slice) in slices.iter().enumerate() {
            let mut start = 0;
            for &panel in *panels {
                let rows = Rows {
                    a,
                    a_rows: sources,
                    segments: &slice.segments,
                    b: &weights[start + slice.first * panel.padded..start + depth * panel.padded],
                    c_rows: targets,
                    panel,
                    add: self.accumulate || number > 0,
                };
                rows.run(self.level, target);
                start += depth * panel.padded;
            }
        }
    }
}
