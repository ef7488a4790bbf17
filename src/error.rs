//! Errors that a user can cause, as opposed to failed runs.
//!
//! Everything fallible returns [`anyhow::Result`]. An error built with [`usage!`](crate::usage) (bad flag,
//! value, file or folder) ends the program with exit code 2, any other with 1; both print one line.

use std::fmt;

use crate::text::printable;

/// Bad usage or bad input: names the thing and the remedy. Ends the program with exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Builds an [`anyhow::Error`] that holds a [`UsageError`]; takes the arguments of `format!`.
#[macro_export]
macro_rules! usage {
    ($($argument:tt)*) => {
        ::anyhow::Error::new($crate::error::UsageError(format!($($argument)*)))
    };
}

/// The exit code of a run whose `--max-minutes` are up before its end.
pub const TIME_IS_UP: u8 = 3;

/// The exit code of a run that `signal` stopped, which is what a shell says of a process that it ended.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

/// A run that was stopped before its end on request, and can be gone on with: no failure.
#[derive(Debug)]
pub struct Stopped {
    /// What stopped it, where, and how to go on.
    pub line: String,
    /// [`TIME_IS_UP`] or that [`of_signal`].
    pub code: u8,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Stopped {}

/// What stopped a run, if an error says that it was stopped.
pub fn stopped(error: &anyhow::Error) -> Option<&Stopped> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// The exit code of a command that ended early: 2 for bad usage or input, 1 for a failed run, that of
/// [`Stopped`] for one that was stopped.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match stopped(error) {
        Some(stopped) => stopped.code,
        None if error.chain().any(|cause| cause.is::<UsageError>()) => 2,
        None => 1,
    }
}

/// The error and its causes on one line, with control characters escaped, since text in it may come from a
/// file or an argument.
pub fn one_line(error: &anyhow::Error) -> String {
    let parts: Vec<String> = error.chain().map(ToString::to_string).collect();
    printable(&parts.join(": ").replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let error = usage!("tensor 'a\u{1b}[31m\r\nb'\u{7}").context("x");
        assert_eq!(one_line(&error), "x: tensor 'a\\u{1b}[31m\\r b'\\u{7}");
        assert_eq!(exit_code(&error), 2);
    }
}
