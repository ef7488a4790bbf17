//! The processor's limits, measured on all threads of a pool at once: multiply-adds that stay in registers
//! (of f32, or of pairs of bf16), and a copy through main memory. The best of a few rounds counts, because
//! other programs can only slow a round down.

use std::hint::black_box;
use std::time::Instant;

use rayon::ThreadPool;

use super::instructions::{PairSums, Simd};
use crate::device::limits::Limits;

/// Rounds of which the best counts.
const ROUNDS: usize = 5;
/// Independent multiply-adds: their latency times how many start per cycle on current processors.
const CHAINS: usize = 12;
/// Lanes of the widest level; narrower ones take as many chains more.
const LANES: usize = 16;
/// Length of each chain: about a millisecond.
const LENGTH: usize = 1 << 19;
/// Bytes that all threads copy in a round, more than the caches hold.
const COPIED: usize = 256 << 20;

/// Measures both limits, in about half a second; `pairs` for a device that multiplies bf16.
pub(super) fn measure(pool: &ThreadPool, simd: Simd, pairs: Option<PairSums>) -> Limits {
    // Emulated products are slower than those of f32, which convolutions that use Winograd's algorithm do.
    let of_pairs = pairs.is_some_and(|pairs| !pairs.is_emulated());
    let threads = pool.current_num_threads();
    let best =
        |round: &mut dyn FnMut()| (0..ROUNDS).map(|_| seconds(&mut *round)).fold(f64::INFINITY, f64::min);
    let arithmetic = best(&mut || {
        pool.broadcast(|_| match of_pairs {
            true => black_box(pair_chains(black_box(0.999), black_box(0.001))),
            false => black_box(chains(simd, black_box(0.999), black_box(0.001))),
        });
    });
    let products = if of_pairs { 2 } else { 1 };
    let values = if simd == Simd::Avx512 { CHAINS * LANES } else { CHAINS * LANES / 2 };
    let part = COPIED / threads / size_of::<f32>();
    let mut parts: Vec<[Vec<f32>; 2]> = (0..threads).map(|_| [vec![1.0; part], vec![0.0; part]]).collect();
    let copying = best(&mut || {
        pool.scope(|scope| {
            for [from, to] in &mut parts {
                scope.spawn(|_| black_box(to).copy_from_slice(black_box(from)));
            }
        });
    });
    Limits {
        flops: (threads * 2 * products * values * LENGTH) as f64 / arithmetic,
        bytes: (threads * part * 2 * size_of::<f32>()) as f64 / copying,
        source: "measured on these threads; data that stays in caches is faster",
    }
}

fn seconds(round: &mut dyn FnMut()) -> f64 {
    let started = Instant::now();
    round();
    started.elapsed().as_secs_f64()
}

/// Chains of s = s a + b; returns their last values, so that the compiler cannot drop any. Levels under
/// AVX-512 use half the lanes.
fn chains(simd: Simd, a: f32, b: f32) -> [[f32; LANES]; CHAINS] {
    assert!(simd.is_available());
    let mut sums = [[1.0f32; LANES]; CHAINS];
    match simd {
        // SAFETY: the processor has the level.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => unsafe { avx2(a, b, &mut sums) },
        // SAFETY: the processor has the level.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => unsafe { avx512(a, b, &mut sums) },
        _ => {
            for _ in 0..LENGTH {
                sums.iter_mut().for_each(|sums| sums[..LANES / 2].iter_mut().for_each(|s| *s = *s * a + b));
            }
        }
    }
    sums
}

/// Chains of s = s + two products of bf16.
fn pair_chains(a: f32, b: f32) -> [[f32; LANES]; CHAINS] {
    assert!(PairSums::Avx512.is_available());
    let mut sums = [[1.0f32; LANES]; CHAINS];
    // SAFETY: the processor has the instruction.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        avx512_pairs(a, b, &mut sums);
    }
    sums
}

/// # Safety
/// The processor has AVX512_BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512_pairs(a: f32, b: f32, last: &mut [[f32; LANES]; CHAINS]) {
    use std::arch::x86_64::{_mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_set1_ps, _mm512_storeu_ps};

    let [a, b] = [a, b].map(|value| _mm512_set1_ps(value));
    let (a, b) = (_mm512_cvtne2ps_pbh(a, a), _mm512_cvtne2ps_pbh(b, b));
    let mut sums = [_mm512_set1_ps(1.0); CHAINS];
    for _ in 0..LENGTH {
        sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, a, b));
    }
    for (last, sum) in last.iter_mut().zip(sums) {
        // SAFETY: `last` holds as many values as a vector.
        unsafe { _mm512_storeu_ps(last.as_mut_ptr(), sum) };
    }
}

/// A level's chains: twelve sums and two factors fit sixteen registers.
#[cfg(target_arch = "x86_64")]
macro_rules! level {
    ($name:ident, $features:literal, $lanes:literal, $set:ident, $fma:ident, $store:ident) => {
        /// # Safety
        /// The processor has the instructions.
        #[target_feature(enable = $features)]
        unsafe fn $name(a: f32, b: f32, last: &mut [[f32; LANES]; CHAINS]) {
            use std::arch::x86_64::{$fma, $set, $store};

            let (a, b) = ($set(a), $set(b));
            let mut sums = [$set(1.0); CHAINS];
            for _ in 0..LENGTH {
                sums.iter_mut().for_each(|sum| *sum = $fma(*sum, a, b));
            }
            for (last, sum) in last.iter_mut().zip(sums) {
                let part = &mut last[..$lanes];
                // SAFETY: `part` holds as many values as a vector.
                unsafe { $store(part.as_mut_ptr(), sum) };
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
level!(avx2, "avx2,fma", 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);
#[cfg(target_arch = "x86_64")]
level!(avx512, "avx512f", 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
