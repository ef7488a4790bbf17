//! What a run leaves on disk: `config.toml`, `metrics.jsonl`, `log.txt` and its checkpoints, in a folder of its own.
//!
//! A folder belongs to one process at a time (a locked file says so, and the lock dies with the process). Checkpoints and
//! the configuration are whole or absent; a line of metrics that a crash cut short is dropped on resuming.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::checkpoint::Checkpoint;
use super::metrics::EpochMetrics;
use crate::data::left_out;
use crate::error::one_line;
use crate::files::write_atomically;
use crate::usage;

/// Checkpoints kept beside the best.
const KEPT: usize = 2;

/// Begins the line of log.txt that says why a run failed.
const FAILED: &str = "failed: ";

/// Whether a process is running in the folder of a run.
pub fn is_running(folder: &Path) -> bool {
    let lock = File::open(folder.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The epochs in a folder's metrics.jsonl; a line that cannot be read ends them.
pub fn metrics(folder: &Path) -> Vec<EpochMetrics> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

/// Why the run in a folder failed; `None` if it did not, or was begun again since.
pub fn failure(folder: &Path) -> Option<String> {
    let log = fs::read(folder.join("log.txt")).ok()?;
    String::from_utf8_lossy(&log).lines().last()?.strip_prefix(FAILED).map(String::from)
}

/// What the run in a folder says that it leaves out of its data, a line each, from its log.
pub fn left_out(folder: &Path) -> Vec<String> {
    let log = fs::read(folder.join("log.txt")).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(&log).lines().filter_map(|line| line.strip_prefix(left_out::PREFIX)) {
        // A resumed run says it again.
        if !found.iter().any(|known| known == line) {
            found.push(line.to_string());
        }
    }
    found
}

/// Whether a folder holds no more than a run leaves that ends before it has written its settings.
pub fn is_unused(folder: &Path) -> bool {
    let left = |name: &str| ["lock", "log.txt"].contains(&name) || name.starts_with(".config.toml.");
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(left)))
    })
}

/// An open run folder.
pub struct RunFolder {
    path: PathBuf,
    log: File,
    /// Held for the life of the run.
    _lock: File,
}

/// Checkpoint files of a folder with the epochs done, newest first.
fn checkpoints(folder: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let number = |path: &Path| -> Option<usize> {
        path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()
    };
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter_map(|p| Some((number(&p)?, p)))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

impl RunFolder {
    /// Makes the folder of a new run in `parent`: `name`, or `stem`, `stem-2`, ... where no name is given. A named folder may be
    /// there if it [is unused](is_unused).
    ///
    /// # Errors
    /// A usage error if the name is taken, another process holds the folder, or it cannot be made.
    pub fn create(parent: &Path, name: Option<&str>, stem: &str, config: &str) -> Result<Self> {
        let cannot = |path: &Path, error: std::io::Error| {
            usage!(
                "cannot make the run folder {}: {error}; choose another with --exp-dir or --name",
                path.display()
            )
        };
        fs::create_dir_all(parent).map_err(|error| cannot(parent, error))?;
        let path = match name {
            Some(name) => {
                let path = parent.join(name);
                if path.exists() && !is_unused(&path) {
                    let shown = path.display();
                    return Err(usage!(
                        "--name {name}: {shown} is there already; go on with --resume {shown} or choose another"
                    ));
                }
                fs::create_dir_all(&path).map_err(|error| cannot(&path, error))?;
                path
            }
            None => {
                let mut number = 1;
                loop {
                    let path =
                        parent.join(if number == 1 { stem.into() } else { format!("{stem}-{number}") });
                    match fs::create_dir(&path) {
                        Ok(()) => break path,
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                        Err(error) => return Err(cannot(&path, error)),
                    }
                }
            }
        };
        let folder = Self::open(&path)?;
        if path.join("config.toml").exists() {
            return Err(usage!(
                "{}: another process has just run in this folder; choose another --name",
                path.display()
            ));
        }
        write_atomically(&path.join("config.toml"), config.as_bytes())?;
        Ok(folder)
    }

    /// Opens the folder of a run that is there.
    ///
    /// # Errors
    /// A usage error if it is not there, not writable, or another process is running in it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if !path.is_dir() {
            return Err(usage!("{shown}: no such run folder"));
        }
        let append = |name: &str| {
            let file = OpenOptions::new().create(true).append(true).open(path.join(name));
            file.map_err(|error| usage!("{shown}/{name}: cannot be written: {error}"))
        };
        let lock = append("lock")?;
        if lock.try_lock().is_err() {
            return Err(usage!(
                "{shown}: another process is running in this folder; wait for it or choose another --name"
            ));
        }
        Ok(Self { path: path.into(), log: append("log.txt")?, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prints a line and keeps it in log.txt. A closed terminal or a full disk does not end a run for its log.
    pub fn say(&mut self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
        let _ = writeln!(self.log, "{text}");
    }

    /// Keeps the reason why the run failed in log.txt; the program's last line shows it on the terminal.
    pub fn note_failure(&mut self, error: &anyhow::Error) {
        let _ = writeln!(self.log, "{FAILED}{}", one_line(error));
    }

    /// Appends an epoch to metrics.jsonl.
    pub fn append_metrics(&self, metrics: &EpochMetrics) -> Result<()> {
        let path = self.path.join("metrics.jsonl");
        let mut line = serde_json::to_string(metrics)?;
        line.push('\n');
        let write = || OpenOptions::new().create(true).append(true).open(&path)?.write_all(line.as_bytes());
        write().with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// The epochs in metrics.jsonl; a line that cannot be read ends them.
    pub fn metrics(&self) -> Vec<EpochMetrics> {
        metrics(&self.path)
    }

    /// Drops the lines of metrics.jsonl of epochs from `epochs_done` on, which will be run again.
    pub fn keep_metrics(&self, epochs_done: usize) -> Result<()> {
        let mut kept = String::new();
        for metrics in self.metrics().iter().filter(|metrics| metrics.epoch < epochs_done) {
            kept.push_str(&serde_json::to_string(metrics)?);
            kept.push('\n');
        }
        write_atomically(&self.path.join("metrics.jsonl"), kept.as_bytes())
    }

    /// Writes a checkpoint, and `best.safetensors` too where it is the best so far; then drops the oldest but two.
    ///
    /// # Errors
    /// When it cannot be written; the earlier ones are all still there then.
    pub fn save(&self, checkpoint: &mut Checkpoint, best: bool) -> Result<()> {
        let done = checkpoint.progress.epochs_done;
        checkpoint.write(&self.path.join(format!("checkpoint-{done:04}.safetensors")))?;
        if best {
            checkpoint.write(&self.path.join("best.safetensors"))?;
        }
        for (_, old) in checkpoints(&self.path).into_iter().skip(KEPT) {
            // One too many does no harm.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// The newest checkpoint that is whole; `None` if the folder has none.
    ///
    /// # Errors
    /// The first error where there are checkpoints and all are damaged.
    pub fn newest_checkpoint(&mut self) -> Result<Option<Checkpoint>> {
        let mut first_error = None;
        for (_, path) in checkpoints(&self.path) {
            match Checkpoint::read(&path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    self.say(&format!("passing over {}", crate::error::one_line(&error)));
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }
}
