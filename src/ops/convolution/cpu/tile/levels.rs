//! The tiles of each level: functions that enable its instructions.

use super::super::lanes::Portable;
#[cfg(target_arch = "x86_64")]
use super::super::lanes::{Eight, Sixteen};
#[cfg(target_arch = "x86_64")]
use super::super::pairs::{EightPairs, FusedPairs, SixteenPairs};
use super::super::pairs::{Pair, PortablePairs};
use super::Value;
use super::columns::{Columns, columns};
use super::rows::{Rows, rows};
use crate::device::cpu::instructions::{PairSums, Simd};

/// Functions that enable a level's instructions, each with one tile: name, factors, rows, vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! level {
    ($features:literal, $value:ty; rows: $(($rows:ident, $rp:ty, $rr:literal, $rv:literal)),+;
     columns: $(($columns:ident, $cp:ty, $cr:literal, $cv:literal)),+) => {
        $(
            /// # Safety
            /// The processor has the instructions, and the extents are those asserted in `Rows::run`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $rows(call: &Rows<'_, $value>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe { rows::<$rp, $rr, $rv>(call, c) }
            }
        )+
        $(
            /// # Safety
            /// The processor has the instructions, and the extents are those asserted in `Columns::run`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $columns(call: &Columns<'_, $value>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe { columns::<$cp, $cr, $cv>(call, c) }
            }
        )+
    };
}

/// Sixteen registers: twelve sums, the columns and one value.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Columns, Eight, Rows, columns, rows};

    level!("avx2,fma", f32;
        rows: (rows_8, Eight, 12, 1), (rows_16, Eight, 6, 2);
        columns: (columns_1, Eight, 8, 1), (columns_2, Eight, 6, 2));
}

/// Thirty-two registers. Narrow panels take 256-bit vectors rather than half-empty ones.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Columns, Eight, Rows, Sixteen, columns, rows};

    level!("avx2,fma,avx512f,avx512vl", f32;
        rows: (rows_8, Eight, 12, 1), (rows_16, Eight, 8, 2), (rows_24, Eight, 8, 3),
            (rows_32, Sixteen, 8, 2), (rows_48, Sixteen, 8, 3);
        columns: (columns_1, Eight, 8, 1), (columns_2, Eight, 8, 2), (columns_3, Eight, 8, 3),
            (wide_columns_1, Sixteen, 8, 1), (wide_columns_2, Sixteen, 8, 2),
            (wide_columns_3, Sixteen, 8, 3));
}

/// A step of pairs takes several registers here, so fewer sums stay in them.
#[cfg(target_arch = "x86_64")]
mod avx2_pairs {
    use super::{Columns, FusedPairs, Pair, Rows, columns, rows};

    level!("avx2,fma", Pair;
        rows: (rows_8, FusedPairs, 4, 1), (rows_16, FusedPairs, 2, 2);
        columns: (columns_1, FusedPairs, 4, 1), (columns_2, FusedPairs, 2, 2));
}

/// As AVX-512 for f32: the instruction takes the same registers and the same bytes.
#[cfg(target_arch = "x86_64")]
mod avx512_pairs {
    use super::{Columns, EightPairs, Pair, Rows, SixteenPairs, columns, rows};

    level!("avx2,fma,avx512f,avx512vl,avx512bf16", Pair;
        rows: (rows_8, EightPairs, 12, 1), (rows_16, EightPairs, 8, 2), (rows_24, EightPairs, 8, 3),
            (rows_32, SixteenPairs, 8, 2), (rows_48, SixteenPairs, 8, 3);
        columns: (columns_1, EightPairs, 8, 1), (columns_2, EightPairs, 8, 2), (columns_3, EightPairs, 8, 3),
            (wide_columns_1, SixteenPairs, 8, 1), (wide_columns_2, SixteenPairs, 8, 2),
            (wide_columns_3, SixteenPairs, 8, 3));
}

/// A [`Value`] with its three levels, and the modules of the two that need instructions.
macro_rules! value {
    ($value:ty, $level:ident: $portable:ty, $avx2:ident, $avx512:ident) => {
        impl Value for $value {
            type Level = $level;

            fn is_available(level: $level) -> bool {
                level.is_available()
            }

            fn is_wide(level: $level) -> bool {
                level == $level::Avx512
            }

            unsafe fn rows(level: $level, call: &Rows<'_, $value>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe {
                    match (level, call.panel.padded) {
                        ($level::Portable, 8) => rows::<$portable, 4, 1>(call, c),
                        ($level::Portable, 16) => rows::<$portable, 4, 2>(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx2, 8) => $avx2::rows_8(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx2, 16) => $avx2::rows_16(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 8) => $avx512::rows_8(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 16) => $avx512::rows_16(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 24) => $avx512::rows_24(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 32) => $avx512::rows_32(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 48) => $avx512::rows_48(call, c),
                        _ => unreachable!("no tile of {level:?} for {:?}", call.panel),
                    }
                }
            }

            unsafe fn columns(level: $level, call: &Columns<'_, $value>, c: &mut [f32]) {
                // SAFETY: as the caller promises.
                unsafe {
                    match (level, call.panel.lanes, call.panel.vectors.len()) {
                        ($level::Portable, 8, 1) => columns::<$portable, 4, 1>(call, c),
                        ($level::Portable, 8, 2) => columns::<$portable, 4, 2>(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx2, 8, 1) => $avx2::columns_1(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx2, 8, 2) => $avx2::columns_2(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 8, 1) => $avx512::columns_1(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 8, 2) => $avx512::columns_2(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 8, 3) => $avx512::columns_3(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 16, 1) => $avx512::wide_columns_1(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 16, 2) => $avx512::wide_columns_2(call, c),
                        #[cfg(target_arch = "x86_64")]
                        ($level::Avx512, 16, 3) => $avx512::wide_columns_3(call, c),
                        _ => unreachable!("no tile of {level:?} for {:?}", call.panel),
                    }
                }
            }
        }
    };
}

value!(f32, Simd: Portable, avx2, avx512);
value!(Pair, PairSums: PortablePairs, avx2_pairs, avx512_pairs);
