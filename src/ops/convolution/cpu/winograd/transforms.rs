//! The transforms of F(4x4, 3x3) and F(2x2, 3x3), over channels as vectors.
//!
//! A convolution of 3 taps with 4 outputs is a product of polynomials, evaluated at 0, +-a, +-b and infinity
//! (Toom-Cook): y = A^T ((G g) . (B^T d)), in two dimensions by rows and columns. The points are
//! a = sqrt(1/2) and b = sqrt(2): a b = 1 keeps the powers of both near one, so that in f32 the error is half
//! that of the usual points 1 and 2. All squares are powers of two:
//!
//!   B^T d:  d0 - 5/2 d2 + d4                      A^T m:  m0 + (m1 + m2) + (m3 + m4)
//!           (d4 - 2 d2) +- a (d3 - 2 d1)                  a (m1 - m2) + b (m3 - m4)
//!           (d4 - d2/2) +- b (d3 - d1/2)                  (m1 + m2)/2 + 2 (m3 + m4)
//!           d1 - 5/2 d3 + d5                              a/2 (m1 - m2) + 2b (m3 - m4) + m5
//!   G g:    g0, -2/3 ((g0 + g2/2) +- a g1), 1/6 ((g0 + 2 g2) +- b g1), g2
//!
//! F(2x2, 3x3) has the points 0, 1, -1 and infinity, and products of (d0 - d2, d1 + d2, d2 - d1, d1 - d3).
//!
//! The weight gradient is the same bilinear form read the other way: dw = G^T ((A dy A^T) . (B^T d B)) G,
//! summed over tiles.
//!
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.

use super::super::lanes::Lanes;
use crate::device::cpu::instructions::Simd;

/// The outputs of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Size {
    /// 2 x 2, of 4 x 4 products: 2.25 times fewer than the direct sum, with no larger an error.
    Two,
    /// 4 x 4, of 6 x 6 products: 4 times fewer.
    Four,
}

impl Size {
    /// Outputs of a tile in each direction.
    pub(super) fn outputs(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Inputs of a tile, and products, in each direction.
    pub(super) fn side(self) -> usize {
        self.outputs() + 2
    }

    /// Products of a tile.
    pub(super) fn points(self) -> usize {
        self.side() * self.side()
    }
}

/// [`Size::Four`]'s outputs and products in each direction.
const OUTPUTS: usize = 4;
const SIDE: usize = 6;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

/// y + factor x, rounded once where the level has fused multiply-add.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn plus<L: Lanes>(y: L::Vector, factor: f32, x: L::Vector) -> L::Vector {
    // SAFETY: as the caller promises.
    unsafe { L::fma(L::set(factor), x, y) }
}

/// B^T d.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn input<L: Lanes>(d: [L::Vector; SIDE]) -> [L::Vector; SIDE] {
    // SAFETY: as the caller promises.
    unsafe {
        let (even_a, odd_a) = (plus::<L>(d[4], -2.0, d[2]), plus::<L>(d[3], -2.0, d[1]));
        let (even_b, odd_b) = (plus::<L>(d[4], -0.5, d[2]), plus::<L>(d[3], -0.5, d[1]));
        [
            plus::<L>(L::add(d[0], d[4]), -2.5, d[2]),
            plus::<L>(even_a, A, odd_a),
            plus::<L>(even_a, -A, odd_a),
            plus::<L>(even_b, B, odd_b),
            plus::<L>(even_b, -B, odd_b),
            plus::<L>(L::add(d[1], d[5]), -2.5, d[3]),
        ]
    }
}

/// A^T m.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn output<L: Lanes>(m: [L::Vector; SIDE]) -> [L::Vector; OUTPUTS] {
    // SAFETY: as the caller promises.
    unsafe {
        let (sum_a, sum_b) = (L::add(m[1], m[2]), L::add(m[3], m[4]));
        let difference = |x, y| plus::<L>(x, -1.0, y);
        let (gap_a, gap_b) = (difference(m[1], m[2]), difference(m[3], m[4]));
        [
            L::add(L::add(m[0], sum_a), sum_b),
            plus::<L>(L::mul(L::set(B), gap_b), A, gap_a),
            plus::<L>(L::mul(L::set(0.5), sum_a), 2.0, sum_b),
            plus::<L>(plus::<L>(m[5], 2.0 * B, gap_b), 0.5 * A, gap_a),
        ]
    }
}

/// B^T d of F(2x2, 3x3).
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn input_two<L: Lanes>(d: [L::Vector; 4]) -> [L::Vector; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        let difference = |x, y| plus::<L>(x, -1.0, y);
        [difference(d[0], d[2]), L::add(d[1], d[2]), difference(d[2], d[1]), difference(d[1], d[3])]
    }
}

/// A^T m of F(2x2, 3x3).
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn output_two<L: Lanes>(m: [L::Vector; 4]) -> [L::Vector; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let difference = |x, y| plus::<L>(x, -1.0, y);
        [L::add(L::add(m[0], m[1]), m[2]), difference(difference(m[1], m[2]), m[3])]
    }
}

/// G g of F(2x2, 3x3).
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn weight_two<L: Lanes>(g: [L::Vector; 3]) -> [L::Vector; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        let outer = L::mul(L::set(0.5), L::add(g[0], g[2]));
        [g[0], plus::<L>(outer, 0.5, g[1]), plus::<L>(outer, -0.5, g[1]), g[2]]
    }
}

/// A d, for four gradients of the output.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn gradient<L: Lanes>(d: [L::Vector; OUTPUTS]) -> [L::Vector; SIDE] {
    // SAFETY: as the caller promises.
    unsafe {
        let (even_a, odd_a) = (plus::<L>(d[0], 0.5, d[2]), plus::<L>(d[1], 0.5, d[3]));
        let (even_b, odd_b) = (plus::<L>(d[0], 2.0, d[2]), plus::<L>(d[1], 2.0, d[3]));
        [
            d[0],
            plus::<L>(even_a, A, odd_a),
            plus::<L>(even_a, -A, odd_a),
            plus::<L>(even_b, B, odd_b),
            plus::<L>(even_b, -B, odd_b),
            d[3],
        ]
    }
}

/// G g.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn weight<L: Lanes>(g: [L::Vector; 3]) -> [L::Vector; SIDE] {
    // SAFETY: as the caller promises.
    unsafe {
        let even_a = L::mul(L::set(-2.0 / 3.0), plus::<L>(g[0], 0.5, g[2]));
        let even_b = L::mul(L::set(1.0 / 6.0), plus::<L>(g[0], 2.0, g[2]));
        [
            g[0],
            plus::<L>(even_a, -2.0 / 3.0 * A, g[1]),
            plus::<L>(even_a, 2.0 / 3.0 * A, g[1]),
            plus::<L>(even_b, B / 6.0, g[1]),
            plus::<L>(even_b, -B / 6.0, g[1]),
            g[2],
        ]
    }
}

/// G^T m.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn weight_gradient<L: Lanes>(m: [L::Vector; SIDE]) -> [L::Vector; 3] {
    // SAFETY: as the caller promises.
    unsafe {
        let difference = |x, y| plus::<L>(x, -1.0, y);
        let (sum_a, sum_b) = (L::add(m[1], m[2]), L::add(m[3], m[4]));
        let (gap_a, gap_b) = (difference(m[1], m[2]), difference(m[3], m[4]));
        [
            plus::<L>(plus::<L>(m[0], 1.0 / 6.0, sum_b), -2.0 / 3.0, sum_a),
            plus::<L>(L::mul(L::set(B / 6.0), gap_b), -2.0 / 3.0 * A, gap_a),
            plus::<L>(plus::<L>(m[5], 1.0 / 3.0, sum_b), -1.0 / 3.0, sum_a),
        ]
    }
}

/// Where a grid of vectors lies: the distance between its rows, and between its columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub row: usize,
    pub column: usize,
}

/// The transform in two dimensions of `channels` values at `from`, to `to`.
///
/// # Safety
/// As [`Lanes`]; `channels` is a multiple of the lanes, and `from` and `to` are valid for `channels` values
/// at each of N x N and M x M positions of their grids.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of several arrays, unrolled")]
unsafe fn square<L: Lanes, const N: usize, const M: usize>(
    transform: impl Fn([L::Vector; N]) -> [L::Vector; M],
    channels: usize,
    from: (*const f32, Grid),
    to: (*mut f32, Grid),
) {
    for c in (0..channels).step_by(L::LANES) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut half = [[L::set(0.0); N]; M];
            for j in 0..N {
                let mut column = [L::set(0.0); N];
                for (i, value) in column.iter_mut().enumerate() {
                    *value = L::load(from.0.add(i * from.1.row + j * from.1.column + c));
                }
                let column = transform(column);
                for i in 0..M {
                    half[i][j] = column[i];
                }
            }
            for (i, row) in half.into_iter().enumerate() {
                for (j, value) in transform(row).into_iter().enumerate() {
                    L::store(to.0.add(i * to.1.row + j * to.1.column + c), value);
                }
            }
        }
    }
}

/// A transform of a tile for every level.
macro_rules! transforms {
    ($(#[$doc:meta] $name:ident: $transform:ident, $inputs:expr, $outputs:expr;)+) => {
        $(
            #[$doc]
            ///
            /// # Panics
            /// If `channels` is no multiple of 16, or a position lies outside its slice: checked before any
            /// pointer is formed.
            pub(super) fn $name(
                simd: Simd,
                channels: usize,
                from: (&[f32], Grid),
                to: (&mut [f32], Grid),
            ) {
                let last = |grid: Grid, side: usize| (side - 1) * (grid.row + grid.column) + channels;
                assert!(channels.is_multiple_of(16));
                assert!(last(from.1, $inputs) <= from.0.len() && last(to.1, $outputs) <= to.0.len());
                assert!(simd.is_available());
                let (from, to) = ((from.0.as_ptr(), from.1), (to.0.as_mut_ptr(), to.1));
                // SAFETY: the processor has the level; the asserts bound every position.
                unsafe {
                    match simd {
                        Simd::Portable => portable::$name(channels, from, to),
                        #[cfg(target_arch = "x86_64")]
                        Simd::Avx2 => avx2::$name(channels, from, to),
                        #[cfg(target_arch = "x86_64")]
                        Simd::Avx512 => avx512::$name(channels, from, to),
                        #[cfg(not(target_arch = "x86_64"))]
                        _ => unreachable!("{simd} was asserted"),
                    }
                }
            }
        )+
        transforms!(level portable, super::super::super::lanes::Portable, [], $($name: $transform;)+);
        #[cfg(target_arch = "x86_64")]
        transforms!(level avx2, super::super::super::lanes::Eight, [target_feature(enable = "avx2,fma")],
            $($name: $transform;)+);
        #[cfg(target_arch = "x86_64")]
        transforms!(level avx512, super::super::super::lanes::Sixteen,
            [target_feature(enable = "avx2,fma,avx512f,avx512vl")], $($name: $transform;)+);
    };
    (level $level:ident, $lanes:ty, $features:tt, $($name:ident: $transform:ident;)+) => {
        mod $level {
            use super::Grid;

            $(transforms!(function $name, $transform, $lanes, $features);)+
        }
    };
    (function $name:ident, $transform:ident, $lanes:ty, [$($features:meta)?]) => {
        /// # Safety
        /// As `square`.
        $(#[$features])?
        pub(super) unsafe fn $name(channels: usize, from: (*const f32, Grid), to: (*mut f32, Grid)) {
            // SAFETY: as the caller promises.
            unsafe {
                let transform = |values| super::$transform::<$lanes>(values);
                super::square::<$lanes, _, _>(transform, channels, from, to)
            }
        }
    };
}

transforms! {
    /// B^T d B of 6 x 6 inputs.
    input_of_four: input, SIDE, SIDE;
    /// A^T m A: 6 x 6 products to 4 x 4 outputs.
    output_of_four: output, SIDE, OUTPUTS;
    /// A dy A^T of 4 x 4 gradients of the output.
    transform_gradient: gradient, OUTPUTS, SIDE;
    /// G g G^T of 3 x 3 weights.
    weight_of_four: weight, 3, SIDE;
    /// G^T m G: 6 x 6 products to the gradient of 3 x 3 weights.
    transform_weight_gradient: weight_gradient, SIDE, 3;
    /// B^T d B of 4 x 4 inputs.
    input_of_two: input_two, 4, 4;
    /// A^T m A: 4 x 4 products to 2 x 2 outputs.
    output_of_two: output_two, 4, 2;
    /// G g G^T of 3 x 3 weights.
    weight_of_two: weight_two, 3, 4;
}

/// A transform of either size.
type Transform = fn(Simd, usize, (&[f32], Grid), (&mut [f32], Grid));

impl Size {
    /// B^T d B of a tile's inputs.
    pub(super) fn transform_input(self) -> Transform {
        match self {
            Self::Two => input_of_two,
            Self::Four => input_of_four,
        }
    }

    /// A^T m A of a tile's products, which gives its outputs.
    pub(super) fn transform_output(self) -> Transform {
        match self {
            Self::Two => output_of_two,
            Self::Four => output_of_four,
        }
    }

    /// G g G^T of 3 x 3 weights.
    pub(super) fn transform_weight(self) -> Transform {
        match self {
            Self::Two => weight_of_two,
            Self::Four => weight_of_four,
        }
    }
}
