//! Progress bars for long work on data.

use indicatif::{ProgressBar, ProgressStyle};

use crate::data::progress::{Unit, Work, WorkProgress};

/// A bar that disappears when it is dropped.
struct Bar(ProgressBar);

/// Draws a piece of work on standard error, if that is a terminal.
pub fn draw(work: Work<'_>) -> Box<dyn WorkProgress> {
    let bar = ProgressBar::new(work.total).with_message(work.what.to_string());
    let template = match work.unit {
        Unit::Items => "{msg} {wide_bar} {pos}/{len} {eta}",
        Unit::Bytes => "{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(if work.unit == Unit::Bytes { style.progress_chars("=> ") } else { style });
    }
    Box::new(Bar(bar))
}

impl WorkProgress for Bar {
    fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    fn set(&self, position: u64) {
        // A jump of the position, not reached by work, says nothing about the speed.
        if position < self.0.position() || self.0.position() == 0 {
            self.0.reset_eta();
        }
        self.0.set_position(position);
    }

    fn set_what(&self, what: &str) {
        self.0.set_message(what.to_string());
    }

    fn line(&self, line: &str) {
        self.0.println(line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
