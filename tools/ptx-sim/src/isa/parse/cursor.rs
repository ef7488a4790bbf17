//! A walk over the tokens.

use super::lexer::Token;
use crate::error::{Error, Result};

/// A place among the tokens.
pub struct Cursor<'a, 't> {
    pub tokens: &'a [(Token<'t>, u32)],
    pub at: usize,
}

impl<'t> Cursor<'_, 't> {
    /// The next token.
    pub fn peek(&self) -> Token<'t> {
        self.tokens.get(self.at).map_or(Token::End, |(token, _)| *token)
    }

    /// The line of the next token.
    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    /// The next token and its line; goes over it.
    pub fn next(&mut self) -> (Token<'t>, u32) {
        let found = (self.peek(), self.line());
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        found
    }

    /// One token back.
    pub fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Goes over a mark if it is next.
    pub fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Token::Mark(mark);
        if found {
            self.next();
        }
        found
    }

    /// Goes over a mark that must be next.
    pub fn expect(&mut self, mark: char) -> Result<()> {
        let (token, line) = self.next();
        if token == Token::Mark(mark) {
            return Ok(());
        }
        Err(Error::at(line, format!("{} where {mark:?} should stand", token.shown())))
    }

    /// A word, which must be next.
    pub fn word(&mut self, what: &str) -> Result<&'t str> {
        match self.next() {
            (Token::Word(word), _) => Ok(word),
            (other, line) => Err(Error::at(line, format!("{} where {what} should stand", other.shown()))),
        }
    }

    /// An error at the next token.
    pub fn error(&self, message: &str) -> Error {
        Error::at(self.line(), message)
    }

    /// Goes over a word if it is next.
    pub fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Token::Word(word);
        if found {
            self.next();
        }
        found
    }
}
