//! `records watch`: follows a run from another terminal, or from a browser.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::output;
use crate::report::page::duration;
use crate::report::run_view::{Condition, RunView};
use crate::report::serve;
use crate::train::metrics::{EpochTimes, HEADER};
use crate::usage;

/// Arguments of `records watch`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without --serve, it prints a row for each epoch, those that are done first, and ends when the run does."
)]
pub struct WatchArguments {
    /// The run's folder
    run: PathBuf,
    /// Show the report to browsers on this machine instead
    #[arg(long)]
    serve: bool,
    /// The port for that; 0 takes any that is free
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Seconds between two looks at the run's files (0.1 to 3600)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
}

/// Runs `records watch`.
///
/// # Errors
/// A usage error for a folder that is no run's, and for a port that is taken.
pub fn run(arguments: &WatchArguments) -> Result<()> {
    if !(0.1..=3600.0).contains(&arguments.interval) {
        return Err(usage!("--interval {}: must be 0.1 to 3600", arguments.interval));
    }
    let mut view = RunView::open(&arguments.run)?;
    if arguments.serve {
        let (listener, address) = serve::listen(arguments.port)?;
        output::print(&format!("http://{address}/ shows the report; end this with Ctrl-C\n"))?;
        serve::serve(&listener, address, &mut view);
        return Ok(());
    }
    output::print(&format!("{}\n{HEADER}\n", heading(&view)))?;
    let mut shown = None;
    loop {
        view.refresh();
        let condition = view.condition();
        let awaits_times = view.awaits_times();
        let whole = view.metrics.len() - usize::from(awaits_times);
        for metrics in view.metrics[..whole].iter().filter(|metrics| Some(metrics.epoch) > shown) {
            let times = view.times.iter().rev().find(|times| times.epoch == metrics.epoch);
            output::print(&format!("{}\n", metrics.row(times.unwrap_or(&unknown(metrics.epoch)))))?;
        }
        shown = view.metrics[..whole].last().map(|metrics| metrics.epoch).or(shown);
        if condition != Condition::Running && !awaits_times {
            return output::print(&format!("{}\n", ending(&view, &condition)));
        }
        std::thread::sleep(Duration::from_secs_f64(arguments.interval));
    }
}

/// Stands for wall times that were not written.
fn unknown(epoch: usize) -> EpochTimes {
    EpochTimes {
        epoch,
        seconds: 0.0,
        training_seconds: None,
        evaluation_seconds: None,
        images_per_second: 0.0,
    }
}

fn heading(view: &RunView) -> String {
    let done = view.metrics.last().map_or(0, |metrics| metrics.epoch + 1);
    let left = view.seconds_left().filter(|_| view.condition() == Condition::Running);
    let left = left.map_or(String::new(), |seconds| format!(", about {} left", duration(seconds)));
    format!("{}: {}, {done} of {} epochs{left}", view.name(), view.settings.method_title(), view.epochs())
}

fn ending(view: &RunView, condition: &Condition) -> String {
    let best = view
        .best()
        .map_or(String::new(), |(top1, epoch)| format!("; best top-1 {top1:.2} % (epoch {epoch})"));
    let remedy = match condition {
        Condition::Finished | Condition::Running => String::new(),
        _ => format!("; go on with: records train --resume {}", view.folder.display()),
    };
    format!("{}{best}{remedy}", condition.in_words())
}
