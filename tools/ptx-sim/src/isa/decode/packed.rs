//! Halves with modifiers the tables have no row for, comparisons of halves, and video instructions.

use super::frame::Builder;
use super::mods::Mods;
use crate::error::{Error, Result};
use crate::isa::parse::{Operand, Statement};
use crate::isa::{
    Constant, HalfKind, HalfMath, HalfTest, Logic, NumberCompare, Op, RegisterFile, TestResult, Type, Video,
    VideoKind, VideoPart,
};

fn unknown() -> Error {
    Error::new("this instruction or form of it is not supported")
}

const COMPARES: [(&str, NumberCompare); 14] = [
    ("eq", NumberCompare::Eq),
    ("ne", NumberCompare::Ne),
    ("lt", NumberCompare::Lt),
    ("le", NumberCompare::Le),
    ("gt", NumberCompare::Gt),
    ("ge", NumberCompare::Ge),
    ("equ", NumberCompare::Equ),
    ("neu", NumberCompare::Neu),
    ("ltu", NumberCompare::Ltu),
    ("leu", NumberCompare::Leu),
    ("gtu", NumberCompare::Gtu),
    ("geu", NumberCompare::Geu),
    ("num", NumberCompare::Num),
    ("nan", NumberCompare::Nan),
];

impl<'t> Builder<'_, 't> {
    /// Arithmetic of halves with any modifiers.
    pub fn half_math(&mut self, statement: &Statement<'t>) -> Result<()> {
        let opcode = statement.opcode;
        let (kind, count) = match statement.mnemonic() {
            "add" => (HalfKind::Add, 2),
            "sub" => (HalfKind::Sub, 2),
            "mul" => (HalfKind::Mul, 2),
            "fma" => (HalfKind::Fma, 3),
            "min" => (HalfKind::Min, 2),
            "max" => (HalfKind::Max, 2),
            "neg" => (HalfKind::Neg, 1),
            "abs" => (HalfKind::Abs, 1),
            _ => return Err(unknown()),
        };
        let mut mods = Mods::of(opcode);
        let value = mods.last_type()?;
        mods.take("rn");
        let (ftz, saturate, relu, nan) =
            (mods.take("ftz"), mods.take("sat"), mods.take("relu"), mods.take("NaN"));
        let xor_sign = mods.take("xorsign") && mods.take("abs");
        mods.finish()?;
        Self::count(statement, count + 1)?;
        let bits = 8 * value.bytes();
        let result = self.result_of(statement.scope, &statement.operands[0], RegisterFile::W, bits)?.index;
        let mut operands = [0; 3];
        for (place, operand) in operands.iter_mut().zip(&statement.operands[1..]) {
            *place = self.value(statement.scope, operand, RegisterFile::W, bits)?.index;
        }
        for place in count..3 {
            operands[place] = operands[0];
        }
        let (brain, pair) = half_type(value).ok_or_else(unknown)?;
        let it = HalfMath { kind, brain, pair, ftz, saturate, relu, nan, xor_sign, result, operands };
        self.emit(Op::HalfMath(Box::new(it)));
        Ok(())
    }

    /// `setp` and `set` of halves, pairs of them included.
    pub fn half_test(&mut self, statement: &Statement<'t>, sets: bool) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let (brain, pair) = half_type(value).ok_or_else(unknown)?;
        let to = if sets { Some(mods.last_type()?) } else { None };
        let compare = mods.one_of(&COMPARES).ok_or_else(unknown)?;
        let ftz = mods.take("ftz");
        let logic = mods.one_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
        mods.finish()?;
        Self::count(statement, 3 + usize::from(logic.is_some()))?;
        let bits = 8 * value.bytes();
        let operands = [
            self.value(scope, &statement.operands[1], RegisterFile::W, bits)?.index,
            self.value(scope, &statement.operands[2], RegisterFile::W, bits)?.index,
        ];
        let combine = match logic {
            None => None,
            Some(logic) => {
                let (p, negated) = self.predicate(scope, &statement.operands[3])?;
                Some((logic, p.index, negated))
            }
        };
        let result = match to {
            Some(to) => {
                let one = match to {
                    Type::F16 | Type::F16x2 => 0x3C00,
                    Type::Bf16 | Type::Bf16x2 => 0x3F80,
                    Type::U16 | Type::S16 => 0xFFFF,
                    Type::U32 | Type::S32 | Type::B32 => u32::MAX,
                    _ => return Err(unknown()),
                };
                let d = self.result_of(scope, &statement.operands[0], RegisterFile::W, 8 * to.bytes())?;
                TestResult::Value(d.index, one)
            }
            None => self.test_predicates(scope, &statement.operands[0])?,
        };
        let it = HalfTest { compare, brain, pair, ftz, combine, result, operands };
        self.emit(Op::HalfTest(Box::new(it)));
        Ok(())
    }

    fn test_predicates(&mut self, scope: usize, operand: &Operand<'t>) -> Result<TestResult> {
        let mut one = |name: &'t str| -> Result<Option<u32>> {
            if name == "_" {
                return Ok(None);
            }
            Ok(Some(self.result(scope, &Operand::Name(name, 0), RegisterFile::Predicate)?.index))
        };
        Ok(match operand {
            Operand::Pair(p, q) => TestResult::Predicates(one(p)?, one(q)?),
            Operand::Name(p, 0) => TestResult::Predicates(one(p)?, None),
            _ => return Err(Error::new("a result that is no predicate")),
        })
    }

    /// `vadd`, `vadd2`, `vadd4` and the like.
    pub fn video(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let mnemonic = statement.mnemonic();
        let lanes = match mnemonic.as_bytes().last() {
            Some(b'2') => 2,
            Some(b'4') => 4,
            _ => 1,
        };
        let kind = video_kind(mnemonic.trim_end_matches(['2', '4']), &mut mods).ok_or_else(unknown)?;
        let [d_signed, a_signed, b_signed] = video_signs(kind, &mut mods)?;
        let saturate = mods.take("sat");
        let wraps = !mods.take("clamp") && mods.take("wrap");
        let scale = mods.one_of(&[("shr7", 7), ("shr15", 15)]).unwrap_or(0);
        let second = mods.one_of(&[("add", HalfKind::Add), ("min", HalfKind::Min), ("max", HalfKind::Max)]);
        mods.finish()?;
        let operands = &statement.operands;
        let three = lanes > 1 || operands.len() == 4;
        Self::count(statement, if three { 4 } else { 3 })?;
        let (d, d_select) = selected(&operands[0])?;
        let (a, a_select) = selected(&operands[1])?;
        let (b, b_select) = selected(&operands[2])?;
        let register = self.result(scope, &d, RegisterFile::W)?.index;
        let c = match operands.get(3) {
            Some(operand) => self.value(scope, operand, RegisterFile::W, 32)?,
            None => self.constant(RegisterFile::W, Constant::Value(0)),
        };
        let operands = [
            self.value(scope, &a, RegisterFile::W, 32)?.index,
            self.value(scope, &b, RegisterFile::W, 32)?.index,
            c.index,
        ];
        let (parts, result, mask) = match lanes {
            1 => scalar_parts(d_select, a_select, b_select)?,
            lanes => simd_parts(lanes, d_select, a_select, b_select)?,
        };
        let it = Video {
            kind,
            d_signed,
            a_signed,
            b_signed,
            saturate,
            wraps,
            scale,
            second,
            register,
            operands,
            parts,
            result,
            mask,
        };
        self.emit(Op::Video(Box::new(it)));
        Ok(())
    }
}

/// Whether it is bf16, and whether two of them.
pub fn half_type(value: Type) -> Option<(bool, bool)> {
    match value {
        Type::F16 => Some((false, false)),
        Type::Bf16 => Some((true, false)),
        Type::F16x2 => Some((false, true)),
        Type::Bf16x2 => Some((true, true)),
        _ => None,
    }
}

fn video_kind(name: &str, mods: &mut Mods<'_>) -> Option<VideoKind> {
    Some(match name {
        "vadd" => VideoKind::Add,
        "vsub" => VideoKind::Sub,
        "vabsdiff" => VideoKind::Difference,
        "vavrg" => VideoKind::Average,
        "vmin" => VideoKind::Min,
        "vmax" => VideoKind::Max,
        "vshl" => VideoKind::ShiftLeft,
        "vshr" => VideoKind::ShiftRight,
        "vmad" => VideoKind::MultiplyAdd,
        "vset" => VideoKind::Test(mods.one_of(&COMPARES[..6])?),
        _ => return None,
    })
}

/// Whether result and operands have a sign; comparisons do not name the result's type.
fn video_signs(kind: VideoKind, mods: &mut Mods<'_>) -> Result<[bool; 3]> {
    let types: Vec<bool> = mods.all_map(|part| match part {
        "u32" => Some(false),
        "s32" => Some(true),
        _ => None,
    });
    while mods.take("u32") || mods.take("s32") {}
    match types[..] {
        [d, a, b] => Ok([d, a, b]),
        [a, b] if matches!(kind, VideoKind::Test(_)) => Ok([false, a, b]),
        _ => Err(unknown()),
    }
}

/// A register and the selector after its dot.
fn selected<'t>(operand: &Operand<'t>) -> Result<(Operand<'t>, &'t str)> {
    match operand {
        Operand::Name(name, 0) => {
            let (register, selector) = name.split_once('.').unwrap_or((name, ""));
            Ok((Operand::Name(register, 0), selector))
        }
        Operand::Integer(value) => Ok((Operand::Integer(*value), "")),
        _ => Err(unknown()),
    }
}

/// `b0` to `b3`, `h0`, `h1`, or the whole.
fn scalar_part(selector: &str) -> Result<VideoPart> {
    Ok(match selector {
        "" => VideoPart { shift: 0, bits: 32 },
        "h0" => VideoPart { shift: 0, bits: 16 },
        "h1" => VideoPart { shift: 16, bits: 16 },
        "b0" | "b1" | "b2" | "b3" => {
            VideoPart { shift: 8 * u32::from(selector.as_bytes()[1] - b'0'), bits: 8 }
        }
        _ => return Err(unknown()),
    })
}

/// Of a SIMD instruction: the two operands' parts of each lane, where its result goes, and a bit for each
/// lane computed.
type SimdParts = (Vec<[VideoPart; 2]>, Vec<VideoPart>, u32);

/// The same of an instruction of one lane.
fn scalar_parts(d: &str, a: &str, b: &str) -> Result<SimdParts> {
    let second = scalar_part(b)?;
    let second = VideoPart { shift: second.shift + 32, ..second };
    Ok((vec![[scalar_part(a)?, second]], vec![scalar_part(d)?], 1))
}

/// Which parts each lane of a SIMD instruction takes: places from 0 to 3 (1) are a's, those above b's.
fn simd_parts(lanes: u32, d: &str, a: &str, b: &str) -> Result<SimdParts> {
    let bits = 32 / lanes;
    let places = |selector: &str, default: &str| -> Result<Vec<u32>> {
        let selector = if selector.is_empty() { default } else { selector };
        let (letter, digits) = selector.split_at(1);
        let found: Option<Vec<u32>> = digits.chars().rev().map(|c| c.to_digit(2 * lanes)).collect();
        let right = letter == if lanes == 4 { "b" } else { "h" };
        found.filter(|found| right && found.len() == lanes as usize).ok_or_else(unknown)
    };
    let (first, second) = if lanes == 4 { ("b3210", "b7654") } else { ("h10", "h32") };
    let part = |place: u32| VideoPart { shift: 32 * (place / lanes) + bits * (place % lanes), bits };
    let parts =
        places(a, first)?.into_iter().zip(places(b, second)?).map(|(a, b)| [part(a), part(b)]).collect();
    let mask = match d {
        "" => (1 << lanes) - 1,
        d => d[1..].chars().try_fold(0, |mask, c| match c.to_digit(lanes) {
            Some(place) => Ok(mask | 1 << place),
            None => Err(unknown()),
        })?,
    };
    Ok((parts, (0..lanes).map(part).collect(), mask))
}
