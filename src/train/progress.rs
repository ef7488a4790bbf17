//! How a run is shown while it goes on: bars and lines on a terminal, lines alone where output is piped, JSON
//! for programs, or nothing.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::metrics::{EpochMetrics, EpochTimes};

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Lines, and on a terminal bars below them.
    Auto,
    /// Lines, no bars.
    Plain,
    /// A line of JSON for each epoch and for everything else that is said.
    Json,
    /// Nothing; log.txt has it.
    Quiet,
}

impl Show {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Plain, Self::Json, Self::Quiet];

    /// The one called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|show| show.to_string() == word)
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Json => "json",
            Self::Quiet => "quiet",
        })
    }
}

static SHOW: AtomicU8 = AtomicU8::new(0);

/// Sets how the runs of this process are shown from now on.
pub fn show_as(show: Show) {
    SHOW.store(show as u8, Ordering::Relaxed);
}

/// How the runs of this process are shown.
pub fn shown_as() -> Show {
    Show::ALL[usize::from(SHOW.load(Ordering::Relaxed)) % Show::ALL.len()]
}

/// Prints a line that a run says. A closed terminal does not end a run.
pub fn say(text: &str) {
    match shown_as() {
        Show::Quiet => {}
        Show::Json => print(&json!({ "event": "log", "text": text }).to_string()),
        Show::Auto | Show::Plain => print(text),
    }
}

fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The bars of a run: one of its epochs, one of the steps of the epoch under way.
pub struct RunProgress {
    all: MultiProgress,
    run: ProgressBar,
    epoch: ProgressBar,
    epochs: usize,
    /// When this process began, and with which epoch.
    begun: (Instant, usize),
}

impl RunProgress {
    /// The bars of a run of `epochs` epochs of `steps` steps, of which `done` are done.
    pub fn new(done: usize, epochs: usize, steps: usize) -> Self {
        let all = MultiProgress::new();
        if shown_as() != Show::Auto {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let bar = |total: usize, template: &str| {
            let bar = all.add(ProgressBar::new(total as u64));
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        };
        let run = bar(epochs, "run   [{bar:30}] {pos}/{len} epochs{msg}");
        let epoch = bar(steps, "epoch [{bar:30}] {pos}/{len} steps, {per_sec}");
        run.set_position(done as u64);
        Self { run, epoch, all, epochs, begun: (Instant::now(), done) }
    }

    /// An epoch begins, of which so many steps are done.
    pub fn begin_epoch(&self, steps: usize) {
        self.epoch.reset();
        self.epoch.set_position(steps as u64);
    }

    /// The run has gone back to where so many epochs are done.
    pub fn go_back(&self, done: usize) {
        self.run.set_position(done as u64);
    }

    /// A step is done.
    pub fn step(&self) {
        self.epoch.inc(1);
    }

    /// Does something that prints lines, with the bars out of the way.
    pub fn suspend<T>(&self, say: impl FnOnce() -> T) -> T {
        self.all.suspend(say)
    }

    /// An epoch is done; `best` is the best top-1 so far and its epoch. As JSON, its results are a line.
    pub fn end_epoch(&self, metrics: &EpochMetrics, times: &EpochTimes, best: Option<(f64, usize)>) {
        let done = metrics.epoch + 1;
        self.run.set_position(done as u64);
        let mut message = String::new();
        if let Some((top1, epoch)) = best {
            message.push_str(&format!(", best {top1:.2} % (epoch {epoch})"));
        }
        let left = self.left(done);
        if let Some(left) = left {
            message.push_str(&format!(", {} left", HumanDuration(left)));
        }
        self.run.set_message(message);
        if shown_as() == Show::Json {
            let best = best.map(|(top1, epoch)| json!({ "top1": top1, "epoch": epoch }));
            let left = left.map(|left| left.as_secs_f64());
            print(
                &json!({
                    "event": "epoch", "epochs": self.epochs, "metrics": metrics, "times": times, "best": best,
                    "seconds_left": left,
                })
                .to_string(),
            );
        }
    }

    /// The time that the other epochs will take at the pace of those that this process has done.
    fn left(&self, done: usize) -> Option<Duration> {
        let (started, first) = self.begun;
        let (did, left) = (done.saturating_sub(first), self.epochs.saturating_sub(done));
        (did > 0).then(|| started.elapsed().mul_f64(left as f64 / did as f64))
    }

    /// Removes the bars.
    pub fn finish(&self) {
        self.epoch.finish_and_clear();
        self.run.finish_and_clear();
    }
}

impl Drop for RunProgress {
    fn drop(&mut self) {
        self.finish();
    }
}
