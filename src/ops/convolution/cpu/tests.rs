//! Every level of instructions against the definition in f64, and against each other.

use proptest::prelude::*;

use super::*;

fn shape([batch, height, width, in_channels, out_channels, kernel, stride]: [usize; 7]) -> ConvolutionShape {
    ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride }
}

/// Independent values from -1 to 1: the finalizer of SplitMix64.
fn noise(len: usize, salt: u64) -> Vec<f32> {
    let word = |i: usize| {
        let mut z = ((salt << 32) + i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 40
    };
    (0..len).map(|i| word(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Calls `visit(y index, x index, w index)` for every product of the convolution.
fn products(s: &ConvolutionShape, mut visit: impl FnMut(usize, usize, usize)) {
    let padding = s.padding();
    for n in 0..s.batch {
        for (oy, ox) in (0..s.out_height() * s.out_width()).map(|p| (p / s.out_width(), p % s.out_width())) {
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
    let tolerance = 2.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt() * (terms as f64).sqrt().max(4.0);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let gap = (f64::from(*got) - want).abs();
        assert!(gap <= tolerance, "{what} of {s:?} at {i}: {got} for {want}, off by {gap:e} > {tolerance:e}");
    }
}

/// Inputs x, w and dy.
fn inputs(s: &ConvolutionShape) -> [Vec<f32>; 3] {
    [noise(s.input_len(), 1), noise(s.weight_len(), 2), noise(s.output_len(), 3)]
}

/// y, dx and dw by their definition.
fn definition(s: &ConvolutionShape, [x, w, dy]: &[Vec<f32>; 3]) -> [Vec<f64>; 3] {
    let [mut y64, mut dx64, mut dw64] = [dy.len(), x.len(), w.len()].map(|len| vec![0.0; len]);
    products(s, |iy, ix, iw| {
        y64[iy] += f64::from(x[ix]) * f64::from(w[iw]);
        dx64[ix] += f64::from(dy[iy]) * f64::from(w[iw]);
        dw64[iw] += f64::from(dy[iy]) * f64::from(x[ix]);
    });
    [y64, dx64, dw64]
}

fn check(s: &ConvolutionShape) {
    let inputs = inputs(s);
    let [y64, dx64, dw64] = definition(s, &inputs);
    let [x, w, dy] = &inputs;
    let before = noise(s.input_len(), 4);
    let sum64: Vec<f64> = dx64.iter().zip(&before).map(|(d, b)| d + f64::from(*b)).collect();
    let taps = s.kernel * s.kernel;
    for simd in Simd::available() {
        let mut workspace = Workspace::default();
        let mut y = vec![f32::NAN; dy.len()];
        forward(simd, s, x, w, &mut y, &mut workspace);
        assert_near("forward", s, &y, &y64, taps * s.in_channels);
        let mut dx = vec![f32::NAN; x.len()];
        backward_data(simd, s, dy, w, (&mut dx, false), &mut workspace);
        assert_near("data gradient", s, &dx, &dx64, taps * s.out_channels);
        let mut sum = before.clone();
        backward_data(simd, s, dy, w, (&mut sum, true), &mut workspace);
        assert_near("accumulated data gradient", s, &sum, &sum64, taps * s.out_channels + 1);
        let mut dw = vec![f32::NAN; w.len()];
        backward_weight(simd, s, x, dy, &mut dw, &mut workspace);
        assert_near("weight gradient", s, &dw, &dw64, s.batch * s.out_height() * s.out_width());
    }
}

/// The direct sums of products of bf16, before they are rounded.
fn check_pairs(s: &ConvolutionShape) {
    let inputs = inputs(s).map(|mut values| {
        Rounding::Bf16.apply(&mut values);
        values
    });
    let [y64, dx64, dw64] = definition(s, &inputs);
    let [x, w, dy] = &inputs;
    let taps = s.kernel * s.kernel;
    let mut all = Vec::new();
    for sums in PairSums::available() {
        let results = pairs_directly(sums, s, [x, w, dy]);
        assert_near("forward", s, &results[0], &y64, taps * s.in_channels);
        assert_near("data gradient", s, &results[1], &dx64, taps * s.out_channels);
        assert_near("weight gradient", s, &results[2], &dw64, s.batch * s.out_height() * s.out_width());
        all.push(results);
    }
    assert!(all.windows(2).all(|ways| ways[0] == ways[1]), "{s:?}: not the same bits");
}

/// y, dx and dw by direct sums of products of bf16.
fn pairs_directly(sums: PairSums, s: &ConvolutionShape, [x, w, dy]: [&[f32]; 3]) -> [Vec<f32>; 3] {
    let (none, taps, mut workspace) = (Rounding::None, s.kernel * s.kernel, Workspace::default());
    let [mut y, mut dx, mut dw] = [dy, x, w].map(|like| vec![f32::NAN; like.len()]);
    let filter = Filter::forward(w, taps, s.in_channels);
    let target = (&mut y[..], false);
    direct::run::<Pair>(sums, &geometry(s), &[problem(s)], filter, x, target, none, &mut workspace);
    let (filter, problems) = (Filter::gradient(w, taps, s.in_channels), gradient_problems(s));
    let target = (&mut dx[..], false);
    direct::run::<Pair>(sums, &gradient_geometry(s), &problems, filter, dy, target, none, &mut workspace);
    weight_pairs::run(sums, s, x, dy, &mut dw, &mut workspace);
    [y, dx, dw]
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
        [5, 8, 8, 48, 32, 3, 1],
        [5, 7, 8, 16, 32, 3, 1],
        [17, 4, 4, 160, 144, 3, 1],
    ] {
        check(&shape(row));
        check_pairs(&shape(row));
    }
}

/// y, dx (added to x) and dw.
fn all(products: impl Into<Products>, threads: usize, s: &ConvolutionShape) -> [Vec<f32>; 3] {
    let products = products.into();
    let [x, w, dy] = [(s.input_len(), 5), (s.weight_len(), 6), (s.output_len(), 7)].map(|(len, salt)| {
        let mut values = noise(len, salt);
        products.rounding.apply(&mut values);
        values
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut workspace = Workspace::default();
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        forward(products, s, &x, &w, &mut y, &mut workspace);
        backward_data(products, s, &dy, &w, (&mut dx, true), &mut workspace);
        backward_weight(products, s, &x, &dy, &mut dw, &mut workspace);
        [y, dx, dw]
    })
}

/// Shapes with bands of rows, several images in a block, parts, cuts of channels, and every tile.
const SHAPES: [[usize; 7]; 11] = [
    [7, 9, 9, 24, 40, 3, 1],
    [6, 8, 8, 64, 130, 3, 2],
    [40, 4, 4, 72, 20, 3, 1],
    [3, 70, 40, 3, 8, 3, 1],
    [2, 33, 35, 8, 16, 3, 2],
    [2, 32, 32, 16, 48, 1, 1],
    [5, 16, 16, 32, 16, 3, 1],
    [5, 8, 8, 48, 96, 3, 1],
    [5, 7, 8, 64, 32, 3, 1],
    [20, 16, 16, 160, 144, 3, 1],
    [30, 4, 4, 272, 16, 3, 1],
];

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for s in SHAPES.map(shape) {
        for simd in Simd::available() {
            let one = all(simd, 1, &s);
            assert!(one == all(simd, 2, &s) && one == all(simd, 3, &s), "{simd}: {s:?}");
            let bf16 = Products { simd, rounding: Rounding::Bf16 };
            let one = all(bf16, 1, &s);
            assert!(one == all(bf16, 2, &s) && one == all(bf16, 3, &s), "{bf16:?}: {s:?}");
            let values = one[0].iter().chain(&one[1]);
            assert!(values.clone().all(|value| value.to_bits() & 0xffff == 0), "{bf16:?} is rounded: {s:?}");
        }
    }
}

#[test]
fn levels_with_fused_multiply_add_agree_to_the_bit() {
    for s in SHAPES.map(shape) {
        let fused = || Simd::available().filter(|&level| level != Simd::Portable);
        let f32: Vec<_> = fused().map(|level| all(level, 1, &s)).collect();
        assert!(f32.windows(2).all(|pair| pair[0] == pair[1]), "{s:?}");
        let bf16 = fused().map(|simd| all(Products { simd, rounding: Rounding::Bf16 }, 1, &s));
        let bf16: Vec<_> = bf16.collect();
        assert!(bf16.windows(2).all(|pair| pair[0] == pair[1]), "bf16: {s:?}");
    }
}

/// Root of the mean square of the gaps over that of `want`.
fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let gaps = square(&mut got.iter().zip(want).map(|(got, want)| f64::from(*got) - want));
    (gaps / square(&mut want.iter().copied())).sqrt()
}

/// The layers of ResNet-18 of widths 8 and 64 that Winograd's algorithm serves: channels, and rows and
/// columns of the image.
const LAYERS: [(usize, usize); 7] = [(16, 16), (32, 8), (64, 4), (64, 32), (128, 16), (256, 8), (512, 4)];

/// How much larger the error may be than that of the direct sums, whose sums of products are as long or
/// longer: of F(2x2, 3x3) and of F(4x4, 3x3).
///
/// Where inputs and weights are independent, the product at point i has the variance `|B_i|^2 |G_i|^2` of
/// one term, and enters output k with A_ki. In each direction the mean square of the relative error grows by
/// the mean over k of `sum over i of A_ki^2 |B_i|^2 |G_i|^2 / 3`, so in two directions the error itself does.
/// With the points of `winograd/polynomials.rs` this is 5/3 and 5.0. The transforms round as well, which shows
/// where few products are summed: as much as an error of f32's epsilon in every product.
const AMPLIFICATION: [f64; 2] = [5.0 / 3.0, 5.0];

#[test]
fn rounding_of_winograd_is_near_that_of_the_direct_sums() {
    for (channels, side) in LAYERS {
        let batch = if channels * side > 1024 { 1 } else { 2 };
        let s = shape([batch, side, side, channels, channels, 3, 1]);
        assert!(winograd::size_of_data_gradient(&s).is_some());
        let inputs = inputs(&s);
        let [y64, dx64, dw64] = definition(&s, &inputs);
        let [x, w, dy] = &inputs;
        for simd in Simd::available() {
            let mut workspace = Workspace::default();
            let mut direct = [dy, x, w].map(|like| vec![0.0; like.len()]);
            let mut fast = direct.clone();
            let filter = Filter::forward(w, 9, channels);
            let [y, dx, dw] = &mut direct;
            let none = Rounding::None;
            let problem = &[problem(&s)];
            direct::run::<f32>(simd, &geometry(&s), problem, filter, x, (y, false), none, &mut workspace);
            let (filter, problems) = (Filter::gradient(w, 9, channels), gradient_problems(&s));
            let (geometry, dx) = (gradient_geometry(&s), (&mut dx[..], false));
            direct::run::<f32>(simd, &geometry, &problems, filter, dy, dx, none, &mut workspace);
            weight::run(simd, &s, x, dy, dw, &mut workspace);
            let [y, dx, dw] = &mut fast;
            forward(simd, &s, x, w, y, &mut workspace);
            backward_data(simd, &s, dy, w, (dx, false), &mut workspace);
            winograd::weight_gradient(simd, &s, x, dy, dw, &mut workspace);
            let [two, four] = AMPLIFICATION;
            let results = [("forward", &y64, two), ("data", &dx64, four), ("weight", &dw64, four)];
            for (i, (what, want, bound)) in results.into_iter().enumerate() {
                let [direct, fast] = [&direct[i], &fast[i]].map(|got| relative_error(got, want));
                println!(
                    "{what}, {channels} channels at {side}x{side}, {simd}: {fast:.2e}, direct {direct:.2e}"
                );
                assert!(
                    fast > 0.0 && fast <= bound * direct.max(f64::from(f32::EPSILON)),
                    "{what} of {s:?}: {fast} {direct}"
                );
            }
        }
    }
}

/// A batch whose transformed input is not kept whole: image by image the same as alone.
#[test]
fn an_image_of_a_large_batch_is_as_alone() {
    for row in [[40, 8, 8, 256, 256, 3, 1], [70, 4, 4, 512, 512, 3, 1]] {
        let s = shape(row);
        let one = ConvolutionShape { batch: 1, ..s };
        let (w, dy) = (noise(s.weight_len(), 2), noise(s.output_len(), 3));
        let simd = Simd::available().next_back().unwrap();
        let run = |s: &ConvolutionShape, dy: &[f32]| {
            let mut dx = vec![f32::NAN; s.input_len()];
            backward_data(simd, s, dy, &w, (&mut dx, false), &mut Workspace::default());
            dx
        };
        let all = run(&s, &dy);
        for image in [0, s.batch / 2, s.batch - 1] {
            let alone = run(&one, &dy[image * one.output_len()..][..one.output_len()]);
            assert!(alone == all[image * one.input_len()..][..one.input_len()], "image {image} of {s:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn random_shapes_match_the_definition(
        batch in 1usize..4, height in 1usize..12, width in 1usize..12,
        in_channels in 1usize..20, out_channels in 1usize..40,
        three in any::<bool>(), stride in 1usize..3,
    ) {
        let kernel = if three { 3 } else { 1 };
        check(&shape([batch, height, width, in_channels, out_channels, kernel, stride]));
        check_pairs(&shape([batch, height, width, in_channels, out_channels, kernel, stride]));
    }
}
