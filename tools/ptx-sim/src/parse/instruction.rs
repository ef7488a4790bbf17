//! Operands as written.

use super::lexer::Token;
use super::module::Cursor;
use crate::error::{Error, Result};

/// An instruction's guard, `@%p` or `@!%p`.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'t> {
    pub name: &'t str,
    pub negated: bool,
}

/// What a memory operand's address starts from.
#[derive(Clone, Copy, Debug)]
pub enum Base<'t> {
    /// A register or a variable.
    Name(&'t str),
    Absolute,
}

/// One operand.
#[derive(Clone, Debug)]
pub enum Operand<'t> {
    /// A register, variable, label or function, with an addend (`variable+4`).
    Name(&'t str, i64),
    /// `!%p`
    Not(&'t str),
    /// As two's complement.
    Integer(i64),
    Float(u32),
    Double(u64),
    /// `{a, b}`
    Vector(Vec<Operand<'t>>),
    /// `[base+offset]`
    Memory(Base<'t>, i64),
    /// `a|b`
    Pair(&'t str, &'t str),
    /// `(a, b)` of a call.
    List(Vec<Operand<'t>>),
    /// `_`
    Nothing,
}

impl<'t> Operand<'t> {
    pub(super) fn parse(cursor: &mut Cursor<'_, 't>, depth: u32) -> Result<Self> {
        if depth > 4 {
            return Err(cursor.error("operands nested too deeply"));
        }
        let (token, line) = cursor.next();
        Ok(match token {
            Token::Word("_") => {
                if cursor.take('|') {
                    let other = cursor.word("a register after |")?;
                    return Ok(Operand::Pair("_", other));
                }
                Operand::Nothing
            }
            Token::Word(name) => {
                if cursor.take('|') {
                    let other = cursor.word("a register after |")?;
                    return Ok(Operand::Pair(name, other));
                }
                let offset = match cursor.peek() {
                    Token::Mark('+' | '-') => signed_offset(cursor)?,
                    _ => 0,
                };
                Operand::Name(name, offset)
            }
            Token::Mark('!') => Operand::Not(cursor.word("a predicate after !")?),
            Token::Integer(value) => Operand::Integer(value as i64),
            Token::Float(bits) => Operand::Float(bits),
            Token::Double(bits) => Operand::Double(bits),
            Token::Mark('-') => match cursor.next().0 {
                Token::Integer(value) => Operand::Integer((value as i64).wrapping_neg()),
                Token::Float(bits) => Operand::Float(bits ^ 1 << 31),
                Token::Double(bits) => Operand::Double(bits ^ 1 << 63),
                other => return Err(Error::at(line, format!("{other:?} after a minus sign"))),
            },
            Token::Mark('{') => Operand::Vector(list(cursor, '}', depth)?),
            Token::Mark('(') => Operand::List(list(cursor, ')', depth)?),
            Token::Mark('[') => {
                let base = match cursor.peek() {
                    Token::Word(name) => {
                        cursor.next();
                        Base::Name(name)
                    }
                    _ => Base::Absolute,
                };
                let offset = match (base, cursor.peek()) {
                    (_, Token::Mark(']')) => 0,
                    _ => signed_offset(cursor)?,
                };
                cursor.expect(']')?;
                Operand::Memory(base, offset)
            }
            other => return Err(Error::at(line, format!("{other:?} where an operand should stand"))),
        })
    }
}

/// `+8`, `+-8`, `-8` or a plain number.
fn signed_offset(cursor: &mut Cursor<'_, '_>) -> Result<i64> {
    let mut negative = false;
    while let Token::Mark(sign @ ('+' | '-')) = cursor.peek() {
        negative ^= sign == '-';
        cursor.next();
    }
    match cursor.next() {
        (Token::Integer(value), _) if negative => Ok((value as i64).wrapping_neg()),
        (Token::Integer(value), _) => Ok(value as i64),
        (other, line) => Err(Error::at(line, format!("{other:?} where an offset should stand"))),
    }
}

fn list<'t>(cursor: &mut Cursor<'_, 't>, close: char, depth: u32) -> Result<Vec<Operand<'t>>> {
    let mut items = Vec::new();
    if cursor.take(close) {
        return Ok(items);
    }
    loop {
        items.push(Operand::parse(cursor, depth + 1)?);
        if cursor.take(close) {
            return Ok(items);
        }
        cursor.expect(',')?;
    }
}
