//! Products of gathered pixels with packed weights: the forward pass and the data gradient.
//!
//! A problem is a grid of target pixels per image. Target pixel (r, c) of the grid is a sum over taps: the
//! source pixel (r stride + tap row, c stride + tap column) times the tap's weights. Pixels outside the
//! source are zero.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{self, COLUMNS, ROWS};
use super::{Workspace, scratch};

/// The extents of one problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Rows, columns, channels of the source.
    pub source: [usize; 3],
    /// Source pixels between neighbours of the grid.
    pub stride: usize,
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    /// Rows, columns, channels of the target.
    pub target: [usize; 3],
    /// The target pixel of the first grid position, and the distance between neighbours.
    pub target_first: [usize; 2],
    pub target_step: usize,
}

/// A tap: its offset in the source, and which weights it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub row: isize,
    pub column: isize,
    pub weight: usize,
}

/// Pixels per task: their source rows stay in the second-level cache while the weights stream past.
const PIXELS: usize = 16 * ROWS;
/// Products that a tile sums before it is added to the target: 512 steps of 16 weights are 32 KB.
const DEPTH: usize = 512;

/// Consecutive taps with a range of their channels, which a tile sums in one go.
struct Slice {
    taps: Range<usize>,
    first_channel: usize,
    channels: usize,
    /// The slice's first packed step within a panel.
    start: usize,
}

/// Cuts taps x channels into slices of at most [`DEPTH`] steps.
fn slices(taps: usize, channels: usize) -> Vec<Slice> {
    let mut slices = Vec::new();
    let mut start = 0;
    let mut push = |taps: Range<usize>, first_channel: usize, channels: usize| {
        let steps = taps.len() * channels;
        slices.push(Slice { taps, first_channel, channels, start });
        start += steps;
    };
    if channels >= DEPTH {
        for tap in 0..taps {
            for first in (0..channels).step_by(DEPTH) {
                push(tap..tap + 1, first, DEPTH.min(channels - first));
            }
        }
    } else {
        let together = DEPTH / channels;
        for first in (0..taps).step_by(together) {
            push(first..taps.min(first + together), 0, channels);
        }
    }
    slices
}

/// Solves the problems, which share source, target and weights: `weight(tap, source channel, target
/// channel)`.
pub(super) fn run(
    problems: &[(Geometry, Vec<Tap>)],
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    source: &[f32],
    target: &mut [f32],
    accumulate: bool,
    workspace: &mut Workspace,
) {
    let Workspace { packed, zeros, .. } = workspace;
    let geometry = problems[0].0;
    let ([_, _, in_channels], [height, width, out_channels]) = (geometry.source, geometry.target);
    let zeros: &[f32] = scratch(zeros, in_channels);
    let panels = out_channels.div_ceil(COLUMNS);
    let lengths = problems.iter().map(|(_, taps)| panels * taps.len() * in_channels * COLUMNS);
    let packed = scratch(packed, lengths.clone().sum());
    let mut rest = &mut *packed;
    let mut prepared = Vec::new();
    for ((geometry, taps), len) in problems.iter().zip(lengths) {
        let (part, next) = rest.split_at_mut(len);
        pack(taps, in_channels, out_channels, &weight, part);
        prepared.push(PackedProblem {
            geometry,
            taps,
            slices: slices(taps.len(), in_channels),
            weights: part,
        });
        rest = next;
    }

    // Whole images per task, enough of them for a block of pixels.
    let images = PIXELS.div_ceil(height * width).max(1);
    let image_len = height * width * out_channels;
    target.par_chunks_mut(images * image_len).enumerate().for_each_init(
        GatherTask::default,
        |task, (number, target)| {
            let first = number * images;
            let count = target.len() / image_len;
            // Parities without a tap are not written below. The others are overwritten, so clearing them
            // costs one pass.
            if !accumulate && prepared.iter().any(|problem| problem.taps.is_empty()) {
                target.fill(0.0);
            }
            for problem in prepared.iter().filter(|problem| !problem.taps.is_empty()) {
                let pixels = count * problem.geometry.grid[0] * problem.geometry.grid[1];
                for start in (0..pixels).step_by(PIXELS) {
                    let range = start..pixels.min(start + PIXELS);
                    task.block(problem, [source, zeros], first, range, target, accumulate);
                }
            }
        },
    );
}

/// Packs the weights into panels of 16 target channels: panel, then tap and channel in the order of the
/// slices, then 16 values.
fn pack(
    taps: &[Tap],
    in_channels: usize,
    out_channels: usize,
    weight: &(impl Fn(usize, usize, usize) -> f32 + Sync),
    packed: &mut [f32],
) {
    let steps = taps.len() * in_channels;
    if steps == 0 {
        return;
    }
    let slices = slices(taps.len(), in_channels);
    packed.par_chunks_exact_mut(steps * COLUMNS).enumerate().for_each(|(panel, packed)| {
        let columns = COLUMNS.min(out_channels - panel * COLUMNS);
        let mut lines = packed.chunks_exact_mut(COLUMNS);
        for slice in &slices {
            for tap in slice.taps.clone() {
                for c in slice.first_channel..slice.first_channel + slice.channels {
                    let Some(line) = lines.next() else { return };
                    for (j, value) in line.iter_mut().enumerate() {
                        *value =
                            if j < columns { weight(taps[tap].weight, c, panel * COLUMNS + j) } else { 0.0 };
                    }
                }
            }
        }
    });
}

/// A problem with its slices and packed weights.
struct PackedProblem<'a> {
    geometry: &'a Geometry,
    taps: &'a [Tap],
    slices: Vec<Slice>,
    weights: &'a [f32],
}

/// The scratch memory of a thread.
#[derive(Default)]
struct GatherTask {
    /// Offset of each source pixel, by tap and pixel of the block; `None` outside the image.
    sources: Vec<Option<usize>>,
    /// Offset of each target pixel.
    targets: Vec<usize>,
}

impl GatherTask {
    /// Computes the grid pixels `range` (counted over the task's images) of one problem from `source` and a
    /// row of zeros.
    fn block(
        &mut self,
        problem: &PackedProblem<'_>,
        source: [&[f32]; 2],
        first_image: usize,
        range: Range<usize>,
        target: &mut [f32],
        accumulate: bool,
    ) {
        let PackedProblem { geometry, taps, slices, weights } = problem;
        let ([_, _, in_channels], [_, _, out_channels]) = (geometry.source, geometry.target);
        self.locate(geometry, taps, first_image, range);
        let steps = taps.len() * in_channels;
        let mut rows: Vec<[&[f32]; ROWS]> =
            Vec::with_capacity(taps.len() * self.targets.len().div_ceil(ROWS));
        for (number, slice) in slices.iter().enumerate() {
            self.gather(slice, source, &mut rows);
            let len = slice.taps.len() * slice.channels * COLUMNS;
            let add = accumulate || number > 0;
            for (panel, weights) in weights.chunks_exact(steps * COLUMNS).enumerate() {
                let first = panel * COLUMNS;
                let columns = COLUMNS.min(out_channels - first);
                let weights = &weights[slice.start * COLUMNS..][..len];
                for (group, rows) in rows.chunks_exact(slice.taps.len()).enumerate() {
                    let tile = kernel::gathered(rows, slice.channels, weights, columns);
                    for (sums, &start) in tile.iter().zip(&self.targets[group * ROWS..]) {
                        write_row(&mut target[start + first..][..columns], sums, add);
                    }
                }
            }
        }
    }

    /// Finds the source and target pixels of the grid pixels `range`.
    fn locate(&mut self, geometry: &Geometry, taps: &[Tap], first_image: usize, range: Range<usize>) {
        let Geometry { source: [height, width, in_channels], stride, grid: [rows, columns], .. } = *geometry;
        let [target_height, target_width, out_channels] = geometry.target;
        let pixels = range.len();
        self.targets.clear();
        self.sources.clear();
        self.sources.resize(taps.len() * pixels, None);
        for (at, pixel) in range.enumerate() {
            let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
            let y = geometry.target_first[0] + row * geometry.target_step;
            let x = geometry.target_first[1] + column * geometry.target_step;
            self.targets.push(((image * target_height + y) * target_width + x) * out_channels);
            for (t, tap) in taps.iter().enumerate() {
                let y = (row * stride).checked_add_signed(tap.row).filter(|&y| y < height);
                let x = (column * stride).checked_add_signed(tap.column).filter(|&x| x < width);
                if let (Some(y), Some(x)) = (y, x) {
                    let start = (((first_image + image) * height + y) * width + x) * in_channels;
                    self.sources[t * pixels + at] = Some(start);
                }
            }
        }
    }

    /// Fills `rows` with the source rows of every tap of the slice, for every group of six pixels.
    fn gather<'a>(&self, slice: &Slice, [source, zeros]: [&'a [f32]; 2], rows: &mut Vec<[&'a [f32]; ROWS]>) {
        let pixels = self.targets.len();
        rows.clear();
        for group in (0..pixels).step_by(ROWS) {
            for tap in slice.taps.clone() {
                rows.push(std::array::from_fn(|i| {
                    let start =
                        (group + i < pixels).then(|| self.sources[tap * pixels + group + i]).flatten();
                    start.map_or(&zeros[..slice.channels], |start| {
                        &source[start + slice.first_channel..][..slice.channels]
                    })
                }));
            }
        }
    }
}

/// Adds or stores a row of a tile. For the full width the length is a constant, so it compiles to two vector
/// stores.
#[inline]
pub(super) fn write_row(target: &mut [f32], sums: &[f32; COLUMNS], add: bool) {
    let put = |target: &mut [f32], sums: &[f32]| {
        if add {
            target.iter_mut().zip(sums).for_each(|(target, sum)| *target += sum);
        } else {
            target.copy_from_slice(sums);
        }
    };
    match <&mut [f32; COLUMNS]>::try_from(&mut *target) {
        Ok(whole) => put(whole, sums),
        Err(_) => put(target, &sums[..target.len()]),
    }
}
