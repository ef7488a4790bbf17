//! Weights as a product of source and target channels sees them.

use super::factors::pair;
use super::pairs::Pair;

/// The weights of a 3x3 or 1x1 convolution by tap, source channel and target channel, wherever they lie.
#[derive(Clone, Copy)]
pub(super) struct Filter<'a> {
    values: &'a [f32],
    taps: usize,
    /// Distances between taps, source channels and target channels.
    strides: [usize; 3],
    /// Whether tap t is the last but t.
    reversed: bool,
}

impl<'a> Filter<'a> {
    /// Of the forward pass: w `[target, tap, source]`.
    pub(super) fn forward(w: &'a [f32], taps: usize, sources: usize) -> Self {
        Self { values: w, taps, strides: [sources, 1, taps * sources], reversed: false }
    }

    /// Of the data gradient, w `[source, tap, target]`.
    pub(super) fn gradient(w: &'a [f32], taps: usize, targets: usize) -> Self {
        Self { values: w, taps, strides: [targets, taps * targets, 1], reversed: false }
    }

    /// The same with the taps in the opposite order.
    pub(super) fn reversed(self) -> Self {
        Self { reversed: !self.reversed, ..self }
    }

    fn start(&self, tap: usize, source: usize, target: usize) -> usize {
        let tap = if self.reversed { self.taps - 1 - tap } else { tap };
        tap * self.strides[0] + source * self.strides[1] + target * self.strides[2]
    }

    /// Copies the weights of a tap from `sources` source channels and `targets` target channels to
    /// `out[source * pitch + target]`.
    pub(super) fn copy(
        &self,
        tap: usize,
        [source, sources]: [usize; 2],
        [target, targets]: [usize; 2],
        out: &mut [f32],
        pitch: usize,
    ) {
        let Self { values, strides: [_, source_stride, target_stride], .. } = *self;
        let start = self.start(tap, source, target);
        if target_stride == 1 {
            for (c, out) in out.chunks_mut(pitch).take(sources).enumerate() {
                out[..targets].copy_from_slice(&values[start + c * source_stride..][..targets]);
            }
            return;
        }
        assert!(targets <= pitch && (sources - 1) * pitch + targets <= out.len());
        // Blocks of channels, so that the lines written stay in the first-level cache.
        for first in (0..sources).step_by(BLOCK) {
            let count = BLOCK.min(sources - first);
            for n in 0..targets {
                let line = &values[start + first + n * target_stride..][..count];
                for (c, &value) in line.iter().enumerate() {
                    out[(first + c) * pitch + n] = value;
                }
            }
        }
    }
}

impl Filter<'_> {
    /// Copies the weights of a tap from `sources` source channels, two in a pair, and `targets` target
    /// channels from `target` to `out[pair * pitch + target]`. An odd last channel is paired with 0.
    pub(super) fn copy_pairs(
        &self,
        tap: usize,
        sources: usize,
        [target, targets]: [usize; 2],
        out: &mut [Pair],
        pitch: usize,
    ) {
        let Self { values, strides: [_, source_stride, target_stride], .. } = *self;
        let start = self.start(tap, 0, target);
        if target_stride == 1 {
            let zeros = vec![0.0; targets];
            for (number, out) in out.chunks_mut(pitch).take(sources.div_ceil(2)).enumerate() {
                let line = |source: usize| match source < sources {
                    true => &values[start + source * source_stride..][..targets],
                    false => &zeros[..],
                };
                pair(line(2 * number), line(2 * number + 1), &mut out[..targets]);
            }
            return;
        }
        assert!(targets <= pitch && (sources.div_ceil(2) - 1) * pitch + targets <= out.len());
        for first in (0..sources).step_by(BLOCK) {
            let count = BLOCK.min(sources - first);
            for n in 0..targets {
                let line = &values[start + first + n * target_stride..][..count];
                for (number, values) in line.chunks(2).enumerate() {
                    let second = values.get(1).copied().unwrap_or(0.0);
                    out[(first / 2 + number) * pitch + n] = Pair::of(values[0], second);
                }
            }
        }
    }
}

/// Source channels transposed at a time: long stretches are read ahead by the processor.
const BLOCK: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_see_the_same_weights() {
        let (taps, ins, outs) = (9, 19, 7);
        let w: Vec<f32> = (0..taps * ins * outs).map(|i| i as f32).collect();
        let (mut forward, mut gradient) = (vec![0.0; ins * 8], vec![0.0; outs * 20]);
        for tap in 0..taps {
            Filter::forward(&w, taps, ins).copy(tap, [0, ins], [0, outs], &mut forward, 8);
            let filter = Filter::gradient(&w, taps, ins).reversed();
            filter.copy(taps - 1 - tap, [1, outs - 1], [2, ins - 2], &mut gradient, 20);
            for (c, n) in (0..ins).flat_map(|c| (0..outs).map(move |n| (c, n))) {
                let want = w[(n * taps + tap) * ins + c];
                assert_eq!(forward[c * 8 + n], want);
                if n >= 1 && c >= 2 {
                    assert_eq!(gradient[(n - 1) * 20 + c - 2], want);
                }
            }
        }
    }
}
