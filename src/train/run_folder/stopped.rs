//! `stopped.safetensors`: the state at which a signal or `--max-minutes` stopped a run, mostly inside an
//! epoch. It goes away with the next numbered checkpoint, which holds more.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::RunFolder;
use super::states::{numbered, read};
use crate::train::checkpoint::Checkpoint;

/// Its name.
pub const STOPPED: &str = "stopped.safetensors";

/// Whether a path names it.
pub fn is_stopped(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == STOPPED)
}

/// Reads a checkpoint that [`resumable`] lists; the name of a numbered one must say what is in it.
///
/// # Errors
/// A usage error naming the file.
pub fn read_resumable(path: &Path, done: Option<usize>) -> Result<Checkpoint> {
    match done {
        Some(done) => read(done, path),
        None => Checkpoint::read(path),
    }
}

/// The checkpoints of a folder from which a run can go on, the newest first; numbered ones with the epochs
/// that their names say.
pub fn resumable(folder: &Path) -> Vec<(PathBuf, Option<usize>)> {
    let mut found: Vec<(PathBuf, Option<usize>)> =
        numbered(folder).into_iter().map(|(done, path)| (path, Some(done))).collect();
    let stopped = folder.join(STOPPED);
    if fs::symlink_metadata(&stopped).is_ok() {
        // One that cannot be read is the newest, so that it is said.
        let epochs = Checkpoint::read(&stopped).map_or(usize::MAX, |stopped| stopped.progress.epochs_done);
        let later = found.iter().take_while(|(_, done)| done.is_some_and(|done| done > epochs)).count();
        found.insert(later, (stopped, None));
    }
    found
}

impl RunFolder {
    /// Writes the state at which the run stops.
    ///
    /// # Errors
    /// A failed run when it cannot be written; one that was there is still there then.
    pub fn save_stopped(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        self.check_place()?;
        checkpoint.write(&self.path.join(STOPPED)).map_err(|error| self.failed(error))
    }

    /// Replaces the checkpoint that a run goes back to after it has diverged by `checkpoint`, the same state with
    /// other progress, and sets the lines of later epochs aside.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn go_back_again(&mut self, checkpoint: &mut Checkpoint, best: Option<usize>) -> Result<()> {
        let done = checkpoint.progress.epochs_done;
        // First: its state knows nothing of the divergence, and would be the newer one.
        self.remove_stopped();
        self.save(checkpoint, false)?;
        self.lines_go_back = true;
        self.begin(done, best)?;
        self.lines_go_back = false;
        Ok(())
    }

    /// Removes it once a numbered checkpoint of later epochs is on the disk.
    pub(super) fn remove_stopped(&self) {
        match fs::remove_file(self.path.join(STOPPED)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.say(&format!("{STOPPED} cannot be removed ({error}); it is not needed any more"));
            }
            _ => {}
        }
    }

    /// After the run went back to the state of a numbered checkpoint of `done` epochs: one that is later, or
    /// not whole, is set aside, and one that is earlier was left by a kill. Returns whether it was later.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(super) fn leave_stopped(&mut self, done: usize) -> Result<bool> {
        let path = self.path.join(STOPPED);
        if fs::symlink_metadata(&path).is_err() {
            return Ok(false);
        }
        match Checkpoint::read(&path) {
            Ok(stopped) if stopped.progress.epochs_done < done => {
                self.remove_stopped();
                Ok(false)
            }
            _ => self.set_aside_file(&path).map(|()| true),
        }
    }
}
