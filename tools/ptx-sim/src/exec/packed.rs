//! Parts of registers: halves with modifiers, comparisons of halves, and the video instructions on bytes and
//! 16-bit parts.

use super::float::{self, Half, half, half_extreme};
use super::registers::{Bf16, F16};
use super::warp::Warp;
use crate::isa::{
    Arithmetic, HalfKind, HalfMath, HalfTest, Logic, NumberCompare, TestResult, Video, VideoKind, VideoPart,
};
use crate::lanes::{mask_of, row};

fn half_of<H: Half>(it: &HalfMath, a: H, b: H, c: H) -> H {
    let flush =
        |value: H| if it.ftz && value.bits() & 0x7C00 == 0 { H::of(value.bits() & 0x8000) } else { value };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let extreme = |larger: bool| {
        if it.nan && (a.wide().is_nan() || b.wide().is_nan()) {
            return H::of(0x7FFF);
        }
        if it.xor_sign {
            let sign = (a.bits() ^ b.bits()) & 0x8000;
            let size = half_extreme(larger, H::of(a.bits() & 0x7FFF), H::of(b.bits() & 0x7FFF));
            return H::of(size.bits() & 0x7FFF | sign);
        }
        half_extreme(larger, a, b)
    };
    let value = match it.kind {
        HalfKind::Add => half(Arithmetic::Add, a, b, c),
        HalfKind::Sub => half(Arithmetic::Sub, a, b, c),
        HalfKind::Mul => half(Arithmetic::Mul, a, b, c),
        HalfKind::Fma => half(Arithmetic::Fma, a, b, c),
        HalfKind::Min => extreme(false),
        HalfKind::Max => extreme(true),
        HalfKind::Neg => H::of(a.bits() ^ 0x8000),
        HalfKind::Abs => H::of(a.bits() & 0x7FFF),
    };
    let value = flush(value);
    if it.saturate {
        H::rounded(f64::from(float::saturate(value.wide())))
    } else if it.relu && (value.wide() < 0.0 || value.bits() == 0x8000) {
        H::of(0)
    } else {
        value
    }
}

/// Arithmetic of halves with any modifiers.
pub fn half_math(warp: &mut Warp, it: &HalfMath, mask: u32) {
    let [a, b, c] = it.operands.map(|reg| warp.registers.w[reg as usize]);
    let t = row(|lane| {
        let (a, b, c) = (a[lane], b[lane], c[lane]);
        let value = if it.brain {
            float::both::<Bf16>(a, b, c, |a, b, c| half_of(it, a, b, c))
        } else {
            float::both::<F16>(a, b, c, |a, b, c| half_of(it, a, b, c))
        };
        if it.pair { value } else { value & 0xFFFF }
    });
    warp.set_word(it.result, &t, mask);
}

impl NumberCompare {
    fn holds(self, a: f32, b: f32) -> bool {
        let ordered = !a.is_nan() && !b.is_nan();
        match self {
            Self::Eq => a == b,
            Self::Ne => ordered && a != b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
            Self::Equ => !ordered || a == b,
            Self::Neu => a != b,
            Self::Ltu => !ordered || a < b,
            Self::Leu => !ordered || a <= b,
            Self::Gtu => !ordered || a > b,
            Self::Geu => !ordered || a >= b,
            Self::Num => ordered,
            Self::Nan => !ordered,
        }
    }
}

/// Comparisons of halves.
pub fn half_test(warp: &mut Warp, it: &HalfTest, mask: u32) {
    let [a, b] = it.operands.map(|reg| warp.registers.w[reg as usize]);
    let wide = |bits: u32| {
        let bits = bits as u16;
        let bits = if it.ftz && bits & 0x7C00 == 0 { bits & 0x8000 } else { bits };
        if it.brain { Bf16(bits).wide() } else { F16(bits).wide() }
    };
    let combined = |bits: u32, warp: &Warp| match it.combine {
        None => bits,
        Some((logic, p, negated)) => {
            let p = warp.registers.p[p as usize] ^ if negated { u32::MAX } else { 0 };
            match logic {
                Logic::And => bits & p,
                Logic::Or => bits | p,
                Logic::Xor => bits ^ p,
            }
        }
    };
    let test = |shift: u32| mask_of(|lane| it.compare.holds(wide(a[lane] >> shift), wide(b[lane] >> shift)));
    let low = combined(test(0), warp);
    // The second half of a pair; of a single value the opposite.
    let high = if it.pair { combined(test(16), warp) } else { combined(!test(0), warp) };
    match it.result {
        TestResult::Predicates(p, q) => {
            p.into_iter().for_each(|p| warp.set_predicate(p, low, mask));
            q.into_iter().for_each(|q| warp.set_predicate(q, high, mask));
        }
        TestResult::Value(d, one) => {
            let t = row(|lane| {
                let part = |bits: u32| if bits >> lane & 1 != 0 { one } else { 0 };
                if it.pair { part(low) & 0xFFFF | part(high) << 16 } else { part(low) }
            });
            warp.set_word(d, &t, mask);
        }
    }
}

/// A part of a register as a number.
fn part_of(bits: u32, part: VideoPart, signed: bool) -> i64 {
    let VideoPart { shift, bits: width } = part;
    let field = u64::from(bits >> shift) & ((1 << width) - 1);
    if signed { ((field << (64 - width)) as i64) >> (64 - width) } else { field as i64 }
}

fn saturated(value: i64, width: u32, signed: bool) -> i64 {
    if signed {
        value.clamp(-(1 << (width - 1)), (1 << (width - 1)) - 1)
    } else {
        value.clamp(0, (1 << width) - 1)
    }
}

fn video_value(it: &Video, a: i64, b: i64, c: i64) -> i64 {
    match it.kind {
        VideoKind::Add => a + b,
        VideoKind::Sub => a - b,
        VideoKind::Difference => (a - b).abs(),
        VideoKind::Average => (a + b + i64::from(a + b >= 0)) >> 1,
        VideoKind::Min => a.min(b),
        VideoKind::Max => a.max(b),
        VideoKind::ShiftLeft => a << it.shift_of(b),
        VideoKind::ShiftRight => a >> it.shift_of(b),
        VideoKind::MultiplyAdd => (a * b + c) >> it.scale,
        VideoKind::Test(compare) => i64::from(match compare {
            NumberCompare::Eq => a == b,
            NumberCompare::Ne => a != b,
            NumberCompare::Lt => a < b,
            NumberCompare::Le => a <= b,
            NumberCompare::Gt => a > b,
            _ => a >= b,
        }),
    }
}

impl Video {
    /// Shifts clamp at 32 bits or wrap around.
    fn shift_of(&self, by: i64) -> i64 {
        if self.wraps { by & 31 } else { (by & 0xFFFF_FFFF).min(32) }
    }
}

/// One lane: scalar forms have one part, the others two or four.
fn video_lane(it: &Video, a: u32, b: u32, c: u32) -> u32 {
    let mut merged = c;
    let mut sum = c;
    let third = if it.d_signed { i64::from(c as i32) } else { i64::from(c) };
    for (index, [pa, pb]) in it.parts.iter().enumerate() {
        // A SIMD selector may name parts of either operand.
        let pick = |part: VideoPart, signed: bool| {
            let source = if part.shift >= 32 { b } else { a };
            part_of(source, VideoPart { shift: part.shift % 32, ..part }, signed)
        };
        let (x, y) = (pick(*pa, it.a_signed), pick(*pb, it.b_signed));
        let mut value = video_value(it, x, y, third);
        let width = it.result[index].bits;
        if it.saturate {
            value = saturated(value, width, it.d_signed);
        }
        if it.mask >> index & 1 == 0 {
            continue;
        }
        if let Some(second) = it.second {
            let kept = part_of(value as u32, VideoPart { shift: 0, bits: width }, it.d_signed);
            sum = match second {
                HalfKind::Min if it.d_signed => (sum as i32).min(kept as i32) as u32,
                HalfKind::Min => sum.min(kept as u32),
                HalfKind::Max if it.d_signed => (sum as i32).max(kept as i32) as u32,
                HalfKind::Max => sum.max(kept as u32),
                _ => sum.wrapping_add(kept as u32),
            };
            continue;
        }
        let VideoPart { shift, bits } = it.result[index];
        let kept = (((1u64 << bits) - 1) as u32) << shift;
        merged = merged & !kept | (value as u32) << shift & kept;
    }
    if it.second.is_some() { sum } else { merged }
}

/// Video instructions.
pub fn video(warp: &mut Warp, it: &Video, mask: u32) {
    let [a, b, c] = it.operands.map(|reg| warp.registers.w[reg as usize]);
    let t = row(|lane| video_lane(it, a[lane], b[lane], c[lane]));
    warp.set_word(it.register, &t, mask);
}
