//! The checkpoints of a folder: `checkpoint-NNNN.safetensors` after so many epochs, and `best.safetensors`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::RunFolder;
use super::stopped::{is_stopped, read_resumable, resumable};
use crate::error::one_line;
use crate::files::{link_whole, write_atomically};
use crate::train::checkpoint::{Checkpoint, Progress};
use crate::usage;

/// Newest checkpoints kept beside that of the best epoch.
const KEPT: usize = 2;

/// Where a folder's best.safetensors stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Best {
    /// There is none to be, or it is the one that the run's progress names.
    Fits,
    /// It holds so many epochs, more than are done: the epoch after which it was written is run again.
    Ahead(usize),
    /// What progress names is not there.
    Missing,
}

pub(super) fn name(done: usize) -> String {
    format!("checkpoint-{done:04}.safetensors")
}

/// The numbered checkpoints of a folder with the epochs done, newest first.
pub(super) fn numbered(folder: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let number = |entry: fs::DirEntry| {
        let found = entry.file_name();
        let found = found.to_str()?;
        let done = found.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()?;
        // A name that we would not have written is not ours to count or to remove.
        (found == name(done)).then(|| (done, entry.path()))
    };
    let mut found: Vec<(usize, PathBuf)> = entries.filter_map(|entry| entry.ok().and_then(number)).collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Reads a numbered checkpoint, whose name must say what is in it.
///
/// # Errors
/// A usage error naming the file.
pub fn read(done: usize, path: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::read(path)?;
    let Progress { epochs_done: found, steps_done, .. } = checkpoint.progress;
    if (found, steps_done) != (done, 0) {
        let and = if steps_done > 0 { format!(" and {steps_done} steps") } else { String::new() };
        return Err(usage!("{}: holds {found} epochs{and}, not {done} as its name says", path.display()));
    }
    Ok(checkpoint)
}

/// The newest whole checkpoint of a folder, numbered, that of a stopped run, or the best, with its path.
pub fn newest(folder: &Path) -> Option<(PathBuf, Checkpoint)> {
    let mut candidates = resumable(folder).into_iter();
    candidates.find_map(|(path, done)| read_resumable(&path, done).ok().map(|found| (path, found))).or_else(
        || {
            let best = folder.join("best.safetensors");
            best.exists().then(|| Checkpoint::read(&best).ok()).flatten().map(|found| (best, found))
        },
    )
}

/// How far the newest whole checkpoint of a folder is.
pub fn progress(folder: &Path) -> Option<Progress> {
    newest(folder).map(|(_, checkpoint)| checkpoint.progress)
}

impl RunFolder {
    /// The numbered checkpoints, newest first, with the epochs done.
    pub fn checkpoints(&self) -> Vec<(usize, PathBuf)> {
        numbered(&self.path)
    }

    /// Refuses to begin again from nothing in a folder that has lost its numbered checkpoints and still has the best.
    ///
    /// # Errors
    /// A usage error that names the command which goes on from the best.
    pub fn refuse_lost_checkpoints(&self, checkpoint_every: usize) -> Result<()> {
        let best = self.path.join("best.safetensors");
        if !best.exists() {
            return Ok(());
        }
        let Ok(checkpoint) = Checkpoint::read(&best) else { return Ok(()) };
        let done = checkpoint.progress.epochs_done;
        // A kill after the very first was written and before its checkpoint leaves it alone, too.
        if done <= checkpoint_every && super::metrics(&self.path).len() <= done {
            return Ok(());
        }
        Err(usage!("{}: no numbered checkpoint is left; {}", self.shown(), self.offer_of_best(done)))
    }

    /// What to do where no numbered checkpoint is whole, in words; `None` where the best is not whole either.
    pub fn offer_best(&self) -> Option<String> {
        let checkpoint = Checkpoint::read(&self.path.join("best.safetensors")).ok()?;
        Some(self.offer_of_best(checkpoint.progress.epochs_done))
    }

    fn offer_of_best(&self, done: usize) -> String {
        format!(
            "best.safetensors is whole and holds {done} epochs: records train --resume {}/best.safetensors goes on from it",
            self.shown()
        )
    }

    /// Makes way for a run that goes on from the state in `source`, after `done` epochs: later checkpoints are
    /// damaged, or are not what their names say.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn follow(&mut self, source: &Path, done: usize) -> Result<()> {
        self.set_later_aside(done)?;
        if !is_stopped(source) {
            self.leave_stopped(done)?;
        }
        Ok(())
    }

    /// Moves numbered checkpoints of more than `done` epochs out of the way: they are damaged, are not what their names say, or are
    /// gone back from. The newest first, so that a kill on the way leaves a folder that goes on from what is left. Returns
    /// whether there were any.
    ///
    /// # Errors
    /// When they cannot be moved.
    fn set_later_aside(&mut self, done: usize) -> Result<bool> {
        let mut later = self.checkpoints();
        later.retain(|(number, _)| *number > done);
        later.iter().try_for_each(|(_, path)| self.set_aside_file(path))?;
        Ok(!later.is_empty())
    }

    /// Goes on from `source` after `done` epochs although there may be later checkpoints: those, a later best and the later lines of
    /// metrics are set aside.
    ///
    /// # Errors
    /// When they cannot be moved.
    pub fn go_back(&mut self, source: &Path, done: usize) -> Result<()> {
        let are_later = self.set_later_aside(done)?;
        let is_later = !is_stopped(source) && self.leave_stopped(done)?;
        if !are_later && !is_later {
            return Ok(());
        }
        let best = self.path.join("best.safetensors");
        if best.exists() && Checkpoint::read(&best).is_ok_and(|found| found.progress.epochs_done > done) {
            self.set_aside_file(&best)?;
        }
        self.lines_go_back = true;
        Ok(())
    }

    /// Compares best.safetensors with what progress names after `done` epochs: the state after `wanted` epochs. One that is
    /// missing or another is made again where that checkpoint is kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn check_best(&mut self, done: usize, wanted: Option<usize>) -> Result<()> {
        let path = self.path.join("best.safetensors");
        let found = fs::symlink_metadata(&path).ok().map(|_| Checkpoint::read(&path));
        let problem = match &found {
            Some(Ok(best)) if wanted == Some(best.progress.epochs_done) => return Ok(()),
            Some(Ok(best)) if best.progress.epochs_done > done => {
                self.best = Best::Ahead(best.progress.epochs_done);
                return Ok(());
            }
            Some(Ok(best)) => format!("best.safetensors holds {} epochs", best.progress.epochs_done),
            Some(Err(error)) => one_line(error),
            None => "best.safetensors is missing".into(),
        };
        match wanted {
            None => Ok(()),
            Some(wanted) => self.mend_best(&problem, found.is_some(), wanted),
        }
    }

    /// Makes best.safetensors from the checkpoint after `wanted` epochs, which is the same file, where that is kept.
    fn mend_best(&mut self, problem: &str, is_there: bool, wanted: usize) -> Result<()> {
        let (path, source) = (self.path.join("best.safetensors"), self.path.join(name(wanted)));
        let epoch = wanted - 1;
        if is_there {
            self.set_aside_file(&path)?;
        }
        self.best = match read(wanted, &source) {
            Ok(_) => {
                let bytes = fs::read(&source).map_err(|error| crate::files::unwritable(&path, error))?;
                write_atomically(&path, &bytes)?;
                self.say(&format!("{problem}: made again, of epoch {epoch}, from {}", name(wanted)));
                Best::Fits
            }
            Err(_) => {
                self.say(&format!(
                    "{problem}, but the best epoch is {epoch}, whose state is in no file; the next better epoch is written"
                ));
                Best::Missing
            }
        };
        Ok(())
    }

    /// Writes `best.safetensors`; before the epoch's line and the checkpoint that name it.
    ///
    /// # Errors
    /// A failed run when it cannot be written; the one before is still there then.
    pub(super) fn save_best(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        self.check_place()?;
        checkpoint.write(&self.path.join("best.safetensors")).map_err(|error| self.failed(error))?;
        self.best = Best::Fits;
        Ok(())
    }

    /// Writes the numbered checkpoint; after everything that it says was done. Where the best has just been
    /// written, it is that file under a second name, on file systems that have such.
    ///
    /// # Errors
    /// A failed run when it cannot be written; the earlier ones are all still there then.
    pub(super) fn save(&mut self, checkpoint: &mut Checkpoint, is_best: bool) -> Result<()> {
        self.check_place()?;
        let path = self.path.join(name(checkpoint.progress.epochs_done));
        if is_best && link_whole(&self.path.join("best.safetensors"), &path).is_ok() {
            return Ok(());
        }
        checkpoint.write(&path).map_err(|error| self.failed(error))
    }

    /// Whether a best that was ahead is of an epoch that has been run again now and is not the best any more; what
    /// progress names instead is made again.
    pub(super) fn settle_best(&mut self, done: usize, wanted: Option<usize>) -> Result<()> {
        if let (Best::Ahead(ahead), Some(wanted)) = (self.best, wanted)
            && ahead <= done
        {
            self.best = Best::Fits;
            if ahead != wanted {
                let problem = format!("best.safetensors holds {ahead} epochs of another computation");
                return self.mend_best(&problem, true, wanted);
            }
        }
        Ok(())
    }

    /// Whether best.safetensors is what progress says.
    pub fn has_best(&self) -> bool {
        self.best == Best::Fits
    }

    /// Removes numbered checkpoints of up to `done` epochs but the newest and the one from which best.safetensors can be made
    /// again.
    pub fn rotate(&self, done: usize, best: Option<usize>) {
        let found = self.checkpoints().into_iter().filter(|(number, _)| *number <= done);
        for (_, old) in found.skip(KEPT).filter(|(number, _)| Some(*number) != best) {
            // One too many does no harm.
            let _ = fs::remove_file(old);
        }
    }
}
