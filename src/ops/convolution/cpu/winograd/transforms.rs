//! The transforms of F(4x4, 3x3) and F(2x2, 3x3) in two dimensions, by rows and columns, for every level of
//! instructions. `polynomials.rs` has their formulas.

use super::super::lanes::Lanes;
use super::polynomials::{OUTPUTS, SIDE};
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
            use super::super::polynomials;

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
                let transform = |values| polynomials::$transform::<$lanes>(values);
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
