//! `records report`: the page of a run, or several runs beside each other.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::output;
use crate::files::write_atomically;
use crate::report::run_view::RunView;
use crate::report::{comparison, page};
use crate::text::printable;

/// Arguments of `records report`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A run writes report.html into its folder after every epoch by itself. The page needs no network and no other \
                  file."
)]
pub struct ReportArguments {
    /// Folders of runs: the report of one, or a comparison of several
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where to write the page; by default report.html in the run's folder, or comparison.html here
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

/// Runs `records report`.
///
/// # Errors
/// A usage error for a folder that is no run's, and a file that cannot be written.
pub fn run(arguments: &ReportArguments) -> Result<()> {
    let views = arguments.runs.iter().map(|run| RunView::open(run)).collect::<Result<Vec<_>>>()?;
    let (page, text, usual) = match &views[..] {
        [view] => (page::page(view), String::new(), view.folder.join("report.html")),
        several => (comparison::page(several)?, comparison::text(several)?, "comparison.html".into()),
    };
    let out: &Path = arguments.output.as_deref().unwrap_or(&usual);
    write_atomically(out, page.as_bytes())?;
    output::print(&format!(
        "{text}{}: written; open it in a browser\n",
        printable(&out.display().to_string())
    ))
}
