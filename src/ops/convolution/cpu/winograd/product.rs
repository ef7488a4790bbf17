//! The forward pass and the data gradient.
//!
//! Few channels: the weights are transformed once, and every block of tiles runs through all three stages.
//! Many channels: the transformed weights would be larger than the caches (38 MB for 512 to 512 channels), so
//! each panel of target channels transforms its own and multiplies all tiles at once; the tiles are
//! transformed before, and back afterwards.

mod outputs;

use rayon::prelude::*;

use super::super::Products;
use super::super::blocks::{Block, blocks, split};
use super::super::direct::Geometry;
use super::super::filter::Filter;
use super::super::scratch::{Aligned, Threads, Workspace};
use super::super::tile::{Offsets, Panel, Rows, Segment, panels};
use super::transforms::{Grid, Size};
use super::{KEPT, Tiles, pitch, transform_block};
use crate::device::cpu::instructions::Simd;
use crate::device::cpu::rounding::Rounding;

/// Tiles of a block.
const TILES: usize = 32;
/// Source channels whose products are summed in registers before the sums go to the caches.
const DEPTH: usize = 128;
/// Transformed weights, in values, that are made for all blocks: a part of the third-level cache.
const WEIGHTS: usize = 3 << 18;

/// target = (or += if `accumulate`) the convolution of the source with the filter, whose taps are counted in
/// the order in which the source is read.
pub(in super::super) fn run(
    (Products { simd, rounding }, size): (Products, Size),
    geometry: &Geometry,
    filter: Filter<'_>,
    source: &[f32],
    (target, accumulate): (&mut [f32], bool),
    workspace: &mut Workspace,
) {
    let ([height, width, channels], out_channels) = (geometry.source, geometry.target[2]);
    let panels = panels::<f32>(simd, out_channels);
    let blocks =
        blocks(geometry.batch, [height, width], size.outputs(), TILES * size.outputs() * size.outputs());
    let call = Call { simd, size, rounding, geometry, filter, source, accumulate, panels: &panels };
    let row = width * out_channels;
    let targets = split(&blocks, height * row, row, target);
    if size.points() * channels * out_channels <= WEIGHTS {
        call.run_by_blocks(targets, workspace);
    } else {
        call.run_by_panels(targets, workspace);
    }
}

/// What all stages of a call share.
#[derive(Clone, Copy)]
struct Call<'a> {
    simd: Simd,
    size: Size,
    rounding: Rounding,
    geometry: &'a Geometry,
    filter: Filter<'a>,
    source: &'a [f32],
    accumulate: bool,
    panels: &'a [Panel],
}

/// The first channel and the length of each block of source channels.
fn depths(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(DEPTH).map(move |first| (first, DEPTH.min(channels - first)))
}

impl<'a> Call<'a> {
    /// Values of a panel's transformed weights: blocks of source channels, point (at a [`pitch`]), channel,
    /// then the columns of the panel.
    fn weights_len(&self, columns: usize) -> usize {
        depths(self.channels()).map(|(_, depth)| self.size.points() * pitch(depth * columns)).sum()
    }

    fn tiles(&self, block: &Block) -> Tiles {
        Tiles::of(self.size, block, self.geometry.source[1])
    }

    fn channels(&self) -> usize {
        self.geometry.source[2]
    }

    fn count(&self, block: &Block) -> usize {
        self.tiles(block).count(block)
    }

    fn run_by_blocks(&self, targets: Vec<(&Block, &mut [f32])>, workspace: &mut Workspace) {
        let channels = self.channels();
        let len = |panel: &Panel| self.weights_len(panel.padded);
        let threads = workspace.threads.prepare();
        let weights = workspace.packed.take(self.panels.iter().map(len).sum());
        let mut rest = &mut *weights;
        let mut parts = Vec::new();
        for panel in self.panels {
            for (first, depth) in depths(channels) {
                let (now, later) = rest.split_at_mut(self.size.points() * pitch(depth * panel.padded));
                rest = later;
                parts.push((panel, first, depth, now));
            }
        }
        parts.into_par_iter().with_max_len(1).for_each(|(panel, first, depth, out)| {
            self.transform_weights(panel, (first, depth), &mut threads.mine().gathered, out);
        });
        let weights = &*weights;
        targets.into_par_iter().with_max_len(1).for_each(|(block, target)| {
            let task = &mut *threads.mine();
            let count = self.count(block);
            let input = task.transformed.take(self.size.points() * pitch(count * channels));
            let geometry = self.geometry;
            transform_block(
                self.simd,
                self.tiles(block),
                self.source,
                geometry.source,
                block,
                &mut task.padded,
                input,
            );
            let mut weights = weights;
            for panel in self.panels {
                let (now, later) = weights.split_at(len(panel));
                weights = later;
                let products = task.products.take(self.size.points() * pitch(count * panel.padded));
                let rows = [&mut task.sources, &mut task.targets];
                self.multiply(panel, now, (input, count), (products, count), rows);
                self.finish(panel, block, (products, count, 0), target);
            }
            self.rounding.apply(target);
        });
    }

    /// In turns of as many blocks as fit [`KEPT`].
    fn run_by_panels(&self, mut targets: Vec<(&Block, &mut [f32])>, workspace: &mut Workspace) {
        let widest = self.channels().max(self.geometry.target[2]);
        while !targets.is_empty() {
            let mut tiles = 0;
            let fits = targets.iter().take_while(|(block, _)| {
                tiles += self.count(block);
                self.size.points() * tiles * widest <= KEPT
            });
            let turn = fits.count().max(1);
            let later = targets.split_off(turn);
            self.turn(std::mem::replace(&mut targets, later), workspace);
        }
    }

    fn turn(&self, targets: Vec<(&Block, &mut [f32])>, workspace: &mut Workspace) {
        let Self { simd, geometry, .. } = *self;
        let channels = self.channels();
        let threads: &Threads = workspace.threads.prepare();
        let blocks: Vec<&Block> = targets.iter().map(|(block, _)| *block).collect();
        let counts = blocks.iter().map(|block| self.count(block));
        let firsts: Vec<usize> = counts
            .scan(0, |next, count| {
                *next += count;
                Some(*next - count)
            })
            .collect();
        let total: usize = blocks.iter().map(|block| self.count(block)).sum();

        // Each block's input for itself; the products of a panel read them all.
        let mut rest = workspace
            .transformed
            .take(blocks.iter().map(|b| self.size.points() * pitch(self.count(b) * channels)).sum());
        let mut inputs = Vec::new();
        for block in &blocks {
            let (now, later) = rest.split_at_mut(self.size.points() * pitch(self.count(block) * channels));
            inputs.push(now);
            rest = later;
        }
        inputs.par_iter_mut().zip(&blocks).with_max_len(1).for_each(|(input, block)| {
            transform_block(
                simd,
                self.tiles(block),
                self.source,
                geometry.source,
                block,
                &mut threads.mine().padded,
                input,
            );
        });

        let len = |panel: &Panel| self.size.points() * pitch(total * panel.padded);
        let all = workspace.partial.take(self.panels.iter().map(len).sum());
        let mut rest = &mut *all;
        let mut parts = Vec::new();
        for panel in self.panels {
            let (now, later) = rest.split_at_mut(len(panel));
            parts.push((panel, now));
            rest = later;
        }
        parts.into_par_iter().with_max_len(1).for_each(|(panel, products)| {
            let task = &mut *threads.mine();
            let weights = task.transformed.take(self.weights_len(panel.padded));
            let mut rest = &mut *weights;
            for (first, depth) in depths(channels) {
                let (now, later) = rest.split_at_mut(self.size.points() * pitch(depth * panel.padded));
                self.transform_weights(panel, (first, depth), &mut task.gathered, now);
                rest = later;
            }
            for ((input, block), &first) in inputs.iter().zip(&blocks).zip(&firsts) {
                let products = &mut products[first * panel.padded..];
                let count = self.count(block);
                let rows = [&mut task.sources, &mut task.targets];
                self.multiply(panel, weights, (input, count), (products, total), rows);
            }
        });

        let mut rest = &*all;
        let mut products = Vec::new();
        for panel in self.panels {
            let (now, later) = rest.split_at(len(panel));
            products.push((panel, now));
            rest = later;
        }
        targets.into_par_iter().zip(&firsts).with_max_len(1).for_each(|((block, target), &first)| {
            for &(panel, products) in &products {
                self.finish(panel, block, (products, total, first), target);
            }
            self.rounding.apply(target);
        });
    }

    /// Transforms the weights of a panel from `depth` source channels to `[point, channel, column]`.
    fn transform_weights(
        &self,
        panel: &Panel,
        (first, depth): (usize, usize),
        gathered: &mut Aligned,
        out: &mut [f32],
    ) {
        let len = depth * panel.padded;
        let [column, point] = [len; 2].map(pitch);
        let gathered = gathered.take(9 * column);
        for (tap, out) in gathered.chunks_exact_mut(column).enumerate() {
            let targets = [panel.first, panel.width];
            self.filter.copy(tap, [first, depth], targets, &mut out[..len], panel.padded);
        }
        // All source channels lie side by side, as columns do.
        let to = Grid { row: self.size.side() * point, column: point };
        self.size.transform_weight()(self.simd, len, (gathered, Grid { row: 3 * column, column }), (out, to));
    }

    /// The products of a block's tiles with a panel's weights, at every point. The products' points are as
    /// far apart as those of `total` tiles.
    fn multiply(
        &self,
        panel: &Panel,
        weights: &[f32],
        (input, count): (&[f32], usize),
        (products, total): (&mut [f32], usize),
        [sources, targets]: [&mut Offsets; 2],
    ) {
        let (channels, columns) = (self.channels(), panel.padded);
        sources.set_regular(count, channels);
        targets.set_regular(count, columns);
        let [input_pitch, product_pitch] = [count * channels, total * columns].map(pitch);
        let mut weights = weights;
        for (first, depth) in depths(channels) {
            let weight_pitch = pitch(depth * columns);
            let (now, later) = weights.split_at(self.size.points() * weight_pitch);
            weights = later;
            for point in 0..self.size.points() {
                let rows = Rows {
                    a: &input[point * input_pitch..][..count * channels],
                    a_rows: sources,
                    segments: &[Segment { start: first, len: depth }],
                    b: &now[point * weight_pitch..][..depth * columns],
                    c_rows: targets,
                    panel: Panel { first: 0, ..*panel },
                    add: first > 0,
                };
                rows.run(self.simd, &mut products[point * product_pitch..][..count * columns]);
            }
        }
    }
}
