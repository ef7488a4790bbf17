//! What the tables of `isa::tables` compute, for a whole warp.
//!
//! Every lane is computed and only those of the mask are written: a loop without branches is one the compiler
//! vectorises. Each table is compiled twice, for any machine and for one with AVX2 and FMA, and gives the
//! same bits.

use super::float::{
    self, Half, both, copy_sign, flush, half, half_extreme, max, max_double, min, min_double,
};
use super::registers::{Bf16, F16, Lane, Registers, store};
use crate::isa::tables::{binary_rows, comparison_rows, ternary_rows, unary_rows};
use crate::isa::{Arithmetic, Binary, Compare, Ternary, Unary};
use crate::lanes::LANES;

/// Whether this machine has what the faster copy of the tables was compiled for.
pub fn fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[inline(always)]
fn map1<A: Lane, D: Lane>(r: &mut Registers, [d, a]: [u32; 2], mask: u32, f: impl Fn(A) -> D) {
    let a = A::row(r, a);
    let mut t = [D::Raw::default(); LANES];
    for lane in 0..LANES {
        t[lane] = f(A::from_raw(a[lane])).to_raw();
    }
    store(D::row_mut(r, d), &t, mask);
}

#[inline(always)]
fn map2<A: Lane, B: Lane, D: Lane>(r: &mut Registers, [d, a, b]: [u32; 3], mask: u32, f: impl Fn(A, B) -> D) {
    let (a, b) = (A::row(r, a), B::row(r, b));
    let mut t = [D::Raw::default(); LANES];
    for lane in 0..LANES {
        t[lane] = f(A::from_raw(a[lane]), B::from_raw(b[lane])).to_raw();
    }
    store(D::row_mut(r, d), &t, mask);
}

#[inline(always)]
fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(
    r: &mut Registers,
    [d, a, b, c]: [u32; 4],
    mask: u32,
    f: impl Fn(A, B, C) -> D,
) {
    let (a, b, c) = (A::row(r, a), B::row(r, b), C::row(r, c));
    let mut t = [D::Raw::default(); LANES];
    for lane in 0..LANES {
        t[lane] = f(A::from_raw(a[lane]), B::from_raw(b[lane]), C::from_raw(c[lane])).to_raw();
    }
    store(D::row_mut(r, d), &t, mask);
}

#[inline(always)]
fn compare2<A: Lane>(r: &Registers, [a, b]: [u32; 2], f: impl Fn(A, A) -> bool) -> u32 {
    let (a, b) = (A::row(r, a), A::row(r, b));
    let mut bits = 0;
    for lane in 0..LANES {
        bits |= u32::from(f(A::from_raw(a[lane]), A::from_raw(b[lane]))) << lane;
    }
    bits
}

/// The execution of a table's instructions for a warp.
macro_rules! arithmetic {
    (
        $run:ident $map:ident $(#[$doc:meta])* $name:ident, $count:literal, $fast:ident;
        $($variant:ident [$($key:literal)|+] ($($operand:ident: $type:ty),+) $result:ty => $value:expr;)+
    ) => {
        impl $name {
            /// Runs it: registers are the result's and then the operands'.
            #[inline]
            pub fn run(self, r: &mut Registers, at: [u32; $count], mask: u32, fast: bool) {
                #[cfg(target_arch = "x86_64")]
                if fast {
                    #[target_feature(enable = "avx2,fma")]
                    fn with_features(it: $name, r: &mut Registers, at: [u32; $count], mask: u32) {
                        $run::<true>(it, r, at, mask);
                    }
                    // SAFETY: `fast` comes from `fast()`, which found these features on this machine.
                    return unsafe { with_features(self, r, at, mask) };
                }
                let _ = fast;
                $run::<false>(self, r, at, mask);
            }
        }

        #[inline(always)]
        fn $run<const $fast: bool>(it: $name, r: &mut Registers, at: [u32; $count], mask: u32) {
            match it {
                $($name::$variant => $map(
                    r, at, mask, #[inline(always)] |$($operand: $type),+| -> $result { $value },
                ),)+
            }
        }
    };
}
unary_rows!(arithmetic run_unary map1);
binary_rows!(arithmetic run_binary map2);
ternary_rows!(arithmetic run_ternary map3);

/// `a b + c` with one rounding: by the instruction where the caller was compiled for it.
#[inline(always)]
fn fma<const HARDWARE: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HARDWARE { a.mul_add(b, c) } else { float::fma_exact(a, b, c) }
}

#[inline(always)]
fn shift_left(a: u64, by: u32, width: u32) -> u64 {
    if by < width { a << by } else { 0 }
}

#[inline(always)]
fn shift_right(a: u64, by: u32, width: u32) -> u64 {
    if by < width { a >> by } else { 0 }
}

/// The place of the highest bit that differs from the sign; all ones where there is none.
fn find_bit(a: u64, width: u32) -> u32 {
    if a == 0 { u32::MAX } else { width - 1 - (a << (64 - width)).leading_zeros() }
}

/// `length` ones from place `start` on.
fn bit_mask(start: u32, length: u32, clamp: bool) -> u32 {
    let (start, length) = if clamp { (start.min(32), length.min(32)) } else { (start & 31, length & 31) };
    (((1u64 << length) - 1) << start) as u32
}

/// The low `bits` bits, extended.
fn extend_from(a: u32, bits: u32, signed: bool) -> u32 {
    match bits {
        0 => 0,
        32 => a,
        _ if signed => ((a << (32 - bits)) as i32 >> (32 - bits)) as u32,
        _ => a & ((1 << bits) - 1),
    }
}

fn each_half(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// `fns`: the place of the set bit that is the `count`th from `base` on, upwards or (if negative) downwards.
fn find_set(bits: u32, base: u32, count: i32) -> u32 {
    if base > 31 {
        return u32::MAX;
    }
    if count == 0 {
        return if bits >> base & 1 != 0 { base } else { u32::MAX };
    }
    let set = |place: &u32| bits >> place & 1 != 0;
    let nth = count.unsigned_abs() as usize - 1;
    let found =
        if count > 0 { (base..32).filter(set).nth(nth) } else { (0..=base).rev().filter(set).nth(nth) };
    found.unwrap_or(u32::MAX)
}

fn bit_field(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let sign = if signed && length > 0 { a >> (position + length - 1).min(width - 1) & 1 } else { 0 };
    let field = shift_right(a, position, width);
    let kept = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    // Places past the end of the value are the sign too.
    let real = if position >= width { 0 } else { (1u128 << (width - position).min(64)) as u64 };
    let inside = if real == 0 && position < width { u64::MAX } else { real.wrapping_sub(1) };
    let inside = if position >= width { 0 } else { inside };
    let value = field & kept & inside;
    if sign == 1 { value | !(kept & inside) } else { value }
}

fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    (0..4).fold(0, |result, place| {
        let choice = selector >> (4 * place) & 15;
        let byte = (bytes >> (8 * (choice & 7)) & 255) as u32;
        let byte = if choice & 8 != 0 { if byte & 128 != 0 { 255 } else { 0 } } else { byte };
        result | byte << (8 * place)
    })
}

/// The special modes of prmt as a selector of the general one.
fn permute_mode(a: u32, b: u32, mode: u32, c: u32) -> u32 {
    let c = c & 3;
    let selector = match mode {
        0 => [0x3210, 0x4321, 0x5432, 0x6543][c as usize],
        1 => [0x5670, 0x6701, 0x7012, 0x0123][c as usize],
        2 => c * 0x1111,
        3 => [0x3210, 0x3211, 0x3222, 0x3333][c as usize],
        4 => [0x0000, 0x1110, 0x2210, 0x3210][c as usize],
        _ => [0x1010, 0x3232, 0x1010, 0x3232][c as usize],
    };
    permute(a, b, selector)
}

fn dot4(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let part = |x: u32, place: u32, signed: bool| {
        let byte = (x >> (8 * place)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..4)
        .fold(c, |sum, place| sum.wrapping_add((part(a, place, a_signed) * part(b, place, b_signed)) as u32))
}

/// Two 16-bit parts of `a` times two bytes of `b`, the upper two if `upper`.
fn dot2(a: u32, b: u32, c: u32, upper: bool, a_signed: bool, b_signed: bool) -> u32 {
    (0..2).fold(c, |sum, place| {
        let half = (a >> (16 * place)) as u16;
        let byte = (b >> (8 * (place + if upper { 2 } else { 0 }))) as u8;
        let half = if a_signed { i32::from(half as i16) } else { i32::from(half) };
        let byte = if b_signed { i32::from(byte as i8) } else { i32::from(byte) };
        sum.wrapping_add((half * byte) as u32)
    })
}

fn funnel(low: u32, high: u32, by: u32, left: bool) -> u32 {
    let both = u64::from(high) << 32 | u64::from(low);
    if left { ((both << by) >> 32) as u32 } else { (both >> by) as u32 }
}

fn multiply24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xFF_FFFF) * u64::from(b & 0xFF_FFFF)
}

fn multiply24_signed(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

fn high64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

fn high64_signed(a: i64, b: i64) -> i64 {
    ((i128::from(a) * i128::from(b)) >> 64) as i64
}

fn to_i32(x: f32, rounded: f32) -> i32 {
    if x.is_nan() { 0 } else { rounded as i32 }
}

fn map_half<H: Half>(a: H, f: impl Fn(f32) -> f32) -> H {
    H::rounded(f64::from(f(a.wide())))
}

/// The outcome of a comparison for a warp.
macro_rules! comparisons {
    ($($variant:ident [$($key:literal)|+] $type:ty => |$a:ident, $b:ident| $value:expr;)+) => {
        impl Compare {
            /// A bit for each lane of which it holds.
            #[inline]
            pub fn run(self, r: &Registers, at: [u32; 2], fast: bool) -> u32 {
                #[cfg(target_arch = "x86_64")]
                if fast {
                    #[target_feature(enable = "avx2,fma")]
                    fn with_features(it: Compare, r: &Registers, at: [u32; 2]) -> u32 {
                        run_compare(it, r, at)
                    }
                    // SAFETY: `fast` comes from `fast()`, which found these features on this machine.
                    return unsafe { with_features(self, r, at) };
                }
                let _ = fast;
                run_compare(self, r, at)
            }
        }

        // Negated comparisons are meant: they hold for NaN.
        #[allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons, clippy::nonminimal_bool)]
        #[inline(always)]
        fn run_compare(it: Compare, r: &Registers, at: [u32; 2]) -> u32 {
            match it {
                $(Compare::$variant => compare2(r, at, #[inline(always)] |$a: $type, $b: $type| $value),)+
            }
        }
    };
}
comparison_rows!(comparisons);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_reach_past_the_end() {
        assert_eq!(bit_field(0xABCD_1234, 4, 8, 32, false), 0x23);
        assert_eq!(bit_field(0x8000_0000, 28, 8, 32, true) as u32, 0xFFFF_FFF8);
        assert_eq!(bit_field(0x8000_0000, 40, 8, 32, true) as u32, 0xFFFF_FFFF);
        assert_eq!(bit_field(0x8000_0000, 40, 8, 32, false), 0);
        assert_eq!(bit_field(0xFFFF_FFFF, 0, 0, 32, true), 0);
        assert_eq!(bit_field(u64::MAX, 0, 64, 64, false), u64::MAX);
        assert_eq!(bit_field(0x80, 0, 8, 64, true) as i64, -128);
    }
}
