//! Numbers other than f32 and integers: half types, conversions with their rounding, approximate functions.
//!
//! The approximate functions of a GPU differ from these in their last bits; here they are as exact as the host's.

use crate::op::{FloatBinary, FloatUnary, Mode, Rounding, Type, Width};

/// Denormals to zero of the same sign.
#[inline(always)]
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[inline(always)]
pub fn enter(value: f32, mode: Mode) -> f32 {
    if mode.ftz { flush(value) } else { value }
}

/// What a result becomes: flushed, clamped to 0..1 with NaN to 0.
#[inline(always)]
pub fn leave(value: f32, mode: Mode) -> f32 {
    let value = if mode.ftz { flush(value) } else { value };
    if mode.sat { if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } } else { value }
}

/// The canonical NaN of arithmetic results.
#[inline(always)]
pub fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

pub fn half_to_f32(bits: u16, kind: Type) -> f32 {
    match kind {
        Type::Bf16 => f32::from_bits(u32::from(bits) << 16),
        _ => half::f16::from_bits(bits).to_f32(),
    }
}

/// f32 to a half type.
pub fn f32_to_half(value: f32, kind: Type, rounding: Rounding) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let nearest = match kind {
        Type::Bf16 => half::bf16::from_f32(value).to_bits(),
        _ => half::f16::from_f32(value).to_bits(),
    };
    let back = half_to_f32(nearest, kind);
    let magnitude = |bits: u16, step: i32| {
        // One step away from or towards zero, the sign kept.
        (bits & 0x8000) | ((i32::from(bits & 0x7fff) + step) as u16 & 0x7fff)
    };
    let too_far = match rounding {
        Rounding::Nearest => false,
        Rounding::Zero => back.abs() > value.abs(),
        Rounding::Down => back > value,
        Rounding::Up => back < value,
    };
    if !too_far {
        return nearest;
    }
    let away = match rounding {
        Rounding::Zero => -1,
        Rounding::Down => {
            if value > 0.0 {
                -1
            } else {
                1
            }
        }
        _ => {
            if value > 0.0 {
                1
            } else {
                -1
            }
        }
    };
    magnitude(nearest, away)
}

/// A double rounded to f32.
pub fn f64_to_f32(value: f64, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let step = |up: bool| {
        let bits = nearest.to_bits() as i32;
        let grow = (nearest > 0.0) == up;
        if nearest == 0.0 {
            return if up { f32::from_bits(1) } else { f32::from_bits(0x8000_0001) };
        }
        f32::from_bits((if grow { bits + 1 } else { bits - 1 }) as u32)
    };
    match rounding {
        _ if value.is_nan() || back == value => nearest,
        Rounding::Nearest => nearest,
        Rounding::Zero if back.abs() > value.abs() => step(value < 0.0),
        Rounding::Down if back > value => step(false),
        Rounding::Up if back < value => step(true),
        _ => nearest,
    }
}

fn to_integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// The widths' least and largest values.
fn bounds(kind: Type) -> Option<(i128, i128)> {
    Some(match kind {
        Type::S8 => (i8::MIN.into(), i8::MAX.into()),
        Type::U8 => (0, u8::MAX.into()),
        Type::Int(Width::S16) => (i16::MIN.into(), i16::MAX.into()),
        Type::Int(Width::U16) => (0, u16::MAX.into()),
        Type::Int(Width::S32) => (i32::MIN.into(), i32::MAX.into()),
        Type::Int(Width::U32) => (0, u32::MAX.into()),
        Type::Int(Width::S64) => (i64::MIN.into(), i64::MAX.into()),
        Type::Int(Width::U64) => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// The bits a register holds for a value of `kind`: signed values narrower than it are extended.
fn integer_bits(value: i128, kind: Type) -> u64 {
    match kind {
        Type::S8 => value as i8 as i32 as u32 as u64,
        Type::U8 => u64::from(value as u8),
        Type::Int(Width::S16 | Width::U16) => u64::from(value as u16),
        Type::Int(Width::S32 | Width::U32) => u64::from(value as u32),
        _ => value as u64,
    }
}

fn integer_of(bits: u64, kind: Type) -> i128 {
    match kind {
        Type::S8 => i128::from(bits as i8),
        Type::U8 => i128::from(bits as u8),
        Type::Int(Width::S16) => i128::from(bits as i16),
        Type::Int(Width::U16) => i128::from(bits as u16),
        Type::Int(Width::S32) => i128::from(bits as i32),
        Type::Int(Width::U32) => i128::from(bits as u32),
        Type::Int(Width::S64) => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

/// `cvt` of one value, from and to register bits.
pub fn convert(bits: u64, from: Type, to: Type, rounding: Rounding, integral: bool, mode: Mode) -> u64 {
    let source = match from {
        Type::F16 | Type::Bf16 => Some(f64::from(half_to_f32(bits as u16, from))),
        Type::F32 => Some(f64::from(enter(f32::from_bits(bits as u32), mode))),
        Type::F64 => Some(f64::from_bits(bits)),
        _ => None,
    };
    match (source, bounds(to)) {
        (Some(value), Some((least, most))) => {
            // NaN becomes 0; everything else saturates.
            let value = to_integral(value, rounding);
            let value = if value.is_nan() {
                0
            } else if value >= most as f64 {
                most
            } else if value <= least as f64 {
                least
            } else {
                value as i128
            };
            integer_bits(value, to)
        }
        (Some(value), None) => {
            let value = if integral { to_integral(value, rounding) } else { value };
            match to {
                Type::F64 => {
                    let value = if mode.sat {
                        if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
                    } else {
                        value
                    };
                    if value.is_nan() { 0x7fff_ffff_ffff_ffff } else { value.to_bits() }
                }
                Type::F32 => {
                    let result = leave(f64_to_f32(value, rounding), mode);
                    // Between f32s, the bits of a NaN stay; from another type they become the canonical ones.
                    u64::from(if from == Type::F32 { result.to_bits() } else { canonical(result) })
                }
                _ => {
                    // From a double in one rounding: to odd first, then to the half type.
                    let single = f64_to_f32(value, Rounding::Zero);
                    let sticky = f64::from(single) != value && !value.is_nan();
                    let odd = if sticky { f32::from_bits(single.to_bits() | 1) } else { single };
                    u64::from(f32_to_half(leave(odd, mode), to, rounding))
                }
            }
        }
        (None, Some((least, most))) => {
            let value = integer_of(bits, from);
            integer_bits(if mode.sat { value.clamp(least, most) } else { value }, to)
        }
        (None, None) => {
            let value = integer_of(bits, from);
            match to {
                Type::F64 => {
                    let nearest = value as f64;
                    let off = |result: f64| result as i128 - value;
                    let result = match rounding {
                        Rounding::Zero if off(nearest).abs() > 0 && (nearest.abs() as i128) > value.abs() => {
                            f64::from_bits(nearest.to_bits() - 1)
                        }
                        Rounding::Down if off(nearest) > 0 => f64::from_bits(if nearest > 0.0 {
                            nearest.to_bits() - 1
                        } else {
                            nearest.to_bits() + 1
                        }),
                        Rounding::Up if off(nearest) < 0 => f64::from_bits(if nearest > 0.0 {
                            nearest.to_bits() + 1
                        } else {
                            nearest.to_bits() - 1
                        }),
                        _ => nearest,
                    };
                    result.to_bits()
                }
                Type::F32 => {
                    let nearest = value as f32;
                    let over = nearest as i128 - value;
                    let step = |delta: i32| f32::from_bits((nearest.to_bits() as i32 + delta) as u32);
                    let positive = nearest > 0.0;
                    let result = match rounding {
                        Rounding::Zero if over != 0 && (over > 0) == positive => step(-1),
                        Rounding::Down if over > 0 => step(if positive { -1 } else { 1 }),
                        Rounding::Up if over < 0 => step(if positive { 1 } else { -1 }),
                        _ => nearest,
                    };
                    u64::from(result.to_bits())
                }
                _ => u64::from(f32_to_half(value as f32, to, rounding)),
            }
        }
    }
}

#[inline(always)]
pub fn minimum(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    }
}

#[inline(always)]
pub fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a > b {
        a
    } else {
        b
    }
}

/// `f32` in another rounding, from the exact result of f64 arithmetic where that is exact.
pub fn binary(op: FloatBinary, a: f32, b: f32, rounding: Rounding) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let exact = match op {
        FloatBinary::Mul => Some(x * y),
        FloatBinary::Add => sum_to_odd(x, y),
        FloatBinary::Sub => sum_to_odd(x, -y),
        _ => None,
    };
    match (op, rounding, exact) {
        (_, Rounding::Zero | Rounding::Down | Rounding::Up, Some(value)) => f64_to_f32(value, rounding),
        (FloatBinary::Add, ..) => a + b,
        (FloatBinary::Sub, ..) => a - b,
        (FloatBinary::Mul, ..) => a * b,
        (FloatBinary::Div, ..) => a / b,
        (FloatBinary::Min, ..) => minimum(a, b),
        (FloatBinary::Max, ..) => maximum(a, b),
        (FloatBinary::MinNan, ..) => {
            if a.is_nan() || b.is_nan() {
                f32::NAN
            } else {
                minimum(a, b)
            }
        }
        (FloatBinary::MaxNan, ..) => {
            if a.is_nan() || b.is_nan() {
                f32::NAN
            } else {
                maximum(a, b)
            }
        }
        (FloatBinary::Copysign, ..) => b.copysign(a),
    }
}

/// a b + c rounded once in any way: the product is exact in f64, the sum is taken to odd.
pub fn fused(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    match sum_to_odd(f64::from(a) * f64::from(b), f64::from(c)) {
        Some(value) => f64_to_f32(value, rounding),
        None => a.mul_add(b, c),
    }
}

/// The sum of two doubles, its last bit set where it is not exact, so that rounding it once more is right.
fn sum_to_odd(x: f64, y: f64) -> Option<f64> {
    let sum = x + y;
    if !sum.is_finite() {
        return Some(sum);
    }
    let tail = sum - x;
    let error = (x - (sum - tail)) + (y - tail);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return Some(sum);
    }
    let towards = if (error > 0.0) == (sum > 0.0) { sum.to_bits() | 1 } else { sum.to_bits() - 1 };
    Some(f64::from_bits(towards))
}

pub fn unary(op: FloatUnary, a: f32) -> f32 {
    match op {
        FloatUnary::Neg => -a,
        FloatUnary::Abs => a.abs(),
        FloatUnary::Sqrt => a.sqrt(),
        FloatUnary::Rcp => 1.0 / a,
        FloatUnary::Rsqrt => (1.0 / f64::from(a).sqrt()) as f32,
        FloatUnary::Ex2 => f64::from(a).exp2() as f32,
        FloatUnary::Lg2 => f64::from(a).log2() as f32,
        FloatUnary::Sin => f64::from(a).sin() as f32,
        FloatUnary::Cos => f64::from(a).cos() as f32,
        FloatUnary::Tanh => f64::from(a).tanh() as f32,
    }
}

pub fn double_unary(op: FloatUnary, a: f64) -> f64 {
    match op {
        FloatUnary::Neg => -a,
        FloatUnary::Abs => a.abs(),
        FloatUnary::Sqrt => a.sqrt(),
        FloatUnary::Rcp => 1.0 / a,
        FloatUnary::Rsqrt => 1.0 / a.sqrt(),
        FloatUnary::Ex2 => a.exp2(),
        FloatUnary::Lg2 => a.log2(),
        FloatUnary::Sin => a.sin(),
        FloatUnary::Cos => a.cos(),
        FloatUnary::Tanh => a.tanh(),
    }
}

pub fn double(op: FloatBinary, a: f64, b: f64) -> f64 {
    match op {
        FloatBinary::Add => a + b,
        FloatBinary::Sub => a - b,
        FloatBinary::Mul => a * b,
        FloatBinary::Div => a / b,
        FloatBinary::Min | FloatBinary::MinNan => {
            if a.is_nan() {
                b
            } else if b.is_nan() || a < b {
                a
            } else {
                b
            }
        }
        FloatBinary::Max | FloatBinary::MaxNan => {
            if a.is_nan() {
                b
            } else if b.is_nan() || a > b {
                a
            } else {
                b
            }
        }
        FloatBinary::Copysign => b.copysign(a),
    }
}
