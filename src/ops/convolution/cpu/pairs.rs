//! Sums of products of bf16, two products a step: the arithmetic of the instruction VDPBF16PS, and the same
//! on other processors.
//!
//! A step takes a pair of bf16 from each factor and does
//!
//! ```text
//! t   = sum + a.second b.second        rounded to the nearest f32, ties to even; subnormal results become 0
//! sum = t   + a.first  b.first         likewise
//! ```
//!
//! where the product itself is exact (16 bits of significand) and subnormal factors count as 0; both zeros
//! keep their sign. A result is subnormal if its value, rounded as if exponents had no end, is under 2^-126:
//! so 2^-126 - 2^-150 becomes 0, and 2^-126 - 2^-151 becomes 2^-126.
//!
//! Source: the operation of VDPBF16PS in Intel's Software Developer's Manual, volume 2 (the odd element of a
//! pair is added before the even one; DAZ, FTZ and rounding to the nearest whatever MXCSR says). Which of the
//! readings of it holds on an AMD processor (Zen 4) was found by trying: of seven, this one alone agreed, in
//! 26 million random steps over all exponents, and the border of the subnormal numbers was tried by hand;
//! `every_way_gives_the_same_bits` repeats that on the machine that runs it.

use super::lanes::{Lanes, Portable};
use super::tile::Products;

/// Two bf16 that are neighbours in a sum, the first in the lower half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Pair(u32);

/// The upper half of an f32, in place; a subnormal number becomes 0. Every f32 given holds a bf16.
#[inline(always)]
fn upper(value: f32) -> u32 {
    let bits = value.to_bits();
    bits & if bits & 0x7f80_0000 == 0 { 0x8000_0000 } else { 0xffff_0000 }
}

impl Pair {
    /// The pair of two f32 that hold bf16; subnormal ones become 0, as they count as 0 in a product.
    #[inline(always)]
    pub(super) fn of(first: f32, second: f32) -> Self {
        Self(upper(first) >> 16 | upper(second))
    }

    #[inline(always)]
    pub(super) fn first(self) -> f32 {
        f32::from_bits(self.0 << 16)
    }

    #[inline(always)]
    pub(super) fn second(self) -> f32 {
        f32::from_bits(self.0 & 0xffff_0000)
    }
}

/// sum + a b as one addition of a step does it.
///
/// In f64 the product is exact, and so is its sum with an f32 wherever that lies near the middle between two
/// f32 (the significands have 16 and 24 of 53 bits), so rounding twice rounds as once.
#[inline(always)]
fn add_product(a: f32, b: f32, sum: f32) -> f32 {
    /// From here on a value is rounded to 2^-126.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);
    let exact = f64::from(a) * f64::from(b) + f64::from(sum);
    if exact.abs() < LEAST { 0.0f32.copysign(exact as f32) } else { exact as f32 }
}

/// A step of one lane.
#[inline(always)]
fn step(a: Pair, b: Pair, sum: f32) -> f32 {
    add_product(a.first(), b.first(), add_product(a.second(), b.second(), sum))
}

/// Eight lanes in plain Rust.
pub(super) struct PortablePairs;

impl Products for PortablePairs {
    type Value = Pair;
    type Lanes = Portable;
    type Factors = [Pair; 8];

    #[inline(always)]
    unsafe fn load(from: *const Pair) -> [Pair; 8] {
        // SAFETY: eight values, as the caller promises.
        unsafe { from.cast::<[Pair; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const Pair) -> [Pair; 8] {
        // SAFETY: one value, as the caller promises.
        [unsafe { *from }; 8]
    }

    #[inline(always)]
    unsafe fn add(a: [Pair; 8], b: [Pair; 8], sums: <Portable as Lanes>::Vector) -> [f32; 8] {
        std::array::from_fn(|i| step(a[i], b[i], sums[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{EightPairs, FusedPairs, SixteenPairs};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m256bh, __m256i, __m512, __m512bh, _CMP_LE_OQ, _CMP_NEQ_OQ, _mm256_and_ps,
        _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_dpbf16_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_slli_epi32, _mm256_testz_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps,
    };
    use std::mem::transmute;

    use super::super::lanes::{Eight, Sixteen};
    use super::{Pair, Products, add_product};

    /// A 256-bit register with AVX512_BF16 and AVX-512VL.
    pub(in super::super) struct EightPairs;
    /// A 512-bit register with AVX512_BF16.
    pub(in super::super) struct SixteenPairs;
    /// A 256-bit register with AVX2 and FMA.
    pub(in super::super) struct FusedPairs;

    impl Products for EightPairs {
        type Value = Pair;
        type Lanes = Eight;
        type Factors = __m256bh;

        #[inline(always)]
        unsafe fn load(from: *const Pair) -> __m256bh {
            // SAFETY: the caller promises the instructions and the values; any bits are bf16.
            unsafe { transmute(_mm256_loadu_ps(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const Pair) -> __m256bh {
            // SAFETY: as above.
            unsafe { transmute(_mm256_set1_ps(*from.cast())) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256bh, b: __m256bh, sums: __m256) -> __m256 {
            // SAFETY: the caller promises the instructions.
            unsafe { _mm256_dpbf16_ps(sums, a, b) }
        }
    }

    impl Products for SixteenPairs {
        type Value = Pair;
        type Lanes = Sixteen;
        type Factors = __m512bh;

        #[inline(always)]
        unsafe fn load(from: *const Pair) -> __m512bh {
            // SAFETY: the caller promises the instructions and the values; any bits are bf16.
            unsafe { transmute(_mm512_loadu_ps(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const Pair) -> __m512bh {
            // SAFETY: as above.
            unsafe { transmute(_mm512_set1_ps(*from.cast())) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512bh, b: __m512bh, sums: __m512) -> __m512 {
            // SAFETY: the caller promises the instructions.
            unsafe { _mm512_dpbf16_ps(sums, a, b) }
        }
    }

    /// sums + a b. A fused multiply-add does the same but for results that are subnormal or as small as the
    /// least normal number, which are rare and computed again.
    #[inline(always)]
    unsafe fn add_fused(a: __m256, b: __m256, sums: __m256) -> __m256 {
        // SAFETY: the caller promises AVX2 and FMA.
        unsafe {
            let result = _mm256_fmadd_ps(a, b, sums);
            let size = _mm256_and_ps(result, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff)));
            let small = _mm256_cmp_ps::<_CMP_LE_OQ>(size, _mm256_set1_ps(f32::MIN_POSITIVE));
            let not_zero = _mm256_cmp_ps::<_CMP_NEQ_OQ>(result, _mm256_setzero_ps());
            if _mm256_testz_ps(small, not_zero) == 1 { result } else { add_one_by_one(a, b, sums) }
        }
    }

    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    fn add_one_by_one(a: __m256, b: __m256, sums: __m256) -> __m256 {
        // SAFETY: an array and a vector of eight f32 have the same bits.
        unsafe {
            let [a, b, sums] = [a, b, sums].map(|vector| transmute::<__m256, [f32; 8]>(vector));
            let results: [f32; 8] = std::array::from_fn(|i| add_product(a[i], b[i], sums[i]));
            transmute(results)
        }
    }

    impl Products for FusedPairs {
        type Value = Pair;
        type Lanes = Eight;
        type Factors = __m256i;

        #[inline(always)]
        unsafe fn load(from: *const Pair) -> __m256i {
            // SAFETY: the caller promises the instructions and the values.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const Pair) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_set1_epi32((*from).0.cast_signed()) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256i, b: __m256i, sums: __m256) -> __m256 {
            // SAFETY: the caller promises the instructions.
            unsafe {
                let upper = _mm256_set1_epi32(0xffff_0000u32.cast_signed());
                let second_a = _mm256_castsi256_ps(_mm256_and_si256(a, upper));
                let second_b = _mm256_castsi256_ps(_mm256_and_si256(b, upper));
                let sums = add_fused(second_a, second_b, sums);
                let first_a = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a));
                let first_b = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b));
                add_fused(first_a, first_b, sums)
            }
        }
    }
}

#[cfg(test)]
mod tests;
