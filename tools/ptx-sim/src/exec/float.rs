//! Floating-point arithmetic of one lane: rounding modes, narrow formats, and the corner cases in which PTX
//! differs from Rust.
//!
//! Everything that rounds goes through one idea. An exact result is kept as an f64 *rounded to odd*: if the
//! f64 is not exact, its last bit is set. With at least two bits more than the target, rounding that once
//! more, in any direction, is the same as rounding the exact value.

use super::registers::{Bf16, F16};
use crate::isa::{Arithmetic, Round};

/// Explicit mantissa bits and exponent range of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub mantissa: u32,
    pub least: i32,
    pub most: i32,
}

/// f32.
pub const SINGLE: Format = Format { mantissa: 23, least: -126, most: 127 };
/// bf16.
pub const BRAIN: Format = Format { mantissa: 7, least: -126, most: 127 };
/// f16.
pub const HALF: Format = Format { mantissa: 10, least: -14, most: 15 };
/// tf32.
pub const TENSOR: Format = Format { mantissa: 10, least: -126, most: 127 };

/// `x` in a narrower format, as that format's bits. NaN becomes the canonical one of all mantissa bits.
pub fn narrow(x: f64, format: Format, mode: Round) -> u32 {
    let Format { mantissa, least, most } = format;
    let width = 1 + mantissa + (32 - (most as u32).leading_zeros()) + 1;
    let sign = u32::from(x.is_sign_negative()) << (width - 1);
    let infinity = ((2 * most + 1) as u32) << mantissa;
    if x.is_nan() {
        return infinity | ((1 << mantissa) - 1);
    }
    let magnitude = x.abs();
    if magnitude.is_infinite() {
        return sign | infinity;
    }
    if magnitude == 0.0 {
        return sign;
    }
    let bits = magnitude.to_bits();
    // Subnormal f64 lie far below every target's least value: their exponent only has to be small.
    let exponent = ((bits >> 52) as i32 - 1023).max(-1022);
    let significand = if bits >> 52 == 0 { bits } else { bits & ((1 << 52) - 1) | 1 << 52 };
    // Bits of the significand below the target's last place.
    let mut drop = 52 - mantissa as i32;
    if exponent < least {
        drop += least - exponent;
    }
    let (kept, rest, half) = if drop >= 64 {
        (0, significand, u64::MAX)
    } else {
        (significand >> drop, significand & ((1u64 << drop) - 1), 1u64 << (drop - 1))
    };
    let negative = sign != 0;
    let up = match mode {
        Round::Nearest => rest > half || (rest == half && kept & 1 == 1),
        Round::Away => rest >= half,
        Round::Zero => false,
        Round::Down => negative && rest != 0,
        Round::Up => !negative && rest != 0,
    };
    let rounded = kept + u64::from(up);
    // A mantissa that carries over runs into the exponent by itself.
    let biased = if exponent < least {
        rounded as u32
    } else {
        (rounded as u32).wrapping_add(((exponent + most - 1) as u32) << mantissa)
    };
    if biased >= infinity {
        let finite = match mode {
            Round::Zero => true,
            Round::Down => !negative,
            Round::Up => negative,
            Round::Nearest | Round::Away => false,
        };
        return sign | if finite { infinity - 1 } else { infinity };
    }
    sign | biased
}

/// The f64 nearest to `value + error` by rounding to odd; |error| is less than half a unit in the last place
/// of `value`.
pub fn to_odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || !value.is_finite() || error.is_nan() {
        return value;
    }
    let bits = value.to_bits();
    if bits & 1 == 1 {
        return value;
    }
    // An even neighbour on the far side of the exact value: step towards the odd one on the exact value's
    // side.
    if (error > 0.0) == (value > 0.0) {
        f64::from_bits(bits | 1)
    } else {
        f64::from_bits(bits.wrapping_sub(1))
    }
}

/// `a + b` and what rounding lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let other = sum - a;
    (sum, (a - (sum - other)) + (b - other))
}

/// `a * b + c` of three values of at most 24 bits each, rounded to odd.
pub fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    let (sum, error) = two_sum(a * b, c);
    to_odd(sum, error)
}

/// `a * b + c` in f32 with one rounding, without an instruction for it.
#[inline]
pub fn fma_exact(a: f32, b: f32, c: f32) -> f32 {
    fma_odd(f64::from(a), f64::from(b), f64::from(c)) as f32
}

/// An operation on values of at most 24 bits, rounded to odd.
pub fn odd(operation: Arithmetic, a: f64, b: f64, c: f64) -> f64 {
    let quotient = |a: f64, b: f64| {
        let q = a / b;
        let rest = (-q).mul_add(b, a);
        to_odd(q, if (b < 0.0) == (rest < 0.0) { rest.abs() } else { -rest.abs() })
    };
    match operation {
        Arithmetic::Add => fma_odd(a, 1.0, b),
        Arithmetic::Sub => fma_odd(a, 1.0, -b),
        Arithmetic::Mul => a * b,
        Arithmetic::Fma => fma_odd(a, b, c),
        Arithmetic::Div => quotient(a, b),
        Arithmetic::Rcp => quotient(1.0, a),
        Arithmetic::Sqrt => {
            let root = a.sqrt();
            to_odd(root, (-root).mul_add(root, a))
        }
    }
}

/// An f32 operation with any rounding mode.
pub fn single(operation: Arithmetic, mode: Round, ftz: bool, sat: bool, values: [f32; 3]) -> f32 {
    let values = if ftz { values.map(flush) } else { values };
    let [a, b, c] = values.map(f64::from);
    let exact = odd(operation, a, b, c);
    let mut result = f32::from_bits(narrow(exact, SINGLE, mode));
    // An exact zero sum of opposite signs is -0 when rounding down.
    if exact == 0.0 && mode == Round::Down && matches!(operation, Arithmetic::Add | Arithmetic::Sub) {
        let other = if operation == Arithmetic::Add { b } else { -b };
        if !(a == 0.0 && other == 0.0 && a.is_sign_positive() && other.is_sign_positive()) {
            result = -0.0;
        }
    }
    if ftz {
        result = flush(result);
    }
    if sat { saturate(result) } else { result }
}

/// An f64 operation with any rounding mode.
pub fn double(operation: Arithmetic, mode: Round, [a, b, c]: [f64; 3]) -> f64 {
    // The nearest result and the sign of what is missing from it.
    let (near, error) = match operation {
        Arithmetic::Add => two_sum(a, b),
        Arithmetic::Sub => two_sum(a, -b),
        Arithmetic::Mul => (a * b, a.mul_add(b, -(a * b))),
        Arithmetic::Fma => {
            let near = a.mul_add(b, c);
            // a b + c - near = (p + q) + c - near, where p + q = a b exactly.
            let p = a * b;
            let q = a.mul_add(b, -p);
            let (s, t) = two_sum(p, c);
            (near, (s - near) + (t + q))
        }
        Arithmetic::Div | Arithmetic::Rcp => {
            let (a, b) = if operation == Arithmetic::Div { (a, b) } else { (1.0, a) };
            let near = a / b;
            let rest = (-near).mul_add(b, a);
            (near, if b < 0.0 { -rest } else { rest })
        }
        Arithmetic::Sqrt => (a.sqrt(), (-a.sqrt()).mul_add(a.sqrt(), a)),
    };
    if !near.is_finite() || error == 0.0 || error.is_nan() {
        return near;
    }
    match mode {
        Round::Nearest | Round::Away => near,
        Round::Down if error < 0.0 => near.next_down(),
        Round::Up if error > 0.0 => near.next_up(),
        Round::Zero if (error < 0.0) == (near > 0.0) => {
            if near > 0.0 {
                near.next_down()
            } else {
                near.next_up()
            }
        }
        _ => near,
    }
}

/// Subnormals become zero of the same sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7F80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// The sign of `a` on the magnitude of `b`.
#[inline(always)]
pub fn copy_sign(a: u32, b: u32) -> u32 {
    a & 0x8000_0000 | b & 0x7FFF_FFFF
}

/// To [0, 1]; NaN becomes 0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

/// To [0, 1]; NaN becomes 0.
pub fn saturate_double(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// PTX min: the number if one is NaN, and -0 below +0.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    let less = if a < b || (a == b && a.is_sign_negative()) { a } else { b };
    let less = if b.is_nan() { a } else { less };
    if a.is_nan() && b.is_nan() { f32::from_bits(0x7FFF_FFFF) } else { less }
}

/// PTX max: the number if one is NaN, and +0 above -0.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    let more = if a > b || (a == b && b.is_sign_negative()) { a } else { b };
    let more = if b.is_nan() { a } else { more };
    if a.is_nan() && b.is_nan() { f32::from_bits(0x7FFF_FFFF) } else { more }
}

/// The same in f64.
pub fn min_double(a: f64, b: f64) -> f64 {
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

/// The same in f64.
pub fn max_double(a: f64, b: f64) -> f64 {
    if b.is_nan() || a > b || (a == b && b.is_sign_negative()) { a } else { b }
}

impl F16 {
    /// Exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        let (sign, exponent, mantissa) =
            (u32::from(self.0 >> 15) << 31, u32::from(self.0 >> 10 & 31), u32::from(self.0 & 1023));
        match exponent {
            0 => {
                let value = mantissa as f32 / 16_777_216.0;
                f32::from_bits(value.to_bits() | sign)
            }
            31 => f32::from_bits(sign | 0x7F80_0000 | mantissa << 13),
            _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
        }
    }

    /// Of a value rounded to odd.
    pub fn from_odd(value: f64) -> Self {
        Self(narrow(value, HALF, Round::Nearest) as u16)
    }
}

impl Bf16 {
    /// Exactly.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Of a value rounded to odd.
    pub fn from_odd(value: f64) -> Self {
        Self(narrow(value, BRAIN, Round::Nearest) as u16)
    }

    /// To nearest, ties to even.
    #[inline(always)]
    pub fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16;
        Self(if value.is_nan() { 0x7FFF } else { rounded })
    }
}

/// The 16-bit formats that arithmetic is defined on.
pub trait Half: Copy {
    fn of(bits: u16) -> Self;
    fn bits(self) -> u16;
    fn wide(self) -> f32;
    fn rounded(value: f64) -> Self;
}

impl Half for F16 {
    fn of(bits: u16) -> Self {
        Self(bits)
    }
    fn bits(self) -> u16 {
        self.0
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    fn rounded(value: f64) -> Self {
        Self::from_odd(value)
    }
}

impl Half for Bf16 {
    fn of(bits: u16) -> Self {
        Self(bits)
    }
    fn bits(self) -> u16 {
        self.0
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    fn rounded(value: f64) -> Self {
        Self::from_odd(value)
    }
}

/// One 16-bit operation, rounded once.
pub fn half<H: Half>(operation: Arithmetic, a: H, b: H, c: H) -> H {
    H::rounded(odd(operation, f64::from(a.wide()), f64::from(b.wide()), f64::from(c.wide())))
}

/// The smaller (or larger) of two 16-bit values.
pub fn half_extreme<H: Half>(larger: bool, a: H, b: H) -> H {
    let value = if larger { max(a.wide(), b.wide()) } else { min(a.wide(), b.wide()) };
    if value.is_nan() { H::of(0x7FFF) } else { H::rounded(f64::from(value)) }
}

/// Both halves of a packed pair.
pub fn both<H: Half>(a: u32, b: u32, c: u32, f: impl Fn(H, H, H) -> H) -> u32 {
    let part = |shift: u32| {
        u32::from(
            f(H::of((a >> shift) as u16), H::of((b >> shift) as u16), H::of((c >> shift) as u16)).bits(),
        ) << shift
    };
    part(0) | part(16)
}

/// An e4m3's value: no infinities, one NaN.
pub fn from_e4m3(bits: u8) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => fraction * 2f64.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
    };
    if bits & 128 != 0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_to_f32_is_the_cast() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let exponent = 1023 - 160 + (state >> 33) % 300;
            let x = f64::from_bits(
                state & 0x8000_0000_0000_0000
                    | exponent << 52
                    | (state.rotate_left(20)) & ((1 << 52) - 1) & (u64::MAX << (state >> 8 & 31)),
            );
            assert_eq!(narrow(x, SINGLE, Round::Nearest), (x as f32).to_bits(), "{x:e}");
            let (down, up) = (
                f32::from_bits(narrow(x, SINGLE, Round::Down)),
                f32::from_bits(narrow(x, SINGLE, Round::Up)),
            );
            assert!(f64::from(down) <= x && x <= f64::from(up));
            assert!(down == up || down.next_up() == up);
        }
    }

    #[test]
    fn fused_without_hardware_is_the_library_function() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f32::from_bits((state >> 32) as u32)
        };
        for _ in 0..300_000 {
            let (a, b, c) = (next(), next(), next());
            let (ours, theirs) = (fma_exact(a, b, c), a.mul_add(b, c));
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{a:e} {b:e} {c:e}"
            );
            let near = -(a * b) * (1.0 + f32::EPSILON);
            let (ours, theirs) = (fma_exact(a, b, near), a.mul_add(b, near));
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{a:e} {b:e} {near:e}"
            );
        }
    }
}
