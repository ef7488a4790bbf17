//! Register tiles: pieces of matrix products whose sums stay in registers.
//!
//! Every value of a call's result is one chain of steps ([`Products::add`]) over the products in the order of
//! the caller, begun at zero, and stored or added to what is in memory. A tile's extents decide how many
//! chains run side by side and nothing else, so every tile of every level gives the same bits (of f32, on
//! portable code: see `lanes.rs`). Callers cut long sums into several calls, which keeps rounding errors
//! small.
//!
//! The factors are f32 or pairs of bf16 ([`Value`]). A pair is one step, so for pairs "row" and "segment"
//! count pairs.
//!
//! | what | file |
//! |---|---|
//! | rows read in place times a packed panel | `rows.rs` |
//! | columns read in place: sums over pixels | `columns.rs` |
//! | the tiles of each level | `levels.rs` |

mod columns;
mod levels;
mod rows;

use std::fmt::Debug;

use super::lanes::Lanes;
pub(super) use columns::{Columns, VectorPanel, vector_panels};
pub(super) use rows::{Panel, Rows, Segment, panels};

/// What tiles multiply.
pub(super) trait Value: bytemuck::Pod + Send + Sync {
    /// The ways in which its tiles are computed.
    type Level: Copy + Debug + PartialEq + Send + Sync;

    /// Whether the processor has the level's instructions.
    fn is_available(level: Self::Level) -> bool;

    /// Whether the level has 512-bit vectors, and 32 registers.
    fn is_wide(level: Self::Level) -> bool;

    /// Runs [`Rows`].
    ///
    /// # Safety
    /// The processor has the level, and the extents are those asserted in [`Rows::run`].
    unsafe fn rows(level: Self::Level, call: &Rows<'_, Self>, c: &mut [f32]);

    /// Runs [`Columns`].
    ///
    /// # Safety
    /// The processor has the level, and the extents are those asserted in [`Columns::run`].
    unsafe fn columns(level: Self::Level, call: &Columns<'_, Self>, c: &mut [f32]);
}

/// A step of a tile: what is multiplied, and how it is added to the sums.
///
/// # Safety
/// As [`Lanes`], where pointers are to [`Products::Value`].
pub(super) trait Products {
    /// One factor.
    type Value: Value;
    /// The sums.
    type Lanes: Lanes;
    /// A factor for each lane.
    type Factors: Copy;

    unsafe fn load(from: *const Self::Value) -> Self::Factors;
    /// The factor at `from` for all lanes.
    unsafe fn splat(from: *const Self::Value) -> Self::Factors;
    /// sums + a b.
    unsafe fn add(
        a: Self::Factors,
        b: Self::Factors,
        sums: <Self::Lanes as Lanes>::Vector,
    ) -> <Self::Lanes as Lanes>::Vector;
}

/// f32: a fused multiply-add for each lane.
impl<L: Lanes> Products for L {
    type Value = f32;
    type Lanes = L;
    type Factors = L::Vector;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> L::Vector {
        // SAFETY: as the caller promises.
        unsafe { <L as Lanes>::load(from) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> L::Vector {
        // SAFETY: as the caller promises.
        unsafe { <L as Lanes>::splat(from) }
    }

    #[inline(always)]
    unsafe fn add(a: L::Vector, b: L::Vector, sums: L::Vector) -> L::Vector {
        // SAFETY: as the caller promises.
        unsafe { L::fma(a, b, sums) }
    }
}

/// Offsets into a slice, with the largest of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    values: Vec<usize>,
    largest: usize,
}

impl Offsets {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.largest = 0;
    }

    pub(super) fn push(&mut self, offset: usize) {
        self.values.push(offset);
        self.largest = self.largest.max(offset);
    }

    /// `count` offsets 0, `step`, 2 `step` ...
    pub(super) fn set_regular(&mut self, count: usize, step: usize) {
        self.clear();
        (0..count).for_each(|i| self.push(i * step));
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// Steps of a product of columns: the offsets of each in a and b, with the largest of both.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    values: Vec<[usize; 2]>,
    largest: [usize; 2],
}

impl Steps {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.largest = [0; 2];
    }

    pub(super) fn push(&mut self, a: usize, b: usize) {
        self.values.push([a, b]);
        self.largest = [self.largest[0].max(a), self.largest[1].max(b)];
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// Stores the first `keep` values, or adds them to what is there.
///
/// # Safety
/// As [`Lanes`]; `to` is valid for `keep` values.
#[inline(always)]
unsafe fn put<L: Lanes>(to: *mut f32, keep: usize, values: L::Vector, add: bool) {
    // SAFETY: as the caller promises; the buffer holds the most lanes of any level.
    unsafe {
        if keep >= L::LANES {
            let values = if add { L::add(L::load(to), values) } else { values };
            return L::store(to, values);
        }
        let mut buffer = [0.0f32; 16];
        if add {
            std::ptr::copy_nonoverlapping(to, buffer.as_mut_ptr(), keep);
        }
        let values = if add { L::add(L::load(buffer.as_ptr()), values) } else { values };
        L::store(buffer.as_mut_ptr(), values);
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, keep);
    }
}

/// Runs `$tile::<P, rows, V>(call, c, at)` over `$count` rows: tiles of R rows, then of 8, 4, 2 and 1.
macro_rules! tiles {
    ($tile:ident, $call:expr, $c:expr, $count:expr) => {{
        let count = $count;
        let mut at = 0;
        while count - at >= R {
            $tile::<P, R, V>($call, $c, at);
            at += R;
        }
        if R > 8 && count - at >= 8 {
            $tile::<P, 8, V>($call, $c, at);
            at += 8;
        }
        if R > 4 && count - at >= 4 {
            $tile::<P, 4, V>($call, $c, at);
            at += 4;
        }
        if count - at >= 2 {
            $tile::<P, 2, V>($call, $c, at);
            at += 2;
        }
        if count > at {
            $tile::<P, 1, V>($call, $c, at);
        }
    }};
}
use tiles;

#[cfg(test)]
mod tests;
