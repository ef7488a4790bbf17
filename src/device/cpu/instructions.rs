//! Which vector instructions the CPU twins may use, detected on first use.

use std::sync::LazyLock;

static FUSED: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
});

/// Whether the processor has AVX2 and fused multiply-add.
#[inline]
pub fn avx2_and_fma() -> bool {
    *FUSED
}
