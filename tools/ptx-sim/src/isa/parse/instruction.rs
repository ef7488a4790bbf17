//! Operands as written.

use super::cursor::Cursor;
use super::lexer::Token;
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
    /// `[texture, {x, y}]` and other places of more than one part, which only textures, surfaces and bulk
    /// copies have.
    Place,
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
            Token::Word(name) => {
                if cursor.take('|') {
                    return Ok(Operand::Pair(name, cursor.word("a register after |")?));
                }
                if name == "_" {
                    return Ok(Operand::Nothing);
                }
                let offset = match cursor.peek() {
                    Token::Mark('+' | '-') => signed_offset(cursor)?,
                    _ => 0,
                };
                Operand::Name(name, offset)
            }
            Token::Mark('!') => Operand::Not(cursor.word("a predicate after !")?),
            Token::Integer(_) | Token::Mark('~') => {
                cursor.back();
                Operand::Integer(expression(cursor, 0, depth)?)
            }
            Token::Float(bits) => Operand::Float(bits),
            Token::Double(bits) => Operand::Double(bits),
            Token::Mark('-') => match cursor.next().0 {
                Token::Integer(_) => {
                    cursor.back();
                    cursor.back();
                    Operand::Integer(expression(cursor, 0, depth)?)
                }
                Token::Float(bits) => Operand::Float(bits ^ 1 << 31),
                Token::Double(bits) => Operand::Double(bits ^ 1 << 63),
                other => return Err(Error::at(line, format!("{} after a minus sign", other.shown()))),
            },
            Token::Mark('{') => Operand::Vector(list(cursor, '}', depth)?),
            Token::Mark('(') => Operand::List(list(cursor, ')', depth)?),
            Token::Mark('[') => Self::memory(cursor, depth)?,
            other => return Err(Error::at(line, format!("{} where an operand should stand", other.shown()))),
        })
    }

    /// What follows a `[`.
    fn memory(cursor: &mut Cursor<'_, 't>, depth: u32) -> Result<Self> {
        let base = match cursor.peek() {
            Token::Word(name) => {
                cursor.next();
                Base::Name(name)
            }
            _ => Base::Absolute,
        };
        let offset = match cursor.peek() {
            Token::Mark(']' | ',') => 0,
            _ => signed_offset(cursor)?,
        };
        if cursor.take(',') {
            list(cursor, ']', depth)?;
            return Ok(Operand::Place);
        }
        cursor.expect(']')?;
        Ok(Operand::Memory(base, offset))
    }
}

impl Cursor<'_, '_> {
    /// An integer that is not negative, or an expression that gives one.
    pub fn integer(&mut self, what: &str) -> Result<u64> {
        match self.next() {
            (Token::Integer(value), _)
                if !matches!(self.peek(), Token::Mark('+' | '-' | '*' | '/' | '<' | '&' | '|')) =>
            {
                Ok(value)
            }
            (Token::Integer(_) | Token::Mark('('), _) => {
                self.back();
                let value = expression(self, 0, 0)?;
                u64::try_from(value).map_err(|_| self.error(&format!("{value} where {what} should stand")))
            }
            (other, line) => Err(Error::at(line, format!("{} where {what} should stand", other.shown()))),
        }
    }
}

/// `+8`, `+-8`, `-8` or a plain number; each may be an expression of constants.
pub(super) fn signed_offset(cursor: &mut Cursor<'_, '_>) -> Result<i64> {
    cursor.take('+');
    match cursor.peek() {
        Token::Integer(_) | Token::Mark('-' | '+' | '(' | '~') => expression(cursor, 0, 0),
        other => Err(cursor.error(&format!("{} where an offset should stand", other.shown()))),
    }
}

/// The operators of constant expressions by how tightly they bind, the loosest first.
const OPERATORS: [&[char]; 6] = [&['|'], &['^'], &['&'], &['<', '>'], &['+', '-'], &['*', '/']];

/// A constant expression of integers whose operators bind at least as tightly as those of `level`.
pub(super) fn expression(cursor: &mut Cursor<'_, '_>, level: usize, depth: u32) -> Result<i64> {
    if depth > 32 {
        return Err(cursor.error("an expression nested too deeply"));
    }
    let Some(operators) = OPERATORS.get(level) else { return term(cursor, depth) };
    let mut value = expression(cursor, level + 1, depth)?;
    while let Token::Mark(operator) = cursor.peek() {
        if !operators.contains(&operator) {
            break;
        }
        cursor.next();
        if matches!(operator, '<' | '>') {
            cursor.expect(operator)?;
        }
        let other = expression(cursor, level + 1, depth)?;
        value = match operator {
            '|' => value | other,
            '^' => value ^ other,
            '&' => value & other,
            '<' => value.wrapping_shl(other as u32),
            '>' => value.wrapping_shr(other as u32),
            '+' => value.wrapping_add(other),
            '-' => value.wrapping_sub(other),
            '*' => value.wrapping_mul(other),
            _ => value.checked_div(other).ok_or_else(|| cursor.error("a division by zero"))?,
        };
    }
    Ok(value)
}

fn term(cursor: &mut Cursor<'_, '_>, depth: u32) -> Result<i64> {
    match cursor.next() {
        (Token::Integer(value), _) => Ok(value as i64),
        (Token::Mark('-'), _) => Ok(expression(cursor, OPERATORS.len(), depth + 1)?.wrapping_neg()),
        (Token::Mark('+'), _) => expression(cursor, OPERATORS.len(), depth + 1),
        (Token::Mark('~'), _) => Ok(!expression(cursor, OPERATORS.len(), depth + 1)?),
        (Token::Mark('('), _) => {
            let value = expression(cursor, 0, depth + 1)?;
            cursor.expect(')')?;
            Ok(value)
        }
        (other, line) => Err(Error::at(line, format!("{} where a number should stand", other.shown()))),
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
