//! Integers where floating-point numbers belong, and the other way round: refused as ptxas refuses them.
//!
//! Registers declared as bits (`.b32`) are either, and instructions on bits take either.

use super::frame::Builder;
use crate::error::{Error, Result};
use crate::isa::parse::{Base, Operand, Statement};

/// What a type holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Float,
}

impl Kind {
    /// Of a type's name without its dot; None of bits, and of what is no type.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "u8" | "s8" | "u16" | "s16" | "u32" | "s32" | "u64" | "s64" | "u16x2" | "s16x2" => Self::Integer,
            "f16" | "f16x2" | "bf16" | "bf16x2" | "f32" | "f64" => Self::Float,
            _ => return None,
        })
    }
}

/// What the result is, and what the other operands are, where the instruction says one or both.
fn kinds(opcode: &str) -> (Option<Kind>, Option<Kind>) {
    let mut parts = opcode.split('.');
    let mnemonic = parts.next().unwrap_or("");
    let mut types = parts.filter_map(Kind::of);
    let (first, second) = (types.next(), types.next());
    match mnemonic {
        // Two types, each of which may be one that is neither.
        "cvt" | "set" => {
            let [.., to, from] = opcode.split('.').collect::<Vec<_>>()[..] else { return (None, None) };
            (Kind::of(to), Kind::of(from))
        }
        // Matrices, and what takes numbers of both kinds.
        "mma" | "wmma" | "slct" | "call" => (None, None),
        _ if second.is_some_and(|second| Some(second) != first) => (None, None),
        _ => (first, first),
    }
}

impl<'t> Builder<'_, 't> {
    /// Refuses operands of the wrong kind.
    pub fn check_kinds(&self, statement: &Statement<'t>) -> Result<()> {
        let (result, others) = kinds(statement.opcode);
        for (at, operand) in statement.operands.iter().enumerate() {
            let wanted = match (at, statement.mnemonic()) {
                (0, _) => result,
                // A predicate.
                (3, "setp" | "set" | "selp") => None,
                _ => others,
            };
            self.check_kind(statement.scope, operand, wanted)?;
        }
        Ok(())
    }

    fn check_kind(&self, scope: usize, operand: &Operand<'t>, wanted: Option<Kind>) -> Result<()> {
        let wrong = |what: &str, wanted: Kind| {
            let wanted = if wanted == Kind::Float { "floating-point numbers" } else { "integers" };
            Err(Error::new(format!("{what}: the instruction takes {wanted} here")))
        };
        let is = |name: &str, kind: Kind| self.kind_of(scope, name) == Some(kind);
        match (operand, wanted) {
            (Operand::Memory(Base::Name(name), _), _) if is(name, Kind::Float) => {
                Err(Error::new(format!("{name}: a floating-point register as an address")))
            }
            (Operand::Vector(parts), wanted) => {
                parts.iter().try_for_each(|part| self.check_kind(scope, part, wanted))
            }
            (Operand::Name(name, _), Some(Kind::Float)) if is(name, Kind::Integer) => {
                wrong(name, Kind::Float)
            }
            (Operand::Name(name, _), Some(Kind::Integer)) if is(name, Kind::Float) => {
                wrong(name, Kind::Integer)
            }
            (Operand::Integer(value), Some(Kind::Float)) => wrong(&value.to_string(), Kind::Float),
            (Operand::Float(_) | Operand::Double(_), Some(Kind::Integer)) => {
                wrong("a floating-point number", Kind::Integer)
            }
            _ => Ok(()),
        }
    }

    /// Of a register, by its declaration.
    fn kind_of(&self, scope: usize, name: &str) -> Option<Kind> {
        let mut found = self.up(scope).filter_map(|scope| self.frame.body.scopes[scope].type_of(name));
        Kind::of(found.next()?.trim_start_matches('.'))
    }
}
