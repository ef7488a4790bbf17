//! Words, numbers and punctuation of PTX text, each with its line.

use crate::error::{Error, Result};

/// One token. Words keep their dots: `add.s32`, `%tid.x` and `.reg` are one token each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'t> {
    Word(&'t str),
    /// An integer's magnitude; a minus sign before it is punctuation.
    Integer(u64),
    /// `0f3F800000`: the bits of an f32.
    Float(u32),
    /// `0d3FF0000000000000` or `1.5`: the bits of an f64.
    Double(u64),
    Text(&'t str),
    Mark(char),
    End,
}

impl Token<'_> {
    /// As an error message names it.
    pub fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("{word:?}"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Float(_) | Self::Double(_) => "a floating-point number".into(),
            Self::Text(text) => format!("the string {text:?}"),
            Self::Mark(mark) => format!("{mark:?}"),
            Self::End => "the end of the text".into(),
        }
    }
}

/// Cuts the text into tokens and their lines, counted from 1. The last token is [`Token::End`].
pub fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>> {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' | 0 => {
                at += 1;
                continue;
            }
            // A preprocessor's line marker.
            b'#' if text[..at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty()) => {
                at = line_end(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = line_end(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = comment_end(bytes, at, &mut line)?;
                continue;
            }
            b'"' => {
                at += 1;
                let first = at;
                while at < bytes.len() && bytes[at] != b'"' && bytes[at] != b'\n' {
                    at += 1;
                }
                if bytes.get(at) != Some(&b'"') {
                    return Err(Error::at(line, "a string that never ends"));
                }
                at += 1;
                Token::Text(slice(text, first, at - 1, line)?)
            }
            byte if word_start(byte) => {
                at = word_end(bytes, at);
                match slice(text, start, at, line)? {
                    "WARP_SZ" => Token::Integer(32),
                    word => Token::Word(word),
                }
            }
            byte if byte.is_ascii_digit() => {
                at = number_end(bytes, at);
                number(slice(text, start, at, line)?, line)?
            }
            byte if byte.is_ascii() => {
                at += 1;
                Token::Mark(char::from(byte))
            }
            _ => return Err(Error::at(line, "a character that is not ASCII outside a comment or string")),
        };
        found.push((token, line));
    }
    found.push((Token::End, line));
    Ok(found)
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    let length = bytes[start..].iter().position(|byte| *byte == b'\n');
    length.map_or(bytes.len(), |length| start + length)
}

/// Behind a comment between marks, whose lines are counted.
fn comment_end(bytes: &[u8], start: usize, line: &mut u32) -> Result<usize> {
    let (first, mut at) = (*line, start + 2);
    loop {
        match bytes.get(at) {
            None => return Err(Error::at(first, "a comment that never ends")),
            Some(b'*') if bytes.get(at + 1) == Some(&b'/') => return Ok(at + 2),
            Some(b'\n') => *line += 1,
            Some(_) => {}
        }
        at += 1;
    }
}

fn word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// Where the word that starts at `start` ends. An opcode keeps its dots; directives written without a blank
/// between them (`.reg.b16`) are a word each, and a register's `%` starts a word of its own.
fn word_end(bytes: &[u8], start: usize) -> usize {
    let directive = bytes[start] == b'.';
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'.') if directive => return at,
            Some(b'%') => return at,
            Some(&byte) if word_start(byte) || byte.is_ascii_digit() => at += 1,
            // `.L2::128B`, but not the colon after a label.
            Some(b':') if bytes.get(at + 1) == Some(&b':') => at += 2,
            _ => return at,
        }
    }
}

/// Where a number ends: before the dot of a directive glued to it (`.align 4.b8`), after an exponent's sign.
fn number_end(bytes: &[u8], start: usize) -> usize {
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let hexadecimal =
        bytes[start] == b'0' && matches!(bytes.get(start + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'.') if is_digit(at + 1) => at += 1,
            Some(b'.') if !bytes.get(at + 1).is_some_and(|byte| word_start(*byte)) => at += 1,
            Some(b'+' | b'-') if !hexadecimal && matches!(bytes[at - 1], b'e' | b'E') && is_digit(at + 1) => {
                at += 1
            }
            Some(byte) if byte.is_ascii_alphanumeric() => at += 1,
            _ => return at,
        }
    }
}

fn slice(text: &str, from: usize, to: usize, line: u32) -> Result<&str> {
    text.get(from..to).ok_or_else(|| Error::at(line, "text that is not valid UTF-8 where cut"))
}

fn number(word: &str, line: u32) -> Result<Token<'_>> {
    let wrong = || Error::at(line, format!("{word:?} is not a number"));
    let hex = |digits: &str, len: usize| {
        if digits.len() == len { u64::from_str_radix(digits, 16).map_err(|_| wrong()) } else { Err(wrong()) }
    };
    let lower = word.as_bytes();
    if lower.len() > 2 && lower[0] == b'0' {
        match lower[1] {
            b'f' | b'F' => return Ok(Token::Float(hex(&word[2..], 8)? as u32)),
            b'd' | b'D' => return Ok(Token::Double(hex(&word[2..], 16)?)),
            _ => {}
        }
    }
    let plain = !matches!(lower.get(1), Some(b'x' | b'X' | b'b' | b'B'));
    if word.contains('.') || plain && word.contains(['e', 'E']) {
        return word.parse::<f64>().map(|value| Token::Double(value.to_bits())).map_err(|_| wrong());
    }
    let digits = word.strip_suffix('U').unwrap_or(word);
    let value = if let Some(rest) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(rest, 16)
    } else if let Some(rest) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
        u64::from_str_radix(rest, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    value.map(Token::Integer).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_lines() {
        let found = tokens("add.s32 %r1, 0x1F, 0f3F800000; // x\n$L:\n/* \n */ 017").unwrap();
        let only: Vec<_> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(
            only,
            [
                Token::Word("add.s32"),
                Token::Word("%r1"),
                Token::Mark(','),
                Token::Integer(31),
                Token::Mark(','),
                Token::Float(0x3F80_0000),
                Token::Mark(';'),
                Token::Word("$L"),
                Token::Mark(':'),
                Token::Integer(15),
                Token::End
            ]
        );
        assert_eq!(found[9].1, 4);
        assert_eq!(tokens("ld.L2::128B x::").unwrap()[0].0, Token::Word("ld.L2::128B"));
    }
}
