//! `cvt` between any two types, one lane at a time: what the tables of `alu` have no row for.

use super::float::{self, Format, flush, narrow, saturate_double};
use super::registers::{Bf16, F16};
use crate::isa::{Convert, Round, Type};

/// The bits of the converted value, extended to 64 bits by its sign where it has one.
pub fn convert(it: &Convert, bits: u64) -> u64 {
    if matches!(it.from, Type::E4m3x2 | Type::E5m2x2) {
        return widen_pair(it, bits);
    }
    if matches!(it.to, Type::E4m3x2 | Type::E5m2x2) {
        return narrow_pair(it, bits);
    }
    match (it.from.is_float(), it.to.is_float()) {
        (false, false) => integer_to_integer(it, bits),
        (false, true) => {
            let exact = it.from.extend(bits);
            let near = exact as f64;
            float_bits(it, near, (exact - near as i128) as f64)
        }
        (true, false) => float_to_integer(it, real(it, bits)),
        (true, true) => {
            let value = real(it, bits);
            let value = match it.integral {
                Some(mode) => integral(value, mode),
                None => value,
            };
            float_bits(it, value, 0.0)
        }
    }
}

/// Two numbers of eight bits as two halves, the upper one in the upper half.
fn widen_pair(it: &Convert, bits: u64) -> u64 {
    let part = |byte: u8| {
        let value = match it.from {
            Type::E4m3x2 => float::from_e4m3(byte),
            _ => f64::from(F16(u16::from(byte) << 8).to_f32()),
        };
        u64::from(narrow(if it.relu { value.max(0.0) } else { value }, float::HALF, Round::Nearest))
    };
    part((bits >> 8) as u8) << 16 | part(bits as u8)
}

/// Two halves as two numbers of eight bits.
fn narrow_pair(it: &Convert, bits: u64) -> u64 {
    let part = |half: u64| u64::from(eight_bits(it, f64::from(F16(half as u16).to_f32())));
    part(bits >> 16) << 8 | part(bits)
}

/// The e4m3 nearest to a magnitude, the even one of two. Its exponents reach one further than those of
/// formats with infinities, so that `narrow` has no format for it.
fn nearest_e4m3(size: f64) -> u8 {
    let above = (0..0x7E).find(|bits| float::from_e4m3(bits + 1) >= size);
    let Some(below) = above else { return 0x7E };
    let (low, high) = (size - float::from_e4m3(below), float::from_e4m3(below + 1) - size);
    if high < low || high == low && below % 2 == 1 { below + 1 } else { below }
}

/// The nearest number of eight bits; beyond the greatest, that one.
fn eight_bits(it: &Convert, value: f64) -> u8 {
    if value.is_nan() {
        return 0x7F;
    }
    let value = if it.relu { value.max(0.0) } else { value };
    let size = match it.to {
        Type::E4m3x2 => nearest_e4m3(value.abs()),
        _ => {
            let format = Format { mantissa: 2, least: -14, most: 15 };
            narrow(value.abs().min(57344.0), format, Round::Nearest) as u8 & 0x7F
        }
    };
    size | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// Two floats packed: `a` in the upper half.
pub fn pair(it: &Convert, a: u64, b: u64) -> u64 {
    if matches!(it.to, Type::E4m3x2 | Type::E5m2x2) {
        let part = |bits| u64::from(eight_bits(it, real(it, bits)));
        return part(a) << 8 | part(b);
    }
    let part = |bits| float_bits(it, real(it, bits), 0.0) & 0xFFFF;
    part(a) << 16 | part(b)
}

fn integer_to_integer(it: &Convert, bits: u64) -> u64 {
    let value = it.from.extend(bits);
    let value = if it.saturate {
        let (least, most) = it.to.range();
        value.clamp(least, most)
    } else {
        value
    };
    it.to.extend(value as u64) as u64
}

fn real(it: &Convert, bits: u64) -> f64 {
    match it.from {
        Type::F64 => f64::from_bits(bits),
        Type::F16 => f64::from(F16(bits as u16).to_f32()),
        Type::Bf16 => f64::from(Bf16(bits as u16).to_f32()),
        _ => {
            let value = f32::from_bits(bits as u32);
            f64::from(if it.ftz { flush(value) } else { value })
        }
    }
}

fn integral(value: f64, mode: Round) -> f64 {
    match mode {
        Round::Nearest => value.round_ties_even(),
        Round::Away => value.round(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

fn float_to_integer(it: &Convert, value: f64) -> u64 {
    if value.is_nan() {
        let wide = it.from == Type::F64 || it.to.bytes() == 8;
        return if wide { it.to.extend(1 << (8 * it.to.bytes() - 1)) as u64 } else { 0 };
    }
    let (least, most) = it.to.range();
    // The cast saturates at the ends of i128.
    let value = integral(value, it.integral.unwrap_or(Round::Zero)) as i128;
    value.clamp(least, most) as u64
}

/// `near + error` as the target type's bits.
fn float_bits(it: &Convert, near: f64, error: f64) -> u64 {
    let mut value = near;
    if it.relu && value <= 0.0 {
        value = 0.0;
    }
    if it.saturate {
        value = saturate_double(value);
    }
    if it.to == Type::F64 {
        let adjusted = match it.round {
            Round::Down if error < 0.0 => value.next_down(),
            Round::Up if error > 0.0 => value.next_up(),
            Round::Zero if error < 0.0 && value > 0.0 => value.next_down(),
            Round::Zero if error > 0.0 && value < 0.0 => value.next_up(),
            _ => value,
        };
        return adjusted.to_bits();
    }
    let odd = float::to_odd(value, error);
    let format: Format = match it.to {
        Type::F16 => float::HALF,
        Type::Bf16 => float::BRAIN,
        Type::Tf32 => float::TENSOR,
        _ => float::SINGLE,
    };
    let bits = narrow(odd, format, it.round);
    match it.to {
        Type::Tf32 => u64::from(bits) << 13,
        Type::F32 if it.ftz => u64::from(flush(f32::from_bits(bits)).to_bits()),
        _ => u64::from(bits),
    }
}
