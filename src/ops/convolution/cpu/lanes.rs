//! Vectors of f32, one implementation for each width of the processor's registers.
//!
//! What is written with them is generic and inlined into functions that enable the instructions, so each
//! algorithm exists once. Every operation is element by element, and `fma` rounds once in all vector
//! implementations, so their bits agree whatever the width.

/// A vector of [`Lanes::LANES`] f32.
///
/// # Safety
/// All functions: the caller runs on a processor with the instructions of the implementation, and pointers
/// are valid for `LANES` values (for one in `splat`). They need no alignment.
pub(super) trait Lanes {
    const LANES: usize;
    type Vector: Copy;

    /// All lanes `value`.
    unsafe fn set(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// All lanes the value at `from`.
    unsafe fn splat(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, values: Self::Vector);
    /// a b + c.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// Eight values, for the compiler to vectorise.
pub(super) struct Portable;

/// a b + c, rounded once where that is an instruction of the target that this is built for.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

impl Lanes for Portable {
    const LANES: usize = 8;
    type Vector = [f32; 8];

    #[inline(always)]
    unsafe fn set(value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: eight values, as the caller promises.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> [f32; 8] {
        // SAFETY: one value, as the caller promises.
        [unsafe { *from }; 8]
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [f32; 8]) {
        // SAFETY: eight values, as the caller promises.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(values) }
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for i in 0..8 {
            c[i] = multiply_add(a[i], b[i], c[i]);
        }
        c
    }

    #[inline(always)]
    unsafe fn add(mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }

    #[inline(always)]
    unsafe fn mul(mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Eight, Sixteen};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps,
        _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::Lanes;

    /// A 256-bit register: AVX2 and FMA.
    pub(in super::super) struct Eight;
    /// A 512-bit register: AVX-512F.
    pub(in super::super) struct Sixteen;

    macro_rules! register {
        ($name:ty, $vector:ty, $lanes:literal, $set:ident, $load:ident, $store:ident, $fma:ident, $add:ident,
         $mul:ident, $splat:expr) => {
            impl Lanes for $name {
                const LANES: usize = $lanes;
                type Vector = $vector;

                #[inline(always)]
                unsafe fn set(value: f32) -> $vector {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $set(value) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> $vector {
                    // SAFETY: the caller promises the instructions and the values.
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn splat(from: *const f32) -> $vector {
                    // SAFETY: the caller promises the instructions and the value.
                    unsafe { $splat(&*from) }
                }

                #[inline(always)]
                unsafe fn store(to: *mut f32, values: $vector) {
                    // SAFETY: the caller promises the instructions and the memory.
                    unsafe { $store(to, values) }
                }

                #[inline(always)]
                unsafe fn fma(a: $vector, b: $vector, c: $vector) -> $vector {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $fma(a, b, c) }
                }

                #[inline(always)]
                unsafe fn add(a: $vector, b: $vector) -> $vector {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $add(a, b) }
                }

                #[inline(always)]
                unsafe fn mul(a: $vector, b: $vector) -> $vector {
                    // SAFETY: the caller promises the instructions.
                    unsafe { $mul(a, b) }
                }
            }
        };
    }

    register!(
        Eight,
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_mul_ps,
        _mm256_broadcast_ss
    );
    register!(
        Sixteen,
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_mul_ps,
        |value: &f32| _mm512_set1_ps(*value)
    );
}
