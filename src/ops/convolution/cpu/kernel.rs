//! The register tile: up to 6 rows by 16 columns of a matrix product, with AVX2 and FMA if the processor has
//! them, else in plain Rust that the compiler vectorises. The choice is made once, at run time.

use crate::device::cpu::instructions::avx2_and_fma;

/// Rows of a tile.
pub(super) const ROWS: usize = 6;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 16;

/// A tile's sums.
pub(super) type Tile = [[f32; COLUMNS]; ROWS];

/// The sum over taps t and channels c of rows`[t]``[i]``[c]` * b`[(t * channels + c) * 16 + j]`. The rows are
/// read in place.
///
/// # Panics
/// If a row is shorter than `channels`, or `b` is too short: checked before any pointer is formed.
#[inline]
pub(super) fn gathered(rows: &[[&[f32]; ROWS]], channels: usize, b: &[f32], columns: usize) -> Tile {
    assert!(b.len() >= rows.len() * channels * COLUMNS);
    assert!(rows.iter().flatten().all(|row| row.len() >= channels));
    #[cfg(target_arch = "x86_64")]
    if avx2_and_fma() {
        // SAFETY: AVX2 and FMA were detected; the asserts above bound every read.
        return unsafe {
            if columns > 8 {
                avx2::gathered::<2>(rows, channels, b)
            } else {
                avx2::gathered::<1>(rows, channels, b)
            }
        };
    }
    let _ = columns;
    let mut tile = Tile::default();
    for (rows, b) in rows.iter().zip(b.chunks_exact(channels * COLUMNS)) {
        for (c, b) in b.chunks_exact(COLUMNS).enumerate() {
            for (sums, row) in tile.iter_mut().zip(rows) {
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += row[c] * b);
            }
        }
    }
    tile
}

/// The sum over k of a`[k * 6 + i]` * b`[k * 16 + j]`, both packed.
///
/// # Panics
/// If `a` and `b` do not hold the same number of steps.
#[inline]
pub(super) fn packed(a: &[f32], b: &[f32]) -> Tile {
    let steps = a.len() / ROWS;
    assert!(a.len() == steps * ROWS && b.len() == steps * COLUMNS);
    #[cfg(target_arch = "x86_64")]
    if avx2_and_fma() {
        // SAFETY: AVX2 and FMA were detected; the assert above bounds every read.
        return unsafe { avx2::packed(a, b) };
    }
    let mut tile = Tile::default();
    for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(COLUMNS)) {
        for (sums, a) in tile.iter_mut().zip(a) {
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    tile
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };

    use super::{COLUMNS, ROWS, Tile};

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store<const VECTORS: usize>(sums: &[[__m256; VECTORS]; ROWS]) -> Tile {
        let mut tile = Tile::default();
        for (row, sums) in tile.iter_mut().zip(sums) {
            for (part, sum) in row.chunks_exact_mut(8).zip(sums) {
                // SAFETY: `part` holds eight values.
                unsafe { _mm256_storeu_ps(part.as_mut_ptr(), *sum) };
            }
        }
        tile
    }

    /// # Safety
    /// The processor must have AVX2 and FMA; every row must hold `channels` values, and `b` taps * channels *
    /// 16.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn gathered<const VECTORS: usize>(
        rows: &[[&[f32]; ROWS]],
        channels: usize,
        b: &[f32],
    ) -> Tile {
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        let mut b = b.as_ptr();
        for rows in rows {
            let [r0, r1, r2, r3, r4, r5] = rows.map(<[f32]>::as_ptr);
            for c in 0..channels {
                // SAFETY: c < channels bounds the rows; b advances 16 values per channel, as the caller
                // promises.
                unsafe {
                    let columns: [__m256; VECTORS] = std::array::from_fn(|v| _mm256_loadu_ps(b.add(8 * v)));
                    let row = [r0.add(c), r1.add(c), r2.add(c), r3.add(c), r4.add(c), r5.add(c)];
                    for i in 0..ROWS {
                        let a = _mm256_broadcast_ss(&*row[i]);
                        for v in 0..VECTORS {
                            sums[i][v] = _mm256_fmadd_ps(a, columns[v], sums[i][v]);
                        }
                    }
                    b = b.add(COLUMNS);
                }
            }
        }
        store(&sums)
    }

    /// # Safety
    /// The processor must have AVX2 and FMA; `b` must hold 16 values for every 6 of `a`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn packed(a: &[f32], b: &[f32]) -> Tile {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        let (mut pa, mut pb) = (a.as_ptr(), b.as_ptr());
        for _ in 0..a.len() / ROWS {
            // SAFETY: both pointers advance by one step of the packed blocks per iteration.
            unsafe {
                let columns = [_mm256_loadu_ps(pb), _mm256_loadu_ps(pb.add(8))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_broadcast_ss(&*pa.add(i));
                    sums[0] = _mm256_fmadd_ps(a, columns[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(a, columns[1], sums[1]);
                }
                pa = pa.add(ROWS);
                pb = pb.add(COLUMNS);
            }
        }
        store(&sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers: exact in f32 whatever the order, fused or not.
    #[test]
    fn tiles_of_integers_are_exact() {
        let value = |i: usize| (i * 7 % 11) as f32 - 5.0;
        let (steps, taps, channels) = (12, 3, 4);
        let a: Vec<f32> = (0..steps * ROWS).map(value).collect();
        let b: Vec<f32> = (0..steps * COLUMNS).map(|i| value(3 * i + 1)).collect();
        let mut want = Tile::default();
        for k in 0..steps {
            for (i, row) in want.iter_mut().enumerate() {
                row.iter_mut().enumerate().for_each(|(j, sum)| *sum += a[k * ROWS + i] * b[k * COLUMNS + j]);
            }
        }
        assert_eq!(packed(&a, &b), want);
        let lines: Vec<Vec<f32>> = (0..taps * ROWS)
            .map(|line| (0..channels).map(|c| a[(line / ROWS * channels + c) * ROWS + line % ROWS]).collect())
            .collect();
        let rows: Vec<[&[f32]; ROWS]> =
            (0..taps).map(|tap| std::array::from_fn(|i| lines[tap * ROWS + i].as_slice())).collect();
        assert_eq!(gathered(&rows, channels, &b, COLUMNS), want);
        let narrow = gathered(&rows, channels, &b, 8);
        (0..ROWS).for_each(|i| assert_eq!(narrow[i][..8], want[i][..8]));
    }
}
