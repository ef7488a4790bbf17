//! What a run leaves on disk, in a folder of its own; docs/run-folder.md says the same to users.
//!
//! | file | what | when it is written |
//! |---|---|---|
//! | `config.toml` | the settings | first of all, once |
//! | `tiles.json` | the measured times that tiles are chosen by, if they are | before the settings, once |
//! | `best.safetensors` | the state after the best epoch | when an epoch is the best so far, before its line |
//! | `metrics.jsonl` | a line of results per epoch | after every epoch, before its checkpoint |
//! | `times.jsonl` | a line of wall times per epoch, each time it is run | after the epoch's line |
//! | `checkpoint-NNNN.safetensors` | the state after so many epochs | after every `checkpoint-every` epochs, the best and the last |
//! | `stopped.safetensors` | the state inside an epoch | when a signal or --max-minutes stops the run; see stopped.rs |
//! | `log.txt` | what happened | all the time |
//! | `lock` | nothing; see the file lock.rs | when the folder is opened |
//! | `superseded/`, `superseded-2/`, ... | what a resume found and could not go on from | by that resume |
//!
//! The thread of `writer.rs` writes these while the next epoch trains.
//!
//! Every file is whole or absent, but for a last line that a kill cut short. So at any instant: best.safetensors is never older
//! than what a line of metrics or a checkpoint says, and at most one epoch newer; a checkpoint's epochs all have their lines;
//! metrics.jsonl may have lines of epochs that no checkpoint holds yet. Then old checkpoints are removed: the two newest stay,
//! and the one of the best epoch, which is the same file as best.safetensors.
//!
//! A resume takes the newest whole checkpoint and runs the epochs after it again. Since the same settings give the same bits, it
//! compares an epoch whose line is there, writes it where it is not, and writes the same best and checkpoints: whatever the
//! instant of the kill, all files end as those of a run never stopped, but for `times.jsonl` and `log.txt`, which say what
//! happened. What does not fit (lines of another computation, a best of another run, damaged checkpoints, later ones when it is
//! told to go on from an earlier one) is moved to `superseded/` and said. Nothing is dropped but temporary files and a line cut
//! short, whose text goes to the log.

mod lines;
mod lock;
mod log;
mod observe;
mod states;
mod stopped;
mod writer;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::checkpoint::Checkpoint;
use super::metrics::{EpochMetrics, EpochTimes};
use super::observed::ObservedFiles;
use crate::data::left_out;
use crate::error::{exit_code, one_line};
use crate::files::{open_regular, remove_leftovers, unwritable, write_atomically};
use crate::settings::Settings;
use crate::settings::given::SettingsFile;
use crate::text::printable;
use crate::usage;
pub use lines::metrics;
use lines::{Lines, append};
use lock::RunLock;
pub use lock::is_running;
pub use log::RunLog;
use states::Best;
pub use states::{newest, progress, read};
pub use stopped::{STOPPED, read_resumable, resumable};
pub use writer::{FinishedEpoch, Writer};

/// What to do about a `config.toml` that cannot be used.
const MOVE_AWAY: &str = "move it away and resume again: the run's checkpoints hold its settings, too";

/// Bytes that are read of the end of log.txt; the longest line that is written has some 20 KB.
const LONGEST_LINE: u64 = 1 << 20;

/// The file of the measured times that a run's tiles are chosen by.
pub const TILES: &str = "tiles.json";

/// Begins the line of log.txt that says why a run failed.
const FAILED: &str = "failed: ";

/// Begins the line of log.txt that says that a run was stopped, by what and where.
pub const STOPPED_BY: &str = "stopped by ";

/// Why the run in a folder failed; `None` if it did not, or was begun again since.
pub fn failure(folder: &Path) -> Option<String> {
    last_line(folder)?.strip_prefix(FAILED).map(printable)
}

/// What the run in a folder said as it was stopped; `None` if it was not, or was begun again since.
pub fn stop(folder: &Path) -> Option<String> {
    last_line(folder).filter(|line| line.starts_with(STOPPED_BY)).map(|line| printable(&line))
}

/// The last line of a run's log.
fn last_line(folder: &Path) -> Option<String> {
    let (mut log, size) = open_regular(&folder.join("log.txt")).ok()?;
    log.seek(SeekFrom::Start(size.saturating_sub(LONGEST_LINE))).ok()?;
    let mut end = Vec::new();
    log.take(LONGEST_LINE).read_to_end(&mut end).ok()?;
    String::from_utf8_lossy(&end).lines().last().map(String::from)
}

/// What the run in a folder says that it leaves out of its data, a line each, from the beginning of its log.
pub fn left_out(folder: &Path) -> Vec<String> {
    let mut log = Vec::new();
    if let Ok((file, _)) = open_regular(&folder.join("log.txt")) {
        let _ = file.take(LONGEST_LINE).read_to_end(&mut log);
    }
    let mut found: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(&log).lines().filter_map(|line| line.strip_prefix(left_out::PREFIX)) {
        // A resumed run says it again.
        if !found.iter().any(|known| known == line) {
            found.push(printable(line));
        }
    }
    found
}

/// Whether a folder holds no more than a run leaves that ends before it has written its settings.
pub fn is_unused(folder: &Path) -> bool {
    holds_only(folder, is_left_unused)
}

fn is_left_unused(name: &str) -> bool {
    ["lock", "log.txt", "owner", TILES].contains(&name)
        || (name.starts_with(".config.toml.") || name.starts_with(".tiles.json."))
}

fn holds_only(folder: &Path, is_meant: impl Fn(&str) -> bool) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(&is_meant)))
    })
}

/// The settings in a run's `config.toml`, which must be all of them: nothing is taken from the defaults.
///
/// # Errors
/// A usage error naming file, line and key.
pub fn settings_file(path: &Path) -> Result<SettingsFile> {
    let file = SettingsFile::read(path)
        .map_err(|error| usage!("{}; where the file is damaged, {MOVE_AWAY}", one_line(&error)))?;
    whole(&file)?;
    Ok(file)
}

/// As [`settings_file`], as settings.
///
/// # Errors
/// A usage error naming file, line and key.
pub fn settings_of(path: &Path) -> Result<Settings> {
    let file = SettingsFile::read(path)?;
    let settings = whole(&file)?;
    match settings.problems().into_iter().next() {
        None => Ok(settings),
        Some(problem) => Err(file.usage_error(&problem)),
    }
}

fn whole(file: &SettingsFile) -> Result<Settings> {
    toml::from_str(file.text()).map_err(|error: toml::de::Error| {
        usage!(
            "{}: is not whole ({}); {MOVE_AWAY}",
            printable(&file.path.display().to_string()),
            error.message()
        )
    })
}

/// The folder and the settings of the run that `--resume` names by its folder or by a checkpoint in it. Where the folder has
/// no `config.toml`, the settings are those of the checkpoint, or of the folder's newest.
///
/// # Errors
/// A usage error where there is no run, or its settings are not whole.
pub fn settings_to_resume(resume: &Path) -> Result<SettingsFile> {
    let shown = printable(&resume.display().to_string());
    let Ok(found) = fs::metadata(resume) else {
        return Err(usage!("--resume {shown}: not found; must be a run's folder or a checkpoint in it"));
    };
    let folder = if found.is_dir() { resume } else { folder_of(resume) };
    let config = folder.join("config.toml");
    if fs::symlink_metadata(&config).is_ok() {
        return settings_file(&config);
    }
    let checkpoint = if found.is_dir() {
        states::newest(folder)
    } else {
        Some((resume.to_path_buf(), Checkpoint::read(resume)?))
    };
    let Some((path, checkpoint)) = checkpoint else {
        return Err(usage!(
            "--resume {shown}: has no config.toml and no checkpoint; must be a run's folder or a checkpoint in it"
        ));
    };
    let ours = |name: &str| {
        name.ends_with(".safetensors")
            || ["metrics.jsonl", "times.jsonl", "log.txt", "lock", "owner", TILES].contains(&name)
            || observe::NAMES.contains(&name)
            || name.starts_with("superseded")
            || (name.starts_with('.') && name.ends_with(".tmp"))
    };
    if !holds_only(folder, ours) {
        return Err(usage!(
            "--resume {shown}: the checkpoint's folder has no config.toml and holds other files; move the checkpoint to a folder \
             of its own"
        ));
    }
    SettingsFile::parse(&path, checkpoint.config)
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The error for a folder or file of a new run: a failed run where the machine is at fault, else a usage error.
fn cannot_make(path: &Path, error: io::Error) -> anyhow::Error {
    let says = format!("cannot make the run folder {}: {error}", printable(&path.display().to_string()));
    match exit_code(&unwritable(path, error)) {
        1 => anyhow!("{says}; make room, or choose another with --exp-dir"),
        _ => usage!("{says}; choose another with --exp-dir or --name"),
    }
}

/// An open run folder.
pub struct RunFolder {
    path: PathBuf,
    log: RunLog,
    /// Held for the life of the run.
    lock: RunLock,
    lines: Lines,
    best: Best,
    /// Where this process has set something aside.
    aside: Option<PathBuf>,
    /// Whether lines of epochs that will be run again are set aside as well.
    lines_go_back: bool,
    /// The files for people to look at.
    observed: Option<ObservedFiles>,
}

impl RunFolder {
    /// Makes the folder of a new run with these settings and measured times in `parent`: `name`, or `stem`,
    /// `stem-2`, ... where no name is given. A named folder may be there if it [is unused](is_unused).
    ///
    /// # Errors
    /// A usage error if the name is taken, another process holds the folder, or it cannot be made; a failed run where there is no
    /// room for it.
    pub fn create(
        parent: &Path,
        name: Option<&str>,
        stem: &str,
        (config, tiles): (&str, Option<&str>),
    ) -> Result<Self> {
        fs::create_dir_all(parent).map_err(|error| cannot_make(parent, error))?;
        let path = match name {
            Some(name) => {
                let path = parent.join(name);
                if path.exists() && !is_unused(&path) {
                    let shown = path.display();
                    return Err(usage!(
                        "--name {name}: {shown} is there already; go on with --resume {shown} or choose another"
                    ));
                }
                fs::create_dir_all(&path).map_err(|error| cannot_make(&path, error))?;
                path
            }
            None => new_folder(parent, stem)?,
        };
        let folder = Self::open(&path)?;
        if path.join("config.toml").exists() {
            return Err(usage!(
                "{}: another process has just run in this folder; choose another --name",
                path.display()
            ));
        }
        // The settings last: with them, it is a run.
        folder.keep_tiles(tiles)?;
        write_atomically(&path.join("config.toml"), config.as_bytes())?;
        Ok(folder)
    }

    /// Keeps what the tiles of the run that begins are chosen by; `None` by the model.
    fn keep_tiles(&self, tiles: Option<&str>) -> Result<()> {
        let path = self.path.join(TILES);
        match tiles {
            Some(text) => write_atomically(&path, text.as_bytes()),
            // What a start that was killed has left.
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(unwritable(&path, error)),
                _ => Ok(()),
            },
        }
    }

    /// Opens the folder of a run that is there, or in which a checkpoint lies, and removes what killed runs left of files they
    /// were writing.
    ///
    /// # Errors
    /// A usage error if it is not there, not writable, or another process is running in it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = printable(&path.display().to_string());
        if !path.is_dir() {
            return Err(usage!("{shown}: no such run folder"));
        }
        let (lock, warning) = RunLock::take(path)?;
        let log = RunLog::open(&path.join("log.txt"))?;
        remove_leftovers(path);
        let folder = Self {
            path: path.into(),
            log,
            lock,
            lines: Lines::default(),
            best: Best::Fits,
            aside: None,
            lines_go_back: false,
            observed: None,
        };
        if let Some(warning) = warning {
            folder.say(&warning);
        }
        Ok(folder)
    }

    /// Opens the folder of the run that `resume` names: the folder itself, or the one a checkpoint lies in.
    ///
    /// # Errors
    /// As [`RunFolder::open`].
    pub fn open_to_resume(resume: &Path) -> Result<Self> {
        Self::open(if resume.is_dir() { resume } else { folder_of(resume) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn shown(&self) -> String {
        printable(&self.path.display().to_string())
    }

    /// The run's log.
    pub fn log(&self) -> RunLog {
        self.log.clone()
    }

    /// Prints a line and keeps it in log.txt.
    pub fn say(&self, text: &str) {
        self.log.say(text);
    }

    /// An error of a run under way: a failed run, whatever the reason, with the way to go on.
    fn failed(&self, error: anyhow::Error) -> anyhow::Error {
        // The folder may go away in the middle of writing, too.
        if let Err(moved) = self.check_place() {
            return moved;
        }
        let is_full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            )
        });
        let remedy = if is_full { "free space" } else { "put that right" };
        anyhow!("{}; {remedy} and go on with: records train --resume {}", one_line(&error), self.shown())
    }

    /// Ends a run whose folder was moved or removed, or taken by another: nothing is written elsewhere, or beside another process.
    fn check_place(&self) -> Result<()> {
        if self.lock.holds() {
            return Ok(());
        }
        let shown = self.shown();
        Err(anyhow!(
            "{shown}: the run's folder was moved or removed while the run was going on; put it back and go on with: \
             records train --resume {shown}"
        ))
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// A usage error where it cannot be read.
    pub fn config(&self) -> Result<String> {
        SettingsFile::read(&self.path.join("config.toml")).map(|file| file.text().into())
    }

    /// Replaces `config.toml`.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there then.
    pub fn write_config(&self, config: &str) -> Result<()> {
        self.check_place()?;
        write_atomically(&self.path.join("config.toml"), config.as_bytes())
            .map_err(|error| self.failed(error))
    }

    /// Makes the folder of a branch, without settings: [`RunFolder::begin_branch`] writes these last.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn create_branch(parent: &Path, name: &str, tiles: Option<&str>) -> Result<Self> {
        let path = parent.join(name);
        // One that was killed while it was made is made again.
        let left = |name: &str| {
            is_left_unused(name) || name == "metrics.jsonl" || name.starts_with('.') && name.ends_with(".tmp")
        };
        if path.exists() && !holds_only(&path, left) {
            return Err(usage!("--branch {name}: {} is there already; choose another name", path.display()));
        }
        fs::create_dir_all(&path).map_err(|error| cannot_make(&path, error))?;
        let folder = Self::open(&path)?;
        folder.keep_tiles(tiles)?;
        Ok(folder)
    }

    /// Makes the folder that of a run which has done the epochs of `checkpoint`, whose lines are those of the run
    /// in `source`. The settings come last: without them, it is no run yet.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn begin_branch(&mut self, checkpoint: &mut Checkpoint, source: &Path) -> Result<()> {
        let done = checkpoint.progress.epochs_done;
        let lines = metrics(source).into_iter().filter(|line| line.epoch < done);
        let lines = lines.map(|line| line.line()).collect::<Result<String>>()?;
        let path = self.path.join("metrics.jsonl");
        write_atomically(&path, lines.as_bytes()).map_err(|error| self.failed(error))?;
        self.save(checkpoint, false)?;
        self.write_config(&checkpoint.config)?;
        self.begin(done, None)
    }

    /// Writes `config.toml` where it is missing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restore_config(&mut self, config: &str) -> Result<()> {
        let path = self.path.join("config.toml");
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        write_atomically(&path, config.as_bytes())?;
        self.say("config.toml was missing: made again from the checkpoint");
        Ok(())
    }

    /// Makes metrics.jsonl and best.safetensors ready to go on after `done` epochs, the best of which was the one that `best`
    /// epochs end with.
    ///
    /// # Errors
    /// When files cannot be written, or are no regular files.
    pub fn begin(&mut self, done: usize, best: Option<usize>) -> Result<()> {
        self.check_place()?;
        // What is written there later must not go into a pipe, or wait for its reader.
        refuse_irregular(&self.path.join("best.safetensors"))?;
        let (lines, found) = Lines::open(&self.path, done)?;
        self.lines = lines;
        found.notes.iter().for_each(|note| self.say(note));
        let back = self.lines.pending_from().filter(|_| self.lines_go_back);
        if let Some(from) = back.or(found.misfit) {
            let reason =
                if back.is_some() { "later lines" } else { "lines that do not follow the epochs done" };
            self.set_lines_aside(from, reason)?;
        }
        end_last_line(&self.path.join("times.jsonl"))?;
        self.check_best(done, best)?;
        self.rotate(done, best);
        Ok(())
    }

    /// Writes down a finished epoch: what a later part names, first.
    ///
    /// # Errors
    /// A failed run where a file cannot be written.
    pub fn record(&mut self, epoch: FinishedEpoch) -> Result<()> {
        let FinishedEpoch { metrics, times, observed, mut checkpoint, is_best, epochs_to_best } = epoch;
        if let (true, Some(checkpoint)) = (is_best, &mut checkpoint) {
            self.save_best(checkpoint)?;
        }
        self.add(&metrics, &times)?;
        self.add_observed(&observed);
        if let Some(checkpoint) = &mut checkpoint {
            self.save(checkpoint, is_best)?;
            self.remove_stopped();
        }
        let done = metrics.epoch + 1;
        self.settle_best(done, epochs_to_best)?;
        self.rotate(done, epochs_to_best);
        self.add_results(&metrics);
        Ok(())
    }

    /// Adds an epoch to metrics.jsonl, or compares it with its line where that is there, and to times.jsonl.
    ///
    /// # Errors
    /// A failed run when they cannot be written.
    fn add(&mut self, metrics: &EpochMetrics, times: &EpochTimes) -> Result<()> {
        self.check_place()?;
        if !self.lines.is_untouched() {
            self.say("metrics.jsonl was changed by something else while the run was going on; it is added to as it is");
            self.lines.accept();
        }
        if let Some(from) = self.lines.differs(metrics) {
            let reason = format!(
                "epoch {} came out otherwise than its line says; lines of another computation",
                metrics.epoch
            );
            self.set_lines_aside(from, &reason)?;
        }
        self.lines.add(metrics).map_err(|error| self.failed(error))?;
        let path = self.path.join("times.jsonl");
        let line = serde_json::to_string(times)? + "\n";
        append(&path, line.as_bytes()).map_err(|error| self.failed(unwritable(&path, error)))
    }

    fn set_lines_aside(&mut self, from: u64, reason: &str) -> Result<()> {
        let aside = self.aside()?;
        self.lines.set_aside(from, &aside)?;
        self.say(&format!("metrics.jsonl: {reason}: moved to {}", printable(&aside.display().to_string())));
        Ok(())
    }

    fn set_aside_file(&mut self, path: &Path) -> Result<()> {
        let aside = self.aside()?;
        let name = path.file_name().unwrap_or_default();
        fs::rename(path, aside.join(name)).map_err(|error| self.failed(unwritable(path, error)))?;
        self.say(&format!(
            "{} moved to {}",
            printable(&name.to_string_lossy()),
            printable(&aside.display().to_string())
        ));
        Ok(())
    }

    /// The folder for what does not fit.
    fn aside(&mut self) -> Result<PathBuf> {
        if self.aside.is_none() {
            self.aside = Some(new_folder(&self.path, "superseded")?);
        }
        Ok(self.aside.clone().unwrap_or_default())
    }
}

/// Makes `stem` in `parent`, or `stem-2`, `stem-3`, ..., whichever is not there.
fn new_folder(parent: &Path, stem: &str) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = parent.join(if number == 1 { stem.into() } else { format!("{stem}-{number}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(cannot_make(&path, error)),
        }
    }
}

/// Refuses what is there and no regular file: opening a pipe waits for its other end.
fn refuse_irregular(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(usage!("{}: is no regular file; move it away", printable(&path.display().to_string())))
        }
        _ => Ok(()),
    }
}

/// Ends a last line that a kill cut short, so that the next begins on one of its own.
fn end_last_line(path: &Path) -> Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    refuse_irregular(path)?;
    let ended = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(true);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last == *b"\n")
    };
    match ended() {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(false) => append(path, b"\n").map_err(|error| unwritable(path, error)),
        Err(error) => Err(unwritable(path, error)),
    }
}
