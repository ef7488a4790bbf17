//! Several runs beside each other: runs that differ in nothing but the seed are a group, shown by mean and
//! spread.

use std::fmt::Write as _;

use anyhow::Result;

use super::page::chart::{LineChart, Series};
use super::page::document;
use super::run_view::RunView;
use crate::settings::{Settings, differences};
use crate::svg::escaped;
use crate::train::metrics::EpochMetrics;

/// Runs that differ in nothing but the seed.
#[derive(Debug)]
pub struct RunGroup<'a> {
    /// Method and the settings in which groups differ.
    pub name: String,
    /// Its runs, at least one.
    pub runs: Vec<&'a RunView>,
}

/// Mean and sample standard deviation of some numbers; no deviation of fewer than two, no mean of none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their sample standard deviation.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of `values`.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64);
        let deviation = mean.filter(|_| count > 1).map(|mean| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (count - 1) as f64).sqrt()
        });
        Self { count, mean, deviation }
    }

    /// `48.12 ± 0.35`; a dash where there is no number.
    fn in_words(&self, decimals: usize) -> String {
        match (self.mean, self.deviation) {
            (None, _) => "-".into(),
            (Some(mean), None) => format!("{mean:.decimals$}"),
            (Some(mean), Some(deviation)) => format!("{mean:.decimals$} \u{b1} {deviation:.decimals$}"),
        }
    }
}

/// What a column shows of a run.
type OfRun = fn(&RunView) -> Option<f64>;

/// What a chart shows of an epoch.
type OfEpoch = fn(&EpochMetrics) -> Option<f64>;

/// The columns of numbers: name, decimals, number of a run.
const COLUMNS: [(&str, usize, OfRun); 8] = [
    ("best top-1", 2, |view| view.best().map(|(top1, _)| top1)),
    ("last top-1", 2, |view| view.last_test()?.test.as_ref().map(|test| test.top1)),
    ("many", 2, |view| view.last_test()?.test.as_ref()?.many),
    ("medium", 2, |view| view.last_test()?.test.as_ref()?.medium),
    ("few", 2, |view| view.last_test()?.test.as_ref()?.few),
    ("labels", 2, |view| view.metrics.last()?.label_accuracy),
    ("MMC", 4, |view| Some(view.metrics.last()?.mean_max_confidence)),
    ("prior TV", 4, |view| view.metrics.last()?.prior_distance),
];

/// The settings that decide a run's results but for its seed.
fn but_for_the_seed(settings: &Settings) -> Settings {
    Settings { seed: 0, ..settings.computation() }
}

/// The groups of `views`, in the order of their first runs.
///
/// # Errors
/// For settings that cannot be written.
pub fn groups(views: &[RunView]) -> Result<Vec<RunGroup<'_>>> {
    let mut groups: Vec<(Settings, Vec<&RunView>)> = Vec::new();
    for view in views {
        let own = but_for_the_seed(&view.settings);
        let mut found = None;
        for (at, (settings, _)) in groups.iter().enumerate() {
            if differences(settings, &own)?.is_empty() {
                found = Some(at);
            }
        }
        match found {
            Some(at) => groups[at].1.push(view),
            None => groups.push((own, vec![view])),
        }
    }
    let mut differing: Vec<String> = Vec::new();
    for (settings, _) in groups.iter().skip(1) {
        let names = differences(&groups[0].0, settings)?.into_iter().map(|(name, _)| name);
        differing.extend(names.filter(|name| !["method", "debias", "mixup"].contains(&name.as_str())));
    }
    differing.sort();
    differing.dedup();
    let none = Settings::default();
    let mut named = Vec::new();
    for (settings, runs) in groups {
        let mut name = settings.method_title();
        for setting in &differing {
            // Against the defaults, and the first group's own where it is the default.
            let value = differences(&none, &settings)?.into_iter().find(|(name, _)| name == setting);
            let default = || Some((setting.clone(), [String::new(), "default".into()]));
            if let Some((_, [_, value])) = value.or_else(default) {
                let _ = write!(name, ", {setting} {value}");
            }
        }
        named.push(RunGroup { name, runs });
    }
    Ok(named)
}

impl RunGroup<'_> {
    /// What its runs have of a column.
    fn spread(&self, of: OfRun) -> Spread {
        Spread::of(&self.runs.iter().filter_map(|view| of(view)).collect::<Vec<_>>())
    }

    /// A line of the mean of a number over the runs that have it, in epochs that all of them have, with a
    /// band from the least to the largest.
    fn line(&self, colour: &str, of: OfEpoch) -> Series {
        let epochs = self.runs.iter().map(|view| view.metrics.len()).min().unwrap_or(0);
        let mut series = Series::new(&self.name, colour, std::iter::empty());
        for at in 0..epochs {
            let values: Vec<f64> = self.runs.iter().filter_map(|view| of(&view.metrics[at])).collect();
            if values.len() == self.runs.len() {
                let epoch = self.runs[0].metrics[at].epoch as f64;
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                series.points.push((epoch, mean));
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if values.len() > 1 {
                    series.band.push((epoch, low, high));
                }
            }
        }
        series
    }
}

/// The comparison as text.
///
/// # Errors
/// For settings that cannot be written.
pub fn text(views: &[RunView]) -> Result<String> {
    let groups = groups(views)?;
    let mut rows = vec![[vec!["run".to_string(), "seed".into(), "epochs".into()], names()].concat()];
    for group in &groups {
        for view in &group.runs {
            rows.push(
                [vec![view.name(), view.settings.seed.to_string(), done(view)], numbers(view)].concat(),
            );
        }
        let spread = COLUMNS.map(|(_, decimals, of)| group.spread(of).in_words(decimals));
        rows.push(
            [vec![format!("= {}", group.name), String::new(), String::new()], spread.to_vec()].concat(),
        );
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

fn names() -> Vec<String> {
    COLUMNS.iter().map(|(name, ..)| (*name).to_string()).collect()
}

fn done(view: &RunView) -> String {
    format!("{}/{}", view.metrics.last().map_or(0, |metrics| metrics.epoch + 1), view.epochs())
}

fn numbers(view: &RunView) -> Vec<String> {
    let cell =
        |value: Option<f64>, decimals: usize| value.map_or("-".into(), |value| format!("{value:.decimals$}"));
    COLUMNS.iter().map(|(_, decimals, of)| cell(of(view), *decimals)).collect()
}

/// The comparison as a page for a browser.
///
/// # Errors
/// For settings that cannot be written.
pub fn page(views: &[RunView]) -> Result<String> {
    let groups = groups(views)?;
    let mut body = format!(
        "<header>\n<h1>{} runs</h1>\n<p class=\"soft\">Runs that differ in nothing but the seed are a group: mean \u{b1} sample \
         standard deviation. In the charts a line is the mean, a band from the least to the largest.</p>\n</header>\n",
        views.len()
    );
    body.push_str(&table(&groups));
    let charts: [(&str, &str, Option<[f64; 2]>, OfEpoch); 8] = [
        ("Top-1", "%", None, |metrics| metrics.test.as_ref().map(|test| test.top1)),
        ("Many", "%", None, |metrics| metrics.test.as_ref()?.many),
        ("Medium", "%", None, |metrics| metrics.test.as_ref()?.medium),
        ("Few", "%", None, |metrics| metrics.test.as_ref()?.few),
        ("Label accuracy", "%", None, |metrics| metrics.label_accuracy),
        ("Loss", "", None, |metrics| Some(metrics.loss)),
        ("Mean max confidence", "", Some([0.0, 1.0]), |metrics| Some(metrics.mean_max_confidence)),
        ("Distance of the class prior", "total variation", None, |metrics| metrics.prior_distance),
    ];
    let mut figures = String::new();
    for (title, unit, range, of) in charts {
        let line = |(at, group): (usize, &RunGroup)| group.line(&format!("c{}", at % 8), of);
        let series = groups.iter().enumerate().map(line).collect();
        figures.push_str(&LineChart { title, unit, range, series }.figure());
    }
    let _ = write!(body, "<section>\n<h2>Curves</h2>\n<div class=\"charts\">\n{figures}</div>\n</section>\n");
    Ok(document("Comparison of runs", &body, false))
}

fn table(groups: &[RunGroup]) -> String {
    let head: String = names().iter().map(|name| format!("<th>{name}</th>")).collect();
    let mut rows = String::new();
    let cells = |cells: Vec<String>| cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
    for group in groups {
        let spread = COLUMNS.map(|(_, decimals, of)| group.spread(of).in_words(decimals)).to_vec();
        let _ = writeln!(
            rows,
            "<tr data-group=\"{0}\"><th>{0}</th><th>{1} seeds</th><th></th>{2}</tr>",
            escaped(&group.name),
            group.runs.len(),
            cells(spread)
        );
        for view in &group.runs {
            let of_run = cells(numbers(view));
            let _ = writeln!(
                rows,
                "<tr class=\"soft\"><td>{}</td><td>{}</td><td>{}</td>{of_run}</tr>",
                escaped(&view.name()),
                view.settings.seed,
                done(view)
            );
        }
    }
    format!(
        "<section>\n<div class=\"scroll\"><table>\n<tr><th>run</th><th>seed</th><th>epochs</th>{head}</tr>\n{rows}</table></div>\n\
         </section>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_sample_deviations() {
        let spread = Spread::of(&[1.0, 2.0, 6.0]);
        assert_eq!((spread.count, spread.mean), (3, Some(3.0)));
        assert!((spread.deviation.unwrap() - 7f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread.in_words(2), "3.00 \u{b1} 2.65");
        assert_eq!((Spread::of(&[4.0]).in_words(1), Spread::of(&[]).in_words(1)), ("4.0".into(), "-".into()));
    }
}
