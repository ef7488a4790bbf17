//! Arithmetic, logic and comparisons as tables: the instruction as PTX spells it, the types of its operands,
//! and what one lane computes. The decoder looks instructions up by that spelling, so one that isn't here is
//! refused.
//!
//! A row says all there is to know of its instruction, but only its spelling and types belong to the
//! instruction set: each table is a macro that hands its rows to another one. Here that makes the enum;
//! `exec::alu` makes the arithmetic of it.

/// An enum of instructions, its look-up by spelling and its operand types, of the rows of a table.
macro_rules! spellings {
    (
        $(#[$doc:meta])* $name:ident, $count:literal, $hardware:ident;
        $($variant:ident [$($key:literal)|+] ($($operand:ident: $type:ty),+) $result:ty => $value:expr;)+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[doc = concat!($("`", $key, "` "),+)] $variant),+ }

        impl $name {
            /// The instruction spelled so.
            pub fn find(spelling: &str) -> Option<Self> {
                Some(match spelling { $($($key)|+ => Self::$variant,)+ _ => return None })
            }

            /// Names of the types of the result and the operands.
            pub fn types(self) -> [&'static str; $count] {
                match self { $(Self::$variant => [stringify!($result), $(stringify!($type)),+],)+ }
            }
        }
    };
}

/// The same for comparisons, whose operands have one type and whose result is a predicate.
macro_rules! comparisons {
    ($($variant:ident [$($key:literal)|+] $type:ty => |$a:ident, $b:ident| $value:expr;)+) => {
        /// Comparisons of two operands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Compare { $(#[doc = concat!($("`", $key, "` "),+)] $variant),+ }

        impl Compare {
            /// The comparison of a type spelled so: `lt.s32`.
            pub fn find(spelling: &str) -> Option<Self> {
                Some(match spelling { $($($key)|+ => Self::$variant,)+ _ => return None })
            }

            /// The name of the operands' type.
            pub fn operand(self) -> &'static str {
                match self { $(Self::$variant => stringify!($type),)+ }
            }
        }
    };
}

/// The rows of [`Unary`], handed to the macro `with`.
macro_rules! unary_rows {
    ($with:ident $($more:ident)*) => { $with! { $($more)*
        /// Instructions of one operand.
        Unary, 2, HARDWARE;
        MovW ["mov.b8"|"mov.b16"|"mov.u16"|"mov.s16"|"mov.b32"|"mov.u32"|"mov.s32"|"mov.f32"|"mov.f16"|"mov.bf16"|"mov.f16x2"|"mov.bf16x2"] (a: u32) u32 => a;
        MovD ["mov.b64"|"mov.u64"|"mov.s64"|"mov.f64"] (a: u64) u64 => a;
        Not16 ["not.b16"] (a: u16) u16 => !a;
        Not32 ["not.b32"] (a: u32) u32 => !a;
        Not64 ["not.b64"] (a: u64) u64 => !a;
        Cnot16 ["cnot.b16"] (a: u16) u16 => u16::from(a == 0);
        Cnot32 ["cnot.b32"] (a: u32) u32 => u32::from(a == 0);
        Cnot64 ["cnot.b64"] (a: u64) u64 => u64::from(a == 0);
        Neg16 ["neg.s16"] (a: i16) i16 => a.wrapping_neg();
        Neg32 ["neg.s32"] (a: i32) i32 => a.wrapping_neg();
        Neg64 ["neg.s64"] (a: i64) i64 => a.wrapping_neg();
        Abs16 ["abs.s16"] (a: i16) i16 => a.wrapping_abs();
        Abs32 ["abs.s32"] (a: i32) i32 => a.wrapping_abs();
        Abs64 ["abs.s64"] (a: i64) i64 => a.wrapping_abs();
        NegF32 ["neg.f32"] (a: u32) u32 => a ^ 0x8000_0000;
        NegF32z ["neg.ftz.f32"] (a: f32) f32 => -flush(a);
        AbsF32 ["abs.f32"] (a: u32) u32 => a & 0x7FFF_FFFF;
        AbsF32z ["abs.ftz.f32"] (a: f32) f32 => flush(a).abs();
        NegF64 ["neg.f64"] (a: u64) u64 => a ^ 1 << 63;
        AbsF64 ["abs.f64"] (a: u64) u64 => a & !(1 << 63);
        NegHalf ["neg.f16"|"neg.bf16"] (a: u16) u16 => a ^ 0x8000;
        AbsHalf ["abs.f16"|"abs.bf16"] (a: u16) u16 => a & 0x7FFF;
        NegPair ["neg.f16x2"|"neg.bf16x2"] (a: u32) u32 => a ^ 0x8000_8000;
        AbsPair ["abs.f16x2"|"abs.bf16x2"] (a: u32) u32 => a & 0x7FFF_7FFF;
        Clz32 ["clz.b32"] (a: u32) u32 => a.leading_zeros();
        Clz64 ["clz.b64"] (a: u64) u32 => a.leading_zeros();
        Popc32 ["popc.b32"] (a: u32) u32 => a.count_ones();
        Popc64 ["popc.b64"] (a: u64) u32 => a.count_ones();
        Brev32 ["brev.b32"] (a: u32) u32 => a.reverse_bits();
        Brev64 ["brev.b64"] (a: u64) u64 => a.reverse_bits();
        FindU32 ["bfind.u32"] (a: u32) u32 => find_bit(u64::from(a), 32);
        FindS32 ["bfind.s32"] (a: i32) u32 => find_bit(u64::from((a ^ a >> 31) as u32), 32);
        FindU64 ["bfind.u64"] (a: u64) u32 => find_bit(a, 64);
        FindS64 ["bfind.s64"] (a: i64) u32 => find_bit((a ^ a >> 63) as u64, 64);
        FindShiftU32 ["bfind.shiftamt.u32"] (a: u32) u32 => if a == 0 { u32::MAX } else { 31 - find_bit(u64::from(a), 32) };
        FindShiftS32 ["bfind.shiftamt.s32"] (a: i32) u32 => if a == a >> 31 { u32::MAX } else { 31 - find_bit(u64::from((a ^ a >> 31) as u32), 32) };
        FindShiftU64 ["bfind.shiftamt.u64"] (a: u64) u32 => if a == 0 { u32::MAX } else { 63 - find_bit(a, 64) };
        FindShiftS64 ["bfind.shiftamt.s64"] (a: i64) u32 => if a == a >> 63 { u32::MAX } else { 63 - find_bit((a ^ a >> 63) as u64, 64) };
        Exp2 ["ex2.approx.f32"] (a: f32) f32 => a.exp2();
        Exp2z ["ex2.approx.ftz.f32"] (a: f32) f32 => flush(flush(a).exp2());
        Log2 ["lg2.approx.f32"] (a: f32) f32 => a.log2();
        Log2z ["lg2.approx.ftz.f32"] (a: f32) f32 => flush(flush(a).log2());
        Sin ["sin.approx.f32"] (a: f32) f32 => a.sin();
        Sinz ["sin.approx.ftz.f32"] (a: f32) f32 => flush(flush(a).sin());
        Cos ["cos.approx.f32"] (a: f32) f32 => a.cos();
        Cosz ["cos.approx.ftz.f32"] (a: f32) f32 => flush(flush(a).cos());
        Tanh ["tanh.approx.f32"] (a: f32) f32 => a.tanh();
        Rcp ["rcp.approx.f32"|"rcp.rn.f32"] (a: f32) f32 => 1.0 / a;
        Rcpz ["rcp.approx.ftz.f32"|"rcp.rn.ftz.f32"] (a: f32) f32 => flush(1.0 / flush(a));
        Sqrt ["sqrt.approx.f32"|"sqrt.rn.f32"] (a: f32) f32 => a.sqrt();
        Sqrtz ["sqrt.approx.ftz.f32"|"sqrt.rn.ftz.f32"] (a: f32) f32 => flush(a).sqrt();
        Rsqrt ["rsqrt.approx.f32"] (a: f32) f32 => (1.0 / f64::from(a).sqrt()) as f32;
        Rsqrtz ["rsqrt.approx.ftz.f32"] (a: f32) f32 => (1.0 / f64::from(flush(a)).sqrt()) as f32;
        RcpD ["rcp.rn.f64"] (a: f64) f64 => 1.0 / a;
        // The hardware's approximation ignores the lower half of its operand and leaves the result's at zero.
        RcpDz ["rcp.approx.ftz.f64"] (a: f64) f64 => f64::from_bits((1.0 / f64::from_bits(a.to_bits() >> 32 << 32)).to_bits() >> 32 << 32);
        SqrtD ["sqrt.rn.f64"] (a: f64) f64 => a.sqrt();
        RsqrtD ["rsqrt.approx.f64"|"rsqrt.approx.ftz.f64"] (a: f64) f64 => 1.0 / a.sqrt();
        Exp2F16 ["ex2.approx.f16"] (a: F16) F16 => map_half(a, f32::exp2);
        Exp2Bf16 ["ex2.approx.ftz.bf16"] (a: Bf16) Bf16 => map_half(a, f32::exp2);
        Exp2F16x2 ["ex2.approx.f16x2"] (a: u32) u32 => both::<F16>(a, 0, 0, |a, _, _| map_half(a, f32::exp2));
        Exp2Bf16x2 ["ex2.approx.ftz.bf16x2"] (a: u32) u32 => both::<Bf16>(a, 0, 0, |a, _, _| map_half(a, f32::exp2));
        TanhF16 ["tanh.approx.f16"] (a: F16) F16 => map_half(a, f32::tanh);
        TanhBf16 ["tanh.approx.bf16"] (a: Bf16) Bf16 => map_half(a, f32::tanh);
        TanhF16x2 ["tanh.approx.f16x2"] (a: u32) u32 => both::<F16>(a, 0, 0, |a, _, _| map_half(a, f32::tanh));
        TanhBf16x2 ["tanh.approx.bf16x2"] (a: u32) u32 => both::<Bf16>(a, 0, 0, |a, _, _| map_half(a, f32::tanh));
        // Conversions: only those between full registers; the general ones are in `convert`.
        WidenU ["cvt.u64.u32"|"cvt.s64.u32"] (a: u32) u64 => u64::from(a);
        WidenS ["cvt.s64.s32"|"cvt.u64.s32"] (a: i32) i64 => i64::from(a);
        WidenU16 ["cvt.u32.u16"|"cvt.s32.u16"] (a: u16) u32 => u32::from(a);
        WidenS16 ["cvt.s32.s16"|"cvt.u32.s16"] (a: i16) i32 => i32::from(a);
        Narrow ["cvt.u32.u64"|"cvt.s32.u64"|"cvt.u32.s64"|"cvt.s32.s64"] (a: u64) u32 => a as u32;
        Narrow16 ["cvt.u16.u32"|"cvt.u16.s32"|"cvt.s16.u32"|"cvt.s16.s32"] (a: u32) u16 => a as u16;
        F32FromS32 ["cvt.rn.f32.s32"] (a: i32) f32 => a as f32;
        F32FromU32 ["cvt.rn.f32.u32"] (a: u32) f32 => a as f32;
        F32FromU16 ["cvt.rn.f32.u16"] (a: u16) f32 => f32::from(a);
        S32FromF32z ["cvt.rzi.s32.f32"] (a: f32) i32 => to_i32(a, a);
        S32FromF32n ["cvt.rni.s32.f32"] (a: f32) i32 => to_i32(a, a.round_ties_even());
        S32FromF32d ["cvt.rmi.s32.f32"] (a: f32) i32 => to_i32(a, a.floor());
        U32FromF32z ["cvt.rzi.u32.f32"] (a: f32) u32 => a as u32;
        U32FromF32n ["cvt.rni.u32.f32"] (a: f32) u32 => a.round_ties_even() as u32;
        FloorF32 ["cvt.rmi.f32.f32"] (a: f32) f32 => a.floor();
        CeilF32 ["cvt.rpi.f32.f32"] (a: f32) f32 => a.ceil();
        TruncF32 ["cvt.rzi.f32.f32"] (a: f32) f32 => a.trunc();
        RoundF32 ["cvt.rni.f32.f32"] (a: f32) f32 => a.round_ties_even();
        SaturateF32 ["cvt.sat.f32.f32"] (a: f32) f32 => float::saturate(a);
        F64FromF32 ["cvt.f64.f32"] (a: f32) f64 => f64::from(a);
        F32FromF64 ["cvt.rn.f32.f64"] (a: f64) f32 => a as f32;
        F64FromS32 ["cvt.rn.f64.s32"] (a: i32) f64 => f64::from(a);
        F64FromU32 ["cvt.rn.f64.u32"] (a: u32) f64 => f64::from(a);
        Bf16FromF32 ["cvt.rn.bf16.f32"] (a: f32) Bf16 => Bf16::nearest(a);
        F16FromF32 ["cvt.rn.f16.f32"] (a: f32) F16 => F16::from_odd(f64::from(a));
        F32FromF16 ["cvt.f32.f16"] (a: F16) f32 => a.to_f32();
        F32FromBf16 ["cvt.f32.bf16"] (a: Bf16) f32 => a.to_f32();
    } };
}
pub(crate) use unary_rows;
unary_rows!(spellings);

/// The rows of [`Binary`], handed to the macro `with`.
macro_rules! binary_rows {
    ($with:ident $($more:ident)*) => { $with! { $($more)*
        /// Instructions of two operands.
        Binary, 3, HARDWARE;
        Add16 ["add.u16"|"add.s16"] (a: u16, b: u16) u16 => a.wrapping_add(b);
        Add32 ["add.u32"|"add.s32"] (a: u32, b: u32) u32 => a.wrapping_add(b);
        Add32Sat ["add.sat.s32"] (a: i32, b: i32) i32 => a.saturating_add(b);
        Add64 ["add.u64"|"add.s64"] (a: u64, b: u64) u64 => a.wrapping_add(b);
        Sub16 ["sub.u16"|"sub.s16"] (a: u16, b: u16) u16 => a.wrapping_sub(b);
        Sub32 ["sub.u32"|"sub.s32"] (a: u32, b: u32) u32 => a.wrapping_sub(b);
        Sub32Sat ["sub.sat.s32"] (a: i32, b: i32) i32 => a.saturating_sub(b);
        Sub64 ["sub.u64"|"sub.s64"] (a: u64, b: u64) u64 => a.wrapping_sub(b);
        Mul16 ["mul.lo.u16"|"mul.lo.s16"] (a: u16, b: u16) u16 => a.wrapping_mul(b);
        Mul32 ["mul.lo.u32"|"mul.lo.s32"] (a: u32, b: u32) u32 => a.wrapping_mul(b);
        Mul64 ["mul.lo.u64"|"mul.lo.s64"] (a: u64, b: u64) u64 => a.wrapping_mul(b);
        MulHiU16 ["mul.hi.u16"] (a: u16, b: u16) u16 => ((u32::from(a) * u32::from(b)) >> 16) as u16;
        MulHiS16 ["mul.hi.s16"] (a: i16, b: i16) i16 => ((i32::from(a) * i32::from(b)) >> 16) as i16;
        MulHiU32 ["mul.hi.u32"] (a: u32, b: u32) u32 => ((u64::from(a) * u64::from(b)) >> 32) as u32;
        MulHiS32 ["mul.hi.s32"] (a: i32, b: i32) i32 => ((i64::from(a) * i64::from(b)) >> 32) as i32;
        MulHiU64 ["mul.hi.u64"] (a: u64, b: u64) u64 => high64(a, b);
        MulHiS64 ["mul.hi.s64"] (a: i64, b: i64) i64 => high64_signed(a, b);
        MulWideU16 ["mul.wide.u16"] (a: u16, b: u16) u32 => u32::from(a) * u32::from(b);
        MulWideS16 ["mul.wide.s16"] (a: i16, b: i16) i32 => i32::from(a) * i32::from(b);
        MulWideU32 ["mul.wide.u32"] (a: u32, b: u32) u64 => u64::from(a) * u64::from(b);
        MulWideS32 ["mul.wide.s32"] (a: i32, b: i32) i64 => i64::from(a) * i64::from(b);
        Mul24LoU ["mul24.lo.u32"] (a: u32, b: u32) u32 => multiply24(a, b) as u32;
        Mul24HiU ["mul24.hi.u32"] (a: u32, b: u32) u32 => (multiply24(a, b) >> 16) as u32;
        Mul24LoS ["mul24.lo.s32"] (a: i32, b: i32) i32 => multiply24_signed(a, b) as i32;
        Mul24HiS ["mul24.hi.s32"] (a: i32, b: i32) i32 => (multiply24_signed(a, b) >> 16) as i32;
        // Dividing by zero is undefined in PTX; hardware gives all ones, and the dividend as the rest.
        DivU16 ["div.u16"] (a: u16, b: u16) u16 => a.checked_div(b).unwrap_or(u16::MAX);
        DivS16 ["div.s16"] (a: i16, b: i16) i16 => if b == 0 { -1 } else { a.wrapping_div(b) };
        DivU32 ["div.u32"] (a: u32, b: u32) u32 => a.checked_div(b).unwrap_or(u32::MAX);
        DivS32 ["div.s32"] (a: i32, b: i32) i32 => if b == 0 { -1 } else { a.wrapping_div(b) };
        DivU64 ["div.u64"] (a: u64, b: u64) u64 => a.checked_div(b).unwrap_or(u64::MAX);
        DivS64 ["div.s64"] (a: i64, b: i64) i64 => if b == 0 { -1 } else { a.wrapping_div(b) };
        RemU16 ["rem.u16"] (a: u16, b: u16) u16 => a.checked_rem(b).unwrap_or(a);
        RemS16 ["rem.s16"] (a: i16, b: i16) i16 => if b == 0 { a } else { a.wrapping_rem(b) };
        RemU32 ["rem.u32"] (a: u32, b: u32) u32 => a.checked_rem(b).unwrap_or(a);
        RemS32 ["rem.s32"] (a: i32, b: i32) i32 => if b == 0 { a } else { a.wrapping_rem(b) };
        RemU64 ["rem.u64"] (a: u64, b: u64) u64 => a.checked_rem(b).unwrap_or(a);
        RemS64 ["rem.s64"] (a: i64, b: i64) i64 => if b == 0 { a } else { a.wrapping_rem(b) };
        MaskClamp ["bmsk.clamp.b32"] (a: u32, b: u32) u32 => bit_mask(a, b, true);
        MaskWrap ["bmsk.wrap.b32"] (a: u32, b: u32) u32 => bit_mask(a, b, false);
        ExtendSignClamp ["szext.clamp.s32"] (a: u32, b: u32) u32 => extend_from(a, b.min(32), true);
        ExtendSignWrap ["szext.wrap.s32"] (a: u32, b: u32) u32 => extend_from(a, b & 31, true);
        ExtendZeroClamp ["szext.clamp.u32"] (a: u32, b: u32) u32 => extend_from(a, b.min(32), false);
        ExtendZeroWrap ["szext.wrap.u32"] (a: u32, b: u32) u32 => extend_from(a, b & 31, false);
        AddPair ["add.s16x2"|"add.u16x2"] (a: u32, b: u32) u32 => each_half(a, b, |a, b| a.wrapping_add(b));
        MinPairU ["min.u16x2"] (a: u32, b: u32) u32 => each_half(a, b, u16::min);
        MaxPairU ["max.u16x2"] (a: u32, b: u32) u32 => each_half(a, b, u16::max);
        MinPairS ["min.s16x2"] (a: u32, b: u32) u32 => each_half(a, b, |a, b| (a as i16).min(b as i16) as u16);
        MaxPairS ["max.s16x2"] (a: u32, b: u32) u32 => each_half(a, b, |a, b| (a as i16).max(b as i16) as u16);
        MinPairRelu ["min.s16x2.relu"|"min.relu.s16x2"] (a: u32, b: u32) u32 => each_half(a, b, |a, b| (a as i16).min(b as i16).max(0) as u16);
        MaxPairRelu ["max.s16x2.relu"|"max.relu.s16x2"] (a: u32, b: u32) u32 => each_half(a, b, |a, b| (a as i16).max(b as i16).max(0) as u16);
        MinRelu ["min.s32.relu"|"min.relu.s32"] (a: i32, b: i32) i32 => a.min(b).max(0);
        MaxRelu ["max.s32.relu"|"max.relu.s32"] (a: i32, b: i32) i32 => a.max(b).max(0);
        MinU16 ["min.u16"] (a: u16, b: u16) u16 => a.min(b);
        MinS16 ["min.s16"] (a: i16, b: i16) i16 => a.min(b);
        MinU32 ["min.u32"] (a: u32, b: u32) u32 => a.min(b);
        MinS32 ["min.s32"] (a: i32, b: i32) i32 => a.min(b);
        MinU64 ["min.u64"] (a: u64, b: u64) u64 => a.min(b);
        MinS64 ["min.s64"] (a: i64, b: i64) i64 => a.min(b);
        MaxU16 ["max.u16"] (a: u16, b: u16) u16 => a.max(b);
        MaxS16 ["max.s16"] (a: i16, b: i16) i16 => a.max(b);
        MaxU32 ["max.u32"] (a: u32, b: u32) u32 => a.max(b);
        MaxS32 ["max.s32"] (a: i32, b: i32) i32 => a.max(b);
        MaxU64 ["max.u64"] (a: u64, b: u64) u64 => a.max(b);
        MaxS64 ["max.s64"] (a: i64, b: i64) i64 => a.max(b);
        And32 ["and.b32"|"and.b16"] (a: u32, b: u32) u32 => a & b;
        And64 ["and.b64"] (a: u64, b: u64) u64 => a & b;
        Or32 ["or.b32"|"or.b16"] (a: u32, b: u32) u32 => a | b;
        Or64 ["or.b64"] (a: u64, b: u64) u64 => a | b;
        Xor32 ["xor.b32"|"xor.b16"] (a: u32, b: u32) u32 => a ^ b;
        Xor64 ["xor.b64"] (a: u64, b: u64) u64 => a ^ b;
        Shl16 ["shl.b16"] (a: u16, b: u32) u16 => if b < 16 { a << b } else { 0 };
        Shl32 ["shl.b32"] (a: u32, b: u32) u32 => if b < 32 { a << b } else { 0 };
        Shl64 ["shl.b64"] (a: u64, b: u32) u64 => shift_left(a, b, 64);
        ShrU16 ["shr.u16"|"shr.b16"] (a: u16, b: u32) u16 => if b < 16 { a >> b } else { 0 };
        ShrS16 ["shr.s16"] (a: i16, b: u32) i16 => a >> b.min(15);
        ShrU32 ["shr.u32"|"shr.b32"] (a: u32, b: u32) u32 => if b < 32 { a >> b } else { 0 };
        ShrS32 ["shr.s32"] (a: i32, b: u32) i32 => a >> b.min(31);
        ShrU64 ["shr.u64"|"shr.b64"] (a: u64, b: u32) u64 => shift_right(a, b, 64);
        ShrS64 ["shr.s64"] (a: i64, b: u32) i64 => a >> b.min(63);
        AddF32 ["add.f32"|"add.rn.f32"] (a: f32, b: f32) f32 => a + b;
        AddF32z ["add.ftz.f32"|"add.rn.ftz.f32"] (a: f32, b: f32) f32 => flush(flush(a) + flush(b));
        SubF32 ["sub.f32"|"sub.rn.f32"] (a: f32, b: f32) f32 => a - b;
        SubF32z ["sub.ftz.f32"|"sub.rn.ftz.f32"] (a: f32, b: f32) f32 => flush(flush(a) - flush(b));
        MulF32 ["mul.f32"|"mul.rn.f32"] (a: f32, b: f32) f32 => a * b;
        MulF32z ["mul.ftz.f32"|"mul.rn.ftz.f32"] (a: f32, b: f32) f32 => flush(flush(a) * flush(b));
        DivF32 ["div.rn.f32"|"div.full.f32"|"div.approx.f32"] (a: f32, b: f32) f32 => a / b;
        DivF32z ["div.rn.ftz.f32"|"div.full.ftz.f32"|"div.approx.ftz.f32"] (a: f32, b: f32) f32 => flush(flush(a) / flush(b));
        MinF32 ["min.f32"] (a: f32, b: f32) f32 => min(a, b);
        MinF32z ["min.ftz.f32"] (a: f32, b: f32) f32 => min(flush(a), flush(b));
        MinF32n ["min.NaN.f32"] (a: f32, b: f32) f32 => if a.is_nan() || b.is_nan() { f32::from_bits(0x7FFF_FFFF) } else { min(a, b) };
        MaxF32 ["max.f32"] (a: f32, b: f32) f32 => max(a, b);
        MaxF32z ["max.ftz.f32"] (a: f32, b: f32) f32 => max(flush(a), flush(b));
        MaxF32n ["max.NaN.f32"] (a: f32, b: f32) f32 => if a.is_nan() || b.is_nan() { f32::from_bits(0x7FFF_FFFF) } else { max(a, b) };
        CopySignF32 ["copysign.f32"] (a: u32, b: u32) u32 => copy_sign(a, b);
        CopySignF64 ["copysign.f64"] (a: u64, b: u64) u64 => a & 1 << 63 | b & !(1 << 63);
        AddF64 ["add.f64"|"add.rn.f64"] (a: f64, b: f64) f64 => a + b;
        SubF64 ["sub.f64"|"sub.rn.f64"] (a: f64, b: f64) f64 => a - b;
        MulF64 ["mul.f64"|"mul.rn.f64"] (a: f64, b: f64) f64 => a * b;
        DivF64 ["div.rn.f64"] (a: f64, b: f64) f64 => a / b;
        MinF64 ["min.f64"] (a: f64, b: f64) f64 => min_double(a, b);
        MaxF64 ["max.f64"] (a: f64, b: f64) f64 => max_double(a, b);
        AddF16 ["add.f16"|"add.rn.f16"] (a: F16, b: F16) F16 => half(Arithmetic::Add, a, b, b);
        SubF16 ["sub.f16"|"sub.rn.f16"] (a: F16, b: F16) F16 => half(Arithmetic::Sub, a, b, b);
        MulF16 ["mul.f16"|"mul.rn.f16"] (a: F16, b: F16) F16 => half(Arithmetic::Mul, a, b, b);
        MinF16 ["min.f16"] (a: F16, b: F16) F16 => half_extreme(false, a, b);
        MaxF16 ["max.f16"] (a: F16, b: F16) F16 => half_extreme(true, a, b);
        AddBf16 ["add.bf16"|"add.rn.bf16"] (a: Bf16, b: Bf16) Bf16 => half(Arithmetic::Add, a, b, b);
        SubBf16 ["sub.bf16"|"sub.rn.bf16"] (a: Bf16, b: Bf16) Bf16 => half(Arithmetic::Sub, a, b, b);
        MulBf16 ["mul.bf16"|"mul.rn.bf16"] (a: Bf16, b: Bf16) Bf16 => half(Arithmetic::Mul, a, b, b);
        MinBf16 ["min.bf16"] (a: Bf16, b: Bf16) Bf16 => half_extreme(false, a, b);
        MaxBf16 ["max.bf16"] (a: Bf16, b: Bf16) Bf16 => half_extreme(true, a, b);
        AddF16x2 ["add.f16x2"|"add.rn.f16x2"] (a: u32, b: u32) u32 => both::<F16>(a, b, 0, |a, b, c| half(Arithmetic::Add, a, b, c));
        SubF16x2 ["sub.f16x2"|"sub.rn.f16x2"] (a: u32, b: u32) u32 => both::<F16>(a, b, 0, |a, b, c| half(Arithmetic::Sub, a, b, c));
        MulF16x2 ["mul.f16x2"|"mul.rn.f16x2"] (a: u32, b: u32) u32 => both::<F16>(a, b, 0, |a, b, c| half(Arithmetic::Mul, a, b, c));
        MinF16x2 ["min.f16x2"] (a: u32, b: u32) u32 => both::<F16>(a, b, 0, |a, b, _| half_extreme(false, a, b));
        MaxF16x2 ["max.f16x2"] (a: u32, b: u32) u32 => both::<F16>(a, b, 0, |a, b, _| half_extreme(true, a, b));
        AddBf16x2 ["add.bf16x2"|"add.rn.bf16x2"] (a: u32, b: u32) u32 => both::<Bf16>(a, b, 0, |a, b, c| half(Arithmetic::Add, a, b, c));
        SubBf16x2 ["sub.bf16x2"|"sub.rn.bf16x2"] (a: u32, b: u32) u32 => both::<Bf16>(a, b, 0, |a, b, c| half(Arithmetic::Sub, a, b, c));
        MulBf16x2 ["mul.bf16x2"|"mul.rn.bf16x2"] (a: u32, b: u32) u32 => both::<Bf16>(a, b, 0, |a, b, c| half(Arithmetic::Mul, a, b, c));
        MinBf16x2 ["min.bf16x2"] (a: u32, b: u32) u32 => both::<Bf16>(a, b, 0, |a, b, _| half_extreme(false, a, b));
        MaxBf16x2 ["max.bf16x2"] (a: u32, b: u32) u32 => both::<Bf16>(a, b, 0, |a, b, _| half_extreme(true, a, b));
        // The second operand is the lower half.
        PairBf16 ["cvt.rn.bf16x2.f32"] (a: f32, b: f32) u32 => u32::from(Bf16::nearest(a).0) << 16 | u32::from(Bf16::nearest(b).0);
        PairF16 ["cvt.rn.f16x2.f32"] (a: f32, b: f32) u32 => u32::from(F16::from_odd(f64::from(a)).0) << 16 | u32::from(F16::from_odd(f64::from(b)).0);
    } };
}
pub(crate) use binary_rows;
binary_rows!(spellings);

/// The rows of [`Ternary`], handed to the macro `with`.
macro_rules! ternary_rows {
    ($with:ident $($more:ident)*) => { $with! { $($more)*
        /// Instructions of three operands.
        Ternary, 4, HARDWARE;
        MadLo16 ["mad.lo.u16"|"mad.lo.s16"] (a: u16, b: u16, c: u16) u16 => a.wrapping_mul(b).wrapping_add(c);
        MadLo32 ["mad.lo.u32"|"mad.lo.s32"] (a: u32, b: u32, c: u32) u32 => a.wrapping_mul(b).wrapping_add(c);
        MadLo64 ["mad.lo.u64"|"mad.lo.s64"] (a: u64, b: u64, c: u64) u64 => a.wrapping_mul(b).wrapping_add(c);
        MadHiU16 ["mad.hi.u16"] (a: u16, b: u16, c: u16) u16 => (((u32::from(a) * u32::from(b)) >> 16) as u16).wrapping_add(c);
        MadHiS16 ["mad.hi.s16"] (a: i16, b: i16, c: i16) i16 => (((i32::from(a) * i32::from(b)) >> 16) as i16).wrapping_add(c);
        MadHiU32 ["mad.hi.u32"] (a: u32, b: u32, c: u32) u32 => (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c);
        MadHiS32 ["mad.hi.s32"] (a: i32, b: i32, c: i32) i32 => (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c);
        MadHiU64 ["mad.hi.u64"] (a: u64, b: u64, c: u64) u64 => high64(a, b).wrapping_add(c);
        MadHiS64 ["mad.hi.s64"] (a: i64, b: i64, c: i64) i64 => high64_signed(a, b).wrapping_add(c);
        MadWideU16 ["mad.wide.u16"] (a: u16, b: u16, c: u32) u32 => (u32::from(a) * u32::from(b)).wrapping_add(c);
        MadWideS16 ["mad.wide.s16"] (a: i16, b: i16, c: i32) i32 => (i32::from(a) * i32::from(b)).wrapping_add(c);
        MadWideU32 ["mad.wide.u32"] (a: u32, b: u32, c: u64) u64 => (u64::from(a) * u64::from(b)).wrapping_add(c);
        MadWideS32 ["mad.wide.s32"] (a: i32, b: i32, c: i64) i64 => (i64::from(a) * i64::from(b)).wrapping_add(c);
        Mad24LoU ["mad24.lo.u32"] (a: u32, b: u32, c: u32) u32 => (multiply24(a, b) as u32).wrapping_add(c);
        Mad24HiU ["mad24.hi.u32"] (a: u32, b: u32, c: u32) u32 => ((multiply24(a, b) >> 16) as u32).wrapping_add(c);
        Mad24LoS ["mad24.lo.s32"] (a: i32, b: i32, c: i32) i32 => (multiply24_signed(a, b) as i32).wrapping_add(c);
        Mad24HiS ["mad24.hi.s32"] (a: i32, b: i32, c: i32) i32 => ((multiply24_signed(a, b) >> 16) as i32).wrapping_add(c);
        SadU16 ["sad.u16"] (a: u16, b: u16, c: u16) u16 => a.abs_diff(b).wrapping_add(c);
        SadS16 ["sad.s16"] (a: i16, b: i16, c: i16) i16 => (a.abs_diff(b) as i16).wrapping_add(c);
        FindSet ["fns.b32"] (a: u32, b: u32, c: i32) u32 => find_set(a, b, c);
        SadU32 ["sad.u32"] (a: u32, b: u32, c: u32) u32 => a.abs_diff(b).wrapping_add(c);
        SadS32 ["sad.s32"] (a: i32, b: i32, c: i32) i32 => (a.abs_diff(b) as i32).wrapping_add(c);
        SadU64 ["sad.u64"] (a: u64, b: u64, c: u64) u64 => a.abs_diff(b).wrapping_add(c);
        SadS64 ["sad.s64"] (a: i64, b: i64, c: i64) i64 => (a.abs_diff(b) as i64).wrapping_add(c);
        FmaF32 ["fma.rn.f32"|"mad.rn.f32"] (a: f32, b: f32, c: f32) f32 => fma::<HARDWARE>(a, b, c);
        FmaF32z ["fma.rn.ftz.f32"|"mad.rn.ftz.f32"] (a: f32, b: f32, c: f32) f32 => flush(fma::<HARDWARE>(flush(a), flush(b), flush(c)));
        FmaF32s ["fma.rn.sat.f32"] (a: f32, b: f32, c: f32) f32 => float::saturate(fma::<HARDWARE>(a, b, c));
        FmaF64 ["fma.rn.f64"|"mad.rn.f64"] (a: f64, b: f64, c: f64) f64 => a.mul_add(b, c);
        FmaF16 ["fma.rn.f16"] (a: F16, b: F16, c: F16) F16 => half(Arithmetic::Fma, a, b, c);
        FmaBf16 ["fma.rn.bf16"] (a: Bf16, b: Bf16, c: Bf16) Bf16 => half(Arithmetic::Fma, a, b, c);
        FmaF16x2 ["fma.rn.f16x2"] (a: u32, b: u32, c: u32) u32 => both::<F16>(a, b, c, |a, b, c| half(Arithmetic::Fma, a, b, c));
        FmaBf16x2 ["fma.rn.bf16x2"] (a: u32, b: u32, c: u32) u32 => both::<Bf16>(a, b, c, |a, b, c| half(Arithmetic::Fma, a, b, c));
        FieldU32 ["bfe.u32"] (a: u32, b: u32, c: u32) u32 => bit_field(u64::from(a), b, c, 32, false) as u32;
        FieldS32 ["bfe.s32"] (a: u32, b: u32, c: u32) u32 => bit_field(u64::from(a), b, c, 32, true) as u32;
        FieldU64 ["bfe.u64"] (a: u64, b: u32, c: u32) u64 => bit_field(a, b, c, 64, false);
        FieldS64 ["bfe.s64"] (a: u64, b: u32, c: u32) u64 => bit_field(a, b, c, 64, true);
        FunnelLeftClamp ["shf.l.clamp.b32"] (a: u32, b: u32, c: u32) u32 => funnel(a, b, c.min(32), true);
        FunnelLeftWrap ["shf.l.wrap.b32"] (a: u32, b: u32, c: u32) u32 => funnel(a, b, c & 31, true);
        FunnelRightClamp ["shf.r.clamp.b32"] (a: u32, b: u32, c: u32) u32 => funnel(a, b, c.min(32), false);
        FunnelRightWrap ["shf.r.wrap.b32"] (a: u32, b: u32, c: u32) u32 => funnel(a, b, c & 31, false);
        Permute ["prmt.b32"] (a: u32, b: u32, c: u32) u32 => permute(a, b, c);
        PermuteF4e ["prmt.b32.f4e"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 0, c);
        PermuteB4e ["prmt.b32.b4e"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 1, c);
        PermuteRc8 ["prmt.b32.rc8"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 2, c);
        PermuteEcl ["prmt.b32.ecl"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 3, c);
        PermuteEcr ["prmt.b32.ecr"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 4, c);
        PermuteRc16 ["prmt.b32.rc16"] (a: u32, b: u32, c: u32) u32 => permute_mode(a, b, 5, c);
        Dot4UU ["dp4a.u32.u32"] (a: u32, b: u32, c: u32) u32 => dot4(a, b, c, false, false);
        Dot4US ["dp4a.u32.s32"] (a: u32, b: u32, c: u32) u32 => dot4(a, b, c, false, true);
        Dot4SU ["dp4a.s32.u32"] (a: u32, b: u32, c: u32) u32 => dot4(a, b, c, true, false);
        Dot4SS ["dp4a.s32.s32"] (a: u32, b: u32, c: u32) u32 => dot4(a, b, c, true, true);
        Dot2LoUU ["dp2a.lo.u32.u32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, false, false, false);
        Dot2LoUS ["dp2a.lo.u32.s32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, false, false, true);
        Dot2LoSU ["dp2a.lo.s32.u32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, false, true, false);
        Dot2LoSS ["dp2a.lo.s32.s32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, false, true, true);
        Dot2HiUU ["dp2a.hi.u32.u32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, true, false, false);
        Dot2HiUS ["dp2a.hi.u32.s32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, true, false, true);
        Dot2HiSU ["dp2a.hi.s32.u32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, true, true, false);
        Dot2HiSS ["dp2a.hi.s32.s32"] (a: u32, b: u32, c: u32) u32 => dot2(a, b, c, true, true, true);
        SignSelectS32 ["slct.u32.s32"|"slct.s32.s32"|"slct.b32.s32"|"slct.f32.s32"] (a: u32, b: u32, c: i32) u32 => if c >= 0 { a } else { b };
        SignSelectF32 ["slct.u32.f32"|"slct.s32.f32"|"slct.b32.f32"|"slct.f32.f32"] (a: u32, b: u32, c: f32) u32 => if c >= 0.0 { a } else { b };
        SignSelect64 ["slct.u64.s32"|"slct.s64.s32"|"slct.b64.s32"|"slct.f64.s32"] (a: u64, b: u64, c: i32) u64 => if c >= 0 { a } else { b };
    } };
}
pub(crate) use ternary_rows;
ternary_rows!(spellings);

/// The rows of [`Compare`], handed to the macro `with`.
macro_rules! comparison_rows {
    ($with:ident) => {
        $with! {
            Eq16 ["eq.u16"|"eq.s16"|"eq.b16"] u16 => |a, b| a == b;
            Ne16 ["ne.u16"|"ne.s16"|"ne.b16"] u16 => |a, b| a != b;
            LtU16 ["lt.u16"|"lo.u16"] u16 => |a, b| a < b;
            LeU16 ["le.u16"|"ls.u16"] u16 => |a, b| a <= b;
            GtU16 ["gt.u16"|"hi.u16"] u16 => |a, b| a > b;
            GeU16 ["ge.u16"|"hs.u16"] u16 => |a, b| a >= b;
            LtS16 ["lt.s16"] i16 => |a, b| a < b;
            LeS16 ["le.s16"] i16 => |a, b| a <= b;
            GtS16 ["gt.s16"] i16 => |a, b| a > b;
            GeS16 ["ge.s16"] i16 => |a, b| a >= b;
            Eq32 ["eq.u32"|"eq.s32"|"eq.b32"] u32 => |a, b| a == b;
            Ne32 ["ne.u32"|"ne.s32"|"ne.b32"] u32 => |a, b| a != b;
            LtU32 ["lt.u32"|"lo.u32"] u32 => |a, b| a < b;
            LeU32 ["le.u32"|"ls.u32"] u32 => |a, b| a <= b;
            GtU32 ["gt.u32"|"hi.u32"] u32 => |a, b| a > b;
            GeU32 ["ge.u32"|"hs.u32"] u32 => |a, b| a >= b;
            LtS32 ["lt.s32"] i32 => |a, b| a < b;
            LeS32 ["le.s32"] i32 => |a, b| a <= b;
            GtS32 ["gt.s32"] i32 => |a, b| a > b;
            GeS32 ["ge.s32"] i32 => |a, b| a >= b;
            Eq64 ["eq.u64"|"eq.s64"|"eq.b64"] u64 => |a, b| a == b;
            Ne64 ["ne.u64"|"ne.s64"|"ne.b64"] u64 => |a, b| a != b;
            LtU64 ["lt.u64"|"lo.u64"] u64 => |a, b| a < b;
            LeU64 ["le.u64"|"ls.u64"] u64 => |a, b| a <= b;
            GtU64 ["gt.u64"|"hi.u64"] u64 => |a, b| a > b;
            GeU64 ["ge.u64"|"hs.u64"] u64 => |a, b| a >= b;
            LtS64 ["lt.s64"] i64 => |a, b| a < b;
            LeS64 ["le.s64"] i64 => |a, b| a <= b;
            GtS64 ["gt.s64"] i64 => |a, b| a > b;
            GeS64 ["ge.s64"] i64 => |a, b| a >= b;
            EqF32 ["eq.f32"] f32 => |a, b| a == b;
            NeF32 ["ne.f32"] f32 => |a, b| a < b || a > b;
            LtF32 ["lt.f32"] f32 => |a, b| a < b;
            LeF32 ["le.f32"] f32 => |a, b| a <= b;
            GtF32 ["gt.f32"] f32 => |a, b| a > b;
            GeF32 ["ge.f32"] f32 => |a, b| a >= b;
            EquF32 ["equ.f32"] f32 => |a, b| !(a < b || a > b);
            NeuF32 ["neu.f32"] f32 => |a, b| a != b;
            LtuF32 ["ltu.f32"] f32 => |a, b| !(a >= b);
            LeuF32 ["leu.f32"] f32 => |a, b| !(a > b);
            GtuF32 ["gtu.f32"] f32 => |a, b| !(a <= b);
            GeuF32 ["geu.f32"] f32 => |a, b| !(a < b);
            NumF32 ["num.f32"] f32 => |a, b| !(a.is_nan() || b.is_nan());
            NanF32 ["nan.f32"] f32 => |a, b| a.is_nan() || b.is_nan();
            EqF32z ["eq.ftz.f32"] f32 => |a, b| flush(a) == flush(b);
            NeF32z ["ne.ftz.f32"] f32 => |a, b| flush(a) < flush(b) || flush(a) > flush(b);
            LtF32z ["lt.ftz.f32"] f32 => |a, b| flush(a) < flush(b);
            LeF32z ["le.ftz.f32"] f32 => |a, b| flush(a) <= flush(b);
            GtF32z ["gt.ftz.f32"] f32 => |a, b| flush(a) > flush(b);
            GeF32z ["ge.ftz.f32"] f32 => |a, b| flush(a) >= flush(b);
            EquF32z ["equ.ftz.f32"] f32 => |a, b| !(flush(a) < flush(b) || flush(a) > flush(b));
            NeuF32z ["neu.ftz.f32"] f32 => |a, b| flush(a) != flush(b);
            LtuF32z ["ltu.ftz.f32"] f32 => |a, b| !(flush(a) >= flush(b));
            LeuF32z ["leu.ftz.f32"] f32 => |a, b| !(flush(a) > flush(b));
            GtuF32z ["gtu.ftz.f32"] f32 => |a, b| !(flush(a) <= flush(b));
            GeuF32z ["geu.ftz.f32"] f32 => |a, b| !(flush(a) < flush(b));
            NumF32z ["num.ftz.f32"] f32 => |a, b| !(a.is_nan() || b.is_nan());
            NanF32z ["nan.ftz.f32"] f32 => |a, b| a.is_nan() || b.is_nan();
            EqF64 ["eq.f64"] f64 => |a, b| a == b;
            NeF64 ["ne.f64"] f64 => |a, b| a < b || a > b;
            LtF64 ["lt.f64"] f64 => |a, b| a < b;
            LeF64 ["le.f64"] f64 => |a, b| a <= b;
            GtF64 ["gt.f64"] f64 => |a, b| a > b;
            GeF64 ["ge.f64"] f64 => |a, b| a >= b;
            EquF64 ["equ.f64"] f64 => |a, b| !(a < b || a > b);
            NeuF64 ["neu.f64"] f64 => |a, b| a != b;
            LtuF64 ["ltu.f64"] f64 => |a, b| !(a >= b);
            LeuF64 ["leu.f64"] f64 => |a, b| !(a > b);
            GtuF64 ["gtu.f64"] f64 => |a, b| !(a <= b);
            GeuF64 ["geu.f64"] f64 => |a, b| !(a < b);
            NumF64 ["num.f64"] f64 => |a, b| !(a.is_nan() || b.is_nan());
            NanF64 ["nan.f64"] f64 => |a, b| a.is_nan() || b.is_nan();
            EqF16 ["eq.f16"] F16 => |a, b| a.to_f32() == b.to_f32();
            LtF16 ["lt.f16"] F16 => |a, b| a.to_f32() < b.to_f32();
            LeF16 ["le.f16"] F16 => |a, b| a.to_f32() <= b.to_f32();
            GtF16 ["gt.f16"] F16 => |a, b| a.to_f32() > b.to_f32();
            GeF16 ["ge.f16"] F16 => |a, b| a.to_f32() >= b.to_f32();
            NeuF16 ["neu.f16"] F16 => |a, b| a.to_f32() != b.to_f32();
            EqBf16 ["eq.bf16"] Bf16 => |a, b| a.to_f32() == b.to_f32();
            LtBf16 ["lt.bf16"] Bf16 => |a, b| a.to_f32() < b.to_f32();
            LeBf16 ["le.bf16"] Bf16 => |a, b| a.to_f32() <= b.to_f32();
            GtBf16 ["gt.bf16"] Bf16 => |a, b| a.to_f32() > b.to_f32();
            GeBf16 ["ge.bf16"] Bf16 => |a, b| a.to_f32() >= b.to_f32();
            NeuBf16 ["neu.bf16"] Bf16 => |a, b| a.to_f32() != b.to_f32();
        }
    };
}
pub(crate) use comparison_rows;
comparison_rows!(comparisons);
