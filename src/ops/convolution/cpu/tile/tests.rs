//! Tiles of every width and level on small integers.

use super::super::pairs::Pair;
use super::*;
use crate::device::cpu::instructions::{PairSums, Simd};

/// Factors whose products are known.
trait Exact: Value {
    fn of(first: f32, second: f32) -> Self;
    fn product(a: Self, b: Self) -> f32;
}

impl Exact for f32 {
    fn of(first: f32, _: f32) -> f32 {
        first
    }

    fn product(a: f32, b: f32) -> f32 {
        a * b
    }
}

impl Exact for Pair {
    fn of(first: f32, second: f32) -> Pair {
        Pair::of(first, second)
    }

    fn product(a: Pair, b: Pair) -> f32 {
        a.first() * b.first() + a.second() * b.second()
    }
}

/// Factors of small integers.
fn factors<T: Exact>(len: usize, salt: usize) -> Vec<T> {
    let (first, second) = (integers(len, salt), integers(len, salt + 5));
    first.into_iter().zip(second).map(|(first, second)| T::of(first, second)).collect()
}

/// Small integers: exact in f32 whatever the order, fused or not.
fn integers(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + salt) * 13 % 11) as f32 - 5.0).collect()
}

fn offsets(values: impl Iterator<Item = usize>) -> Offsets {
    let mut offsets = Offsets::default();
    values.for_each(|value| offsets.push(value));
    offsets
}

/// Rows of every number up to two tiles of every width, in segments, against the definition; what lies
/// outside the panel is not touched.
#[test]
fn rows_of_integers_are_exact() {
    Simd::available().for_each(check_rows::<f32>);
    PairSums::available().for_each(check_rows::<Pair>);
}

fn check_rows<T: Exact>(level: T::Level) {
    let segments = [Segment { start: 1, len: 5 }, Segment { start: 9, len: 4 }];
    let depth = 9;
    let pitch = 61;
    for (columns, count) in [1, 7, 8, 9, 16, 17, 24, 30, 32, 48, 57].into_iter().zip((1..26).cycle()) {
        for count in [count, 25] {
            for add in [false, true] {
                let a: Vec<T> = factors(count * 17, 1);
                let a_rows = offsets((0..count).map(|i| (count - 1 - i) * 17));
                let c_rows = offsets((0..count).map(|i| i * pitch));
                let before = integers(count * pitch, 3);
                let (mut c, mut want) = (before.clone(), before);
                for panel in panels::<T>(level, columns) {
                    let b: Vec<T> = factors(depth * panel.padded, panel.first);
                    for (i, j) in (0..count).flat_map(|i| (0..panel.width).map(move |j| (i, j))) {
                        let ks = (1..6).chain(9..13).enumerate();
                        let sum: f32 = ks
                            .map(|(row, k)| {
                                T::product(a[(count - 1 - i) * 17 + k], b[row * panel.padded + j])
                            })
                            .sum();
                        let value = &mut want[i * pitch + panel.first + j];
                        *value = sum + if add { *value } else { 0.0 };
                    }
                    let (a_rows, c_rows) = (&a_rows, &c_rows);
                    let segments = &segments;
                    Rows { a: &a, a_rows, segments, b: &b, c_rows, panel, add }.run(level, &mut c);
                }
                assert_eq!(c, want, "{level:?}: {count} rows, {columns} columns");
            }
        }
    }
}

#[test]
fn columns_of_integers_are_exact() {
    Simd::available().for_each(check_columns::<f32>);
    PairSums::available().for_each(check_columns::<Pair>);
}

fn check_columns<T: Exact>(level: T::Level) {
    let (count, pitch) = (13, 90);
    for lens in [vec![1], vec![8], vec![9, 9, 9], vec![24; 3], vec![16], vec![40], vec![64], vec![30, 2]] {
        for rows in 1..18 {
            for add in [false, true] {
                let mut steps = Steps::default();
                (0..count).for_each(|k| steps.push((k * 5 % 7) * rows, (k * 3 % 5) * 4));
                let mut at = 0;
                let runs: Vec<_> = lens
                    .iter()
                    .map(|&len| {
                        at += len;
                        (2 * (at - len), at - len, len)
                    })
                    .collect();
                let a: Vec<T> = factors(7 * rows, 1);
                let b: Vec<T> = factors(16 + 2 * at + 16, 2);
                let before = integers(rows * pitch, 3);
                let (mut c, mut want) = (before.clone(), before);
                for (i, &(from, to, len)) in (0..rows).flat_map(|i| runs.iter().map(move |r| (i, r))) {
                    for j in 0..len {
                        let term =
                            |k: usize| T::product(a[(k * 5 % 7) * rows + i], b[(k * 3 % 5) * 4 + from + j]);
                        let value = &mut want[i * pitch + to + j];
                        *value = (0..count).map(term).sum::<f32>() + if add { *value } else { 0.0 };
                    }
                }
                for panel in &vector_panels::<T>(level, &runs) {
                    let steps = &steps;
                    Columns { a: &a, b: &b, steps, rows, panel, pitch, add }.run(level, &mut c);
                }
                assert_eq!(c, want, "{level:?}: {rows} rows, {lens:?} columns");
            }
        }
    }
}

#[test]
#[should_panic(expected = "a_rows.largest + end <= a.len()")]
fn a_row_that_ends_too_soon_is_refused() {
    let panel = panels::<f32>(Simd::Portable, 8)[0];
    let (rows, segments) = (offsets([0, 4].into_iter()), [Segment { start: 0, len: 4 }]);
    let call = Rows {
        a: &[0.0; 7],
        a_rows: &rows,
        segments: &segments,
        b: &[0.0; 32],
        c_rows: &rows,
        panel,
        add: false,
    };
    call.run(Simd::Portable, &mut [0.0; 16]);
}
