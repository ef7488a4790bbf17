//! Large pages for large memory: fewer translations of addresses to look up. Measured 4 to 6 % of a step at
//! width 64.

use std::mem::MaybeUninit;

/// Memory under this stays on small pages: a large one has 2 MiB.
const LEAST: usize = 4 << 20;

/// Asks the system to put memory that is about to be filled on large pages. It may decline: nothing but the
/// time depends on it.
#[cfg(target_os = "linux")]
pub fn prefer_large<T>(memory: &mut [MaybeUninit<T>]) {
    const SMALL_PAGE: usize = 1 << 16; // at most, on any processor; 4 KiB on x86
    let bytes = size_of_val(memory);
    if bytes < LEAST {
        return;
    }
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(SMALL_PAGE);
    let len = (bytes - skipped) / SMALL_PAGE * SMALL_PAGE;
    // SAFETY: the range lies in `memory`, and the advice changes no contents.
    unsafe { libc::madvise(start.add(skipped).cast(), len, libc::MADV_HUGEPAGE) };
}

/// Elsewhere the system decides by itself.
#[cfg(not(target_os = "linux"))]
pub fn prefer_large<T>(_: &mut [MaybeUninit<T>]) {}
