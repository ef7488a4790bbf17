//! A branch: a new run, with any settings, from a checkpoint of another.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::checkpoint::Checkpoint;
use super::run_folder;
use crate::error::one_line;
use crate::text::printable;
use crate::usage;

/// Where a branch begins.
pub struct Source {
    /// The checkpoint.
    pub path: PathBuf,
    /// Its contents.
    pub checkpoint: Checkpoint,
}

impl Source {
    /// The newest checkpoint between two epochs of the run in the folder `from`, or the checkpoint `from`.
    ///
    /// # Errors
    /// A usage error if there is none, or it is inside an epoch.
    pub fn open(from: &Path) -> Result<Self> {
        let shown = printable(&from.display().to_string());
        if !from.is_dir() {
            let checkpoint = Checkpoint::read(from)?;
            return match checkpoint.progress.steps_done {
                0 => Ok(Self { path: from.into(), checkpoint }),
                _ => Err(usage!("{shown}: is inside an epoch; branch from a checkpoint between two epochs")),
            };
        }
        let mut first_error = None;
        for (path, done) in run_folder::resumable(from) {
            match run_folder::read_resumable(&path, done) {
                Ok(checkpoint) if checkpoint.progress.steps_done == 0 => {
                    return Ok(Self { path, checkpoint });
                }
                Ok(_) => {}
                Err(error) => _ = first_error.get_or_insert(error),
            }
        }
        Err(match first_error {
            Some(error) => usage!("{}", one_line(&error)),
            None => usage!("{shown}: has no checkpoint between two epochs to branch from"),
        })
    }

    /// The checkpoint in words.
    pub fn shown(&self) -> String {
        printable(&self.path.display().to_string())
    }

    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        run_folder::folder_of(&self.path)
    }
}
