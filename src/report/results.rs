//! The table of results: mean and standard deviation over seeds beside the published number.

use std::fmt::Write as _;

use anyhow::Result;

use super::published;
use crate::data::left_out::PREFIX;
use crate::settings::{Settings, differences};
use crate::train::grid::{Column, Grid, GridRun, RunState, comparable};
use crate::train::run_folder;

/// The accuracy of a run that a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The best of all evaluated epochs, as published.
    Best,
    /// The last epoch's.
    Last,
}

/// A cell: the runs of one method at one imbalance ratio and ambiguity, over all seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Number of complete runs.
    pub count: usize,
    /// Mean top-1 of the complete runs, percent.
    pub mean: Option<f64>,
    /// Sample standard deviation over the complete runs, if there are two or more.
    pub deviation: Option<f64>,
    /// The published top-1, percent.
    pub published: Option<f64>,
    /// `complete`; `failed` if any run is, else `running` if any is, else `incomplete` if any was begun or is
    /// complete, else `missing`.
    pub state: &'static str,
}

impl Cell {
    fn new(states: &[&RunState], shown: Shown, published: Option<f64>) -> Self {
        let values: Vec<f64> = states
            .iter()
            .filter_map(|state| match (state, shown) {
                (RunState::Complete { best, .. }, Shown::Best) => Some(*best),
                (RunState::Complete { last, .. }, Shown::Last) => Some(*last),
                _ => None,
            })
            .collect();
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64);
        let deviation = mean.filter(|_| count > 1).map(|mean| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (count - 1) as f64).sqrt()
        });
        let any = |kind: fn(&RunState) -> bool| states.iter().any(|state| kind(state));
        let state = if count == states.len() {
            "complete"
        } else if any(|state| matches!(state, RunState::Failed { .. })) {
            "failed"
        } else if any(|state| matches!(state, RunState::Running { .. })) {
            "running"
        } else if any(|state| *state != RunState::Missing) {
            "incomplete"
        } else {
            "missing"
        };
        Self { count, mean, deviation, published, state }
    }

    /// The cell as text, in a table over `seeds` seeds.
    fn text(&self, seeds: usize) -> String {
        let mut text = match (self.mean, self.deviation) {
            (Some(mean), Some(deviation)) => format!("{mean:.2} ± {deviation:.2}"),
            (Some(mean), None) => format!("{mean:.2}"),
            (None, _) if self.state == "missing" => "-".into(),
            (None, _) => self.state.into(),
        };
        if self.mean.is_some() && self.count < seeds {
            let _ = write!(text, " n={}", self.count);
        }
        if let Some(published) = self.published {
            let _ = write!(text, " ({published:.2})");
        }
        text
    }
}

/// A table of results.
#[derive(Clone, Debug)]
pub struct ResultsTable {
    dataset: &'static str,
    shown: Shown,
    seeds: usize,
    columns: Vec<Column>,
    /// Word, name in print and cells of each row.
    rows: Vec<(&'static str, String, Vec<Cell>)>,
    /// The settings that differ from the published ones, as in `epochs 10 (800)`.
    unlike_published: Vec<String>,
    /// What the runs leave out of their data, with the columns of these runs unless it is all columns.
    left_out: Vec<String>,
    /// A line for each run that is not complete.
    remarks: Vec<String>,
}

/// What the runs leave out of their data according to their logs, each line once.
fn left_out(grid: &Grid, runs: &[GridRun]) -> Vec<String> {
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for run in runs {
        for line in run_folder::left_out(&run.folder()) {
            let at = found.iter().position(|(known, _)| *known == line).unwrap_or_else(|| {
                found.push((line, Vec::new()));
                found.len() - 1
            });
            if !found[at].1.contains(&run.column) {
                found[at].1.push(run.column);
            }
        }
    }
    let in_words = |(line, columns): (String, Vec<usize>)| {
        if columns.len() == grid.columns.len() {
            return format!("{PREFIX}{line}");
        }
        let headings: Vec<String> = columns.iter().map(|&column| heading(grid.columns[column])).collect();
        format!("{PREFIX}{}: {line}", headings.join(", "))
    };
    found.into_iter().map(in_words).collect()
}

/// A column's heading, such as `50/.3`.
fn heading(Column { rho, q }: Column) -> String {
    let q = q.to_string();
    format!("{rho}/{}", q.strip_prefix('0').filter(|rest| !rest.is_empty()).unwrap_or(&q))
}

impl ResultsTable {
    /// The table of a grid whose runs are in the states `states`.
    ///
    /// # Errors
    /// Only if a path in the settings is not UTF-8.
    pub fn new(grid: &Grid, runs: &[GridRun], states: &[RunState], shown: Shown) -> Result<Self> {
        let cell = |row: usize, column: usize| {
            let of_cell = runs.iter().zip(states).filter(|(run, _)| (run.row, run.column) == (row, column));
            let states: Vec<&RunState> = of_cell.map(|(_, state)| state).collect();
            let published = published::top1(grid.benchmark, &grid.rows[row], grid.columns[column]);
            Cell::new(&states, shown, published)
        };
        let rows = grid.rows.iter().enumerate();
        let rows = rows.map(|(row, about)| {
            (about.word, about.title(), (0..grid.columns.len()).map(|column| cell(row, column)).collect())
        });
        let mut unlike_published = Vec::new();
        for (row, settings) in grid.rows.iter().zip(&grid.row_settings) {
            let published = comparable(&grid.benchmark.published_settings(row));
            let without_seed = Settings { seed: published.seed, ..comparable(settings) };
            let cell_free = Settings {
                imb_factor: published.imb_factor,
                partial_rate: published.partial_rate,
                ..without_seed
            };
            for (name, [ours, theirs]) in differences(&cell_free, &published)? {
                let difference = format!("{name} {ours} ({theirs})");
                if !unlike_published.contains(&difference) {
                    unlike_published.push(difference);
                }
            }
        }
        let remark = |(run, state): (&GridRun, &RunState)| {
            let (name, of) = (run.name(), crate::train::choice::epochs(&run.settings));
            match state {
                RunState::Failed { reason } => Some(format!("failed: {name}: {reason}")),
                RunState::Running { epochs } => Some(format!("running: {name}: {epochs} of {of} epochs")),
                RunState::Begun { epochs } => Some(format!("incomplete: {name}: {epochs} of {of} epochs")),
                RunState::Missing | RunState::Complete { .. } => None,
            }
        };
        Ok(Self {
            dataset: match grid.benchmark {
                crate::train::grid::Benchmark::Cifar10 => "CIFAR-10-LT",
                crate::train::grid::Benchmark::Cifar100 => "CIFAR-100-LT",
            },
            shown,
            seeds: grid.seeds.len(),
            columns: grid.columns.clone(),
            rows: rows.collect(),
            unlike_published,
            left_out: left_out(grid, runs),
            remarks: runs.iter().zip(states).filter_map(remark).collect(),
        })
    }

    /// The cell in the row called `word` and a column.
    pub fn cell(&self, word: &str, column: Column) -> Option<&Cell> {
        let at = self.columns.iter().position(|&known| known == column)?;
        self.rows.iter().find(|(known, ..)| *known == word)?.2.get(at)
    }

    /// What the table shows, in one or two lines.
    fn caption(&self) -> Vec<String> {
        let which = match self.shown {
            Shown::Best => "best",
            Shown::Last => "last",
        };
        let over = match self.seeds {
            1 => "of one seed".to_string(),
            n => format!("mean ± sample standard deviation over {n} seeds"),
        };
        let mut lines = vec![format!("{which} top-1 in %, {over}; in brackets the published number")];
        if !self.unlike_published.is_empty() {
            lines.push(format!("unlike the published runs (theirs): {}", self.unlike_published.join(", ")));
        }
        lines
    }

    /// The table as words: a heading, then a line for each method.
    fn grid(&self) -> Vec<Vec<String>> {
        let first = std::iter::once(self.dataset.to_string());
        let mut lines = vec![first.chain(self.columns.iter().copied().map(heading)).collect::<Vec<_>>()];
        for (_, title, cells) in &self.rows {
            let first = std::iter::once(title.clone());
            lines.push(first.chain(cells.iter().map(|cell| cell.text(self.seeds))).collect());
        }
        lines
    }

    /// The table for the terminal: aligned, with a line for each run that is not complete.
    pub fn text(&self) -> String {
        let grid = self.grid();
        let width = |column: usize| grid.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in &grid {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        for line in self.caption().iter().chain(&self.left_out).chain(&self.remarks) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The table in Markdown, followed by its caption and what is left out of the data.
    pub fn markdown(&self) -> String {
        let grid = self.grid();
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = String::new();
        for (number, line) in grid.iter().enumerate() {
            text += &row(line);
            if number == 0 {
                text += &row(&vec!["---".to_string(); line.len()]);
            }
        }
        let _ = writeln!(text, "\n{}", self.caption().join("; "));
        for line in &self.left_out {
            let _ = writeln!(text, "\n{line}");
        }
        text
    }

    /// The table as CSV: a line for each cell, with empty fields where there is no number.
    pub fn csv(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
        let mut text = "method,rho,q,n,mean,std,published,state\n".to_string();
        for (word, _, cells) in &self.rows {
            for (Column { rho, q }, cell) in self.columns.iter().zip(cells) {
                let Cell { count, mean, deviation, published, state } = cell;
                let published = published.map_or(String::new(), |value| value.to_string());
                let _ = writeln!(
                    text,
                    "{word},{rho},{q},{count},{},{},{published},{state}",
                    number(*mean),
                    number(*deviation)
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(best: f64, last: f64) -> RunState {
        RunState::Complete { best, last }
    }

    #[test]
    fn mean_and_sample_deviation_are_over_complete_runs() {
        let states = [complete(70.0, 60.0), complete(73.0, 61.0), complete(76.0, 62.0)];
        let cell = Cell::new(&states.iter().collect::<Vec<_>>(), Shown::Best, Some(72.9));
        assert_eq!(
            (cell.count, cell.mean, cell.deviation, cell.state),
            (3, Some(73.0), Some(3.0), "complete")
        );
        assert_eq!(cell.text(3), "73.00 ± 3.00 (72.90)");
        let last = Cell::new(&states.iter().collect::<Vec<_>>(), Shown::Last, None);
        assert_eq!(last.text(3), "61.00 ± 1.00");

        let begun = RunState::Begun { epochs: 3 };
        let cell = Cell::new(&[&states[0], &begun, &states[1]], Shown::Best, None);
        // The deviation of 70 and 73 is 3 / sqrt 2.
        assert_eq!((cell.text(3), cell.state), ("71.50 ± 2.12 n=2".to_string(), "incomplete"));
        let one = Cell::new(&[&states[0]], Shown::Best, Some(50.0));
        assert_eq!((one.deviation, one.text(1)), (None, "70.00 (50.00)".to_string()));
    }

    #[test]
    fn a_cell_without_numbers_says_why() {
        let failed = RunState::Failed { reason: "x".into() };
        let (running, begun) = (RunState::Running { epochs: 1 }, RunState::Begun { epochs: 0 });
        for (states, text) in [
            (vec![&RunState::Missing, &RunState::Missing], "-"),
            (vec![&RunState::Missing, &begun], "incomplete"),
            (vec![&running, &begun], "running"),
            (vec![&running, &failed], "failed"),
        ] {
            assert_eq!(Cell::new(&states, Shown::Best, None).text(2), text);
        }
    }

    #[test]
    fn headings_are_those_of_the_paper() {
        let headings = [(50.0, 0.3), (100.0, 0.05), (12.5, 0.0)].map(|(rho, q)| heading(Column { rho, q }));
        assert_eq!(headings, ["50/.3", "100/.05", "12.5/0"]);
    }
}
