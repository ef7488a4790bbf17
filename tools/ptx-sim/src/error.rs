//! What can be wrong with a request: one line that names the thing.

use std::fmt;

/// A file that cannot be understood, a launch that cannot be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An error with a formatted message.
macro_rules! error {
    ($($part:tt)*) => { $crate::error::Error::new(format!($($part)*)) };
}
pub(crate) use error;
