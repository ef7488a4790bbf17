//! A run as its folder shows it, read again at little cost while it goes on.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::files::{open_regular, read_whole};
use crate::settings::Settings;
use crate::text::printable;
use crate::train::choice::epochs;
use crate::train::metrics::{EpochMetrics, EpochTimes};
use crate::train::observed::{Confusion, SampleRows, TrackedSamples};
use crate::train::run_folder;
use crate::usage;

/// The most bytes that are read of a file at once.
const LARGEST: u64 = 1 << 30;

/// A file of lines to which a run adds.
#[derive(Debug, Default)]
struct Tail {
    /// Bytes that have been read, up to the end of a line.
    read: u64,
}

impl Tail {
    /// The whole lines that were added since, and whether the file has become another: then they are all of
    /// its lines.
    fn new_lines(&mut self, path: &Path) -> (String, bool) {
        let Ok((mut file, size)) = open_regular(path) else { return (String::new(), false) };
        let is_other = size < self.read || !self.ended(&mut file);
        if is_other {
            self.read = 0;
        }
        let mut bytes = Vec::new();
        let rest =
            file.seek(SeekFrom::Start(self.read)).and_then(|_| file.take(LARGEST).read_to_end(&mut bytes));
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if rest.is_ok() {
            self.read += end as u64;
        }
        (String::from_utf8_lossy(&bytes[..end]).into_owned(), is_other)
    }

    /// Whether a line still ends where reading ended.
    fn ended(&self, file: &mut File) -> bool {
        let mut last = [b'\n'];
        self.read == 0
            || file.seek(SeekFrom::Start(self.read - 1)).and_then(|_| file.read_exact(&mut last)).is_ok()
                && last == *b"\n"
    }
}

/// How a run is.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A process is running it.
    Running,
    /// All epochs are done.
    Finished,
    /// It ended with this error.
    Failed(String),
    /// It was stopped, and can be gone on with.
    Stopped,
}

impl Condition {
    /// In a few words.
    pub fn in_words(&self) -> String {
        match self {
            Self::Running => "running".into(),
            Self::Finished => "finished".into(),
            Self::Failed(reason) => format!("failed: {reason}"),
            Self::Stopped => "stopped".into(),
        }
    }
}

/// A run's files.
#[derive(Debug)]
pub struct RunView {
    /// Its folder.
    pub folder: PathBuf,
    /// Its settings.
    pub settings: Settings,
    /// The results, in the order of the epochs.
    pub metrics: Vec<EpochMetrics>,
    /// The wall times, in the order in which epochs were run; the last of an epoch counts.
    pub times: Vec<EpochTimes>,
    /// The samples that are followed, with the classes of the run.
    pub tracked: Option<TrackedSamples>,
    /// Their confidences after each epoch.
    pub rows: Vec<SampleRows>,
    /// Of the last test.
    pub confusion: Option<Confusion>,
    /// What the run leaves out of its data, a line each.
    pub left_out: Vec<String>,
    /// What it said as it was stopped, unless it was begun again since.
    pub stop: Option<String>,
    /// Whether it is this process that runs it: then it is stopped as soon as it has said so. To others, a run
    /// that a process has is one that goes on, even if it has not said so yet.
    pub is_own: bool,
    /// Whether a process was running it when its files were last read.
    is_running: bool,
    tails: [Tail; 3],
}

impl RunView {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// A usage error if there is no run, or its settings cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = folder.join("config.toml");
        if !config.exists() {
            let shown = printable(&folder.display().to_string());
            return Err(usage!("{shown}: not the folder of a run, since it has no config.toml"));
        }
        let mut view = Self {
            folder: folder.into(),
            settings: run_folder::settings_of(&config)?,
            metrics: Vec::new(),
            times: Vec::new(),
            tracked: None,
            rows: Vec::new(),
            confusion: None,
            left_out: Vec::new(),
            stop: None,
            is_own: false,
            is_running: false,
            tails: Default::default(),
        };
        view.refresh();
        Ok(view)
    }

    /// Reads what was added since.
    pub fn refresh(&mut self) {
        // Asked first: a run that ends from here on has written what is read below, or is still seen running.
        self.is_running = run_folder::is_running(&self.folder);
        self.stop = run_folder::stop(&self.folder);
        self.left_out = run_folder::left_out(&self.folder);
        let [metrics, times, samples] = &mut self.tails;
        let file = |name: &str| self.folder.join(name);
        add(&mut self.metrics, metrics.new_lines(&file("metrics.jsonl")), |line| line.epoch);
        add(&mut self.times, times.new_lines(&file("times.jsonl")), |line| line.epoch);
        let (lines, is_other) = samples.new_lines(&file("samples.jsonl"));
        if is_other {
            self.tracked = None;
        }
        if self.tracked.is_none() {
            self.tracked = lines.lines().next().and_then(|line| serde_json::from_str(line).ok());
        }
        add(&mut self.rows, (lines, is_other), |line| line.epoch);
        let confusion = read_whole(&file("confusion.json"), LARGEST).ok();
        let confusion = confusion.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if confusion.is_some() {
            self.confusion = confusion;
        }
    }

    /// Names of the classes; none in a folder of an earlier version.
    pub fn classes(&self) -> &[String] {
        self.tracked.as_ref().map_or(&[], |tracked| &tracked.classes)
    }

    /// Training samples of each class, where they are known.
    pub fn counts(&self) -> Option<&[usize]> {
        self.tracked.as_ref()?.counts.as_deref()
    }

    /// The name of the folder.
    pub fn name(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        printable(&name.unwrap_or_else(|| self.folder.display().to_string()))
    }

    /// Epochs of all stages of the run.
    pub fn epochs(&self) -> usize {
        epochs(&self.settings)
    }

    /// How the run was when its files were last read.
    pub fn condition(&self) -> Condition {
        let done = self.metrics.last().map_or(0, |metrics| metrics.epoch + 1);
        if done >= self.epochs() {
            Condition::Finished
        } else if let Some(reason) = run_folder::failure(&self.folder) {
            // The log ends with it only until the run is begun again.
            Condition::Failed(reason)
        } else if self.is_running && !(self.is_own && self.stop.is_some()) {
            Condition::Running
        } else {
            Condition::Stopped
        }
    }

    /// The best top-1 so far with its epoch, in the stage that the run is in.
    pub fn best(&self) -> Option<(f64, usize)> {
        let stages = crate::train::choice::stages(&self.settings);
        let stage = |epoch: usize| crate::pll::method::StageEpoch::of(&stages, epoch).stage;
        let last = stage(self.metrics.last()?.epoch);
        let of_stage = self.metrics.iter().filter(|metrics| stage(metrics.epoch) == last);
        let mut best: Option<(f64, usize)> = None;
        for metrics in of_stage {
            if let Some(test) = &metrics.test
                && best.is_none_or(|(top1, _)| test.top1 > top1)
            {
                best = Some((test.top1, metrics.epoch));
            }
        }
        best
    }

    /// The last epoch that was evaluated.
    pub fn last_test(&self) -> Option<&EpochMetrics> {
        self.metrics.iter().rev().find(|metrics| metrics.test.is_some())
    }

    /// The wall times of each epoch, the last time that it was run.
    pub fn last_times(&self) -> Vec<&EpochTimes> {
        let mut last: Vec<&EpochTimes> = self.times.iter().rev().collect();
        last.sort_by_key(|times| times.epoch);
        last.dedup_by_key(|times| times.epoch);
        last
    }

    /// Whether the newest epoch's times, which are written after its results, are still to come.
    pub fn awaits_times(&self) -> bool {
        let newest = self.metrics.last().map(|metrics| metrics.epoch);
        self.is_running && newest.is_some_and(|epoch| !self.times.iter().any(|times| times.epoch == epoch))
    }

    /// Seconds until the run is done, at the pace of the last epochs.
    pub fn seconds_left(&self) -> Option<f64> {
        let recent: Vec<f64> = self.times.iter().rev().take(5).map(|times| times.seconds).collect();
        let done = self.metrics.last()?.epoch + 1;
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        (!recent.is_empty()).then(|| mean * self.epochs().saturating_sub(done) as f64)
    }

    /// When the newest of its lines was written.
    pub fn changed(&self) -> Option<std::time::SystemTime> {
        fs::metadata(self.folder.join("metrics.jsonl")).and_then(|file| file.modified()).ok()
    }
}

/// Adds the lines that can be read; of two of one epoch the later counts.
fn add<T: DeserializeOwned>(all: &mut Vec<T>, (lines, is_other): (String, bool), epoch: fn(&T) -> usize) {
    if is_other {
        all.clear();
    }
    for line in lines.lines().filter_map(|line| serde_json::from_str::<T>(line).ok()) {
        match all.iter().rposition(|known| epoch(known) <= epoch(&line)) {
            Some(at) if epoch(&all[at]) == epoch(&line) => all[at] = line,
            Some(at) => all.insert(at + 1, line),
            None => all.insert(0, line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_once_and_another_file_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut tail = Tail::default();
        assert_eq!(tail.new_lines(&path), (String::new(), false));
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(tail.new_lines(&path), ("one\n".into(), false));
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(tail.new_lines(&path), ("two\n".into(), false));
        assert_eq!(tail.new_lines(&path), (String::new(), false));
        fs::write(&path, "1\n").unwrap();
        assert_eq!(tail.new_lines(&path), ("1\n".into(), true));
    }
}
