//! Convolution on the CPU: implicit GEMM over NHWC, without an im2col buffer.
//!
//! A tile of 6 pixels by 16 channels is kept in twelve AVX2 registers. Forward pass and data gradient
//! (`gather.rs`) read each pixel's channels in place, through one pointer per pixel and tap (to a row of
//! zeros outside the image), and multiply them by weights packed once per call. The weight gradient
//! (`weight.rs`) packs blocks of pixels. A data gradient of stride 2 is four dense problems, one for each
//! parity of row and column, so no zeros are multiplied.
//!
//! Why not a GEMM library: the im2col matrix (9 times the input) would have to be written, read and packed
//! again, and such libraries doubled the build time. Results do not depend on the number of threads: each
//! output value is one sum in a fixed order, and the partial sums of the weight gradient are cut and added by
//! shape alone.

mod gather;
mod kernel;
mod weight;

use super::ConvolutionShape;
use gather::{Geometry, Tap};

/// Packed weights and partial sums, reused between calls.
#[derive(Default)]
pub struct Workspace {
    packed: Vec<f32>,
    partial: Vec<f32>,
    zeros: Vec<f32>,
}

/// The first `len` values of a scratch vector, grown if necessary.
fn scratch(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}

/// y `[N,OH,OW,Cout]` = convolution of x `[N,H,W,Cin]` with w `[Cout,kh,kw,Cin]`.
pub fn forward(shape: &ConvolutionShape, x: &[f32], w: &[f32], y: &mut [f32], workspace: &mut Workspace) {
    assert_eq!((x.len(), w.len(), y.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    let (kernel, channels) = (shape.kernel, shape.in_channels);
    let padding = shape.padding() as isize;
    let taps: Vec<Tap> = (0..kernel * kernel)
        .map(|tap| Tap {
            row: (tap / kernel) as isize - padding,
            column: (tap % kernel) as isize - padding,
            weight: tap,
        })
        .collect();
    let geometry = Geometry {
        source: [shape.height, shape.width, channels],
        stride: shape.stride,
        grid: [shape.out_height(), shape.out_width()],
        target: [shape.out_height(), shape.out_width(), shape.out_channels],
        target_first: [0, 0],
        target_step: 1,
    };
    // The weight of input channel c and output channel n at a tap.
    let weight = |tap: usize, c: usize, n: usize| w[(n * kernel * kernel + tap) * channels + c];
    gather::run(&[(geometry, taps)], weight, x, y, false, workspace);
}

/// dx `[N,H,W,Cin]` = (or += if `accumulate`) the data gradient of dy `[N,OH,OW,Cout]`.
pub fn backward_data(
    shape: &ConvolutionShape,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut Workspace,
) {
    assert_eq!((dx.len(), w.len(), dy.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    let (kernel, stride, padding) = (shape.kernel, shape.stride, shape.padding() as isize);
    // dx[i] receives dy[o] through tap k where i = o stride + k - padding. For i = parity + stride g this is
    // o = g + (parity + padding - k) / stride, if the division is exact.
    let offset = |parity: usize, tap: usize| {
        let distance = parity as isize + padding - tap as isize;
        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
    };
    let mut problems = Vec::new();
    for (row_parity, column_parity) in (0..stride * stride).map(|p| (p / stride, p % stride)) {
        let taps: Vec<Tap> = (0..kernel * kernel)
            .filter_map(|tap| {
                let row = offset(row_parity, tap / kernel)?;
                let column = offset(column_parity, tap % kernel)?;
                Some(Tap { row, column, weight: tap })
            })
            .collect();
        let geometry = Geometry {
            source: [shape.out_height(), shape.out_width(), shape.out_channels],
            stride: 1,
            grid: [
                (shape.height + stride - 1 - row_parity) / stride,
                (shape.width + stride - 1 - column_parity) / stride,
            ],
            target: [shape.height, shape.width, shape.in_channels],
            target_first: [row_parity, column_parity],
            target_step: stride,
        };
        problems.push((geometry, taps));
    }
    let weight = |tap: usize, c: usize, n: usize| w[(c * kernel * kernel + tap) * shape.in_channels + n];
    gather::run(&problems, weight, dy, dx, accumulate, workspace);
}

/// dw `[Cout,kh,kw,Cin]` = the weight gradient.
pub fn backward_weight(
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    assert_eq!((x.len(), dw.len(), dy.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    weight::run(shape, x, dy, dw, workspace);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(
        [batch, height, width, in_channels, out_channels, kernel, stride]: [usize; 7],
    ) -> ConvolutionShape {
        ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride }
    }

    fn noise(len: usize, salt: u32) -> Vec<f32> {
        let word = |i: usize| (i as u32 ^ salt.wrapping_mul(0x9E37_79B9)).wrapping_mul(2_654_435_761) >> 8;
        (0..len).map(|i| word(i) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Calls `visit(y index, x index, w index)` for every product of the convolution.
    fn products(s: &ConvolutionShape, mut visit: impl FnMut(usize, usize, usize)) {
        let padding = s.padding();
        for n in 0..s.batch {
            for (oy, ox) in
                (0..s.out_height() * s.out_width()).map(|p| (p / s.out_width(), p % s.out_width()))
            {
                for (ky, kx) in (0..s.kernel * s.kernel).map(|k| (k / s.kernel, k % s.kernel)) {
                    let (iy, ix) = (oy * s.stride + ky, ox * s.stride + kx);
                    if iy < padding || ix < padding || iy - padding >= s.height || ix - padding >= s.width {
                        continue;
                    }
                    let x = ((n * s.height + iy - padding) * s.width + ix - padding) * s.in_channels;
                    let y = ((n * s.out_height() + oy) * s.out_width() + ox) * s.out_channels;
                    for m in 0..s.out_channels {
                        let w = ((m * s.kernel + ky) * s.kernel + kx) * s.in_channels;
                        (0..s.in_channels).for_each(|c| visit(y + m, x + c, w + c));
                    }
                }
            }
        }
    }

    /// f32 sums of up to n terms of size 1 against f64. Rounding errors add up at random: sqrt(n) of them,
    /// each 2^-23 of a sum of size sqrt(n), times 2.
    fn assert_near(what: &str, s: &ConvolutionShape, got: &[f32], want: &[f64], terms: usize) {
        let tolerance =
            2.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt() * (terms as f64).sqrt().max(4.0);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let gap = (f64::from(*got) - want).abs();
            assert!(
                gap <= tolerance,
                "{what} of {s:?} at {i}: {got} for {want}, off by {gap:e} > {tolerance:e}"
            );
        }
    }

    fn check(s: &ConvolutionShape) {
        let (x, w, dy) = (noise(s.input_len(), 1), noise(s.weight_len(), 2), noise(s.output_len(), 3));
        let before = noise(s.input_len(), 4);
        let (mut y64, mut dw64) = (vec![0.0; dy.len()], vec![0.0; w.len()]);
        let mut dx64 = vec![0.0; x.len()];
        products(s, |iy, ix, iw| {
            y64[iy] += f64::from(x[ix]) * f64::from(w[iw]);
            dx64[ix] += f64::from(dy[iy]) * f64::from(w[iw]);
            dw64[iw] += f64::from(dy[iy]) * f64::from(x[ix]);
        });
        let mut workspace = Workspace::default();
        let mut y = vec![f32::NAN; dy.len()];
        forward(s, &x, &w, &mut y, &mut workspace);
        assert_near("forward", s, &y, &y64, s.kernel * s.kernel * s.in_channels);
        let mut dx = vec![f32::NAN; x.len()];
        backward_data(s, &dy, &w, &mut dx, false, &mut workspace);
        assert_near("data gradient", s, &dx, &dx64, s.kernel * s.kernel * s.out_channels);
        let mut sum = before.clone();
        backward_data(s, &dy, &w, &mut sum, true, &mut workspace);
        let sum64: Vec<f64> = dx64.iter().zip(&before).map(|(d, b)| d + f64::from(*b)).collect();
        assert_near("accumulated data gradient", s, &sum, &sum64, s.kernel * s.kernel * s.out_channels + 1);
        let mut dw = vec![f32::NAN; w.len()];
        backward_weight(s, &x, &dy, &mut dw, &mut workspace);
        assert_near("weight gradient", s, &dw, &dw64, s.batch * s.out_height() * s.out_width());
    }

    #[test]
    fn all_directions_match_the_definition() {
        for row in [
            [1, 1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 3, 2],
            [2, 5, 7, 3, 8, 3, 1],
            [3, 8, 8, 8, 16, 3, 2],
            [2, 9, 5, 16, 10, 3, 2],
            [2, 7, 7, 10, 65, 1, 2],
            [9, 4, 4, 64, 64, 3, 1],
            [2, 16, 16, 65, 24, 1, 1],
            [1, 33, 31, 4, 33, 3, 1],
            [5, 2, 2, 128, 70, 3, 2],
            [1, 32, 32, 3, 64, 3, 1],
            [17, 4, 4, 130, 129, 3, 1],
        ] {
            check(&shape(row));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for row in [[7, 9, 9, 24, 40, 3, 1], [6, 8, 8, 64, 130, 3, 2], [40, 4, 4, 72, 20, 3, 1]] {
            let s = shape(row);
            let (x, w, dy) = (noise(s.input_len(), 5), noise(s.weight_len(), 6), noise(s.output_len(), 7));
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut workspace = Workspace::default();
                    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
                    forward(&s, &x, &w, &mut y, &mut workspace);
                    backward_data(&s, &dy, &w, &mut dx, true, &mut workspace);
                    backward_weight(&s, &x, &dy, &mut dw, &mut workspace);
                    (y, dx, dw)
                })
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{s:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn random_shapes_match_the_definition(
            batch in 1usize..4, height in 1usize..12, width in 1usize..12,
            in_channels in 1usize..20, out_channels in 1usize..40,
            three in any::<bool>(), stride in 1usize..3,
        ) {
            let kernel = if three { 3 } else { 1 };
            check(&shape([batch, height, width, in_channels, out_channels, kernel, stride]));
        }
    }
}
