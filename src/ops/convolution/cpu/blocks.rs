//! How images are cut into blocks of work, and a block's source with zeros around it.
//!
//! The cut depends on the shape alone. A block is one or more whole images, or a band of rows of one.

use std::ops::Range;

/// Whole images, or rows of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub images: Range<usize>,
    pub rows: Range<usize>,
}

/// Cuts `batch` images of rows x columns into blocks of about `pixels`; bands of rows begin at multiples of
/// `step`.
pub(super) fn blocks(batch: usize, [rows, columns]: [usize; 2], step: usize, pixels: usize) -> Vec<Block> {
    let together = (pixels / (rows * columns).max(1)).max(1);
    // A little more stays whole.
    let band = if 2 * rows * columns > 3 * pixels { (pixels / columns / step).max(1) * step } else { rows };
    let mut blocks = Vec::new();
    for first in (0..batch).step_by(together) {
        for row in (0..rows).step_by(band) {
            blocks
                .push(Block { images: first..batch.min(first + together), rows: row..rows.min(row + band) });
        }
    }
    blocks
}

/// Splits `target`, whose images hold `image` values and rows `row`, into the parts of the blocks.
pub(super) fn split<'a>(
    blocks: &'a [Block],
    image: usize,
    row: usize,
    mut target: &'a mut [f32],
) -> Vec<(&'a Block, &'a mut [f32])> {
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        // Bands are of one image.
        let len =
            if block.rows.len() * row == image { block.images.len() * image } else { block.rows.len() * row };
        let (part, rest) = target.split_at_mut(len);
        parts.push((block, part));
        target = rest;
    }
    parts
}

/// A window of an image that may reach beyond it: its first row and column, and extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub first: [isize; 2],
    pub rows: usize,
    pub columns: usize,
}

impl Window {
    /// Values of a window of an image with `channels`.
    pub(super) fn len(&self, channels: usize) -> usize {
        self.rows * self.columns * channels
    }

    /// The rows of the window as far as they lie in `image` (rows, columns, channels).
    pub(super) fn lines<'a>(
        &self,
        image: &'a [f32],
        [rows, columns, channels]: [usize; 3],
    ) -> impl Iterator<Item = Line<'a>> {
        let [top, left] = self.first;
        // The columns of the window that lie in the image.
        let from = left.min(0).unsigned_abs().min(self.columns);
        let to = usize::try_from(columns as isize - left).unwrap_or(0).clamp(from, self.columns);
        let first = (from as isize + left).unsigned_abs();
        (0..self.rows).map(move |row| match usize::try_from(top + row as isize) {
            Ok(y) if y < rows => {
                let pixels = &image[(y * columns + first) * channels..][..(to - from) * channels];
                Line { before: from, pixels }
            }
            _ => Line { before: 0, pixels: &[] },
        })
    }

    /// Copies the window of `image` (rows, columns, channels); zeros outside the image.
    pub(super) fn copy(&self, image: &[f32], extents: [usize; 3], out: &mut [f32]) {
        let channels = extents[2];
        for (line, out) in self.lines(image, extents).zip(out.chunks_exact_mut(self.columns * channels)) {
            let (before, rest) = out.split_at_mut(line.before * channels);
            let (inside, after) = rest.split_at_mut(line.pixels.len());
            before.fill(0.0);
            inside.copy_from_slice(line.pixels);
            after.fill(0.0);
        }
    }
}

/// A row of a window: so many pixels before the image, and those in it; what is left of the row lies behind
/// it.
pub(super) struct Line<'a> {
    pub before: usize,
    pub pixels: &'a [f32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_row_of_every_image_once() {
        for (batch, rows, columns, step, pixels) in [
            (5, 4, 4, 4, 64),
            (3, 32, 32, 4, 128),
            (2, 33, 31, 2, 100),
            (1, 1, 1, 4, 512),
            (2, 5, 900, 4, 128),
        ] {
            let blocks = blocks(batch, [rows, columns], step, pixels);
            let mut seen = vec![0; batch * rows];
            for block in &blocks {
                assert!(block.rows.start % step == 0);
                assert!(block.images.len() == 1 || block.rows == (0..rows));
                for image in block.images.clone() {
                    block.rows.clone().for_each(|row| seen[image * rows + row] += 1);
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{blocks:?}");
            let mut target = vec![0.0; batch * rows * columns * 3];
            let parts = split(&blocks, rows * columns * 3, columns * 3, &mut target);
            for (block, part) in parts {
                assert_eq!(part.len(), block.images.len() * block.rows.len() * columns * 3);
            }
        }
    }

    #[test]
    fn a_window_has_zeros_around_the_image() {
        let image: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let mut out = vec![f32::NAN; 4 * 4 * 2];
        Window { first: [-1, -1], rows: 4, columns: 4 }.copy(&image, [2, 3, 2], &mut out);
        #[rustfmt::skip]
        let want = [
            0., 0., 0., 0., 0., 0., 0., 0.,
            0., 0., 1., 2., 3., 4., 5., 6.,
            0., 0., 7., 8., 9., 10., 11., 12.,
            0., 0., 0., 0., 0., 0., 0., 0.,
        ];
        assert_eq!(out, want);
        let mut out = vec![f32::NAN; 2 * 2 * 2];
        Window { first: [1, 2], rows: 2, columns: 2 }.copy(&image, [2, 3, 2], &mut out);
        assert_eq!(out, [11., 12., 0., 0., 0., 0., 0., 0.]);
    }
}
