//! Tensors as the factors that tiles multiply: f32 as they are, or pairs of bf16.

use super::blocks::Window;
use super::filter::Filter;
use super::pairs::Pair;
use super::tile::Value;
use crate::device::cpu::vectorised::vectorised;

/// How a convolution's operands, f32 in memory, become factors.
pub(super) trait Factor: Value {
    /// Factors of a row whose products are summed before the next panel of weights is taken.
    const DEPTH: usize;

    /// Factors that hold the channels of a pixel.
    fn of_pixel(channels: usize) -> usize;

    /// The tensor itself, if it need not be copied.
    fn in_place(values: &[f32]) -> Option<&[Self]>;

    /// Copies a window of `image` (rows, columns, channels); zeros outside the image.
    fn copy_window(window: &Window, image: &[f32], extents: [usize; 3], out: &mut [Self]);

    /// Copies the weights of a tap from all `channels` to the target channels `targets` = [first, count], to
    /// `out` with rows `pitch` apart: a row for each factor of a pixel.
    fn copy_weights(
        filter: &Filter<'_>,
        tap: usize,
        channels: usize,
        targets: [usize; 2],
        out: &mut [Self],
        pitch: usize,
    );
}

impl Factor for f32 {
    /// 256 rows of 32 weights are 32 KB.
    const DEPTH: usize = 256;

    fn of_pixel(channels: usize) -> usize {
        channels
    }

    fn in_place(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    fn copy_window(window: &Window, image: &[f32], extents: [usize; 3], out: &mut [f32]) {
        window.copy(image, extents, out);
    }

    fn copy_weights(
        filter: &Filter<'_>,
        tap: usize,
        channels: usize,
        targets: [usize; 2],
        out: &mut [f32],
        pitch: usize,
    ) {
        filter.copy(tap, [0, channels], targets, out, pitch);
    }
}

vectorised! {
    /// Pairs of neighbours.
    fn pair_neighbours(values: &[f32], out: &mut [Pair]) {
        for (out, values) in out.iter_mut().zip(values.as_chunks::<2>().0) {
            *out = Pair::of(values[0], values[1]);
        }
    }
}

vectorised! {
    /// Pairs of values of two lines.
    fn pair_lines(firsts: &[f32], seconds: &[f32], out: &mut [Pair]) {
        for (out, (&first, &second)) in out.iter_mut().zip(firsts.iter().zip(seconds)) {
            *out = Pair::of(first, second);
        }
    }
}

/// out`[i]` = (firsts`[i]`, seconds`[i]`).
pub(super) fn pair(firsts: &[f32], seconds: &[f32], out: &mut [Pair]) {
    assert!(firsts.len() == out.len() && seconds.len() == out.len());
    pair_lines(firsts, seconds, out);
}

/// The channels of pixels as pairs; an odd last channel is paired with 0.
fn pair_channels(pixels: &[f32], channels: usize, out: &mut [Pair]) {
    if channels.is_multiple_of(2) {
        return pair_neighbours(pixels, out);
    }
    for (pixel, out) in pixels.chunks_exact(channels).zip(out.chunks_exact_mut(channels.div_ceil(2))) {
        for (out, values) in out.iter_mut().zip(pixel.chunks(2)) {
            *out = Pair::of(values[0], values.get(1).copied().unwrap_or(0.0));
        }
    }
}

impl Factor for Pair {
    /// A whole number of times in the sums of 3x3 convolutions of 64, 128 ... channels: a short last piece would
    /// have all results read and written for a few products.
    const DEPTH: usize = 288;

    fn of_pixel(channels: usize) -> usize {
        channels.div_ceil(2)
    }

    fn in_place(_: &[f32]) -> Option<&[Pair]> {
        None
    }

    fn copy_window(window: &Window, image: &[f32], extents: [usize; 3], out: &mut [Pair]) {
        let channels = extents[2];
        let each = Self::of_pixel(channels);
        for (line, out) in window.lines(image, extents).zip(out.chunks_exact_mut(window.columns * each)) {
            let (before, rest) = out.split_at_mut(line.before * each);
            let (inside, after) = rest.split_at_mut(line.pixels.len() / channels * each);
            before.fill(Pair::default());
            pair_channels(line.pixels, channels, inside);
            after.fill(Pair::default());
        }
    }

    fn copy_weights(
        filter: &Filter<'_>,
        tap: usize,
        channels: usize,
        targets: [usize; 2],
        out: &mut [Pair],
        pitch: usize,
    ) {
        filter.copy_pairs(tap, channels, targets, out, pitch);
    }
}
