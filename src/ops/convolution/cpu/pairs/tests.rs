//! The arithmetic of a step, by every way that this processor has.

use super::super::tile::{Offsets, Rows, Segment, panels};
use super::*;
use crate::device::cpu::instructions::PairSums;

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `sums[i] + a b[i]`, as a tile adds it to zero and the result to `sums`.
fn tile(level: PairSums, a: &[Pair], b: &[Pair]) -> Vec<f32> {
    let steps = a.len();
    let panel = panels::<Pair>(level, 8)[0];
    let mut offsets = Offsets::default();
    offsets.push(0);
    let segments = &[Segment { start: 0, len: steps }];
    let mut sums = vec![0.0; 8];
    Rows { a, a_rows: &offsets, segments, b, c_rows: &offsets, panel, add: false }.run(level, &mut sums);
    sums
}

/// Bits, with all NaN alike: which of several NaN comes out is not the same everywhere.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

/// Chains of random bf16 of all exponents, of few, of tiny and of huge ones.
#[test]
fn every_way_gives_the_same_bits() {
    let mut state = 1;
    for (least, most) in [(0, 255), (100, 150), (124, 130), (40, 85), (50, 75), (0, 3), (180, 254)] {
        for _ in 0..2000 {
            let mut half = || {
                let word = random(&mut state);
                let exponent = least + (word >> 32) % (most - least + 1);
                f32::from_bits(((word & 1) << 31 | exponent << 23 | (word >> 8 & 0x7f) << 16) as u32)
            };
            let a: Vec<Pair> = (0..6).map(|_| Pair::of(half(), half())).collect();
            let b: Vec<Pair> = (0..6 * 8).map(|_| Pair::of(half(), half())).collect();
            let want: Vec<f32> =
                (0..8).map(|lane| (0..6).fold(0.0, |sum, k| step(a[k], b[k * 8 + lane], sum))).collect();
            for level in PairSums::available() {
                assert_eq!(bits(&tile(level, &a, &b)), bits(&want), "{level:?}");
            }
        }
    }
}

/// 2^exponent.
fn power(exponent: i32) -> f32 {
    2.0f32.powi(exponent)
}

/// Results beside the least normal number, which a first step brings into the sum.
#[test]
fn results_are_rounded_before_subnormal_ones_become_zero() {
    let least = f32::MIN_POSITIVE;
    let below = Pair::of(power(-75), 0.0);
    for (product, want) in [(-149, 0.0), (-150, 0.0), (-151, least), (-152, least)] {
        for level in PairSums::available() {
            let a = [Pair::of(power(-63), 0.0), below];
            let b = [[Pair::of(power(-63), 0.0); 8], [Pair::of(-power(product + 75), 0.0); 8]].concat();
            assert_eq!(tile(level, &a, &b), [want; 8], "{level:?}: 2^-126 - 2^{product}");
        }
    }
}

/// The order of a pair, exactness of a product, subnormal factors, the sign of zero.
#[test]
fn a_step_is_two_fused_additions() {
    let big = 16_777_216.0; // 2^24, whose neighbours are 2 apart
    assert_eq!(step(Pair::of(1.0, big), Pair::of(1.0, 1.0), 1.0), big, "(1 + 2^24) + 1");
    assert_eq!(step(Pair::of(big, 1.0), Pair::of(1.0, 1.0), 1.0), big + 2.0, "(1 + 1) + 2^24");
    let odd = 1.0 + power(-7);
    assert_eq!(step(Pair::of(0.0, odd), Pair::of(0.0, odd), -1.0), power(-6) + power(-14));
    assert_eq!(step(Pair::of(power(-127), 0.0), Pair::of(power(100), 0.0), 0.0), 0.0);
    let tiny = step(Pair::of(0.0, -power(-100)), Pair::of(0.0, power(-100)), -0.0);
    assert_eq!((tiny, tiny.is_sign_negative()), (0.0, false), "-0 and then + 0 0");
}
