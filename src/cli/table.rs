//! `records table`: runs the grid of a published table and shows the results beside the published numbers.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::{ArgAction, Args};

use super::output;
use crate::data::registry::{self, Candidates};
use crate::declaration::{Group, LEAST, MOST, number};
use crate::files::{is_file, write_atomically};
use crate::report::published;
use crate::report::results::{ResultsTable, Shown};
use crate::settings::{GivenSettings, Method, Settings, choices};
use crate::train::grid::{Benchmark, Column, Grid, GridRun, MethodRow, ROWS, RunState, commands, execute};
use crate::usage;

/// The allowed values of its flags, to follow "must be"; `--methods` takes the words of [`ROWS`].
const ALLOWED: &[(&str, &str)] = &[
    ("q", "0, or numbers of at least 1e-30 and below 1, as in 0.3,0.5"),
    ("rho", "numbers from 1 to 1e30, as in 50,100"),
    ("seeds", "whole numbers from 0 to 9223372036854775807, as in 123,124"),
    ("show", "best or last"),
    ("format", "text, markdown or csv"),
];

/// The allowed values of a flag of `table` that is not a setting.
pub fn allowed(flag: &str) -> Option<String> {
    if flag == "methods" {
        return Some(format!("among {}", ROWS.map(|row| row.word).join(", ")));
    }
    ALLOWED.iter().find(|(name, _)| *name == flag).map(|(_, allowed)| (*allowed).into())
}

/// Settings that the grid decides, and how to choose them.
const SET_BY_THE_GRID: &[(&str, &str)] = &[
    ("method", "choose rows with --methods"),
    ("debias", "choose rows with --methods"),
    ("mixup", "choose rows with --methods"),
    ("partial-rate", "choose columns with --q"),
    ("imb-factor", "choose columns with --rho"),
    ("seed", "choose seeds with --seeds"),
    ("name", "choose the folder of all runs with --exp-dir"),
];

/// Settings without a flag of `table`, and why: those that the grid decides, and those of methods that are
/// not a row.
pub fn not_taken() -> Vec<(&'static str, String)> {
    let mut all: Vec<_> = SET_BY_THE_GRID.iter().map(|&(name, remedy)| (name, remedy.to_string())).collect();
    for method in Method::all().filter(|method| ROWS.iter().all(|row| row.method != *method)) {
        let reason = format!("{} is not a row of the table", method.title());
        all.extend(choices::declared_by(method).iter().map(|setting| (setting.name, reason.clone())));
    }
    all
}

/// The most processes of a run.
const MOST_PROCESSES: usize = 1024;

/// The most runs of a table.
const MOST_RUNS: usize = 10_000;

/// Data sets whose imbalance and ambiguity can be chosen.
fn data_sets() -> Vec<&'static str> {
    registry::ALL.iter().filter(|set| set.candidates != Candidates::Own).map(|set| set.name).collect()
}

/// Arguments of `records table`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Settings apply to all runs that read them: a method's own settings to its runs, --alpha to those with mixup, \
                  --m to those of RECORDS. Without any settings, the runs are the published ones. Called again, the command \
                  goes on where it was stopped."
)]
pub struct TableArguments {
    /// The published table: cifar10 or cifar100
    #[arg(value_name = "DATA")]
    data: String,
    /// Rows of the table
    #[arg(long, value_name = "WORDS", action = ArgAction::Set, value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Ambiguities q of the columns; by default the published ones
    #[arg(long, value_name = "Q", action = ArgAction::Set, value_delimiter = ',')]
    q: Option<Vec<f64>>,
    /// Imbalance ratios rho of the columns, images of the largest class over those of the smallest
    #[arg(long, value_name = "RHO", action = ArgAction::Set, value_delimiter = ',')]
    rho: Option<Vec<f64>>,
    /// Seeds; a cell shows mean and sample standard deviation over them
    #[arg(long, value_name = "N", action = ArgAction::Set, value_delimiter = ',', default_value = "123")]
    seeds: Vec<u64>,
    /// Accuracy to show: the best of all evaluated epochs, as published, or the last one's
    #[arg(long, value_name = "WORD", default_value = "best")]
    show: String,
    /// How to write the table
    #[arg(long, value_name = "WORD", default_value = "text")]
    format: String,
    /// Write to this file, which is complete at any time, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Run nothing: show the results in the folder, with the settings found there
    #[arg(long, conflicts_with_all = ["commands", "slurm"])]
    report: bool,
    /// Run nothing: print a command line for each run that is left
    #[arg(long, conflicts_with = "slurm")]
    commands: bool,
    /// Run nothing: print a script for sbatch, one task of an array job for each run that is left
    #[arg(long)]
    slurm: bool,
    /// With --slurm: how many processes share each run, with a GPU each unless --device is cpu
    /// (docs/several-processes.md)
    #[arg(long, value_name = "N", requires = "slurm", default_value_t = 1)]
    processes: usize,
    /// Stop after so many minutes; called again, the command goes on with the same bits
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Settings of all runs.
    #[command(flatten)]
    given: GivenSettings,
}

/// The format of a table.
#[derive(Clone, Copy)]
enum Format {
    Text,
    Markdown,
    Csv,
}

fn must_be(flag: &str, value: &str) -> anyhow::Error {
    usage!("--{flag} {value}: must be {}", allowed(flag).unwrap_or_default())
}

/// The values of a list, checked to have no value twice.
fn once<T: PartialEq + std::fmt::Display + Copy>(flag: &str, values: &[T]) -> Result<Vec<T>> {
    if values.len() > MOST_RUNS {
        return Err(usage!("--{flag}: {} values; a table has at most {MOST_RUNS} runs", values.len()));
    }
    match (1..values.len()).find(|&i| values[..i].contains(&values[i])) {
        Some(i) => Err(usage!("--{flag}: {} is given twice; give each value once", values[i])),
        None => Ok(values.to_vec()),
    }
}

impl TableArguments {
    fn benchmark(&self) -> Result<Benchmark> {
        registry::find(&self.data)
            .and_then(|set| Benchmark::of(set.name))
            .ok_or_else(|| usage!("table {}: must be cifar10 or cifar100", self.data))
    }

    fn rows(&self) -> Result<Vec<MethodRow>> {
        let Some(words) = &self.methods else { return Ok(ROWS.to_vec()) };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let row = |word: &str| ROWS.iter().find(|row| row.word == word).copied();
        let rows = once("methods", &words)?.into_iter();
        rows.map(|word| row(word).ok_or_else(|| must_be("methods", word))).collect()
    }

    fn columns(&self, benchmark: Benchmark) -> Result<Vec<Column>> {
        let rhos = once("rho", self.rho.as_deref().unwrap_or(&published::RHOS))?;
        let qs = once("q", self.q.as_deref().unwrap_or(&published::qs(benchmark)))?;
        if let Some(rho) = rhos.iter().find(|rho| !(1.0..=MOST).contains(*rho)) {
            return Err(must_be("rho", &number(*rho)));
        }
        // Both numbers are in the names of the runs' folders, without an exponent.
        let fine = |q: f64| q == 0.0 || (LEAST..1.0).contains(&q);
        if let Some(q) = qs.iter().find(|q| !fine(**q)) {
            return Err(must_be("q", &number(*q)));
        }
        Ok(rhos.iter().flat_map(|&rho| qs.iter().map(move |&q| Column { rho, q })).collect())
    }

    /// Refuses settings that the grid decides, and values out of range, even of settings that no row reads.
    fn check_given(&self) -> Result<()> {
        if let Some((name, remedy)) =
            not_taken().iter().find(|(name, _)| self.given.values.value(name).is_some())
        {
            return Err(usage!("--{name}: the table does not take it; {remedy}"));
        }
        let mut settings = Settings::default();
        self.given.apply(&mut settings).map_err(|problem| usage!("{problem}"))?;
        match settings.out_of_range().into_iter().next() {
            Some(problem) => Err(usage!("{problem}")),
            None => Ok(()),
        }
    }

    fn seeds(&self) -> Result<Vec<u64>> {
        let seeds = once("seeds", &self.seeds)?;
        match seeds.iter().find(|&&seed| i64::try_from(seed).is_err()) {
            Some(seed) => Err(must_be("seeds", &seed.to_string())),
            None => Ok(seeds),
        }
    }

    fn shown(&self) -> Result<Shown> {
        match self.show.as_str() {
            "best" => Ok(Shown::Best),
            "last" => Ok(Shown::Last),
            other => Err(must_be("show", other)),
        }
    }

    fn format(&self) -> Result<Format> {
        match self.format.as_str() {
            "text" => Ok(Format::Text),
            "markdown" => Ok(Format::Markdown),
            "csv" => Ok(Format::Csv),
            other => Err(must_be("format", other)),
        }
    }

    /// The grid, all its settings checked.
    fn grid(&self) -> Result<Grid> {
        self.check_given()?;
        let benchmark = self.benchmark()?;
        let (rows, columns, seeds) = (self.rows()?, self.columns(benchmark)?, self.seeds()?);
        let runs = rows.len().saturating_mul(columns.len()).saturating_mul(seeds.len());
        if runs > MOST_RUNS {
            return Err(usage!(
                "--seeds: {runs} runs ({} rows, {} columns, {} seeds); a table has at most {MOST_RUNS}, so make several",
                rows.len(),
                columns.len(),
                seeds.len()
            ));
        }
        let default = Path::new("runs").join(format!("table-{}", benchmark.word()));
        let exp_dir: PathBuf = self.given.values.get("exp-dir").unwrap_or(default);
        if exp_dir.exists() && !exp_dir.is_dir() {
            return Err(usage!(
                "--exp-dir {}: is not a folder; name the folder of the table's runs",
                exp_dir.display()
            ));
        }
        let given = self.given.clone().with("exp-dir", exp_dir);
        let mut grid = Grid::new(benchmark, rows, columns, seeds, given)?;
        if self.report {
            grid = grid.as_found()?;
        }
        grid.validate()?;
        match grid.row_settings.iter().find(|settings| !data_sets().contains(&settings.dataset.as_str())) {
            Some(settings) => Err(usage!(
                "--dataset {}: has its own imbalance and candidate sets; must be one of {}",
                settings.dataset,
                data_sets().join(", ")
            )),
            None => Ok(grid),
        }
    }

    fn write(&self, text: &str) -> Result<()> {
        match &self.output {
            Some(path) => write_atomically(path, text.as_bytes()),
            None => output::print(text),
        }
    }
}

/// Runs `records table`.
///
/// # Errors
/// A usage error for bad settings or folders; an error if runs of the grid failed.
pub fn run(arguments: &TableArguments) -> Result<()> {
    let (shown, format) = (arguments.shown()?, arguments.format()?);
    let grid = arguments.grid()?;
    let runs = grid.runs();
    let stop = super::train::stop_after(arguments.max_minutes)?;
    let mut states = RunState::of_all(&runs)?;
    if arguments.commands {
        let lines = commands::command_lines(&runs, &states)?;
        if lines.is_empty() {
            output::note("no run is left");
        }
        return arguments.write(&lines);
    }
    if arguments.slurm {
        let processes = arguments.processes;
        if !(1..=MOST_PROCESSES).contains(&processes) {
            return Err(usage!("--processes {processes}: must be 1 to {MOST_PROCESSES}"));
        }
        return match commands::slurm_script(&grid, &runs, &states, processes)? {
            Some(script) => arguments.write(&script),
            None => Err(usage!(
                "--slurm: no run is left; records table {} --report shows the table",
                arguments.data
            )),
        };
    }
    let table = |states: &[RunState]| -> Result<String> {
        let results = ResultsTable::new(&grid, &runs, states, shown)?;
        Ok(match format {
            Format::Text => results.text(),
            Format::Markdown => results.markdown(),
            Format::Csv => results.csv(),
        })
    };
    if !arguments.report {
        // The file is written first, to report a problem with it now and not after days of training.
        let changed = |states: &[RunState]| match &arguments.output {
            // A pipe or device gets the table only once, at the end.
            Some(path) if is_file(path)? => write_atomically(path, table(states)?.as_bytes()),
            _ => Ok(()),
        };
        changed(&states)?;
        if let Some(run) = runs.first() {
            super::fetch::offer(&run.settings)?;
        }
        execute::run_missing(&grid, &runs, &mut states, &stop, changed)?;
    }
    arguments.write(&table(&states)?)?;
    if let Some(path) = &arguments.output {
        output::print(&format!("table written to {}\n", path.display()))?;
    }
    match failed(&runs, &states) {
        failed if failed.is_empty() || arguments.report => Ok(()),
        failed => Err(anyhow!(
            "{} of {} runs failed: {}; the same command tries them again",
            failed.len(),
            runs.len(),
            failed.join(", ")
        )),
    }
}

fn failed<'a>(runs: &'a [GridRun], states: &[RunState]) -> Vec<&'a str> {
    let failed = runs.iter().zip(states).filter(|(_, state)| matches!(state, RunState::Failed { .. }));
    failed.map(|(run, _)| run.name()).collect()
}
