//! Columns read in place: the sums over pixels of the weight gradient.

use super::super::lanes::Lanes as _;
use super::{Products, Steps, Value, put, tiles};

/// A vector of columns of [`Columns`]: where it is read and written, and how many of its lanes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct ColumnVector {
    pub b: usize,
    pub c: usize,
    pub keep: usize,
}

/// Up to three vectors of 8 or 16 columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct VectorPanel {
    pub lanes: usize,
    pub vectors: Vec<ColumnVector>,
}

/// Cuts columns into panels of vectors. The columns are runs of b: (offset in b, offset in c, length). Lanes
/// of a vector that lie behind its run are read, too, but not kept.
pub(in super::super) fn vector_panels<T: Value>(
    level: T::Level,
    runs: &[(usize, usize, usize)],
) -> Vec<VectorPanel> {
    // 16 lanes where they pad no more than 8.
    let wide = T::is_wide(level)
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
        let count = if T::is_wide(level) && rest.len() != 4 { 3 } else { 2 };
        let (now, later) = rest.split_at(count.min(rest.len()));
        panels.push(VectorPanel { lanes, vectors: now.to_vec() });
        rest = later;
    }
    panels
}

/// The product of columns read in place: for i < `rows` and every column j of the panel,
/// c`[i pitch + vector.c + j]` = (or +=) the sum over steps of a`[step[0] + i]` b`[step[1] + vector.b + j]`.
#[derive(Clone, Copy)]
pub(in super::super) struct Columns<'a, T> {
    pub a: &'a [T],
    pub b: &'a [T],
    pub steps: &'a Steps,
    pub rows: usize,
    pub panel: &'a VectorPanel,
    pub pitch: usize,
    /// Whether the sums are added to what c holds.
    pub add: bool,
}

impl<T: Value> Columns<'_, T> {
    /// Computes it into `c`.
    ///
    /// # Panics
    /// If something read or written lies outside its slice: checked before any pointer is formed.
    pub(in super::super) fn run(&self, level: T::Level, c: &mut [f32]) {
        let Self { a, b, steps, rows, panel: VectorPanel { lanes, vectors }, pitch, .. } = self;
        if *rows == 0 {
            return;
        }
        let last = vectors.iter().fold([0; 2], |[b, c], v| [b.max(v.b + lanes), c.max(v.c + v.keep)]);
        assert!(vectors.iter().all(|vector| vector.keep <= *lanes));
        assert!(steps.largest[0] + rows <= a.len() && steps.largest[1] + last[0] <= b.len());
        assert!((rows - 1) * pitch + last[1] <= c.len());
        assert!(T::is_available(level));
        // SAFETY: the processor has the level's instructions; the asserts bound every read and write, and
        // each function is called with as many vectors as it uses.
        unsafe { T::columns(level, self, c) }
    }
}

/// # Safety
/// The processor has the instructions of P, and the extents are those asserted in [`Columns::run`], with V
/// vectors.
#[inline(always)]
pub(super) unsafe fn columns<P: Products, const R: usize, const V: usize>(
    call: &Columns<'_, P::Value>,
    c: &mut [f32],
) {
    let c = c.as_mut_ptr();
    // SAFETY: as the caller promises.
    unsafe { tiles!(column_tile, call, c, call.rows) }
}

/// # Safety
/// As [`columns`], with R rows from `at`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of several arrays, unrolled")]
unsafe fn column_tile<P: Products, const R: usize, const V: usize>(
    call: &Columns<'_, P::Value>,
    c: *mut f32,
    at: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let vectors: [ColumnVector; V] = std::array::from_fn(|v| *call.panel.vectors.get_unchecked(v));
        let c = c.add(at * call.pitch);
        let mut sums = [[P::Lanes::set(0.0); V]; R];
        let (a, b) = (call.a.as_ptr().add(at), call.b.as_ptr());
        for &[from_a, from_b] in &call.steps.values {
            let mut columns = [P::load(b.add(from_b + vectors[0].b)); V];
            for v in 1..V {
                columns[v] = P::load(b.add(from_b + vectors[v].b));
            }
            for i in 0..R {
                let value = P::splat(a.add(from_a + i));
                for v in 0..V {
                    sums[i][v] = P::add(value, columns[v], sums[i][v]);
                }
            }
        }
        for i in 0..R {
            for v in 0..V {
                let ColumnVector { c: column, keep, .. } = vectors[v];
                put::<P::Lanes>(c.add(i * call.pitch + column), keep, sums[i][v], call.add);
            }
        }
    }
}
