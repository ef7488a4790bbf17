//! Writing the files for people as epochs finish; see the table of the folder's `mod.rs`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;

use super::{Observed, SampleRows, TrackedSamples, csv, events};
use crate::files::{read_whole, unwritable, write_atomically};
use crate::train::metrics::EpochMetrics;

/// Bytes of such a file at most.
const LARGEST: u64 = 1 << 30;

/// Makes the report of a run, again after every epoch.
pub trait ReportMaker: Send {
    /// The page for the run in `folder` as its files are now.
    ///
    /// # Errors
    /// If the files cannot be read.
    fn page(&mut self, folder: &Path) -> Result<String>;
}

/// Makes a [`ReportMaker`] for a run.
pub type NewReport = fn() -> Box<dyn ReportMaker>;

static REPORT: OnceLock<NewReport> = OnceLock::new();

/// Sets how reports are made from now on, since they belong to a layer above; only the first call has an
/// effect. Without it there are none.
pub fn report_with(new: NewReport) {
    let _ = REPORT.set(new);
}

/// A file to which bytes are only added.
struct Appended(PathBuf);

impl Appended {
    /// Makes the file what it must be, if it is not.
    fn make(path: PathBuf, wanted: &[u8]) -> Result<Self> {
        let is = |found: Vec<u8>| found == wanted;
        if !fs::symlink_metadata(&path).is_ok_and(|_| read_whole(&path, LARGEST).is_ok_and(is)) {
            write_atomically(&path, wanted)?;
        }
        Ok(Self(path))
    }

    fn add(&self, bytes: &[u8]) -> Result<()> {
        let added = OpenOptions::new().append(true).open(&self.0).and_then(|mut file| file.write_all(bytes));
        added.map_err(|error| unwritable(&self.0, error))
    }
}

/// The files of a run under way.
pub struct ObservedFiles {
    folder: PathBuf,
    samples: Appended,
    table: Appended,
    events: Appended,
    report: Option<Box<dyn ReportMaker>>,
}

impl ObservedFiles {
    /// Makes the files fit a run of which `done` epochs are done, with these lines of results, and of which
    /// `tracked` samples are followed.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn begin(
        folder: &Path,
        done: usize,
        lines: &[EpochMetrics],
        tracked: &TrackedSamples,
    ) -> Result<Self> {
        let samples = folder.join("samples.jsonl");
        let wanted = earlier_samples(&samples, tracked, done)?;
        let table: String = lines.iter().map(csv::row).collect();
        let events: Vec<u8> = lines.iter().flat_map(events::epoch).collect();
        Ok(Self {
            folder: folder.into(),
            samples: Appended::make(samples, wanted.as_bytes())?,
            table: Appended::make(folder.join("metrics.csv"), (csv::header() + &table).as_bytes())?,
            events: Appended::make(folder.join(events::NAME), &[events::header(), events].concat())?,
            report: REPORT.get().map(|new| new()),
        })
    }

    /// Adds what no other file holds. A checkpoint of the epoch comes after it: where that is there, so is
    /// this.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn add(&self, observed: &Observed) -> Result<()> {
        if let Some(rows) = &observed.samples {
            self.samples.add((serde_json::to_string(rows)? + "\n").as_bytes())?;
        }
        if let Some(confusion) = &observed.confusion {
            let text = serde_json::to_string(confusion)? + "\n";
            write_atomically(&self.folder.join("confusion.json"), text.as_bytes())?;
        }
        Ok(())
    }

    /// Adds the epoch to the files that follow from metrics.jsonl.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn follow(&self, metrics: &EpochMetrics) -> Result<()> {
        self.table.add(csv::row(metrics).as_bytes())?;
        self.events.add(&events::epoch(metrics))
    }

    /// Writes the report.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn report(&mut self) -> Result<()> {
        let Some(report) = &mut self.report else { return Ok(()) };
        let page = report.page(&self.folder)?;
        write_atomically(&self.folder.join("report.html"), page.as_bytes())
    }
}

/// What samples.jsonl must be after `done` epochs: its first line, and of the lines there are those of these
/// epochs.
fn earlier_samples(path: &Path, tracked: &TrackedSamples, done: usize) -> Result<String> {
    let head = serde_json::to_string(tracked)? + "\n";
    let found = match fs::symlink_metadata(path) {
        Ok(_) => String::from_utf8_lossy(&read_whole(path, LARGEST)?).into_owned(),
        Err(_) => String::new(),
    };
    let mut wanted = head.clone();
    let Some(lines) = found.strip_prefix(&head) else { return Ok(wanted) };
    let mut next = 0;
    for line in lines.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let Ok(rows) = serde_json::from_str::<SampleRows>(line) else { continue };
        if (next..done).contains(&rows.epoch) {
            next = rows.epoch + 1;
            wanted.push_str(line);
        }
    }
    Ok(wanted)
}
