//! PTX text to tokens, each with its line.

use crate::error::{Result, error};

/// A token: a word keeps its dots (`ld.global.nc.v4.u32`, `%tid.x`, `.reg`), everything else is one character or a string.
#[derive(Clone, Debug, PartialEq)]
pub enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Mark(char),
}

/// A token and the line it stands on, counted from 1.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    pub token: Token<'a>,
    pub line: u32,
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// Splits a module into tokens.
///
/// # Errors
/// A character that PTX has no use for, a comment or string without end.
pub fn tokens(text: &str) -> Result<Vec<Placed<'_>>> {
    let mut placed = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = if c == '\n' {
            line += 1;
            1
        } else if c.is_whitespace() {
            c.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let len = rest.find("*/").ok_or_else(|| error!("line {line}: a comment without end"))? + 2;
            line += rest[..len].matches('\n').count() as u32;
            len
        } else if c == '"' {
            let len = rest[1..].find('"').ok_or_else(|| error!("line {line}: a string without end"))? + 2;
            placed.push(Placed { token: Token::Text(&rest[1..len - 1]), line });
            line += rest[..len].matches('\n').count() as u32;
            len
        } else if in_word(c) {
            let mut len = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            // `.target::` style qualifiers: `.shared::cta` is one word.
            while rest[len..].starts_with("::") {
                len += 2 + rest[len + 2..].find(|c| !in_word(c)).unwrap_or(rest.len() - len - 2);
            }
            placed.push(Placed { token: Token::Word(&rest[..len]), line });
            len
        } else if "{}[](),;:@!+-|<>=*/?&~^".contains(c) {
            placed.push(Placed { token: Token::Mark(c), line });
            1
        } else {
            return Err(error!("line {line}: unexpected character {c:?}"));
        };
        rest = &rest[len..];
    }
    Ok(placed)
}
