//! The runs of a table of results: every method at every imbalance ratio, ambiguity and seed. Each run is an
//! ordinary run folder, all under one parent.
//!
//! | file | what |
//! |---|---|
//! | here | which runs there are, and the settings of each |
//! | [`state`] | how far a run is, from its folder alone |
//! | [`execute`] | running the incomplete runs, one after another |
//! | [`commands`] | the incomplete runs as command lines, or as an array job of a cluster |

pub mod commands;
pub mod execute;
pub mod state;

use std::path::PathBuf;

use anyhow::Result;

use crate::declaration::{Group, Values};
use crate::pll;
use crate::settings::presets::{self, Preset};
use crate::settings::{Debias, GivenSettings, Method, Settings, differences};
use crate::usage;
pub use state::RunState;
use state::config;

/// The settings that decide a run's result. The method's own settings are written out, given or not.
pub fn comparable(settings: &Settings) -> Settings {
    // `eval_every` does not change the network, but the best of the evaluated epochs.
    Settings { eval_every: settings.eval_every, ..settings.computation() }
}

/// The settings that rows of one table have in common.
fn shared_by_rows(settings: &Settings) -> Settings {
    let Settings { method, debias, mixup, upd_start, alpha, m, imb_factor, partial_rate, seed, .. } =
        Settings::default();
    let own = Values::default();
    Settings {
        method,
        debias,
        mixup,
        upd_start,
        alpha,
        m,
        imb_factor,
        partial_rate,
        seed,
        own,
        ..comparable(settings)
    }
}

/// Differences between the settings of a run and other settings, in words.
fn in_words(differences: &[(String, [String; 2])]) -> String {
    let words = differences.iter().map(|(name, [a, b])| format!("{name} {a}, not {b}"));
    words.collect::<Vec<_>>().join("; ")
}

/// A published table, named by its data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Benchmark {
    /// CIFAR-10-LT.
    Cifar10,
    /// CIFAR-100-LT.
    Cifar100,
}

impl Benchmark {
    /// The benchmark of a data set, by the data set's name.
    pub fn of(dataset: &str) -> Option<Self> {
        match dataset {
            "cifar10-lt" => Some(Self::Cifar10),
            "cifar100-lt" => Some(Self::Cifar100),
            _ => None,
        }
    }

    /// Its word in commands and in names of folders.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
        }
    }

    /// The published settings of a row, where [`Grid`] has no flags that override them.
    pub fn published_settings(self, row: &MethodRow) -> Settings {
        let name = match (self, row.method == SOLAR) {
            (Self::Cifar10, true) => "solar-cifar10",
            (Self::Cifar100, true) => "solar-cifar100",
            (Self::Cifar10, false) => "records-cifar10",
            (Self::Cifar100, false) => "records-cifar100",
        };
        row.over(presets::find(name).map(Preset::settings).unwrap_or_default())
    }
}

/// A row of the table: a method with its debias and mixup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodRow {
    /// Its word for `--methods`.
    pub word: &'static str,
    /// The method.
    pub method: Method,
    /// What is subtracted from the logits.
    pub debias: Debias,
    /// Whether it trains on mixed views.
    pub mixup: bool,
}

/// The methods of the published rows.
const CORR: Method = Method(&pll::corr::ENTRY);
const SOLAR: Method = Method(&pll::solar::ENTRY);

/// The rows, as published.
pub static ROWS: [MethodRow; 5] = [
    MethodRow { word: "corr", method: CORR, debias: Debias::None, mixup: false },
    MethodRow { word: "oracle", method: CORR, debias: Debias::Oracle, mixup: false },
    MethodRow { word: "records", method: CORR, debias: Debias::Records, mixup: false },
    MethodRow { word: "solar", method: SOLAR, debias: Debias::None, mixup: true },
    MethodRow { word: "records-mixup", method: CORR, debias: Debias::Records, mixup: true },
];

impl MethodRow {
    /// `settings` with the row's method, debias and mixup.
    fn over(&self, settings: Settings) -> Settings {
        Settings { method: self.method, debias: self.debias, mixup: self.mixup, ..settings }
    }

    /// The row's name in print.
    pub fn title(&self) -> String {
        self.over(Settings::default()).method_title()
    }

    /// The given settings that this row reads.
    fn relevant(&self, given: &GivenSettings) -> GivenSettings {
        let of_row = |setting: &str| match setting {
            "method" => Some(self.method.to_string()),
            "debias" => Some(self.debias.to_string()),
            "mixup" => Some(self.mixup.to_string()),
            _ => None,
        };
        let mut given = given.clone();
        given.values.retain(|name| Settings::declaration(name).is_none_or(|setting| setting.is_read(of_row)));
        given
    }
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Imbalance ratio: images of the largest class over those of the smallest.
    pub rho: f64,
    /// Ambiguity: the chance that a wrong class joins a candidate set.
    pub q: f64,
}

/// One run of the grid.
#[derive(Clone, Debug)]
pub struct GridRun {
    /// Index into [`Grid::rows`].
    pub row: usize,
    /// Index into [`Grid::columns`].
    pub column: usize,
    /// All its settings, with the name of its folder.
    pub settings: Settings,
}

impl GridRun {
    /// The name of its folder.
    pub fn name(&self) -> &str {
        self.settings.name.as_deref().unwrap_or_default()
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.settings.exp_dir.join(self.name())
    }
}

/// The runs of a table.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The published table.
    pub benchmark: Benchmark,
    /// The methods.
    pub rows: Vec<MethodRow>,
    /// The imbalance ratios and ambiguities.
    pub columns: Vec<Column>,
    /// A cell averages over them.
    pub seeds: Vec<u64>,
    /// Settings of each row, except those that column and seed decide.
    pub row_settings: Vec<Settings>,
    given: GivenSettings,
}

impl Grid {
    /// The grid with the published settings, overridden in each row by those of `given` that the row reads.
    ///
    /// # Errors
    /// A usage error for a value that is not allowed.
    pub fn new(
        benchmark: Benchmark,
        rows: Vec<MethodRow>,
        columns: Vec<Column>,
        seeds: Vec<u64>,
        given: GivenSettings,
    ) -> Result<Self> {
        let published = rows.iter().map(|row| benchmark.published_settings(row)).collect();
        let mut grid = Self { benchmark, rows, columns, seeds, row_settings: published, given };
        grid.apply_given()?;
        Ok(grid)
    }

    /// The grid with the settings of the runs found in its folder, overridden by the given ones; rows without
    /// a run keep theirs.
    ///
    /// # Errors
    /// A usage error if a folder cannot be read, or if rows were run with different settings.
    pub fn as_found(mut self) -> Result<Self> {
        let mut first: Option<(usize, PathBuf)> = None;
        for (number, row) in self.rows.iter().enumerate() {
            let folders = self.runs().into_iter().filter(|run| run.row == number).map(|run| run.folder());
            for folder in folders {
                let Some(settings) = config(&folder)? else { continue };
                let (exp_dir, settings) = (&self.row_settings[number].exp_dir, row.over(settings));
                self.row_settings[number] = Settings { exp_dir: exp_dir.clone(), ..settings };
                let Some((other, other_folder)) = &first else {
                    first = Some((number, folder));
                    break;
                };
                let [first, this] = [*other, number].map(|row| shared_by_rows(&self.row_settings[row]));
                let differing = differences(&first, &this)?;
                if !differing.is_empty() {
                    return Err(usage!(
                        "{} and {} were run with different settings ({}), which one table cannot show; move one away",
                        other_folder.display(),
                        folder.display(),
                        in_words(&differing)
                    ));
                }
                break;
            }
        }
        self.apply_given()?;
        Ok(self)
    }

    fn apply_given(&mut self) -> Result<()> {
        for (row, settings) in self.rows.iter().zip(&mut self.row_settings) {
            row.relevant(&self.given).apply(settings).map_err(|problem| usage!("{problem}"))?;
        }
        Ok(())
    }

    /// Checks the settings of all runs.
    ///
    /// # Errors
    /// A usage error for the first that is not allowed.
    pub fn validate(&self) -> Result<()> {
        self.runs().iter().try_for_each(|run| run.settings.validate())
    }

    /// A run in words: method, imbalance ratio, ambiguity, seed.
    pub fn described(&self, run: &GridRun) -> String {
        let (row, Column { rho, q }) = (&self.rows[run.row], self.columns[run.column]);
        format!("{}, rho {rho}, q {q}, seed {}", row.title(), run.settings.seed)
    }

    /// All runs in the order in which they are run: seed by seed, then column by column, so that a table
    /// fills up evenly.
    pub fn runs(&self) -> Vec<GridRun> {
        let mut runs = Vec::new();
        for &seed in &self.seeds {
            for (column, &Column { rho, q }) in self.columns.iter().enumerate() {
                for (row, settings) in self.row_settings.iter().enumerate() {
                    let words = settings.method_words();
                    let settings = Settings {
                        imb_factor: 1.0 / rho,
                        partial_rate: q,
                        seed,
                        name: Some(format!("{words}-rho{rho}-q{q}-seed{seed}")),
                        ..settings.clone()
                    };
                    runs.push(GridRun { row, column, settings });
                }
            }
        }
        runs
    }
}
