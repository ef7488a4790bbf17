//! The transforms of F(4x4, 3x3) and F(2x2, 3x3) in one dimension, over channels as vectors.
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

/// Outputs and products of F(4x4) in each direction.
pub(super) const OUTPUTS: usize = 4;
pub(super) const SIDE: usize = 6;

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
pub(super) unsafe fn input<L: Lanes>(d: [L::Vector; SIDE]) -> [L::Vector; SIDE] {
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
pub(super) unsafe fn output<L: Lanes>(m: [L::Vector; SIDE]) -> [L::Vector; OUTPUTS] {
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
pub(super) unsafe fn input_two<L: Lanes>(d: [L::Vector; 4]) -> [L::Vector; 4] {
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
pub(super) unsafe fn output_two<L: Lanes>(m: [L::Vector; 4]) -> [L::Vector; 2] {
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
pub(super) unsafe fn weight_two<L: Lanes>(g: [L::Vector; 3]) -> [L::Vector; 4] {
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
pub(super) unsafe fn gradient<L: Lanes>(d: [L::Vector; OUTPUTS]) -> [L::Vector; SIDE] {
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
pub(super) unsafe fn weight<L: Lanes>(g: [L::Vector; 3]) -> [L::Vector; SIDE] {
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
pub(super) unsafe fn weight_gradient<L: Lanes>(m: [L::Vector; SIDE]) -> [L::Vector; 3] {
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
