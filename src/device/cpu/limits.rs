//! The processor's limits, measured on all threads of a pool at once: multiply-adds that stay in registers,
//! and a copy through main memory. The best of a few rounds counts, because other programs can only slow a
//! round down.

use std::hint::black_box;
use std::time::Instant;

use rayon::ThreadPool;

use crate::device::limits::Limits;

/// Rounds of which the best counts.
const ROUNDS: usize = 5;
/// Independent multiply-adds: their latency times how many start per cycle on current processors, 8 lanes
/// each.
const CHAINS: usize = 12;
const LANES: usize = 8;
/// Length of each chain: about a millisecond.
const LENGTH: usize = 1 << 19;
/// Bytes that all threads copy in a round, more than the caches hold.
const COPIED: usize = 256 << 20;

/// Measures both limits, in about half a second.
pub(super) fn measure(pool: &ThreadPool) -> Limits {
    let threads = pool.current_num_threads();
    let best =
        |round: &mut dyn FnMut()| (0..ROUNDS).map(|_| seconds(&mut *round)).fold(f64::INFINITY, f64::min);
    let arithmetic = best(&mut || {
        pool.broadcast(|_| black_box(chains(black_box(0.999), black_box(0.001))));
    });
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
        flops: (threads * 2 * CHAINS * LANES * LENGTH) as f64 / arithmetic,
        bytes: (threads * part * 2 * size_of::<f32>()) as f64 / copying,
        source: "measured on these threads; data that stays in caches is faster",
    }
}

fn seconds(round: &mut dyn FnMut()) -> f64 {
    let started = Instant::now();
    round();
    started.elapsed().as_secs_f64()
}

/// Chains of s = s a + b; returns their last values, so that the compiler cannot drop any.
fn chains(a: f32, b: f32) -> [[f32; LANES]; CHAINS] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: AVX2 and FMA were detected.
        return unsafe { fused(a, b) };
    }
    let mut sums = [[1.0f32; LANES]; CHAINS];
    for _ in 0..LENGTH {
        sums.iter_mut().flatten().for_each(|sum| *sum = *sum * a + b);
    }
    sums
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn fused(a: f32, b: f32) -> [[f32; LANES]; CHAINS] {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm256_storeu_ps};

    let (a, b) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
    let mut sums = [_mm256_set1_ps(1.0); CHAINS];
    for _ in 0..LENGTH {
        // Twelve sums and two factors fit the sixteen vector registers.
        sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, a, b));
    }
    let mut last = [[0.0; LANES]; CHAINS];
    for (last, sum) in last.iter_mut().zip(sums) {
        // SAFETY: `last` holds eight values.
        unsafe { _mm256_storeu_ps(last.as_mut_ptr(), sum) };
    }
    last
}
