//! Plain loops compiled twice: for any processor, and for AVX2, which is taken where this process uses it.
//!
//! No multiply is fused with an addition and no sum is reordered, so both versions give the same bits.
//! AVX-512 is left out: such loops wait for memory, and measured no faster with it.

/// Defines a function whose body is compiled for any processor and for AVX2. Closures and `#[inline(always)]`
/// functions in the body are compiled with it.
macro_rules! vectorised {
    ($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        fn $name($($argument: $type),*) {
            #[inline(always)]
            fn portable($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            if $crate::device::cpu::instructions::uses_avx2() {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($argument: $type),*) {
                    portable($($argument),*);
                }
                // SAFETY: a level is used only where the processor has it.
                return unsafe { with_avx2($($argument),*) };
            }
            portable($($argument),*);
        }
    };
}
pub(crate) use vectorised;
