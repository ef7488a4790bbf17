//! log.txt: what a run says, on the terminal and in its folder.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::{FAILED, end_last_line};
use crate::error::{one_line, stopped};
use crate::files::unwritable;
use crate::train::progress;

/// The log of a run. Copies write to the same file: the run and the thread that writes its checkpoints both
/// have things to say.
#[derive(Clone)]
pub struct RunLog(Option<Arc<File>>);

impl RunLog {
    /// Opens the file to add to it.
    ///
    /// # Errors
    /// When it is no regular file or cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self> {
        end_last_line(path)?;
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map(|file| Self(Some(Arc::new(file)))).map_err(|error| unwritable(path, error))
    }

    /// The log of a process that has not the run's folder: what it would say, the first process says.
    pub(super) fn elsewhere() -> Self {
        Self(None)
    }

    /// Prints a line and keeps it in log.txt. A closed terminal or a full disk does not end a run for its log.
    pub fn say(&self, text: &str) {
        if self.0.is_some() {
            progress::say(text);
        }
        self.keep(text);
    }

    /// As [`RunLog::say`], for a row of the table of results: what reads JSON gets the results in another line.
    pub fn say_row(&self, row: &str) {
        if self.0.is_some() && progress::shown_as() != progress::Show::Json {
            progress::say(row);
        }
        self.keep(row);
    }

    /// Keeps the reason why the run ended early; the program's last line shows it on the terminal.
    pub fn note_end(&self, error: &anyhow::Error) {
        let begins = if stopped(error).is_some() { "" } else { FAILED };
        self.keep(&format!("{begins}{}", one_line(error)));
    }

    /// Adds a line in one write, so that lines of two threads do not mix.
    fn keep(&self, text: &str) {
        if let Some(file) = &self.0 {
            let _ = (&**file).write_all(format!("{text}\n").as_bytes());
        }
    }
}
