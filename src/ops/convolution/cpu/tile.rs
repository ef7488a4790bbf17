//! Register tiles: pieces of matrix products whose sums stay in registers.
//!
//! Every value of a call's result is one chain of fused multiply-adds over the products in the order of the
//! caller, begun at zero, and stored or added to what is in memory. A tile's extents decide how many chains
//! run side by side and nothing else, so every tile of every level gives the same bits (`lanes.rs` on
//! portable code). Callers cut long sums into several calls, which keeps rounding errors small.
//!
//! Another type of values (bf16 with `vdpbf16ps`) is another `row_tile` and `column_tile`; panels, segments
//! and the functions that enable instructions stay.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Eight, Sixteen};
use super::lanes::{Lanes, Portable};
use crate::device::cpu::instructions::Simd;

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

/// A stretch of a row: `len` values from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub start: usize,
    pub len: usize,
}

/// A panel of columns: `width` of them from `first`, kept in registers for `padded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    pub first: usize,
    pub width: usize,
    pub padded: usize,
}

/// Cuts `columns` into panels: as wide as a tile, the last as narrow as possible.
pub(super) fn panels(simd: Simd, columns: usize) -> Vec<Panel> {
    let widest = match simd {
        Simd::Avx512 if columns.is_multiple_of(48) => 48,
        Simd::Avx512 => 32,
        Simd::Avx2 | Simd::Portable => 16,
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
pub(super) struct Rows<'a> {
    pub a: &'a [f32],
    pub a_rows: &'a Offsets,
    pub segments: &'a [Segment],
    pub b: &'a [f32],
    pub c_rows: &'a Offsets,
    pub panel: Panel,
    /// Whether the sums are added to what c holds.
    pub add: bool,
}

impl Rows<'_> {
    /// Computes it into `c`.
    ///
    /// # Panics
    /// If something read or written lies outside its slice: checked before any pointer is formed.
    pub(super) fn run(&self, simd: Simd, c: &mut [f32]) {
        let Self { a, a_rows, segments, b, c_rows, panel, .. } = self;
        if a_rows.len() == 0 {
            return;
        }
        let depth: usize = segments.iter().map(|segment| segment.len).sum();
        let end = segments.iter().map(|segment| segment.start + segment.len).max().unwrap_or(0);
        assert!(a_rows.len() == c_rows.len() && panel.width <= panel.padded);
        assert!(a_rows.largest + end <= a.len() && depth * panel.padded <= b.len());
        assert!(c_rows.largest + panel.first + panel.width <= c.len());
        assert!(simd.is_available());
        // SAFETY: the processor has the level's instructions; the asserts bound every read and write.
        unsafe {
            match (simd, panel.padded) {
                (Simd::Portable, 8) => rows::<Portable, 4, 1>(self, c),
                (Simd::Portable, 16) => rows::<Portable, 4, 2>(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, 8) => avx2::rows_8(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, 16) => avx2::rows_16(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 8) => avx512::rows_8(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 16) => avx512::rows_16(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 24) => avx512::rows_24(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 32) => avx512::rows_32(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 48) => avx512::rows_48(self, c),
                _ => unreachable!("no tile of {simd} for {panel:?}"),
            }
        }
    }
}

/// A vector of columns of [`Columns`]: where it is read and written, and how many of its lanes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ColumnVector {
    pub b: usize,
    pub c: usize,
    pub keep: usize,
}

/// Up to three vectors of 8 or 16 columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VectorPanel {
    pub lanes: usize,
    pub vectors: Vec<ColumnVector>,
}

/// Cuts columns into panels of vectors. The columns are runs of b: (offset in b, offset in c, length). Lanes
/// of a vector that lie behind its run are read, too, but not kept.
pub(super) fn vector_panels(simd: Simd, runs: &[(usize, usize, usize)]) -> Vec<VectorPanel> {
    // 16 lanes where they pad no more than 8.
    let wide = simd == Simd::Avx512
        && runs.iter().all(|&(_, _, len)| len.next_multiple_of(16) == len.next_multiple_of(8));
    let lanes = if wide { 16 } else { 8 };
    let mut vectors = Vec::new();
    for &(b, c, len) in runs {
        for at in (0..len).step_by(lanes) {
            vectors.push(ColumnVector { b: b + at, c: c + at, keep: lanes.min(len - at) });
        }
    }
    let mut panels = Vec::new();
    let mut rest = vectors.as_slice();
    while !rest.is_empty() {
        // 4 is 2 + 2: a single vector would read as many rows as three.
        let count = if simd == Simd::Avx512 && rest.len() != 4 { 3 } else { 2 };
        let (now, later) = rest.split_at(count.min(rest.len()));
        panels.push(VectorPanel { lanes, vectors: now.to_vec() });
        rest = later;
    }
    panels
}

/// The product of columns read in place: for i < `rows` and every column j of the panel,
/// c`[i pitch + vector.c + j]` = (or +=) the sum over steps of a`[step[0] + i]` b`[step[1] + vector.b + j]`.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub steps: &'a Steps,
    pub rows: usize,
    pub panel: &'a VectorPanel,
    pub pitch: usize,
    /// Whether the sums are added to what c holds.
    pub add: bool,
}

impl Columns<'_> {
    /// Computes it into `c`.
    ///
    /// # Panics
    /// If something read or written lies outside its slice: checked before any pointer is formed.
    pub(super) fn run(&self, simd: Simd, c: &mut [f32]) {
        let Self { a, b, steps, rows, panel: VectorPanel { lanes, vectors }, pitch, .. } = self;
        if *rows == 0 {
            return;
        }
        let last = vectors.iter().fold([0; 2], |[b, c], v| [b.max(v.b + lanes), c.max(v.c + v.keep)]);
        assert!(vectors.iter().all(|vector| vector.keep <= *lanes));
        assert!(steps.largest[0] + rows <= a.len() && steps.largest[1] + last[0] <= b.len());
        assert!((rows - 1) * pitch + last[1] <= c.len());
        assert!(simd.is_available());
        // SAFETY: the processor has the level's instructions; the asserts bound every read and write, and
        // each function is called with as many vectors as it uses.
        unsafe {
            match (simd, *lanes, vectors.len()) {
                (Simd::Portable, 8, 1) => columns::<Portable, 4, 1>(self, c),
                (Simd::Portable, 8, 2) => columns::<Portable, 4, 2>(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, 8, 1) => avx2::columns_1(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx2, 8, 2) => avx2::columns_2(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 8, 1) => avx512::columns_1(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 8, 2) => avx512::columns_2(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 8, 3) => avx512::columns_3(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 16, 1) => avx512::wide_columns_1(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 16, 2) => avx512::wide_columns_2(self, c),
                #[cfg(target_arch = "x86_64")]
                (Simd::Avx512, 16, 3) => avx512::wide_columns_3(self, c),
                _ => unreachable!("no tile of {simd} for {:?}", self.panel),
            }
        }
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

/// Runs `$tile::<L, rows, V>(call, c, at)` over `$count` rows: tiles of R rows, then of 8, 4, 2 and 1.
macro_rules! tiles {
    ($tile:ident, $call:expr, $c:expr, $count:expr) => {{
        let count = $count;
        let mut at = 0;
        while count - at >= R {
            $tile::<L, R, V>($call, $c, at);
            at += R;
        }
        if R > 8 && count - at >= 8 {
            $tile::<L, 8, V>($call, $c, at);
            at += 8;
        }
        if R > 4 && count - at >= 4 {
            $tile::<L, 4, V>($call, $c, at);
            at += 4;
        }
        if count - at >= 2 {
            $tile::<L, 2, V>($call, $c, at);
            at += 2;
        }
        if count > at {
            $tile::<L, 1, V>($call, $c, at);
        }
    }};
}

/// # Safety
/// The processor has the instructions of L, and the extents are those asserted in [`Rows::run`].
#[inline(always)]
unsafe fn rows<L: Lanes, const R: usize, const V: usize>(call: &Rows<'_>, c: &mut [f32]) {
    let c = c.as_mut_ptr();
    // SAFETY: as the caller promises.
    unsafe { tiles!(row_tile, call, c, call.a_rows.len()) }
}

/// # Safety
/// As [`rows`], with R rows from `at`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of several arrays, unrolled")]
unsafe fn row_tile<L: Lanes, const R: usize, const V: usize>(call: &Rows<'_>, c: *mut f32, at: usize) {
    // SAFETY: a_rows and c_rows have R values from `at`; the rest as the caller promises.
    unsafe {
        let keep = |v: usize| call.panel.width.saturating_sub(v * L::LANES);
        let mut a = [call.a.as_ptr(); R];
        let mut to = [c.add(call.panel.first); R];
        let mut sums = [[L::set(0.0); V]; R];
        for i in 0..R {
            a[i] = a[i].add(*call.a_rows.values.get_unchecked(at + i));
            to[i] = to[i].add(*call.c_rows.values.get_unchecked(at + i));
        }
        let mut b = call.b.as_ptr();
        for segment in call.segments {
            for k in segment.start..segment.start + segment.len {
                let mut columns = [L::set(0.0); V];
                for v in 0..V {
                    columns[v] = L::load(b.add(v * L::LANES));
                }
                for i in 0..R {
                    let value = L::splat(a[i].add(k));
                    for v in 0..V {
                        sums[i][v] = L::fma(value, columns[v], sums[i][v]);
                    }
                }
                b = b.add(V * L::LANES);
            }
        }
        for i in 0..R {
            for v in 0..V {
                put::<L>(to[i].wrapping_add(v * L::LANES), keep(v), sums[i][v], call.add);
            }
        }
    }
}

/// # Safety
/// The processor has the instructions of L, and the extents are those asserted in [`Columns::run`], with V
/// vectors.
#[inline(always)]
unsafe fn columns<L: Lanes, const R: usize, const V: usize>(call: &Columns<'_>, c: &mut [f32]) {
    let c = c.as_mut_ptr();
    // SAFETY: as the caller promises.
    unsafe { tiles!(column_tile, call, c, call.rows) }
}

/// # Safety
/// As [`columns`], with R rows from `at`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of several arrays, unrolled")]
unsafe fn column_tile<L: Lanes, const R: usize, const V: usize>(call: &Columns<'_>, c: *mut f32, at: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut vectors = [ColumnVector::default(); V];
        for v in 0..V {
            vectors[v] = *call.panel.vectors.get_unchecked(v);
        }
        let c = c.add(at * call.pitch);
        let mut sums = [[L::set(0.0); V]; R];
        let (a, b) = (call.a.as_ptr().add(at), call.b.as_ptr());
        for &[from_a, from_b] in &call.steps.values {
            let mut columns = [L::set(0.0); V];
            for v in 0..V {
                columns[v] = L::load(b.add(from_b + vectors[v].b));
            }
            for i in 0..R {
                let value = L::splat(a.add(from_a + i));
                for v in 0..V {
                    sums[i][v] = L::fma(value, columns[v], sums[i][v]);
                }
            }
        }
        for i in 0..R {
            for v in 0..V {
                let ColumnVector { c: column, keep, .. } = vectors[v];
                put::<L>(c.add(i * call.pitch + column), keep, sums[i][v], call.add);
            }
        }
    }
}

/// Functions that enable a level's instructions, each with one tile: name, vector, rows, vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! level {
    ($features:literal, rows: $(($rows:ident, $rl:ty, $rr:literal, $rv:literal)),+;
     columns: $(($columns:ident, $cl:ty, $cr:literal, $cv:literal)),+) => {
        $(
            /// # Safety
            /// The processor has the instructions, and the extents are those asserted in `Rows::run`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $rows(call: &Rows<'_>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe { rows::<$rl, $rr, $rv>(call, c) }
            }
        )+
        $(
            /// # Safety
            /// The processor has the instructions, and the extents are those asserted in `Columns::run`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $columns(call: &Columns<'_>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe { columns::<$cl, $cr, $cv>(call, c) }
            }
        )+
    };
}

/// Sixteen registers: twelve sums, the columns and one value.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Columns, Eight, Rows, columns, rows};

    level!("avx2,fma",
        rows: (rows_8, Eight, 12, 1), (rows_16, Eight, 6, 2);
        columns: (columns_1, Eight, 8, 1), (columns_2, Eight, 6, 2));
}

/// Thirty-two registers. Narrow panels take 256-bit vectors rather than half-empty ones.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Columns, Eight, Rows, Sixteen, columns, rows};

    level!("avx2,fma,avx512f,avx512vl",
        rows: (rows_8, Eight, 12, 1), (rows_16, Eight, 8, 2), (rows_24, Eight, 8, 3),
            (rows_32, Sixteen, 8, 2), (rows_48, Sixteen, 8, 3);
        columns: (columns_1, Eight, 8, 1), (columns_2, Eight, 8, 2), (columns_3, Eight, 8, 3),
            (wide_columns_1, Sixteen, 8, 1), (wide_columns_2, Sixteen, 8, 2),
            (wide_columns_3, Sixteen, 8, 3));
}

#[cfg(test)]
mod tests;
