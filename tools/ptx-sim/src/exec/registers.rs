//! A warp's registers: one row of 32 lanes for each, so that an instruction is a loop over two or three rows.

use crate::lanes::{FULL, LANES};

/// A row of registers of up to 32 bits.
pub type RowW = [u32; LANES];
/// A row of 64-bit registers.
pub type RowD = [u64; LANES];

/// The registers of one warp. Narrow registers (8 and 16 bits) lie zero-extended in 32-bit rows; a predicate
/// is a bit a lane.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    pub w: Vec<RowW>,
    pub d: Vec<RowD>,
    pub p: Vec<u32>,
    /// The carry flag, a bit a lane.
    pub carry: u32,
}

/// A type that instructions compute with, as it lies in a row.
pub trait Lane: Copy {
    type Raw: Copy + Default;
    fn row(registers: &Registers, index: u32) -> &[Self::Raw; LANES];
    fn row_mut(registers: &mut Registers, index: u32) -> &mut [Self::Raw; LANES];
    fn from_raw(raw: Self::Raw) -> Self;
    fn to_raw(self) -> Self::Raw;
}

/// An f16's bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct F16(pub u16);
/// A bf16's bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bf16(pub u16);

macro_rules! lane {
    ($type:ty, $raw:ty, $file:ident, $from:expr, $to:expr) => {
        impl Lane for $type {
            type Raw = $raw;
            #[inline(always)]
            fn row(registers: &Registers, index: u32) -> &[$raw; LANES] {
                &registers.$file[index as usize]
            }
            #[inline(always)]
            fn row_mut(registers: &mut Registers, index: u32) -> &mut [$raw; LANES] {
                &mut registers.$file[index as usize]
            }
            #[inline(always)]
            fn from_raw(raw: $raw) -> Self {
                $from(raw)
            }
            #[inline(always)]
            fn to_raw(self) -> $raw {
                $to(self)
            }
        }
    };
}

lane!(u16, u32, w, |raw| raw as u16, |value: u16| u32::from(value));
lane!(i16, u32, w, |raw| raw as i16, |value: i16| u32::from(value as u16));
lane!(u32, u32, w, |raw| raw, |value| value);
lane!(i32, u32, w, |raw| raw as i32, |value: i32| value as u32);
lane!(f32, u32, w, f32::from_bits, |value: f32| value.to_bits());
lane!(F16, u32, w, |raw| F16(raw as u16), |value: F16| u32::from(value.0));
lane!(Bf16, u32, w, |raw| Bf16(raw as u16), |value: Bf16| u32::from(value.0));
lane!(u64, u64, d, |raw| raw, |value| value);
lane!(i64, u64, d, |raw| raw as i64, |value: i64| value as u64);
lane!(f64, u64, d, f64::from_bits, |value: f64| value.to_bits());

/// Writes the lanes of `mask`.
#[inline(always)]
pub fn store<T: Copy>(row: &mut [T; LANES], values: &[T; LANES], mask: u32) {
    if mask == FULL {
        *row = *values;
    } else {
        blend(row, values, mask);
    }
}

#[inline(never)]
fn blend<T: Copy>(row: &mut [T; LANES], values: &[T; LANES], mask: u32) {
    for lane in 0..LANES {
        if mask >> lane & 1 != 0 {
            row[lane] = values[lane];
        }
    }
}
