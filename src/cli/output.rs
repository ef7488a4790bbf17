//! Writing to standard output, which may be closed at any time, as by `| head`; `println!` would panic then.

use std::fmt;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// The reader closed standard output: a reason to stop, but not a failure.
#[derive(Debug)]
struct OutputClosed;

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Writes `text` to standard output at once.
///
/// # Errors
/// One for which [`is_closed`] holds if the reader has gone; else what went wrong, such as a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("cannot write to standard output"),
    }
}

/// Writes a note to standard error; the program goes on if that is closed.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "note: {line}");
}

/// Whether `error` says that the reader of standard output has gone.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.is::<OutputClosed>()
}

/// A table as text, with columns padded and separated by two blanks; the last column is not padded.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
