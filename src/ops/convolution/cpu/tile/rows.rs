//! Rows read in place times a packed panel of columns.

use super::super::lanes::Lanes as _;
use super::{Offsets, Products, Value, put, tiles};

/// A stretch of a row: `len` factors from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Segment {
    pub start: usize,
    pub len: usize,
}

/// A panel of columns: `width` of them from `first`, kept in registers for `padded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Panel {
    pub first: usize,
    pub width: usize,
    pub padded: usize,
}

/// Cuts `columns` into panels: as wide as a tile, the last as narrow as possible.
pub(in super::super) fn panels<T: Value>(level: T::Level, columns: usize) -> Vec<Panel> {
    let widest = match T::is_wide(level) {
        true if columns.is_multiple_of(48) => 48,
        true => 32,
        false => 16,
    };
    let mut panels = Vec::new();
    let mut first = 0;
    while first < columns {
        let width = widest.min(columns - first);
        panels.push(Panel { first, width, padded: width.next_multiple_of(8) });
        first += width;
    }
    panels
}

/// The product of rows read in place with a packed panel: for every i,
/// c`[c_rows[i] + first + j]` = (or +=) sum over k of a`[a_rows[i] + k]` b`[k' padded + j]`,
/// where k runs through the segments and k' counts from 0.
#[derive(Clone, Copy)]
pub(in super::super) struct Rows<'a, T> {
    pub a: &'a [T],
    pub a_rows: &'a Offsets,
    pub segments: &'a [Segment],
    pub b: &'a [T],
    pub c_rows: &'a Offsets,
    pub panel: Panel,
    /// Whether the sums are added to what c holds.
    pub add: bool,
}

impl<T: Value> Rows<'_, T> {
    /// Computes it into `c`.
    ///
    /// # Panics
    /// If something read or written lies outside its slice: checked before any pointer is formed.
    pub(in super::super) fn run(&self, level: T::Level, c: &mut [f32]) {
        let Self { a, a_rows, segments, b, c_rows, panel, .. } = self;
        if a_rows.len() == 0 {
            return;
        }
        let depth: usize = segments.iter().map(|segment| segment.len).sum();
        let end = segments.iter().map(|segment| segment.start + segment.len).max().unwrap_or(0);
        assert!(a_rows.len() == c_rows.len() && panel.width <= panel.padded);
        assert!(a_rows.largest + end <= a.len() && depth * panel.padded <= b.len());
        assert!(c_rows.largest + panel.first + panel.width <= c.len());
        assert!(T::is_available(level));
        // SAFETY: the processor has the level's instructions; the asserts bound every read and write.
        unsafe { T::rows(level, self, c) }
    }
}

/// # Safety
/// The processor has the instructions of P, and the extents are those asserted in [`Rows::run`].
#[inline(always)]
pub(super) unsafe fn rows<P: Products, const R: usize, const V: usize>(
    call: &Rows<'_, P::Value>,
    c: &mut [f32],
) {
    let c = c.as_mut_ptr();
    // SAFETY: as the caller promises.
    unsafe { tiles!(row_tile, call, c, call.a_rows.len()) }
}

/// # Safety
/// As [`rows`], with R rows from `at`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of several arrays, unrolled")]
unsafe fn row_tile<P: Products, const R: usize, const V: usize>(
    call: &Rows<'_, P::Value>,
    c: *mut f32,
    at: usize,
) {
    // SAFETY: a_rows and c_rows have R values from `at`; the rest as the caller promises.
    unsafe {
        let lanes = P::Lanes::LANES;
        let mut a = [call.a.as_ptr(); R];
        let mut to = [c.add(call.panel.first); R];
        let mut sums = [[P::Lanes::set(0.0); V]; R];
        for i in 0..R {
            a[i] = a[i].add(*call.a_rows.values.get_unchecked(at + i));
            to[i] = to[i].add(*call.c_rows.values.get_unchecked(at + i));
        }
        let mut b = call.b.as_ptr();
        for segment in call.segments {
            for k in segment.start..segment.start + segment.len {
                let mut columns = [P::load(b); V];
                for v in 1..V {
                    columns[v] = P::load(b.add(v * lanes));
                }
                for i in 0..R {
                    let value = P::splat(a[i].add(k));
                    for v in 0..V {
                        sums[i][v] = P::add(value, columns[v], sums[i][v]);
                    }
                }
                b = b.add(V * lanes);
            }
        }
        for i in 0..R {
            for v in 0..V {
                let keep = call.panel.width.saturating_sub(v * lanes);
                put::<P::Lanes>(to[i].wrapping_add(v * lanes), keep, sums[i][v], call.add);
            }
        }
    }
}
