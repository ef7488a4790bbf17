//! metrics.jsonl: a line for every epoch that is done, of results only, and only ever added to.
//!
//! A run writes an epoch's line once. A resume that runs an epoch again whose line is there compares instead of writing: the same
//! settings give the same bits. What it finds there that does not fit is set aside, never dropped.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::files::{read_whole, unwritable};
use crate::settings;
use crate::text::printable;
use crate::train::metrics::EpochMetrics;

/// A file of more is none of a run's.
const LARGEST: u64 = 1 << 30;

/// No run has more epochs: SoLar has two stages.
const MOST_EPOCHS: usize = 2 * settings::MOST_EPOCHS;

/// One line of the file.
struct Line<'a> {
    /// Where it begins, bytes.
    start: usize,
    text: &'a [u8],
    /// Whether a line break ends it.
    ended: bool,
    metrics: Result<EpochMetrics, String>,
}

impl Line<'_> {
    fn epoch(&self) -> Option<usize> {
        self.metrics.as_ref().ok().map(|metrics| metrics.epoch)
    }
}

fn lines(bytes: &[u8]) -> Vec<Line<'_>> {
    let mut start = 0;
    let parts = bytes.split_inclusive(|&byte| byte == b'\n');
    parts
        .map(|part| {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let metrics = serde_json::from_slice(text).map_err(|error| error.to_string());
            let metrics = metrics.and_then(|metrics: EpochMetrics| match metrics.epoch {
                0..MOST_EPOCHS => Ok(metrics),
                epoch => Err(format!("epoch {epoch} is beyond all runs")),
            });
            let line = Line { start, text, ended, metrics };
            start += part.len();
            line
        })
        .collect()
}

/// The bytes of a file; nothing where there is none.
fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        _ => read_whole(path, LARGEST),
    }
}

/// The epochs in a folder's metrics.jsonl in their order, without lines that cannot be read.
pub fn metrics(folder: &Path) -> Vec<EpochMetrics> {
    let bytes = read(&folder.join("metrics.jsonl")).unwrap_or_default();
    let mut found: Vec<EpochMetrics> =
        lines(&bytes).into_iter().filter_map(|line| line.metrics.ok()).collect();
    // Of two lines of one epoch the later counts.
    found.reverse();
    found.sort_by_key(|metrics| metrics.epoch);
    found.dedup_by_key(|metrics| metrics.epoch);
    found
}

/// Adds whole lines to a file, all of them or none, and waits until they are on the disk.
pub fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(text).and_then(|()| file.sync_data()) {
        // The first error is the one to report.
        let _ = file.set_len(before);
        return Err(error);
    }
    match path.parent().filter(|_| is_new) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Numbers in words: `0-3, 7`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => parts.push((number, number)),
        }
    }
    let part =
        |&(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// What is to be told and set aside of a metrics.jsonl.
#[derive(Default)]
pub struct Found {
    /// Lines for the log.
    pub notes: Vec<String>,
    /// From which byte on the file does not fit.
    pub misfit: Option<u64>,
}

/// The metrics.jsonl of a run under way.
#[derive(Default)]
pub struct Lines {
    path: PathBuf,
    /// Lines of epochs that will be run again, in the order of the epochs, each with the byte at which it begins.
    pending: VecDeque<(u64, EpochMetrics)>,
    /// Bytes in the file.
    length: u64,
}

impl Lines {
    /// Reads the file of a run of which `done` epochs are done. A last line without its end is completed, or removed with its
    /// text in the notes where it was cut short by a kill; all other lines stay as they are.
    ///
    /// # Errors
    /// A usage error for what is no regular file; when the file cannot be written.
    pub fn open(folder: &Path, done: usize) -> Result<(Self, Found)> {
        let path = folder.join("metrics.jsonl");
        let bytes = read(&path)?;
        let mut lines = lines(&bytes);
        let mut found = Found::default();
        let mut length = bytes.len() as u64;
        if let Some(last) = lines.last().filter(|last| !last.ended) {
            let is_needed = lines.len() <= done && !covers(&lines[..lines.len() - 1], done);
            let is_begun = last.text.starts_with(b"{") && std::str::from_utf8(last.text).is_ok();
            if last.metrics.is_ok() || is_needed || !is_begun {
                append(&path, b"\n").map_err(|error| unwritable(&path, error))?;
                length += 1;
            } else {
                length = last.start as u64;
                cut(&path, length)?;
                found.notes.push(format!(
                    "metrics.jsonl: the last line was cut short and is removed; it began {}",
                    printable(&String::from_utf8_lossy(last.text))
                ));
                lines.pop();
            }
        }
        let head = head(&lines, done);
        found.notes.extend(damage(&lines[..head], done));
        let mut pending = VecDeque::new();
        for (expected, line) in (done..).zip(&lines[head..]) {
            match &line.metrics {
                Ok(metrics) if metrics.epoch == expected => {
                    pending.push_back((line.start as u64, metrics.clone()))
                }
                _ => {
                    found.misfit = Some(line.start as u64);
                    break;
                }
            }
        }
        Ok((Self { path, pending, length }, found))
    }

    /// The byte at which the lines of epochs that will be run again begin, if there are any.
    pub fn pending_from(&self) -> Option<u64> {
        self.pending.front().map(|(start, _)| *start)
    }

    /// Removes all from byte `from` on, which is kept in `aside`.
    pub fn set_aside(&mut self, from: u64, aside: &Path) -> Result<()> {
        let bytes = read(&self.path)?;
        let rest = bytes.get(from as usize..).unwrap_or_default();
        let kept = aside.join("metrics.jsonl");
        append(&kept, rest).map_err(|error| unwritable(&kept, error))?;
        cut(&self.path, from)?;
        self.length = from;
        self.pending.retain(|(start, _)| *start < from);
        Ok(())
    }

    /// Where the line of an epoch that was run again does not say what came out now, the byte from which on the file is of
    /// another computation.
    pub fn differs(&self, metrics: &EpochMetrics) -> Option<u64> {
        let (start, before) = self.pending.front()?;
        (before != metrics).then_some(*start)
    }

    /// Adds an epoch, unless its line is there.
    ///
    /// # Errors
    /// When it cannot be written; the file is as it was then.
    pub fn add(&mut self, metrics: &EpochMetrics) -> Result<()> {
        if self.pending.pop_front().is_some() {
            return Ok(());
        }
        let line = metrics.line()?;
        append(&self.path, line.as_bytes()).map_err(|error| unwritable(&self.path, error))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether the file is as the run left it.
    pub fn is_untouched(&self) -> bool {
        fs::metadata(&self.path).map_or(0, |found| found.len()) == self.length
    }

    /// Takes the file as it is now for what the run left.
    pub fn accept(&mut self) {
        self.length = fs::metadata(&self.path).map_or(0, |found| found.len());
        self.pending.clear();
    }
}

fn cut(path: &Path, length: u64) -> Result<()> {
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    };
    cut().map_err(|error| unwritable(path, error))
}

fn covers(lines: &[Line], done: usize) -> bool {
    missing(lines, done).is_empty()
}

fn missing(lines: &[Line], done: usize) -> Vec<usize> {
    let mut is_there = vec![false; done];
    for epoch in lines.iter().filter_map(Line::epoch).filter(|&epoch| epoch < done) {
        is_there[epoch] = true;
    }
    (0..done).filter(|&epoch| !is_there[epoch]).collect()
}

/// How many lines, from the first on, are of the `done` epochs; one that cannot be read is of the epoch at whose place it is.
fn head(lines: &[Line], done: usize) -> usize {
    let last = lines.iter().rposition(|line| line.epoch().is_some_and(|epoch| epoch < done));
    let mut head = last.map_or(0, |last| last + 1);
    while head < done && lines.get(head).is_some_and(|line| line.metrics.is_err()) {
        head += 1;
    }
    head
}

/// What is wrong with the lines of the epochs that are done, in words.
fn damage(lines: &[Line], done: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if let Err(reason) = &line.metrics {
            wrong.push(format!("line {} cannot be read ({reason})", number + 1));
        }
    }
    let missing = missing(lines, done);
    if !missing.is_empty() {
        wrong.push(format!("no line of epoch {}", ranges(&missing)));
    }
    let mut epochs: Vec<usize> = lines.iter().filter_map(Line::epoch).collect();
    if epochs.iter().any(|&epoch| epoch >= done) || !epochs.is_sorted() {
        wrong.push("the epochs are out of order".into());
    }
    epochs.sort_unstable();
    let twice: Vec<usize> = epochs.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    if !twice.is_empty() {
        wrong.push(format!("epoch {} is there more than once (the last line counts)", ranges(&twice)));
    }
    if wrong.is_empty() {
        return wrong;
    }
    vec![format!(
        "metrics.jsonl: {}; its lines are kept as they are, and epochs that are done are not run again",
        wrong.join("; ")
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_told_in_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert!(append(folder.path(), b"x").is_err());
    }

    proptest! {
        /// Whatever is in the file: no panic, nothing lost but a line cut short, and the next line begins on one of its own.
        #[test]
        fn no_content_is_lost(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..20),
                    (0usize..6).prop_map(|epoch| line_of(epoch).into_bytes()),
                    Just(b"\n".to_vec()),
                    Just(line_of(usize::MAX).into_bytes()),
                ],
                0..8,
            ),
            done in 0usize..6,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (path, aside) = (folder.path().join("metrics.jsonl"), folder.path().join("aside"));
            fs::create_dir(&aside).unwrap();
            let before = parts.concat();
            fs::write(&path, &before).unwrap();
            let (mut lines, found) = Lines::open(folder.path(), done).unwrap();
            if let Some(from) = found.misfit {
                lines.set_aside(from, &aside).unwrap();
            }
            let after = fs::read(&path).unwrap();
            let moved = fs::read(aside.join("metrics.jsonl")).unwrap_or_default();
            let kept = [after.as_slice(), &moved].concat();
            prop_assert!(after.is_empty() || after.ends_with(b"\n"));
            if kept.len() >= before.len() {
                prop_assert!(kept == before || kept == [before.as_slice(), b"\n"].concat());
            } else {
                prop_assert!(before.starts_with(&kept) && found.notes.iter().any(|note| note.contains("cut short")));
            }
            prop_assert!(lines.is_untouched());
        }
    }

    fn line_of(epoch: usize) -> String {
        format!(
            "{{\"epoch\":{epoch},\"learning_rate\":0.1,\"loss\":1.0,\"train_accuracy\":null,\"mean_max_confidence\":0.5,\
             \"label_accuracy\":null,\"prior_distance\":null,\"class_prior\":null,\"test\":null}}\n"
        )
    }
}
