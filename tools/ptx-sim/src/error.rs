//! The one error type: a line of text that names the thing and, where there is one, the remedy.

use std::fmt;

/// Why a program cannot be parsed, a launch not be made, or an address not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(crate) fn at(line: u32, message: impl fmt::Display) -> Self {
        Self(format!("PTX line {line}: {message}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

pub(crate) type Result<T> = std::result::Result<T, Error>;
